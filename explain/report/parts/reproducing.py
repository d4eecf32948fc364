"""What it takes to make the report again, for the evidence."""

from explain.i18n import Translator
from explain.report.schema.evidence import Evidence
from explain.report.schema.reproducing import Reproducing


def reproducing_of(evidence: Evidence, t: Translator) -> Reproducing:
    """Commands, environment and attachments; `evidence` is whole but for this."""
    return Reproducing(commands=(), environment=(), determinism="", attachments=())

"""The crosswalk to rules and standards, for the evidence."""

from explain.i18n import Translator
from explain.report.schema.crosswalk import Crosswalk
from explain.report.schema.evidence import Evidence


def crosswalk_of(evidence: Evidence, t: Translator) -> Crosswalk:
    """Which points of which framework the sections of this report speak to; `evidence` is whole but for this."""
    return Crosswalk(statement="", frameworks=())

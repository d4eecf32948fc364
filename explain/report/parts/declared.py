"""What people state, for the evidence: document control, use, operation, history, glossary."""

from explain.i18n import Translator
from explain.report.audit import Audit
from explain.report.schema.declared import Control, Revision, Stated, Term


def control_of(audit: Audit) -> Control:
    """The document's own data."""
    return Control(product="", line="", revision="", owner="", valid_until="", stamps=())


def scope_of(audit: Audit, t: Translator) -> tuple[Stated, ...]:
    """Use and its bounds."""
    return ()


def operation_of(audit: Audit, t: Translator) -> tuple[Stated, ...]:
    """Who decides in daily use, and when to look again."""
    return ()


def history_of(audit: Audit) -> tuple[Revision, ...]:
    """Earlier revisions."""
    return ()


def glossary_of(t: Translator) -> tuple[Term, ...]:
    """Terms of the report in both languages."""
    return ()

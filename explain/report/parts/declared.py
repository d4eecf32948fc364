"""What people state, for the evidence: document control, use, operation, history, glossary."""

from explain.i18n import LANGUAGES, Translator, translate
from explain.record import Record
from explain.report.audit import Audit
from explain.report.schema.declared import Control, Revision, Stamp, Stated, Term

TERMS = ("vpt", "ft", "linear_probe", "backbone", "prompt_tokens", "matched", "seed", "interval", "miss_rate",
         "overkill_rate", "auroc", "ece", "mcnemar", "attribution", "saliency_map", "grad_cam",
         "integrated_gradients", "rollout", "completeness_gap", "faithfulness", "randomisation", "planted",
         "ceiling", "fingerprint")  # fmt: skip
"""Terms of the glossary."""


def control_of(audit: Audit) -> Control:
    """The document's own data."""
    stamps = (
        Stamp(role="prepared", **audit.prepared.model_dump()),
        Stamp(role="checked", **audit.checked.model_dump()),
        Stamp(role="approved", **audit.approved.model_dump()),
    )
    return Control(product=audit.product, line=audit.line, revision=audit.revision, owner=audit.owner,
                   valid_until=audit.valid_until, stamps=stamps)  # fmt: skip


def scope_of(audit: Audit, t: Translator) -> tuple[Stated, ...]:
    """Use and its bounds."""
    return _stated(audit.intended_use, "scope", t)


def operation_of(audit: Audit, t: Translator) -> tuple[Stated, ...]:
    """Who decides in daily use, and when to look again."""
    return _stated(audit.operation, "operation", t)


def history_of(audit: Audit) -> tuple[Revision, ...]:
    """Earlier revisions."""
    return tuple(Revision(**change.model_dump()) for change in audit.history)


def glossary_of(t: Translator) -> tuple[Term, ...]:
    """Terms of the report in both languages."""
    other = translate(next(lang for lang in LANGUAGES if lang != t.lang))
    keys = [f"report.glossary.{term}" for term in TERMS]
    return tuple(Term(term=t(key), other=other(key), meaning=t(f"{key}.meaning")) for key in keys)


def _stated(record: Record, section: str, t: Translator) -> tuple[Stated, ...]:
    """Every field of a part of the audit file, with its title."""
    return tuple(
        Stated(name=name, title=t(f"report.{section}.{name}"), text=text or None)
        for name, text in record.model_dump().items()
    )

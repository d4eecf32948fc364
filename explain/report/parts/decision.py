"""The decision, for the evidence: every criterion held against the end of an interval that counts."""

from explain.criteria import Declaration
from explain.i18n import Translator
from explain.report.audit import Audit
from explain.report.schema.decision import Decision
from explain.report.schema.evidence import Evidence


def decision_of(
    evidence: Evidence, declaration: Declaration | None, audit: Audit, t: Translator, *, before: bool
) -> Decision:
    """What follows from the criteria for what was measured; `evidence` is whole but for this."""
    return undecided(t)


def undecided(t: Translator) -> Decision:
    """The decision without criteria."""
    return Decision(
        arm="vpt", arm_label=t("term.arm.vpt"), declared="none", declared_by="", declared_on="", sha256="",
        criteria_text="", judged=(), computed="not_evaluated", computed_label=t("term.not_evaluated"), override=None,
        final="not_evaluated", final_label=t("term.not_evaluated"), sentences=(), conditions=(),
    )  # fmt: skip

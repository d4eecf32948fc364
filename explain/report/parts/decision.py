"""The decision, for the evidence: every criterion held against the end of an interval that counts.

Everything is measured from the evidence itself, so that whoever has only the report can do it again.
"""

from collections.abc import Callable
from typing import NamedTuple

from explain.criteria import Criteria, Criterion, Declaration, Entry, evaluated_name, parse_criteria
from explain.errors import InputError
from explain.i18n import Translator, translate
from explain.metrics.statistics import largest_unseen_rate
from explain.record import differences
from explain.report.audit import Audit
from explain.report.schema.decision import Decision, Judged, Outcome, Override, Status
from explain.report.schema.evidence import Evidence
from explain.report.schema.models import Arm
from explain.report.schema.rates import Rate

MOST_NAMES = 4
"""Criteria that a sentence names."""


class Found(NamedTuple):
    """A measured number with the ends of its interval, and the images it rests on."""

    value: float
    low: float
    high: float
    images: int | None


def decision_of(
    evidence: Evidence, declaration: Declaration | None, audit: Audit, t: Translator, *, before: bool
) -> Decision:
    """What follows from the criteria for what was measured; `evidence` is whole but for this.

    Args:
        evidence: what was measured.
        declaration: the criteria; None for none.
        audit: a person's decision and conditions.
        t: words.
        before: whether the criteria were declared before the training.
    """
    override = audit.override and Override(
        **audit.override.model_dump(), decision_label=t(f"report.decision.{audit.override.decision}")
    )
    decision = _computed(evidence, declaration, t, before=before)
    final = override.decision if override else decision.computed
    return decision.model_copy(update={
        "override": override, "final": final, "final_label": t(f"report.decision.{final}"),
        "conditions": audit.conditions,
    })  # fmt: skip


def judge_again(evidence: Evidence) -> list[str]:
    """What differs when criteria and decision are computed again from a report's own evidence."""
    said, t = evidence.decision, translate(evidence.lang)
    declaration = None
    if said.criteria_text:
        try:
            declaration = parse_criteria(said.criteria_text.encode(), "the criteria in the report")
        except InputError as error:
            return [str(error)]
    again = _computed(evidence, declaration, t, before=said.declared == "before")
    kept = {"override", "final", "final_label", "conditions"}
    found = list(differences(said.model_dump(mode="json", exclude=kept), again.model_dump(mode="json", exclude=kept)))
    override = said.override
    final = override.decision if override else again.computed
    label = t(f"report.decision.{final}")
    if (said.final, said.final_label) != (final, label):
        found.append(f"final is {said.final} ({said.final_label}) there and {final} ({label}) now")
    if override and (override.decision_label != label or final == "not_evaluated"):
        found.append(f"override is {override.decision} ({override.decision_label}) there, which nobody can decide")
    if override and not (override.name.strip() and override.reason.strip()):
        found.append("override has no name or no reason there")
    return found


def _computed(evidence: Evidence, declaration: Declaration | None, t: Translator, *, before: bool) -> Decision:
    criteria = declaration.criteria if declaration else None
    name = criteria.model if criteria else "vpt"
    label = next((arm.label for arm in evidence.arms if arm.name == name), name)
    judged = tuple(_judge(entry, evidence, criteria, t) for entry in criteria.criteria) if criteria else ()
    computed = _outcome(judged, before=before)
    return Decision(
        arm=name, arm_label=label, declared=("before" if before else "after") if declaration else "none",
        declared_by=criteria.declared_by if criteria else "", declared_on=criteria.declared_on if criteria else "",
        sha256=declaration.sha256 if declaration else "", criteria_text=declaration.text if declaration else "",
        judged=judged, computed=computed, computed_label=t(f"report.decision.{computed}"), override=None,
        final=computed, final_label=t(f"report.decision.{computed}"), conditions=(),
        sentences=_sentences(judged, computed, label, t, before=before) if declaration else (
            t("report.decision.no_criteria"),
        ),
    )  # fmt: skip


def _outcome(judged: tuple[Judged, ...], *, before: bool) -> Outcome:
    """What follows from the criteria alone: one that was not evaluated is not met."""
    unmet = [one for one in judged if one.status != "pass"]
    if not judged:
        return "not_evaluated"
    if any(one.required for one in unmet):
        return "reject"
    return "conditional" if unmet or not before else "approve"


def _sentences(
    judged: tuple[Judged, ...], computed: Outcome, arm: str, t: Translator, *, before: bool
) -> tuple[str, ...]:  # fmt: skip
    unmet = [one for one in judged if one.status != "pass"]
    required = [one for one in unmet if one.required]
    missing = sum(one.status == "not_evaluated" for one in judged)
    lines = [t("report.decision.met", met=len(judged) - len(unmet), count=len(judged), arm=arm)]
    lines += [t("report.decision.missing", count=missing)] if missing else []
    lines += [t("report.decision.required", count=len(required), names=_names(required, t))] if required else []
    if unmet and computed == "conditional":
        lines.append(t("report.decision.others", count=len(unmet), names=_names(unmet, t)))
    lines.append(t(f"report.decision.{'before' if before else 'after'}"))
    return tuple(lines)


def _names(judged: list[Judged], t: Translator) -> str:
    """The first few by name."""
    shown = [one.label for one in judged[:MOST_NAMES]] + ["…"] * (len(judged) > MOST_NAMES)
    return t("report.decision.separator").join(shown)


def _judge(entry: Entry, evidence: Evidence, criteria: Criteria, t: Translator) -> Judged:
    criterion = Criterion.parse(entry.criterion)
    found = measure(criterion.metric, evidence, criteria)
    bound = None if found is None else found.low if criterion.more_is_better else found.high
    status: Status = "not_evaluated" if bound is None else "pass" if criterion.fulfilled(bound) else "fail"
    note = ""
    if found is None:
        note = t(f"report.decision.how.{_source(criterion.metric, criteria)}")
    elif status == "fail" and criterion.fulfilled(found.value):
        note = t("report.decision.near")
    return Judged(
        line=entry.criterion, label=_label(criterion.metric, evidence, t), metric=criterion.metric,
        comparison=criterion.comparison, limit=criterion.bound, percent=criterion.percent, required=entry.required,
        why=entry.why, value=found and found.value, low=found and found.low, high=found and found.high, bound=bound,
        images=found and found.images, status=status, status_label=t(f"report.decision.status.{status}"), note=note,
    )  # fmt: skip


def measure(metric: str, evidence: Evidence, criteria: Criteria) -> Found | None:
    """A metric of the decided arm, from what the evidence holds; None where it was not measured."""
    arm = next((arm for arm in evidence.arms if arm.name == criteria.model), None)
    if arm is None:
        return None
    if metric in PLAIN:
        return PLAIN[metric](evidence, arm)
    for prefix, look in OF.items():
        if metric.startswith(prefix):
            return look(evidence, arm, metric.removeprefix(prefix))
    name, _, method = metric.rpartition(" of ")
    return _evaluated(evidence, arm, name, method)


def _exact(value: float, images: int | None = None) -> Found:
    """A number that has no interval: it was counted."""
    return Found(value, value, value, images)


def _sampled(value: float, low: float, high: float, images: int, least: float = 0.0) -> Found:
    """A number with its interval, which is never without width: a bootstrap cannot see what it never drew.

    Where all images went the same way its ends are what as many images could still have left unseen.
    """
    if low == high:
        unseen = largest_unseen_rate(images)
        low, high = max(least, value - unseen), min(1.0, value + unseen)
    return Found(value, low, high, images)


def _rate(rate: Rate | None) -> Found | None:
    return None if rate is None else _sampled(rate.value, rate.low, rate.high, rate.count)


def _rates(name: str) -> Callable[[Evidence, Arm], Found | None]:
    def look(evidence: Evidence, arm: Arm) -> Found | None:
        return next((_rate(getattr(one, name)) for one in evidence.rates if one.arm == arm.name), None)

    return look


def _reviewed(evidence: Evidence, arm: Arm) -> Found | None:
    found = evidence.failures
    if found.arm != arm.name:
        return None
    return _exact(found.reviewed / found.wrong if found.wrong else 1.0, found.wrong)


def _leaked(evidence: Evidence, arm: Arm) -> Found | None:
    leaks = evidence.data.leaks
    if leaks is None:
        return None
    return _exact(leaks.val_leaked + leaks.test_leaked, leaks.val_images + leaks.test_images)


def _recall(evidence: Evidence, arm: Arm, name: str) -> Found | None:
    return next((Found(one.recall, one.low, one.high, one.count) for one in arm.recalls if one.name == name), None)


def _over(evidence: Evidence, arm: Arm, other: str) -> Found | None:
    return next((_sampled(one.mean, one.low, one.high, arm.count, -1.0) for one in evidence.differences
                 if (one.first, one.second) == (arm.name, other)), None)  # fmt: skip


def _under(evidence: Evidence, arm: Arm, change: str) -> Found | None:
    return next((_rate(one.accuracies.get(arm.name)) for one in evidence.disturbed if one.name == change), None)


def _planted(evidence: Evidence, arm: Arm, method: str) -> Found | None:
    for line in evidence.dissociation.lines if evidence.dissociation else ():
        if (line.arm, line.method) == (arm.name, method) and line.difference is not None:
            if line.low is not None and line.high is not None and line.status != "NOT TESTED":
                return Found(line.difference, line.low, line.high, line.images)
    return None


def _evaluated(evidence: Evidence, arm: Arm, name: str, method: str) -> Found | None:
    for cell in evidence.measured.cells if evidence.measured else ():
        if (cell.model, cell.method, cell.metric) == (arm.name, method, evaluated_name(name)):
            it = cell.estimate
            if it.mean is not None and it.low is not None and it.high is not None:
                return Found(it.mean, it.low, it.high, it.images)
    return None


PLAIN: dict[str, Callable[[Evidence, Arm], Found | None]] = {
    "accuracy": lambda evidence, arm: _sampled(arm.accuracy, arm.low, arm.high, arm.count),
    "balanced accuracy": _rates("balanced"),
    "miss rate": _rates("miss"),
    "overkill rate": _rates("overkill"),
    "auroc": _rates("auroc"),
    "ece": lambda evidence, arm: Found(arm.calibration.error, arm.calibration.low, arm.calibration.high, arm.count),
    "test images": lambda evidence, arm: _exact(arm.count),
    "leaked images": _leaked,
    "unmatched fields": lambda evidence, arm: _exact(
        sum(not (field.equal or field.set_apart) for field in evidence.matched)
    ),
    "reviewed failures": _reviewed,
}
"""Metrics by name; those of `explain.criteria.METRICS`."""

OF: dict[str, Callable[[Evidence, Arm, str], Found | None]] = {
    "recall of ": _recall, "accuracy over ": _over, "accuracy under ": _under, "planted test of ": _planted,
}  # fmt: skip
"""Metrics of something, by their beginning; those of `explain.criteria.PATTERNS`."""


def _source(metric: str, criteria: Criteria) -> str:
    """What measures a metric: a key of the words that say so."""
    if metric.startswith("planted test of "):
        return "planted"
    if metric in ("miss rate", "overkill rate") and not criteria.good_classes:
        return "good_classes"
    if metric in PLAIN or metric.startswith("accuracy over "):
        return "run"
    return "class" if metric.startswith("recall of ") else "evaluate"


def _label(metric: str, evidence: Evidence, t: Translator) -> str:
    """A metric in the report's language."""
    if metric in PLAIN:
        return t(f"report.decision.metric.{metric.replace(' ', '_')}")
    for prefix in OF:
        if metric.startswith(prefix):
            return t(f"report.decision.metric.{prefix.strip().replace(' ', '_')}",
                     name=_name(metric.removeprefix(prefix), evidence, t))  # fmt: skip
    name, _, method = metric.rpartition(" of ")
    key = evaluated_name(name).replace("/", "_")
    keys = [f"{room}.metric.{key}" for room in ("report.decision", "term")]
    label = next((t(key) for key in keys if key in t), name)
    return t("report.decision.metric.of", metric=label, name=_name(method, evidence, t))


def _name(name: str, evidence: Evidence, t: Translator) -> str:
    """A class, method, arm or change as readers call it."""
    if f"report.decision.change.{name}" in t:
        return t(f"report.decision.change.{name}")
    labels = {method.name: method.label for method in evidence.methods} | {arm.name: arm.label for arm in evidence.arms}
    return labels.get(name, name)

"""The decision: which end of an interval counts, what follows from the criteria, and that it can be computed again."""

import io
import re
from collections.abc import Callable
from typing import Any

import pypdf
import pytest
from fake_evidence import write_fake_evidence
from fake_pair import make_fake_pair

from explain.criteria import Declaration, parse_criteria
from explain.i18n import translate
from explain.metrics.statistics import largest_unseen_rate
from explain.report.audit import Audit
from explain.report.content import gather
from explain.report.panels import Panels, draw_pictures
from explain.report.parts.decision import decision_of, judge_again
from explain.report.pdf import render_pdf
from explain.report.schema.decision import Decision, Judged
from explain.report.schema.evidence import Evidence, with_id
from explain.report.schema.rates import Disturbed, Rate
from explain.training.pair import MatchedPair

T = translate("en")
NOBODY = Audit()
OVERRIDE = Audit.model_validate({"override": {"decision": "approve", "name": "B. Tanaka", "reason": "A trial."},
                                 "conditions": ["Grey cloth only."]})  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    pair = make_fake_pair(tmp_path_factory.mktemp("decided"))
    write_fake_evidence(pair.path, pair)
    return pair


@pytest.fixture(scope="module")
def panels(pair: MatchedPair) -> Panels:
    return Panels.load(pair.path)


@pytest.fixture(scope="module")
def evidence(pair: MatchedPair, panels: Panels) -> Evidence:
    """Of a pair with everything measured, the good class declared; decided by one criterion."""
    rate = Rate(value=0.6, low=0.5, high=0.7, hits=60, count=100)
    rates = dict.fromkeys(pair.runs, rate)
    changed = Disturbed(name="blur", label="blur", accuracies=rates, changes=rates)
    found = gather(pair, panels, "en", declaration=declared("ece <= 1", good="[nominal]"), before=True)
    return found.model_copy(update={"disturbed": (changed,)})


def declared(*lines: str, good: str = "[]", model: str = "vpt") -> Declaration:
    """Criteria from lines; one that begins with "?" is not required."""
    entries = [f"  - criterion: {line.lstrip('?')}\n    required: {str(line[0] != '?').lower()}\n" for line in lines]
    text = f"model: {model}\ngood_classes: {good}\ndeclared_by: A. Sato\ncriteria:\n{''.join(entries)}"
    return parse_criteria(text.encode(), "criteria.yaml")


def decide(
    evidence: Evidence, *lines: str, before: bool = True, audit: Audit = NOBODY, good: str = "[]", model: str = "vpt"
) -> Decision:
    return decision_of(evidence, declared(*lines, good=good, model=model), audit, T, before=before)


def judge(evidence: Evidence, line: str, **options: Any) -> Judged:
    (one,) = decide(evidence, line, **options).judged
    return one


@pytest.mark.parametrize(("comparison", "counts", "just_met", "just_missed"), [
    (">=", "low", 0.0, 0.001), (">", "low", -0.001, 0.0), ("<=", "high", 0.0, -0.001), ("<", "high", 0.001, 0.0),
])  # fmt: skip
def test_the_far_end_of_the_interval_counts(
    evidence: Evidence, comparison: str, counts: str, just_met: float, just_missed: float
) -> None:
    arm = evidence.arms[0].model_copy(update={"accuracy": 0.625, "low": 0.5, "high": 0.75})
    evidence = evidence.model_copy(update={"arms": (arm, *evidence.arms[1:])})
    bound = arm.low if counts == "low" else arm.high
    met = judge(evidence, f"accuracy {comparison} {bound + just_met!r}")
    missed = judge(evidence, f"accuracy {comparison} {bound + just_missed!r}")
    assert (met.status, missed.status) == ("pass", "fail")
    assert (met.value, met.low, met.high, met.bound, met.images) == (arm.accuracy, arm.low, arm.high, bound, arm.count)
    assert met.note == "" and "more images" in missed.note  # the measured value itself is on the right side


def test_a_perfect_score_has_a_bound_below_it(evidence: Evidence) -> None:
    arm = evidence.arms[0].model_copy(update={"accuracy": 1.0, "low": 1.0, "high": 1.0})
    even = [one.model_copy(update={"mean": 0.0, "low": 0.0, "high": 0.0}) for one in evidence.differences]
    evidence = evidence.model_copy(update={"arms": (arm, *evidence.arms[1:]), "differences": tuple(even)})
    unseen = largest_unseen_rate(arm.count)
    perfect = judge(evidence, "accuracy >= 99 %")
    assert (perfect.status, perfect.bound, perfect.high) == ("fail", 1 - unseen, 1.0) and "more images" in perfect.note
    alike = judge(evidence, "accuracy over ft >= 0 %")
    assert (alike.low, alike.high, alike.status) == (-unseen, unseen, "fail")


def test_a_value_that_misses_is_not_excused(evidence: Evidence) -> None:
    beyond = judge(evidence, f"accuracy >= {evidence.arms[0].accuracy + 0.01!r}")
    assert beyond.status == "fail" and beyond.note == ""


def cell(evidence: Evidence, method: str, metric: str) -> tuple[float | None, ...]:
    assert evidence.measured is not None
    it = next(one.estimate for one in evidence.measured.cells
              if (one.model, one.method, one.metric) == ("vpt", method, metric))  # fmt: skip
    return it.mean, it.low, it.high, it.images


EXPECTED: dict[str, Callable[[Evidence], tuple[float | None, ...]]] = {
    "accuracy": lambda e: (e.arms[0].accuracy, e.arms[0].low, e.arms[0].high, e.arms[0].count),
    "balanced accuracy": lambda e: numbers(e.rates[0].balanced),
    "miss rate": lambda e: numbers(e.rates[0].miss),
    "overkill rate": lambda e: numbers(e.rates[0].overkill),
    "auroc": lambda e: numbers(e.rates[0].auroc),
    "ece": lambda e: (e.arms[0].calibration.error, e.arms[0].calibration.low, e.arms[0].calibration.high,
                      e.arms[0].count),
    "recall of local defect": lambda e: next((one.recall, one.low, one.high, one.count) for one in e.arms[0].recalls
                                             if one.name == "local defect"),
    "accuracy over ft": lambda e: (e.difference.mean, e.difference.low, e.difference.high, e.arms[0].count),
    "accuracy under blur": lambda e: (0.6, 0.5, 0.7, 100),
    "test images": lambda e: (e.arms[0].count,) * 3 + (None,),
    "gain of integrated_gradients": lambda e: cell(e, "integrated_gradients", "gain"),
    "drift brightness of grad_cam": lambda e: cell(e, "grad_cam", "drift_brightness"),
    "cascade_signed/all of grad_cam": lambda e: cell(e, "grad_cam", "cascade_signed/all"),
    "unmatched fields": lambda e: (0, 0, 0, None),
}  # fmt: skip
"""Metric -> value, low, high and images as the rest of the evidence has them."""


def numbers(rate: Rate | None) -> tuple[float, float, float, int]:
    assert rate is not None
    return rate.value, rate.low, rate.high, rate.count


@pytest.mark.parametrize("metric", EXPECTED)
def test_a_metric_is_what_the_evidence_says(evidence: Evidence, metric: str) -> None:
    one = judge(evidence, f"{metric} >= 0", good="[nominal]")
    assert (one.value, one.low, one.high, one.images) == EXPECTED[metric](evidence) and one.status != "not_evaluated"
    assert one.label and metric not in one.label  # words of the report, not of the file


def test_each_arm_is_decided_by_its_own_numbers(evidence: Evidence) -> None:
    ft = decide(evidence, "accuracy >= 0.5", "accuracy over vpt > 0", model="ft")
    assert (ft.arm, ft.arm_label, ft.judged[0].value) == ("ft", evidence.arms[1].label, evidence.arms[1].accuracy)
    assert ft.judged[1].value == pytest.approx(-evidence.difference.mean)
    assert judge(evidence, "reviewed failures >= 1", model="ft").status == "not_evaluated"  # failures are of vpt


def test_a_planted_test_counts_where_it_was_tested(evidence: Evidence) -> None:
    assert evidence.dissociation is not None
    lines = [line for line in evidence.dissociation.lines if line.arm == "vpt" and line.method]
    tested = next(line for line in lines if line.status in ("PASSED", "FAILED") and not line.control)
    one = judge(evidence, f"planted test of {tested.method} > 0")
    assert (one.value, one.low, one.high) == (tested.difference, tested.low, tested.high)
    assert (one.status == "pass") == (tested.low is not None and tested.low > 0)
    untested = tested.model_copy(update={"status": "NOT TESTED"})
    planted = evidence.dissociation.model_copy(update={"lines": (untested,)})
    again = judge(evidence.model_copy(update={"dissociation": planted}), f"planted test of {tested.method} > 0")
    assert again.status == "not_evaluated" and "explain planted RUN" in again.note


@pytest.mark.parametrize(("line", "note"), [
    ("gain of rise >= 0", "explain evaluate RUN"), ("completeness gap of grad_cam <= 2 %", "explain evaluate RUN"),
    ("accuracy under jpeg >= 0", "explain evaluate RUN"), ("planted test of rise > 0", "explain planted RUN"),
    ("miss rate <= 1", "good_classes"), ("recall of stain >= 0", "no test image"),
    ("accuracy over lora >= 0", "nothing to measure"),
])  # fmt: skip
def test_what_nobody_measured_is_not_met_and_says_what_measures_it(evidence: Evidence, line: str, note: str) -> None:
    bare = evidence.model_copy(update={"rates": tuple(one.model_copy(update={"miss": None}) for one in evidence.rates)})
    one = judge(bare, line)
    assert one.status == "not_evaluated" and one.bound is None and note in one.note
    assert decide(bare, line).computed == "reject" and decide(bare, f"?{line}").computed == "conditional"


MET, UNMET = "accuracy >= 0", "accuracy >= 1"


@pytest.mark.parametrize(("lines", "before", "outcome"), [
    ((MET,), True, "approve"), ((MET,), False, "conditional"), ((MET, f"?{UNMET}"), True, "conditional"),
    ((MET, f"?{UNMET}"), False, "conditional"), ((MET, UNMET), True, "reject"), ((MET, UNMET), False, "reject"),
    ((f"?{MET}",), True, "approve"),
])  # fmt: skip
def test_the_decision_follows_from_the_criteria(
    evidence: Evidence, lines: tuple[str, ...], before: bool, outcome: str
) -> None:
    found = decide(evidence, *lines, before=before)
    assert (found.computed, found.final, found.declared) == (outcome, outcome, "before" if before else "after")
    said = " ".join(found.sentences)
    assert ("AFTER" in said) == (not before) and f"of {len(lines)} criteria" in said
    assert ("Required and not met (1): Accuracy" in said) == (outcome == "reject")
    assert ("not required (1): Accuracy" in said) == (f"?{UNMET}" in lines)


def test_without_criteria_there_is_no_decision(evidence: Evidence) -> None:
    found = decision_of(evidence, None, NOBODY, T, before=False)
    assert (found.computed, found.final, found.declared, found.judged) == ("not_evaluated", "not_evaluated", "none", ())
    assert "explain declare" in found.sentences[0]


def test_a_person_may_decide_otherwise_and_both_are_kept(evidence: Evidence) -> None:
    found = decide(evidence, UNMET, audit=OVERRIDE)
    assert (found.computed, found.final) == ("reject", "approve") and found.override is not None
    assert (found.override.name, found.override.reason) == ("B. Tanaka", "A trial.")
    assert found.final_label == "Approve" and found.conditions == ("Grey cloth only.",)


@pytest.fixture
def decided(evidence: Evidence) -> Evidence:
    """With a decision that a person took otherwise, one criterion of each status."""
    lines = (MET, UNMET, "gain of rise >= 0", "?miss rate <= 50 %")
    return evidence.model_copy(update={"decision": decide(evidence, *lines, audit=OVERRIDE, good="[nominal]")})


def test_what_is_recorded_is_found_again(evidence: Evidence, decided: Evidence) -> None:
    assert judge_again(decided) == []
    assert judge_again(Evidence.model_validate_json(decided.model_dump_json())) == []
    none = evidence.model_copy(update={"decision": decision_of(evidence, None, NOBODY, T, before=False)})
    assert judge_again(none) == []


@pytest.mark.parametrize(("change", "named"), [
    ({"computed": "approve"}, "computed"), ({"declared": "after"}, "sentences"), ({"declared": "none"}, "declared"),
    ({"final": "conditional"}, "final"), ({"final_label": "Reject"}, "final"), ({"judged": ()}, "judged"),
    ({"sha256": "0" * 64}, "sha256"), ({"arm": "ft"}, "arm"), ({"sentences": ("All is well.",)}, "sentences"),
    ({"criteria_text": ""}, "judged"), ({"criteria_text": "criteria: [accuracy = 1]"}, "expected METRIC"),
    ({"declared_by": "Nobody"}, "declared_by"), ({"override": None}, "final"),
])  # fmt: skip
def test_a_changed_decision_is_found(decided: Evidence, change: dict[str, Any], named: str) -> None:
    forged = decided.model_copy(update={"decision": decided.decision.model_copy(update=change)})
    assert any(named in line for line in judge_again(forged))


@pytest.mark.parametrize("change", [{"name": " "}, {"reason": ""}, {"decision": "not_evaluated"},
                                    {"decision_label": "Reject"}])  # fmt: skip
def test_an_override_that_nobody_could_have_stated_is_found(decided: Evidence, change: dict[str, str]) -> None:
    assert decided.decision.override is not None
    override = decided.decision.override.model_copy(update=change)
    final = {"final": override.decision, "final_label": T(f"report.decision.{override.decision}")}
    forged = decided.decision.model_copy(update={"override": override, **final})
    assert any("override" in line for line in judge_again(decided.model_copy(update={"decision": forged})))


def test_a_changed_number_elsewhere_changes_the_judgement(decided: Evidence) -> None:
    arms = (decided.arms[0].model_copy(update={"low": 0.0}), *decided.arms[1:])
    assert any("judged" in line for line in judge_again(decided.model_copy(update={"arms": arms})))


def test_the_words_are_those_of_the_report(evidence: Evidence) -> None:
    t = translate("ja")
    found = decision_of(evidence, declared(MET, "gain of rise >= 0"), NOBODY, t, before=True)
    assert (found.computed_label, found.judged[0].label) == ("不承認", "正解率")
    assert found.judged[1].status_label == "未評価" and "explain evaluate RUN" in found.judged[1].note
    judged = evidence.model_copy(update={"decision": found, "lang": "ja"})
    assert judge_again(judged) == []


SHOWN = {"en": ("≥ 1,000", "95.0 %", "not met", "AFTER the training; A. Sato", "(not required)", "not evaluated"),
         "ja": ("≥ 1,000", "95.0 %", "不適合", "学習後、A. Sato", "(必須ではない)", "未評価")}  # fmt: skip
LINES = ("test images >= 1000", "?accuracy >= 95 %", "gain of rise >= 0.125", "recall of local defect <= 1")


@pytest.mark.parametrize("lang", SHOWN)
def test_the_page_prints_every_criterion_with_the_bound_that_counts(
    evidence: Evidence, panels: Panels, lang: str
) -> None:
    t = translate(lang)
    found = decision_of(evidence, declared(*LINES), OVERRIDE, t, before=False)
    shown = evidence.model_copy(update={"lang": lang, "decision": found})
    content = render_pdf(with_id(shown), draw_pictures(panels))
    text = squeezed("".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages))
    recall = found.judged[3]
    assert recall.high is not None
    expected = [*SHOWN[lang], *(one.label for one in found.judged), *found.sentences, found.computed_label,
                found.final_label, f"{100 * recall.high:.1f}" if recall.percent else f"{recall.high:.3f}", found.sha256,
                "B. Tanaka", "A trial.", "Grey cloth only."]  # fmt: skip
    assert [one for one in expected if squeezed(one) not in text] == []


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)

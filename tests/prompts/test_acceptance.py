"""Criteria: what a line means, how it is measured, and what a promotion refuses."""

import numpy as np
import pytest

from explain.data.base import Dataset
from explain.engine import attribute
from explain.errors import InputError, UnknownNameError
from explain.prompts.acceptance import (
    Criterion,
    PromotionRefusedError,
    judge,
    measure_gap,
    probe_images,
    promote,
    record_measured,
    set_criteria,
)
from explain.prompts.store import PromptStore
from explain.training.run import Run


@pytest.mark.parametrize(("line", "metric", "comparison", "bound"), [
    ("accuracy >= 0.95", "accuracy", ">=", 0.95),
    ("recall of Local defect>=95%", "recall of Local defect", ">=", 0.95),
    ("  Lower  Bound of accuracy > 1e-1 ", "lower bound of accuracy", ">", 0.1),
    ("completeness gap <= 2 %", "completeness gap", "<=", 0.02),
    ("trained bytes < 1000000", "trained bytes", "<", 1e6),
    ("recall of a >= b >= 0.5", "recall of a >= b", ">=", 0.5),  # a class may be called anything
])  # fmt: skip
def test_a_line_reads_as_metric_comparison_and_bound(
    line: str, metric: str, comparison: str, bound: float
) -> None:
    criterion = Criterion.parse(line)
    assert (criterion.metric, criterion.comparison, criterion.bound) == (metric, comparison, bound)
    assert Criterion.parse(str(criterion)) == criterion


@pytest.mark.parametrize("line", ["", "accuracy", "accuracy = 1", "accuracy >= high", ">= 0.5", "accuracy >= -1",
                                  "accuracy >= nan", "accuracy >= 1e999", "accuracy >= 5 ‰"])  # fmt: skip
def test_what_is_no_criterion_is_refused(line: str) -> None:
    with pytest.raises(InputError, match="expected (METRIC|a finite)"):
        Criterion.parse(line)


@pytest.mark.parametrize(("comparison", "at_bound"), [(">=", True), ("<=", True), (">", False), ("<", False)])
def test_the_bound_itself_counts_only_with_an_equals_sign(comparison: str, at_bound: bool) -> None:
    criterion = Criterion.parse(f"accuracy {comparison} 0.5")
    assert criterion.fulfilled(0.5) == at_bound
    assert criterion.fulfilled(0.6) == (">" in comparison) and criterion.fulfilled(0.4) == ("<" in comparison)


def test_what_the_run_predicted_is_measured_from_its_predictions(filled: PromptStore, runs: dict[str, Run]) -> None:
    """`deep_b` answers 8 images with 0.9 probability each, and the first two, both of "left", wrongly."""
    own = runs["deep_b"].predictions
    assert (len(own.labels), own.labels[:2].tolist()) == (8, [0, 0])
    lines = ["accuracy >= 0.7", "lower bound of accuracy >= 0.7", "recall of left >= 0.5", "recall of right >= 0.5",
             "balanced accuracy >= 0.7", "ece <= 0.1", "trained bytes >= 0"]  # fmt: skip
    found = judge(lines, filled.get("deep_b"), {})
    expected = [0.75, 0.375, 0.5, 1.0, 0.75, 0.15, runs["deep_b"].manifest.weights_bytes]
    assert np.allclose([outcome.value for outcome in found], expected, atol=1e-6)
    assert [outcome.passed for outcome in found] == [True, False, True, True, True, False, True]


def test_a_metric_nobody_measured_says_how_to_measure_it(filled: PromptStore) -> None:
    gap, own = judge(["completeness gap <= 2 %", "minutes per roll <= 3"], filled.get("deep"), {})
    assert not gap.passed and "--images FOLDER" in str(gap) and "not measured" in str(gap)
    assert not own.passed and '--metric "minutes per roll=VALUE"' in str(own)
    [measured] = judge(["minutes per roll <= 3"], filled.get("deep"), {"Minutes per  roll": 2.5})
    assert measured.passed


def test_a_promotion_that_fulfils_every_line_moves_the_alias(store: PromptStore) -> None:
    set_criteria(store, "line-3", ["recall of right >= 95 %", "accuracy >= 0.75"], who="mei")
    outcomes = promote(store, "line-3@v2", approver="Sato", who="ken")
    assert [outcome.passed for outcome in outcomes] == [True, True]
    assert store.resolve("line-3@production").number == 2
    entry = store.history("line-3").log[-1]
    assert (entry.what, entry.label, entry.approver, entry.who) == ("promote", "production", "Sato", "ken")
    assert entry.notes == ("pass  recall of right >= 95 %: 100 %", "pass  accuracy >= 0.75: 0.75")
    assert store.verify() == []


def test_a_refused_promotion_tells_every_line_moves_nothing_and_stays_in_the_log(store: PromptStore) -> None:
    promote(store, "line-3@v1", approver="Sato")
    set_criteria(store, "line-3", ["recall of left >= 95 %", "accuracy >= 0.7", "completeness gap <= 2 %"])
    with pytest.raises(PromotionRefusedError, match=r"v2 was not promoted") as refused:
        promote(store, "line-3@v2", approver="Sato")
    assert refused.value.exit_code == 2
    assert [outcome.passed for outcome in refused.value.outcomes] == [False, True, False]
    for line in ("FAIL  recall of left >= 95 %: 50 %", "pass  accuracy >= 0.7: 0.75", "not measured  completeness gap"):
        assert line in str(refused.value)
    assert store.resolve("line-3@production").number == 1
    entry = store.history("line-3").log[-1]
    assert (entry.what, entry.after, len(entry.notes)) == ("refuse", store.resolve("line-3@v2").id, 3)
    assert store.verify() == []


def test_a_rollback_after_a_promotion_goes_to_the_version_before(store: PromptStore) -> None:
    promote(store, "line-3@v1", approver="Sato")
    set_criteria(store, "line-3", ["accuracy >= 1"])
    with pytest.raises(PromotionRefusedError):
        promote(store, "line-3@v2", approver="Sato")
    set_criteria(store, "line-3", [])
    promote(store, "line-3@v2", approver="Sato")
    assert store.rollback("line-3").number == 1


def test_production_needs_an_approver_and_staging_does_not(store: PromptStore) -> None:
    with pytest.raises(InputError, match="--approver NAME"):
        promote(store, "line-3@v1")
    with pytest.raises(InputError, match="--approver NAME"):
        promote(store, "line-3@v1", approver="  ")
    promote(store, "line-3@v1", to="staging")
    assert list(store.history("line-3").aliases) == ["staging"]


def test_criteria_of_a_class_that_does_not_exist_are_refused(store: PromptStore) -> None:
    with pytest.raises(UnknownNameError, match="no class 'hole'; it knows left, right"):
        set_criteria(store, "line-3", ["recall of hole >= 0.9"])


@pytest.mark.parametrize("metric", ["accuracy", "Recall of left", "ece", "trained bytes"])
def test_what_is_measured_here_cannot_be_supplied(store: PromptStore, metric: str) -> None:
    with pytest.raises(InputError, match="cannot be supplied"):
        promote(store, "line-3@v1", approver="Sato", supplied={metric: 1.0})


def test_a_supplied_metric_is_kept_for_later_promotions(store: PromptStore) -> None:
    set_criteria(store, "line-3", ["minutes per roll <= 3"])
    record_measured(store, "line-3@v1", {"minutes per roll": 2.5}, who="ken")
    assert promote(store, "line-3@v1", approver="Sato")[0].value == 2.5
    with pytest.raises(PromotionRefusedError, match="not measured"):
        promote(store, "line-3@v2", approver="Sato")  # it was measured of the other version
    with pytest.raises(InputError, match="finite"):
        record_measured(store, "line-3@v1", {"minutes per roll": float("nan")})
    with pytest.raises(InputError, match="nothing to measure"):
        record_measured(store, "line-3@v1", {})
    assert store.verify() == []


def test_the_completeness_gap_is_the_largest_of_the_probe_images(
    store: PromptStore, runs: dict[str, Run], pictures: Dataset
) -> None:
    probe = probe_images(pictures.root / "left")[:2]
    maps = attribute(runs["deep"].model, probe, methods="integrated_gradients")["integrated_gradients"]
    expected = maps.extras["completeness_gap"].max()
    set_criteria(store, "line-3", [f"completeness gap <= {expected * 1.5:.6f}"])
    [outcome] = promote(store, "line-3@v1", approver="Sato", probe=probe)
    assert outcome.value == pytest.approx(expected, rel=0.05)
    # the gap is at the edge of float32, where a batch of one adds up otherwise than one of two
    assert measure_gap(store.get("line-3@v1"), probe[:1]) <= outcome.value + 5e-5
    id = store.resolve("line-3@v1").id
    assert store.history("line-3").measured == {id: {"completeness gap": outcome.value}}


def test_a_probe_without_images_is_refused(tmp_path: object) -> None:
    with pytest.raises(InputError, match="probe images"):
        probe_images(tmp_path)  # type: ignore[arg-type]

"""Confusion and recall, counted by hand and by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score, roc_auc_score

from explain.errors import InputError
from explain.metrics.classification import balanced_accuracy, confusion, per_class_recall, roc_area
from explain.metrics.statistics import wilson_interval


def test_rows_are_the_truth_and_columns_the_answer() -> None:
    assert confusion([0, 0, 1, 2], [0, 2, 1, 2], 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_counts_and_recalls_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels, answers = generator.integers(0, 4, 300), generator.integers(0, 4, 300)
    assert (confusion(labels, answers, 4) == confusion_matrix(labels, answers)).all()
    recalls = [row.recall for row in per_class_recall(labels, answers, "abcd")]
    assert recalls == pytest.approx(recall_score(labels, answers, average=None))


def test_a_recall_names_its_class_count_and_interval() -> None:
    first, second = per_class_recall([0, 0, 0, 2], [0, 0, 1, 2], ("good", "never seen", "bad"))
    assert (first.name, first.recall, first.images) == ("good", 2 / 3, 3)
    assert (first.low, first.high) == wilson_interval(2, 3)
    assert second.name == "bad" and second.low < second.recall == 1.0  # one image proves little


@pytest.mark.parametrize(("labels", "answers"), [([0, 3], [0, 1]), ([0, 1], [0]), ([], []), ([0.5], [0]), ([-1], [0])])
def test_what_is_no_class_is_refused(labels: list[float], answers: list[int]) -> None:
    with pytest.raises(InputError, match="expected"):
        confusion(np.array(labels), np.array(answers), 3)


def test_an_area_agrees_with_scikit_learn_also_with_ties() -> None:
    generator = np.random.default_rng(1)
    positive = generator.random(400) < 0.3
    for scores in (generator.normal(size=400) + positive, generator.integers(0, 5, 400) + positive):
        found = roc_area(scores, positive, resamples=500)
        assert found.value == pytest.approx(roc_auc_score(positive, scores)) and found.images == 400
        assert 0 < found.low < found.value < found.high < 1
        assert roc_area(scores, positive, resamples=500) == found


def test_an_area_by_hand() -> None:
    assert roc_area([1, 2, 3, 4], [False, False, True, True], resamples=50)[:3] == (1, 1, 1)
    assert roc_area([1, 4, 2, 3], [False, False, True, True], resamples=50).value == 0.5
    assert roc_area([0, 0, 0], [True, False, True], resamples=50)[:3] == (0.5, 0.5, 0.5)


def test_an_interval_of_an_area_covers_the_truth_as_often_as_it_says() -> None:
    generator, hits = np.random.default_rng(2), 0
    for _ in range(200):
        scores = np.concatenate([generator.normal(1, 1, 60), generator.normal(0, 1, 60)])
        found = roc_area(scores, np.arange(120) < 60, resamples=300)
        hits += found.low <= 0.76025 <= found.high  # of two normal scores one standard deviation apart
    assert 0.89 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    ("scores", "positive"), [([1, 2], [True, True]), ([1], [True, False]), ([float("nan"), 1], [True, False])]
)
def test_a_curve_needs_both_kinds_and_finite_scores(scores: list[float], positive: list[bool]) -> None:
    with pytest.raises(InputError, match="ROC curve needs|finite score"):
        roc_area(scores, positive)


def test_balanced_accuracy_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    labels = generator.choice(3, 300, p=(0.8, 0.15, 0.05))
    answers = np.where(generator.random(300) < 0.7, labels, 0)
    found = balanced_accuracy(labels, answers, 4)  # of the fourth class there is no image
    assert found.value == pytest.approx(balanced_accuracy_score(labels, answers))
    assert found.low < found.value < found.high

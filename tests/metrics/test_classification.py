"""Confusion and recall, counted by hand and by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from explain.errors import InputError
from explain.metrics.classification import confusion, per_class_recall
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

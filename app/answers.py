"""Answers: how right the models are on images that have a label, counted once for every page that asks.

With a trained pair these are its test images, with the very numbers of the report; without one, all images of the
archive that have a label.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import streamlit as st

from app.opening import Opened
from explain.metrics.paired_counts import counted_difference
from explain.metrics.statistics import Difference, McNemar, mcnemar, paired_difference, wilson_interval

RESAMPLES, SEED = 2000, 0
"""Of the intervals, as in the report."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rate:
    """An accuracy, 0-1, with the ends of its 95 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Answers:
    """What every model said of the same n images.

    Args:
        labels: true classes, (n,).
        classes: model -> its answers, (n,).
        rates: model -> its accuracy; empty where n is 0.
        part: the filter of the gallery that leaves just these images: "test", or "" for all.
    """

    labels: Indices
    classes: Mapping[str, Indices]
    rates: Mapping[str, Rate]
    part: str

    @property
    def count(self) -> int:
        """Images n."""
        return len(self.labels)

    def right(self, model: str) -> npt.NDArray[np.bool_]:
        """Which of the images a model answered right, (n,)."""
        return np.asarray(self.classes[model] == self.labels)

    def outcomes(self, first: str, second: str) -> dict[str, int]:
        """How many images came out how, by the names of `app.index.OUTCOMES`."""
        a, b = self.right(first), self.right(second)
        return {"both_right": int((a & b).sum()), "only_first": int((a & ~b).sum()),
                "only_second": int((~a & b).sum()), "both_wrong": int((~a & ~b).sum())}  # fmt: skip

    def difference(self, first: str, second: str) -> Difference:
        """Accuracy of the first minus that of the second."""
        if self.part:
            return paired_difference(self.right(first), self.right(second), resamples=RESAMPLES, seed=SEED)
        counts = self.outcomes(first, second)
        alike = counts["both_right"] + counts["both_wrong"]
        return counted_difference(counts["only_first"], counts["only_second"], alike, resamples=RESAMPLES, seed=SEED)

    def test(self, first: str, second: str) -> McNemar:
        """McNemar's test of the two models' disagreements."""
        return mcnemar(self.right(first), self.right(second))


def answers_of(opened: Opened) -> Answers:
    """The answers of every model of a pair or archive."""
    return _of_pair(opened) if opened.pair is not None else _of_archive(opened, opened.location, opened.index.count)


def _of_pair(opened: Opened) -> Answers:
    assert opened.pair is not None
    runs = {model: opened.pair.runs[model] for model in opened.models}
    labels = np.asarray(next(iter(runs.values())).predictions.labels, np.int64)
    tests = {model: run.manifest.test for model, run in runs.items()}
    return Answers(
        labels, {model: np.asarray(run.predictions.classes, np.int64) for model, run in runs.items()},
        {model: Rate(test.accuracy, test.low, test.high) for model, test in tests.items()}, "test",
    )  # fmt: skip


@st.cache_data(max_entries=2, show_spinner=False)
def _of_archive(_opened: Opened, location: str, count: int) -> Answers:
    """Kept while the archive has as many images: one that is still being computed grows."""
    assert _opened.archive is not None
    models = _opened.models
    names = ["label", *(f"{model}_{name}" for model in models for name in ("prediction", "correct"))]
    # "correct" is null where an image has no label, or one that the model does not know
    table = _opened.archive.to_arrow().select(names).drop_null()
    labels = table["label"].to_numpy().astype(np.int64)
    classes = {model: table[f"{model}_prediction"].to_numpy().astype(np.int64) for model in models}
    right = {model: int((answers == labels).sum()) for model, answers in classes.items()}
    rates = {model: Rate(hits / len(labels), *wilson_interval(hits, len(labels)))
             for model, hits in right.items() if len(labels)}  # fmt: skip
    return Answers(labels, classes, rates, "")

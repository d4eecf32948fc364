"""Rates that inspection speaks of, for the evidence: misses, overkill, areas, and accuracy on parts of the images."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from explain.attribution import Array
from explain.data.base import Sample
from explain.data.decode import decode
from explain.i18n import Translator
from explain.metrics.classification import Area, balanced_accuracy, roc_area
from explain.metrics.statistics import paired_difference, wilson_interval
from explain.report.parts.answers import RESAMPLES, SEED
from explain.report.schema.rates import ArmDifference, Rate, Rates, Slice
from explain.training.pair import MatchedPair
from explain.training.run import Predictions

LOOKS = ("brightness", "contrast", "sharpness")
"""What of an image the test images are split by."""

PARTS = ("low", "middle", "high")
WIDEST_PX = 512
"""Longer side at which images are looked at: sharpness depends on it, so it is one for all."""


def rate_of(hits: int, count: int) -> Rate:
    """A share with Wilson's interval."""
    low, high = wilson_interval(hits, count)
    return Rate(value=hits / count, low=low, high=high, hits=hits, count=count)


def rates_of(pair: MatchedPair, good_classes: Sequence[str]) -> tuple[Rates, ...]:
    """Every arm as an inspection sees it.

    Args:
        pair: the runs.
        good_classes: classes that are no defect; empty where nobody said.
    """
    good = [index for index, name in enumerate(pair.vpt.manifest.class_names) if name in good_classes]
    return tuple(_rates(arm, run.predictions, good) for arm, run in pair.runs.items())


def _rates(arm: str, found: Predictions, good: list[int]) -> Rates:
    labels, answers = np.asarray(found.labels), np.asarray(found.classes)
    is_good, says_good = np.isin(labels, good), np.isin(answers, good)
    miss = overkill = None
    if is_good.any() and not is_good.all():
        miss = rate_of(int((says_good & ~is_good).sum()), int((~is_good).sum()))
        overkill = rate_of(int((~says_good & is_good).sum()), int(is_good.sum()))
    return Rates(
        arm=arm, miss=miss, overkill=overkill, auroc=_rate(_area(found, good, is_good)),
        balanced=_rate(balanced_accuracy(labels, answers, found.probabilities.shape[1], resamples=RESAMPLES,
                                         seed=SEED)),
    )  # fmt: skip


def _area(found: Predictions, good: list[int], is_good: Array) -> Area:
    """Defective against good where that was declared, else the mean over the classes of each against the rest."""
    def area_of(scores: Array, positive: Array) -> Area:
        return roc_area(scores, positive, resamples=RESAMPLES, seed=SEED)

    if is_good.any() and not is_good.all():
        return area_of(1 - found.probabilities[:, good].sum(axis=1), ~is_good)
    classes = [label for label in range(found.probabilities.shape[1])
               if 0 < (found.labels == label).sum() < len(found.labels)]  # fmt: skip
    areas = [area_of(found.probabilities[:, label], found.labels == label) for label in classes]
    if not areas:  # one class only: nothing to tell apart
        return Area(0.5, 0.0, 1.0, len(found.labels))
    value, low, high = (float(np.mean([area[part] for area in areas])) for part in range(3))
    return Area(value, low, high, len(found.labels))


def _rate(area: Area) -> Rate:
    return Rate(value=area.value, low=area.low, high=area.high, hits=None, count=area.images)


def differences_of(pair: MatchedPair) -> tuple[ArmDifference, ...]:
    """Accuracy of every arm less that of every other, on the same images."""
    correct = {arm: run.predictions.correct for arm, run in pair.runs.items()}
    rows = []
    for first in correct:
        for second in correct:
            if first != second:
                found = paired_difference(correct[first], correct[second], resamples=RESAMPLES, seed=SEED)
                rows.append(ArmDifference(first=first, second=second, mean=found.mean, low=found.low, high=found.high))
    return tuple(rows)


def slices_of(pair: MatchedPair, t: Translator) -> tuple[Slice, ...]:
    """Accuracy on thirds of the test images, by how bright, how rich in contrast and how sharp they are."""
    ids = pair.vpt.predictions.ids
    with ThreadPoolExecutor(4, "look") as pool:
        looks = np.array(list(pool.map(_look, [pair.data.by_id[name] for name in ids])))
    correct = {arm: run.predictions.correct for arm, run in pair.runs.items()}
    found = []
    for column, by in enumerate(LOOKS):
        order = np.argsort(looks[:, column], kind="stable")
        for part, rows in zip(PARTS, np.array_split(order, len(PARTS)), strict=True):
            if len(rows):
                found.append(Slice(
                    by=t(f"report.slices.{by}"), part=t(f"report.slices.{part}"), count=len(rows),
                    accuracies={arm: rate_of(int(right[rows].sum()), len(rows)) for arm, right in correct.items()},
                ))  # fmt: skip
    return tuple(found)


def _look(sample: Sample) -> tuple[float, float, float]:
    """Mean grey level, its spread, and the variance of the Laplacian."""
    image = decode(sample.path).image.convert("L")
    image.thumbnail((WIDEST_PX, WIDEST_PX))
    grey = np.asarray(image)
    return float(grey.mean()), float(grey.std()), float(cv2.Laplacian(grey, cv2.CV_64F).var())

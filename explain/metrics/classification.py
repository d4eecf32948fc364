"""Which classes a model finds, and what it takes them for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from explain.errors import InputError
from explain.metrics.statistics import CHUNK, wilson_interval


class Recall(NamedTuple):
    """Of the `images` that truly are of a class, the share found (0-1), with the ends of its interval."""

    name: str
    recall: float
    low: float
    high: float
    images: int


class Area(NamedTuple):
    """A number 0-1 with the ends of its interval, over `images` images."""

    value: float
    low: float
    high: float
    images: int


def confusion(labels: npt.ArrayLike, predictions: npt.ArrayLike, size: int) -> npt.NDArray[np.int64]:
    """Counts (K, K): row the true class, column the answer.

    Args:
        labels, predictions: (n,) class indices below K.
        size: K, the number of classes.

    Raises:
        InputError: shapes that differ, or an index that is no class.
    """
    truth, answer = _indices(labels, size), _indices(predictions, size)
    if len(truth) != len(answer):
        raise InputError(f"expected one answer per label, got {len(answer)} answers and {len(truth)} labels")
    counts = np.bincount(truth * size + answer, minlength=size * size).reshape(size, size)
    return counts.astype(np.int64)


def per_class_recall(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, classes: Sequence[str], *, level: float = 0.95
) -> tuple[Recall, ...]:
    """Recall of every class that has an image, with Wilson's interval, in the order of the classes.

    Args:
        labels, predictions: (n,) class indices.
        classes: K names.
        level: of the intervals, in (0, 1).

    Raises:
        InputError: shapes that differ, or an index that is no class.

    Source: Wilson 1927, JASA 22, for the interval.
    """
    counts = confusion(labels, predictions, len(classes))
    found, images = np.diag(counts), counts.sum(axis=1)
    return tuple(
        Recall(name, int(hits) / int(count), *wilson_interval(int(hits), int(count), level=level), int(count))
        for name, hits, count in zip(classes, found, images, strict=True)
        if count
    )


def roc_area(
    scores: npt.ArrayLike, positive: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Area:
    """Area under the ROC curve with its bootstrap interval; ties count half.

    Positive and negative images are drawn again apart from each other, so that no draw lacks one of them.

    Args:
        scores: (n,) larger where an image rather is positive.
        positive: (n,) bool, both kinds at least once.
        resamples: how often images are drawn again.
        seed: of the draws.
        level: of the interval, in (0, 1).

    Raises:
        InputError: shapes that differ, a score that is not finite, or only one kind of image.

    Source: Hanley and McNeil 1982, Radiology 143, for the area as the Mann-Whitney statistic.
    """
    values, kinds = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if values.shape != kinds.shape or values.ndim != 1 or not np.isfinite(values).all():
        raise InputError(f"expected one finite score per image, got shapes {values.shape} and {kinds.shape}")
    if kinds.all() or not kinds.any():
        raise InputError("an ROC curve needs positive and negative images; there is only one kind")
    if not 0 < level < 1 or resamples < 1:
        raise InputError(f"expected 0 < level < 1 and resamples >= 1, got level={level} and resamples={resamples}")
    groups = values[kinds], values[~kinds]
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // len(values))
    drawn = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        parts = [group[rng.integers(0, len(group), size=(rows, len(group)))] for group in groups]
        drawn.append(_areas(*parts))
    low, high = np.quantile(np.concatenate(drawn), ((1 - level) / 2, (1 + level) / 2))
    return Area(float(_areas(groups[0][None], groups[1][None])[0]), float(low), float(high), len(values))


def _areas(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Areas (R,) of scores (R, p) of positive and (R, q) of negative images."""
    count, other = positive.shape[1], negative.shape[1]
    ranks = rankdata(np.concatenate([positive, negative], axis=1), axis=1)[:, :count].sum(axis=1)
    return np.asarray((ranks - count * (count + 1) / 2) / (count * other))


def balanced_accuracy(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, size: int, *, resamples: int = 2000, seed: int = 0,
    level: float = 0.95,
) -> Area:  # fmt: skip
    """Mean of the recalls of the classes that have an image, with its bootstrap interval.

    Every class's images are drawn again apart from the others': its hits are then binomial.

    Args:
        labels, predictions: (n,) class indices.
        size: K, the number of classes.
        resamples, seed, level: as in `roc_area`.

    Raises:
        InputError: shapes that differ, or an index that is no class.
    """
    counts = confusion(labels, predictions, size)
    images = counts.sum(axis=1)
    found, images = np.diag(counts)[images > 0], images[images > 0]
    drawn = np.random.default_rng(seed).binomial(images, found / images, size=(resamples, len(images))) / images
    low, high = np.quantile(drawn.mean(axis=1), ((1 - level) / 2, (1 + level) / 2))
    return Area(float((found / images).mean()), float(low), float(high), int(images.sum()))


def _indices(values: npt.ArrayLike, size: int) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"expected class indices (n,) as integers, got {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() >= size:
        raise InputError(f"expected class indices from 0 to {size - 1}, got {array.min()} to {array.max()}")
    return array.astype(np.int64)

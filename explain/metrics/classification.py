"""Which classes a model finds, and what it takes them for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from explain.errors import InputError
from explain.metrics.statistics import wilson_interval


class Recall(NamedTuple):
    """Of the `images` that truly are of a class, the share found (0-1), with the ends of its interval."""

    name: str
    recall: float
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


def _indices(values: npt.ArrayLike, size: int) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"expected class indices (n,) as integers, got {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() >= size:
        raise InputError(f"expected class indices from 0 to {size - 1}, got {array.min()} to {array.max()}")
    return array.astype(np.int64)

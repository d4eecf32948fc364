"""Calibration: does a model that says 80 % turn out right 80 times in 100?

Only the probability of the answer counts here (top-label calibration). Everything is a pure function of arrays.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from explain.errors import InputError
from explain.metrics.statistics import CHUNK, wilson_interval

BINS = 15
"""Bins of Guo et al.'s tables."""

Binning = Literal["width", "mass"]


class ReliabilityBin(NamedTuple):
    """The answers whose confidence lies in (start, end]: how sure the model was, how often right, Wilson's interval."""

    start: float
    end: float
    images: int
    confidence: float
    accuracy: float
    low: float
    high: float


class Calibration(NamedTuple):
    """An expected calibration error with the ends of its interval, and what perfect calibration would measure.

    `floor` is the mean error of a calibrated model, `p_value` how often its error is at least the measured one.
    """

    error: float
    low: float
    high: float
    floor: float
    p_value: float


def reliability_curve(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS, binning: Binning = "width"
) -> tuple[ReliabilityBin, ...]:
    """Confidence against accuracy, bin by bin; a bin without answers is left out.

    Args:
        probabilities: (n, K), each row summing to 1.
        labels: (n,) class indices.
        bins: number of bins, at least 1.
        binning: "width" cuts [0, 1] into equal parts, "mass" gives every bin as many answers as the next.

    Raises:
        InputError: shapes, probabilities, labels or bins out of range.

    Source: Guo et al. 2017, arXiv 1706.04599, §2; Nixon et al. 2019, arXiv 1904.01685, for equal mass.
    """
    confidence, correct = _answers(probabilities, labels)
    place, edges = _bin(confidence, bins, binning)
    rows = []
    for index in range(len(edges) - 1):
        inside = place == index
        count = int(inside.sum())
        if count:
            hits = int(correct[inside].sum())
            rows.append(ReliabilityBin(
                float(edges[index]), float(edges[index + 1]), count, float(confidence[inside].mean()), hits / count,
                *wilson_interval(hits, count),
            ))  # fmt: skip
    return tuple(rows)


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS, binning: Binning = "width"
) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by their answers; 0 is best, 1 is worst.

    Args:
        probabilities, labels, bins, binning: as in `reliability_curve`; "mass" is the adaptive variant.

    Source: Guo et al. 2017, arXiv 1706.04599, eq. 3; Nixon et al. 2019, arXiv 1904.01685, for equal mass.
    """
    curve = reliability_curve(probabilities, labels, bins=bins, binning=binning)
    total = sum(row.images for row in curve)
    return sum(row.images / total * abs(row.accuracy - row.confidence) for row in curve)


def calibration_error_interval(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS, binning: Binning = "width",
    resamples: int = 2000, seed: int = 0, level: float = 0.95,
) -> Calibration:  # fmt: skip
    """The expected calibration error with a bootstrap interval, its floor, and a test of perfect calibration.

    The error cannot be negative, so chance alone makes it positive, the more so the fewer the images. Two things make
    that visible: the floor is the mean error of a perfectly calibrated model with the same confidences, and the
    interval is the spread of the resampled errors moved back onto the measured one (resampling adds chance once more).

    Args:
        probabilities, labels, bins, binning: as in `reliability_curve`. Bins are those of the images as they are.
        resamples, seed, level: as in `statistics.bootstrap_interval`.

    Raises:
        InputError: as in `reliability_curve`, or level and resamples out of range.

    Source: Efron 1979 for the bootstrap; Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams",
        for resampling a calibrated model.
    """
    if not 0 < level < 1 or resamples < 1:
        raise InputError(f"expected 0 < level < 1 and resamples >= 1, got level={level} and resamples={resamples}")
    confidence, correct = _answers(probabilities, labels)
    place, edges = _bin(confidence, bins, binning)
    count, rng = len(confidence), np.random.default_rng(seed)
    errors, floors = [], []
    step = max(1, CHUNK // count)
    for start in range(0, resamples, step):
        shape = (min(step, resamples - start), count)
        drawn = rng.integers(0, count, size=shape)
        errors.append(_errors((correct - confidence)[drawn], place[drawn], len(edges) - 1))
        floors.append(_errors((rng.random(shape) < confidence) - confidence, np.broadcast_to(place, shape),
                              len(edges) - 1))  # fmt: skip
    error = float(_errors((correct - confidence)[None], place[None], len(edges) - 1)[0])
    spread = np.concatenate(errors)
    low, high = np.quantile(spread, ((1 - level) / 2, (1 + level) / 2)) - spread.mean()
    by_chance = np.concatenate(floors)
    p_value = (1 + int((by_chance >= error).sum())) / (1 + resamples)
    return Calibration(error, float(max(0.0, error + low)), float(min(1.0, error + high)), float(by_chance.mean()),
                       p_value)  # fmt: skip


def _errors(gaps: npt.NDArray[np.float64], place: npt.NDArray[np.intp], bins: int) -> npt.NDArray[np.float64]:
    """The calibration error of each row: gaps right - confidence (R, n), each in its bin (R, n)."""
    rows, count = gaps.shape
    cells = (np.arange(rows)[:, None] * bins + place).ravel()
    sums = np.bincount(cells, weights=gaps.ravel(), minlength=rows * bins).reshape(rows, bins)
    errors: npt.NDArray[np.float64] = np.abs(sums).sum(axis=1) / count
    return errors


def _bin(
    confidence: npt.NDArray[np.float64], bins: int, binning: str
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Bin of every answer (n,), and the edges: bins are open below and closed above."""
    if bins < 1 or binning not in ("width", "mass"):
        raise InputError(f"expected bins >= 1 and binning 'width' or 'mass', got {bins} and {binning!r}")
    edges = np.linspace(0, 1, bins + 1)
    if binning == "mass":
        # equal answers share a bin, so a model that always says 1.0 has one bin and not fifteen
        inner = np.quantile(confidence, edges, method="inverted_cdf")
        edges = np.unique(np.concatenate([[0.0], inner[1:-1], [1.0]]))
    return np.searchsorted(edges[1:-1], confidence, side="left"), edges


def _answers(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(n,) probability of the answer, and (n,) 1 where it is right."""
    table, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if table.ndim != 2 or not table.size or truth.shape != (len(table),):
        raise InputError(f"expected probabilities (n, K) and labels (n,), got {table.shape} and {truth.shape}")
    # a softmax in half precision sums to 1 within a few thousandths
    if not np.isfinite(table).all() or (table < 0).any() or not np.allclose(table.sum(axis=1), 1, atol=1e-2):
        raise InputError("expected probabilities: finite, not negative, each row summing to 1; apply softmax to logits")
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= table.shape[1]:
        raise InputError(f"expected labels as class indices from 0 to {table.shape[1] - 1}")
    answer = table.argmax(axis=1)
    confidence = np.minimum(table[np.arange(len(table)), answer], 1.0)
    return confidence, (answer == truth).astype(np.float64)

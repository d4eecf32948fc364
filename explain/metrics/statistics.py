"""Intervals for means: how far a number from n images could have been another one, had other images been drawn.

Everything here is a pure function of arrays and a seed, so the same predictions give the same interval everywhere.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from explain.errors import InputError

CHUNK = 4_000_000
"""Largest number of resampled values held at once (32 MB of float64)."""


class Difference(NamedTuple):
    """Mean of a - b over the same images, with the ends of its interval."""

    mean: float
    low: float
    high: float

    @property
    def beyond_chance(self) -> bool:
        """True when the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def bootstrap_interval(
    values: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    When all values are alike the interval has no width: the bootstrap cannot see what it never drew. Use
    `largest_unseen_rate` beside it for a rate of 0 or 1.

    Args:
        values: (n,) numbers, one per image; booleans count as 0 and 1.
        resamples: how often n values are drawn again with replacement.
        seed: of the draws.
        level: share of the resampled means inside the interval, in (0, 1).

    Returns:
        (low, high) in the unit of the values.

    Raises:
        InputError: no values, a value that is not finite, or arguments out of range.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; percentile method.
    """
    sample = _finite(values)
    if not 0 < level < 1 or resamples < 1:
        raise InputError(f"expected 0 < level < 1 and resamples >= 1, got level={level} and resamples={resamples}")
    means = _resampled_means(sample, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Mean of a - b over the same images, with its bootstrap interval; images are resampled as pairs.

    Args:
        a, b: (n,) numbers in the same image order, such as 1 for a right answer and 0 for a wrong one.
        resamples, seed, level: as in `bootstrap_interval`.

    Raises:
        InputError: the two are not of one length, or as in `bootstrap_interval`.
    """
    first, second = _finite(a), _finite(b)
    if len(first) != len(second):
        raise InputError(f"paired values need one length, got {len(first)} and {len(second)}; are the images the same?")
    low, high = bootstrap_interval(first - second, resamples=resamples, seed=seed, level=level)
    return Difference(float((first - second).mean()), low, high)


def largest_unseen_rate(count: int, *, level: float = 0.95) -> float:
    """Largest rate (0-1) at which none in `count` trials would still happen with probability 1 - level.

    Source: the exact binomial bound with no event, 1 - (1 - level) ** (1 / n); "rule of three" is its first term.
    """
    if count < 1:
        raise InputError(f"expected at least one trial, got {count}")
    return float(1 - (1 - level) ** (1 / count))


def _resampled_means(
    sample: npt.NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    count = len(sample)
    step = max(1, CHUNK // count)
    parts = [
        sample[rng.integers(0, count, size=(min(step, resamples - start), count))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts)


def _finite(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"expected one number per image, (n,) with n >= 1; got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{np.count_nonzero(~np.isfinite(array))} of {len(array)} values are not finite")
    return array

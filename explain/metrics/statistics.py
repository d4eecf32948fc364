"""Intervals and tests: how far a number could have been another one, had other images or seeds been drawn.

Everything here is a pure function of arrays and a seed, so the same predictions give the same interval everywhere.
"""

from math import comb, erfc, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from explain.errors import InputError

CHUNK = 4_000_000
"""Largest number of resampled values held at once (32 MB of float64)."""

EXACT_BELOW = 25
"""McNemar's test is exact below this number of disagreements; above it the chi-square is close enough."""


class Difference(NamedTuple):
    """Mean of a - b over the same images, with the ends of its interval."""

    mean: float
    low: float
    high: float

    @property
    def beyond_chance(self) -> bool:
        """True when the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def tie(self) -> bool:
        """True when the interval includes 0: these data do not tell the two apart."""
        return not self.beyond_chance


class SeedDifference(NamedTuple):
    """Mean of a - b over seeds, with the ends of its interval and the difference of every seed."""

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]

    @property
    def tie(self) -> bool:
        """True when the interval includes 0: these seeds do not tell the two apart."""
        return self.low <= 0 <= self.high


class McNemar(NamedTuple):
    """McNemar's test: `b` images only the first answered right, `c` only the second; `exact` is the binomial test."""

    b: int
    c: int
    p_value: float
    exact: bool


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
    _check_resampling(resamples, level)
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


def two_way_bootstrap(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Mean of a - b over seeds and images, with an interval that covers the choice of both.

    Seeds and images are drawn again independently of one another, because every seed is tested on the same images:
    an image that is hard is hard for all of them. What is peculiar to one image under one seed counts more than once,
    which makes the interval wide rather than narrow; few seeds stay few, so read `paired_seeds` beside it.

    Args:
        correct_a, correct_b: (S, n) numbers, one row per training seed and one column per test image, S >= 2.
        resamples, seed, level: as in `bootstrap_interval`.

    Raises:
        InputError: shapes that differ, fewer than two seeds, or as in `bootstrap_interval`.

    Source: Owen 2007, "The pigeonhole bootstrap", arXiv 0706.1384.
    """
    first, second = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2 or not first.shape[1]:
        raise InputError(f"expected two tables (seeds, images) of one shape with two seeds or more, got {first.shape} "
                         f"and {second.shape}; for one seed use paired_difference")  # fmt: skip
    _finite(np.concatenate([first.ravel(), second.ravel()]))
    _check_resampling(resamples, level)
    gaps, rng = first - second, np.random.default_rng(seed)
    seeds, images = gaps.shape
    step = max(1, CHUNK // images)
    means = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) @ gaps
        counts = rng.multinomial(images, np.full(images, 1 / images), size=size)
        means.append((drawn * counts).sum(axis=1) / gaps.size)
    low, high = np.quantile(np.concatenate(means), ((1 - level) / 2, (1 + level) / 2))
    return Difference(float(gaps.mean()), float(low), float(high))


def seed_interval(values: npt.ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean over seeds.

    With so few values a bootstrap is too narrow: five of them can be drawn again in only 126 different ways.

    Args:
        values: (S,) one number per seed, S >= 2.
        level: of the interval, in (0, 1).

    Raises:
        InputError: fewer than two seeds, a value that is not finite, or a level out of range.

    Source: Student 1908, "The probable error of a mean".
    """
    sample = _finite(values)
    if len(sample) < 2:
        raise InputError("one seed says nothing about the spread over seeds; train at least two")
    if not 0 < level < 1:
        raise InputError(f"expected 0 < level < 1, got {level}")
    half = float(stdtrit(len(sample) - 1, (1 + level) / 2)) * float(sample.std(ddof=1)) / sqrt(len(sample))
    return float(sample.mean()) - half, float(sample.mean()) + half


def paired_seeds(a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95) -> SeedDifference:
    """Mean of a - b over seeds with its paired t interval: what the two share in a seed cancels.

    Args:
        a, b: (S,) one number per seed in the same order, such as test accuracies; S >= 2.
        level: of the interval, in (0, 1).

    Raises:
        InputError: the two are not of one length, or as in `seed_interval`.

    Source: Student 1908, "The probable error of a mean".
    """
    first, second = _finite(a), _finite(b)
    if len(first) != len(second):
        raise InputError(f"paired seeds need one length, got {len(first)} and {len(second)}; are the seeds the same?")
    gaps = first - second
    return SeedDifference(float(gaps.mean()), *seed_interval(gaps, level=level), tuple(float(gap) for gap in gaps))


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> McNemar:
    """McNemar's test of two models on the same images: are the disagreements evenly shared?

    Exact binomial for fewer than `EXACT_BELOW` disagreements, else the chi-square with Edwards' continuity correction.

    Args:
        correct_a, correct_b: (n,) bool or 0 and 1 in the same image order.

    Raises:
        InputError: the two are not of one length, or hold something other than right and wrong.

    Source: McNemar 1947, Psychometrika 12(2), "Note on the sampling error of the difference between correlated
        proportions or percentages"; Edwards 1948 for the correction.
    """
    first, second = _finite(correct_a), _finite(correct_b)
    if len(first) != len(second):
        raise InputError(f"paired values need one length, got {len(first)} and {len(second)}; are the images the same?")
    if not np.isin([first, second], (0, 1)).all():
        raise InputError("expected right (1) or wrong (0) for every image; a score needs paired_difference")
    b, c = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    total = b + c
    if total < EXACT_BELOW:
        tail = sum(comb(total, few) for few in range(min(b, c) + 1)) / 2**total
        return McNemar(b, c, min(1.0, 2 * tail), exact=True)
    chi_square = max(0, abs(b - c) - 1) ** 2 / total
    return McNemar(b, c, erfc(sqrt(chi_square / 2)), exact=False)


def wilson_interval(hits: int, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate; unlike a bootstrap it has a width where every trial went the same way.

    Args:
        hits: trials that succeeded, 0 to `count`.
        count: trials, at least 1.
        level: of the interval, in (0, 1).

    Raises:
        InputError: numbers out of range.

    Source: Wilson 1927, JASA 22, "Probable inference, the law of succession, and statistical inference".
    """
    if count < 1 or not 0 <= hits <= count or not 0 < level < 1:
        raise InputError(f"expected 0 <= hits <= count, count >= 1 and 0 < level < 1; got {hits}, {count} and {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, spread = hits / count, 1 + z * z / count
    centre = (rate + z * z / (2 * count)) / spread
    half = z / spread * sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    # rounding must not push the ends past what is possible, nor off the rate itself at 0 and 1
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def largest_unseen_rate(count: int, *, level: float = 0.95) -> float:
    """Largest rate (0-1) at which none in `count` trials would still happen with probability 1 - level.

    Source: the exact binomial bound with no event, 1 - (1 - level) ** (1 / n); "rule of three" is its first term.
    """
    if count < 1:
        raise InputError(f"expected at least one trial, got {count}")
    return float(1 - (1 - level) ** (1 / count))


def _check_resampling(resamples: int, level: float) -> None:
    if not 0 < level < 1 or resamples < 1:
        raise InputError(f"expected 0 < level < 1 and resamples >= 1, got level={level} and resamples={resamples}")


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

"""Is a difference more than chance: tests and intervals for tables of images and seeds.

What could not be measured is NaN in a table and is left out, never counted as 0. Every function depends on its
arguments alone, the seed of its draws included.
"""

from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, wilcoxon

from explain.errors import InputError

CHUNK = 4_000_000
"""Largest number of drawn counts held at once (32 MB)."""

Floats = npt.NDArray[np.float64]


class SignedRank(NamedTuple):
    """Wilcoxon's signed-rank test: two-sided p, rank-biserial effect (-1 to 1), and the pairs it used."""

    p: float
    effect: float
    pairs: int


class Interval(NamedTuple):
    """A mean with the ends of its interval; NaN where too little was measured for them."""

    mean: float
    low: float
    high: float


def wilcoxon_signed_rank(a: npt.ArrayLike, b: npt.ArrayLike) -> SignedRank:
    """Wilcoxon's signed-rank test of paired numbers, with the rank-biserial correlation as its effect.

    Pairs without a difference are dropped, as Wilcoxon did, and so are pairs with a NaN; `pairs` counts what is left.
    The effect is (R+ - R-) / (R+ + R-) of the rank sums, above 0 where `a` tends to be larger. The p-value is exact for
    up to 50 pairs without ties and otherwise by the normal approximation, corrected for ties but not for continuity.
    Without any pair left, p and effect are NaN.

    Args:
        a, b: (n,) numbers in the same image order; NaN for what could not be measured.

    Raises:
        InputError: not of one length, or infinite.

    Source: Wilcoxon 1945, "Individual comparisons by ranking methods"; Kerby 2014, "The simple difference formula".
    """
    first, second = _numbers(a), _numbers(b)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(f"paired values need one length, got {first.shape} and {second.shape}; are the images the "
                         "same?")  # fmt: skip
    gaps = first - second
    gaps = gaps[np.isfinite(gaps) & (gaps != 0)]
    if not len(gaps):
        return SignedRank(float("nan"), float("nan"), 0)
    ranks = rankdata(np.abs(gaps))
    exact = len(gaps) <= 50 and len(np.unique(np.abs(gaps))) == len(gaps)
    p = wilcoxon(gaps, method="exact" if exact else "asymptotic").pvalue
    return SignedRank(min(1.0, float(p)), float((ranks * np.sign(gaps)).sum() / ranks.sum()), len(gaps))


def holm(p_values: npt.ArrayLike) -> Floats:
    """P-values corrected for how many there are, (m,), in the order given.

    The smallest is multiplied by m, the next by m - 1 and so on; none comes out below a smaller one, nor above 1.

    Args:
        p_values: (m,) in 0..1, m may be 0. A test that was not possible must be left out by the caller, since it
            decides how many comparisons there were.

    Raises:
        InputError: a NaN or a number that is no probability.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InputError("expected p-values (m,) between 0 and 1 and none of them NaN; leave out what was not tested")
    order = np.argsort(values, kind="stable")
    raised = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return corrected


def minimum_detectable_difference(sd: float, count: int, *, power: float = 0.8, level: float = 0.95) -> float:
    """Smallest true mean difference that a paired two-sided test of `count` images finds with probability `power`.

    Args:
        sd: standard deviation of the paired differences, at least 0.
        count: images, at least 1.
        power: in (0, 1).
        level: 1 - the error allowed when there is no difference, in (0, 1).

    Raises:
        InputError: a number out of range.

    Source: the normal approximation, (z of the level + z of the power) sd / sqrt(n); Cohen 1988, ch. 2.
    """
    if not (0 <= sd < float("inf") and count >= 1 and 0 < power < 1 and 0 < level < 1):
        raise InputError(f"expected sd >= 0, count >= 1 and 0 < power, level < 1; got {sd}, {count}, {power}, {level}")
    normal = NormalDist()
    return (normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)) * sd / sqrt(count)


def mean_interval(values: npt.ArrayLike, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """Mean of one number per image, with its percentile bootstrap interval.

    Args:
        values: (n,), or (1, n); NaN for what could not be measured, which is left out.
        resamples, seed, level: as in `hierarchical_bootstrap`.

    Raises:
        InputError: more than one row, or as in `hierarchical_bootstrap`.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if len(table) != 1:
        raise InputError(f"expected one number per image, got shape {table.shape}; several seeds need "
                         "hierarchical_bootstrap")  # fmt: skip
    return hierarchical_bootstrap(table, resamples=resamples, seed=seed, level=level)


def hierarchical_bootstrap(
    table: npt.ArrayLike, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean over seeds of their mean over images, with an interval that covers the choice of both.

    Every resample draws seeds, then images, both with replacement. The drawn images are the same for all seeds: each
    seed was tested on the same images, and an image that is hard for one is hard for all, so drawing them again for
    every seed would make S seeds pass for S times as many images. Each seed counts the same however many of its cells
    are missing. Few seeds stay few: with fewer than about five the interval is too narrow for the choice of seeds.

    Args:
        table: (S, n), a row per training seed and a column per image; NaN for a missing cell. S may be 1.
        resamples: draws.
        seed: of the draws.
        level: share of the resampled means inside the interval, in (0, 1).

    Returns:
        The mean is NaN without any number in the table, and so are the ends with only one.

    Raises:
        InputError: another shape, an infinite cell, or arguments out of range.

    Source: Davison and Hinkley 1997, "Bootstrap methods and their application", ch. 3.8; Owen 2007, arXiv 0706.1384,
        for tables whose rows share their columns.
    """
    cells = _numbers(table)
    if cells.ndim != 2 or not 0 < level < 1 or resamples < 1:
        raise InputError(f"expected a table (seeds, images), 0 < level < 1 and resamples >= 1; got shape {cells.shape},"
                         f" level={level} and resamples={resamples}")  # fmt: skip
    # a seed or an image without any number was not measured, so it is not there to be drawn
    cells = cells[:, np.isfinite(cells).any(axis=0)]
    cells = cells[np.isfinite(cells).any(axis=1)]
    if not cells.size:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(np.nanmean(cells, axis=1).mean())
    if cells.size < 2:
        return Interval(mean, float("nan"), float("nan"))
    means = _resampled_means(cells, resamples, np.random.default_rng(seed))
    # a draw that hit none of the cells that are there has no mean
    low, high = np.nanquantile(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(mean, float(low), float(high))


def _resampled_means(cells: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    seeds, images = cells.shape
    present = np.isfinite(cells)
    values, there = np.where(present, cells, 0.0).T, present.T.astype(np.float64)
    step = max(1, CHUNK // images)
    parts = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        lots, counts = _drawn(seeds, size, rng), _drawn(images, size, rng)
        sums, cover = counts @ values, counts @ there
        per_seed = sums / np.maximum(cover, 1)
        used = lots * (cover > 0)
        total = used.sum(axis=1)
        parts.append((used * per_seed).sum(axis=1) / np.where(total > 0, total, np.nan))
    return np.concatenate(parts)


def _drawn(count: int, size: int, rng: np.random.Generator) -> Floats:
    """How often each of `count` things is drawn when `count` are drawn with replacement, (size, count)."""
    # counting drawn indices takes a fraction of the time of drawing the counts from a multinomial
    places = rng.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
    return np.bincount(places.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def _numbers(values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if np.isinf(array).any():
        raise InputError(f"{np.count_nonzero(np.isinf(array))} of {array.size} values are infinite")
    return array

"""How alike two maps of one image are: of two models, two seeds, or one model before and after a change.

Pearson's correlation comes first: it tells maps of one task from maps of another best, where Spearman's also ranks the
background noise of a sparse map. Everything is measured on the patch grid, map by map. A map that is the same
everywhere is like no other and unlike no other, so its agreement is NaN.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import coo_array
from scipy.stats import rankdata

from explain.errors import ExplainError, InputError

Floats = npt.NDArray[np.float64]

SSIM_WINDOW = 5
"""Rows and columns (in patches) of SSIM's uniform window; on a smaller grid as many as the shorter side has."""

ROUNDING = 1e-12
"""Mass under which two maps of mass 1 are the same: what is left of scaling them."""


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Pearson's correlation over the patches of every pair of maps, (n,) in -1..1; a constant map gives NaN.

    Args:
        a, b: (n, h, w) real-valued maps of the same images in the same order.

    Raises:
        InputError: shapes that differ, or a value that is not finite.
    """
    first, second = (values.reshape(len(values), -1) for values in _maps(a, b))
    return _correlation(first, second)


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Spearman's rank correlation of every pair of maps, (n,) in -1..1; equal values share their mean rank.

    Args, Raises: as in `pearson`; a constant map gives NaN.

    Source: Spearman 1904, "The proof and measurement of association between two things".
    """
    first, second = (rankdata(values.reshape(len(values), -1), axis=1) for values in _maps(a, b))
    return _correlation(first, second)


def top_iou(a: npt.ArrayLike, b: npt.ArrayLike, *, share: float = 0.1) -> Floats:
    """Intersection over union of the k highest patches of both maps, (n,) in 0..1.

    Two independent maps get about k / (2 n - k): .053 for a tenth. Where the k-th and the next patch are equal there is
    no such set, so the result is NaN: a map of few positive patches has no top tenth.

    Args:
        a, b: (n, h, w) maps.
        share: of the patches that are kept, in (0, 1); k is that share rounded, at least 1.

    Raises:
        InputError: as in `pearson`, or a share out of range.
    """
    first, second = (values.reshape(len(values), -1) for values in _maps(a, b))
    if not 0 < share < 1:
        raise InputError(f"expected a share of the patches between 0 and 1, got {share}")
    tops = [_top(values, max(1, round(share * first.shape[1]))) for values in (first, second)]
    both, either = (tops[0][0] & tops[1][0]).sum(axis=1), (tops[0][0] | tops[1][0]).sum(axis=1)
    return np.where(tops[0][1] | tops[1][1], np.nan, both / np.maximum(either, 1))


def ssim(a: npt.ArrayLike, b: npt.ArrayLike, *, window: int = SSIM_WINDOW) -> Floats:
    """Structural similarity of every pair of maps, (n,) in -1..1.

    Every map is first stretched to 0..1, as raw maps share no scale. The window is uniform, `window` patches to a side,
    and taken only where it lies wholly inside the grid; variances are those of the window itself (divided by its size);
    the constants are the usual (0.01)^2 and (0.03)^2.

    Args, Raises: as in `pearson`; a constant map gives NaN; `window` of at least 1.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13.
    """
    first, second = (_stretched(values) for values in _maps(a, b))
    side = min(window, *first.shape[1:])
    if side < 1:
        raise InputError(f"expected a window of at least one patch, got {window}")

    def mean(values: Floats) -> Floats:
        windows = np.lib.stride_tricks.sliding_window_view(values, (side, side), axis=(1, 2))
        return np.asarray(windows.mean(axis=(3, 4)))

    mean_a, mean_b, c1, c2 = mean(first), mean(second), 0.01**2, 0.03**2
    spread = mean(first**2) - mean_a**2 + mean(second**2) - mean_b**2
    shared = mean(first * second) - mean_a * mean_b
    local = (2 * mean_a * mean_b + c1) * (2 * shared + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))
    return np.asarray(local.mean(axis=(1, 2)))


def emd(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Earth mover's distance of the positive parts of every pair of maps, (n,) in patches; exact.

    Each positive part is scaled to a mass of 1; the cost of moving mass is the Euclidean distance between patch
    centres. A blank map (nothing positive) has no mass to move, so the result is NaN.

    Args, Raises: as in `pearson`.

    Source: Rubner et al. 2000, "The earth mover's distance as a metric for image retrieval".
    """
    first, second = (np.maximum(values, 0).reshape(len(values), -1) for values in _maps(a, b))
    rows, columns = np.divmod(np.arange(first.shape[1]), np.shape(a)[2])
    distances = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    found = [_transport(one, other, distances) for one, other in zip(first, second, strict=True)]
    return np.asarray(found, dtype=np.float64)


def _maps(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 3 or not first.size:
        raise InputError(f"expected two sets of maps (n, h, w) of one shape, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("expected finite maps; a map holds NaN or infinity")
    return first, second


def _correlation(a: Floats, b: Floats) -> Floats:
    (a, flat_a), (b, flat_b) = (_directions(values) for values in (a, b))
    return np.where(flat_a | flat_b, np.nan, np.clip((a * b).sum(axis=1), -1, 1))


def _directions(values: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Rows less their mean at length 1, and which rows are constant."""
    # asked of the values themselves: the mean of equal numbers may be off by a rounding
    flat = values.max(axis=1) == values.min(axis=1)
    centred = values - values.mean(axis=1, keepdims=True)
    # to a largest value of 1 first, so that squares of tiny numbers do not vanish
    scaled = centred / np.where(flat, 1, np.abs(centred).max(axis=1))[:, None]
    return scaled / np.where(flat, 1, np.sqrt((scaled**2).sum(axis=1)))[:, None], flat


def _top(values: Floats, count: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which patches are among the `count` highest of their row, and in which rows that is undecided."""
    ordered = np.sort(values, axis=1)[:, ::-1]
    least = ordered[:, count - 1]
    tied = ordered[:, count] == least if count < values.shape[1] else np.zeros(len(values), dtype=bool)
    return values >= least[:, None], tied


def _stretched(values: Floats) -> Floats:
    lowest, highest = values.min(axis=(1, 2), keepdims=True), values.max(axis=(1, 2), keepdims=True)
    return np.asarray((values - lowest) / np.where(highest > lowest, highest - lowest, np.nan))


def _transport(a: Floats, b: Floats, distances: Floats) -> float:
    if not (a.any() and b.any()):
        return float("nan")
    a, b = (values / values.max() for values in (a, b))
    gap = a / a.sum() - b / b.sum()
    # what both hold in one patch stays there: with a metric cost moving it never pays
    sources, sinks = np.flatnonzero(gap > 0), np.flatnonzero(gap < 0)
    moved = float(gap[sources].sum())
    if moved < ROUNDING:
        return 0.0
    # the solver's tolerance is absolute, so it is asked for a mass of 1 however little moves
    supply, demand = gap[sources] / moved, gap[sinks] / gap[sinks].sum()
    return moved * _cheapest(distances[np.ix_(sources, sinks)], supply, demand)


def _cheapest(cost: Floats, supply: Floats, demand: Floats) -> float:
    lines, places = cost.shape
    cells = np.arange(lines * places)
    line, place = np.divmod(cells, places)
    rules = coo_array(
        (np.ones(2 * len(cells)), (np.concatenate([line, lines + place]), np.concatenate([cells, cells]))),
        shape=(lines + places, len(cells)),
    ).tocsr()
    # one of the equations follows from the others; left in, rounding could make them contradict each other
    solved: Any = linprog(cost.ravel(), A_eq=rules[:-1], b_eq=np.concatenate([supply, demand])[:-1], method="highs")
    if not solved.success:
        raise ExplainError(f"no earth mover's distance found: {solved.message}")
    return float(solved.fun)

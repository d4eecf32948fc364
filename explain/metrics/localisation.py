"""How much of a map lies in the region that decides the label.

A plausibility test, and the weakest kind of evidence: a model may rightly look elsewhere, and a map of edges, which
knows nothing of any model, often does well. So the same numbers of a random, a centre and an edge map belong beside it.

Regions come as `shares` (n, h, w), the share of each patch that lies inside (`mask_on_grid`); a patch counts as inside
when half of it is, or, for a region that fills no patch by half, when no other patch holds more of it. Where no patch
or every patch is inside, every map is equally right and the result is NaN. `relevance_mass` and `grid_game` weigh the
positive part of a map; all others use nothing but the order of its values, whatever their sign.
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from explain.errors import InputError
from explain.metrics.patch_grid import patch_means

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

INSIDE = 0.5
"""Share of a patch from which on it counts as inside."""


def mask_on_grid(masks: npt.ArrayLike, grid: tuple[int, int]) -> Floats:
    """Share of every patch that lies inside the mask, (n, h, w) in 0..1.

    Args:
        masks: bool (n, H, W) in pixels.
        grid: rows and columns (h, w) of patches, at most as many as pixels.

    Raises:
        InputError: another shape or type, or a grid finer than the mask.
    """
    pixels = np.asarray(masks)
    if pixels.ndim != 3 or not pixels.size or pixels.dtype != np.bool_:
        raise InputError(f"expected bool masks (n, H, W), got {pixels.dtype} of shape {pixels.shape}")
    # rounding must not keep a patch of exactly one half, or one as full as the fullest, outside
    return np.asarray(np.round(np.clip(patch_means(pixels.astype(np.float64), grid), 0, 1), 6))


def patches_inside(shares: npt.ArrayLike) -> Bools:
    """Which patches count as inside, bool (n, h, w): see the head of this file.

    Args:
        shares: (n, h, w) in 0..1, or bool.
    """
    values = np.asarray(shares, dtype=np.float64)
    if values.ndim != 3 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"expected shares (n, h, w) between 0 and 1, got shape {values.shape}")
    largest = values.max(axis=(1, 2), keepdims=True)
    return np.asarray((values >= np.minimum(largest, INSIDE)) & (values > 0))


def relevance_mass(maps: npt.ArrayLike, shares: npt.ArrayLike) -> Floats:
    """Share of the positive relevance that lies inside, (n,) in 0..1; a map without any gives NaN.

    Chance is the share of patches that are inside; a uniform map gets exactly that.

    Args:
        maps: (n, h, w) raw maps.
        shares: (n, h, w) of every patch inside; see `mask_on_grid`.

    Raises:
        InputError: shapes that differ, or a value that is not finite.

    Source: Arras et al. 2022, arXiv 2003.07258 (relevance mass accuracy); Wang et al. 2020, arXiv 1910.01279 (the
        energy-based pointing game).
    """
    values, inside = _checked(maps, shares)
    return _where_meaningful(_mass(np.maximum(values, 0), inside), inside)


def relevance_rank(maps: npt.ArrayLike, shares: npt.ArrayLike) -> Floats:
    """Share of the K highest patches that lie inside, K being how many are inside, (n,) in 0..1.

    Where patches tie for the last places it is the mean over all ways to choose among them, so a flat map gets the
    share of patches that are inside, which is chance.

    Args, Raises: as in `relevance_mass`.

    Source: Arras et al. 2022, arXiv 2003.07258 (relevance rank accuracy).
    """
    values, inside = _checked(maps, shares)
    return _where_meaningful(_rank(values, inside), inside)


def equal_area_iou(maps: npt.ArrayLike, shares: npt.ArrayLike) -> Floats:
    """Intersection over union of the region and as many of the highest patches, (n,) in 0..1.

    The intersection is K times `relevance_rank` r, with its mean over ties, so this is r / (2 - r): the same order of
    maps on the scale of segmentation.

    Args, Raises: as in `relevance_mass`.
    """
    values, inside = _checked(maps, shares)
    rank = _rank(values, inside)
    return _where_meaningful(rank / (2 - rank), inside)


def pixel_auroc(maps: npt.ArrayLike, shares: npt.ArrayLike) -> Floats:
    """Probability that a patch inside is above one outside, a tie counting half, (n,) in 0..1; chance and flat map .5.

    It needs no threshold and does not change under any increasing transform of the map.

    Args, Raises: as in `relevance_mass`.

    Source: Mann and Whitney 1947; the area under the ROC curve by midranks.
    """
    values, inside = _checked(maps, shares)
    ranks, count = rankdata(values, axis=1), inside.sum(axis=1)
    wins = (ranks * inside).sum(axis=1) - count * (count + 1) / 2
    return _where_meaningful(wins / np.maximum(count * (inside.shape[1] - count), 1), inside)


def pointing_game(maps: npt.ArrayLike, shares: npt.ArrayLike) -> Floats:
    """Whether the highest patch lies inside, (n,): 1 or 0, or of several equally high ones the share inside.

    A flat map gets the share of patches that are inside, which is chance.

    Args, Raises: as in `relevance_mass`.

    Source: Zhang et al. 2016, arXiv 1608.00507.
    """
    values, inside = _checked(maps, shares)
    highest = values == values.max(axis=1, keepdims=True)
    return _where_meaningful((highest & inside).sum(axis=1) / highest.sum(axis=1), inside)


def grid_game(maps: npt.ArrayLike, cells: npt.ArrayLike) -> Floats:
    """Share of the positive relevance in one cell of a 2x2 mosaic, (n,) in 0..1; chance .25, without any NaN.

    The patches of the middle row or column of an odd grid count half to either side, so that a map's shares of the
    four cells sum to 1.

    Args:
        maps: (n, h, w) maps of the mosaics.
        cells: (n,) which cell: 0 top left, 1 top right, 2 bottom left, 3 bottom right.

    Raises:
        InputError: shapes that do not match, a cell that is none of the four, or a value that is not finite.

    Source: Boehle et al. 2021, arXiv 2104.00032; Rao et al. 2022, arXiv 2205.10435.
    """
    values, wanted = np.asarray(maps, dtype=np.float64), np.asarray(cells)
    if values.ndim != 3 or not values.size or wanted.shape != values.shape[:1] or not np.isfinite(values).all():
        raise InputError(f"expected finite maps (n, h, w) and a cell of each, got {values.shape} and {wanted.shape}")
    if not np.isin(wanted, range(4)).all():
        raise InputError(f"expected cells 0 to 3 of a 2x2 mosaic, got {sorted(set(wanted.tolist()))}")
    before = [np.clip(side / 2 - np.arange(side), 0, 1) for side in values.shape[1:]]
    rows, columns = ([share, 1 - share] for share in before)
    weights = np.stack([np.outer(row, column).ravel() for row in rows for column in columns])
    return _mass(np.maximum(values, 0).reshape(len(values), -1), weights[wanted.astype(np.intp)])


def _checked(maps: npt.ArrayLike, shares: npt.ArrayLike) -> tuple[Floats, Bools]:
    """Maps and what is inside, both (n, h * w)."""
    values, inside = np.asarray(maps, dtype=np.float64), patches_inside(shares)
    if values.shape != inside.shape:
        raise InputError(f"expected maps and shares (n, h, w) of one shape, got {values.shape} and {inside.shape}")
    if not np.isfinite(values).all():
        raise InputError("expected finite maps; a map holds NaN or infinity")
    return values.reshape(len(values), -1), inside.reshape(len(values), -1)


def _where_meaningful(found: Floats, inside: Bools) -> Floats:
    return np.where(inside.any(axis=1) & ~inside.all(axis=1), found, np.nan)


def _mass(positive: Floats, weights: Floats | Bools) -> Floats:
    # to a largest value of 1 first, so that a sum of huge numbers stays finite
    highest = positive.max(axis=1, keepdims=True)
    scaled = positive / np.where(highest > 0, highest, np.nan)
    return np.asarray((scaled * weights).sum(axis=1) / scaled.sum(axis=1))


def _rank(values: Floats, inside: Bools) -> Floats:
    """Share of the K highest that are inside, the mean over ties."""
    count = np.maximum(inside.sum(axis=1), 1)
    least = np.take_along_axis(np.sort(values, axis=1)[:, ::-1], count[:, None] - 1, axis=1)
    above, tied = values > least, values == least
    places = (count - above.sum(axis=1)) / tied.sum(axis=1)
    return np.asarray(((above & inside).sum(axis=1) + places * (tied & inside).sum(axis=1)) / count)

"""Faithfulness: does the score react where a map says it would?

Patches are removed from a picture, or put back, in the order a map gives them; or the picture is moved a little
towards a baseline and the map must foretell by how much the score changes. Every function takes numbers, of maps and
of scores; the pictures in between are the business of `explain.evidence`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from explain.errors import InputError

Floats = npt.NDArray[np.float64]

ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Relative spread of a map's values that averaging a constant in float32 may leave."""

NEIGHBOURS = tuple((y, x, 1 / 6 if 0 in (y, x) else 1 / 12) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
"""Offset and weight of the pixels that a removed pixel is the mean of; the weights sum to 1."""


# ----------------------------------------------------------------------------------------------------------------------
# orders and curves


def is_flat(maps: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """True for maps that rank nothing: all values of a map (..., h, w) are equal, but for rounding -> (...)."""
    values = np.asarray(maps)
    flat = values.reshape(*values.shape[:-2], -1)
    return np.asarray(np.ptp(flat, axis=-1) <= ROUNDING * np.abs(flat).max(axis=-1))


def patch_order(maps: npt.ArrayLike, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Patches of each map, the most relevant first; equal ones in random order, so a flat map is a random order.

    Args:
        maps: (..., h, w) real numbers; large means relevant.
        rng: breaks exact ties; an order by index would favour the top left corner.

    Returns:
        (..., h * w) indices of patches, row by row over the grid.
    """
    values = np.asarray(maps, dtype=np.float64)
    flat = values.reshape(*values.shape[:-2], -1)
    return np.lexsort((rng.random(flat.shape), -flat), axis=-1)


def removal_counts(patches: int, steps: int) -> npt.NDArray[np.intp]:
    """How many patches are gone at each of `steps` + 1 points, from none to all, as evenly as whole patches allow.

    Raises:
        InputError: fewer than one step, or more steps than patches.
    """
    if not 1 <= steps <= patches:
        raise InputError(f"expected 1 to {patches} steps for {patches} patches, got {steps}")
    return (2 * patches * np.arange(steps + 1) + steps) // (2 * steps)


def curve_area(curves: npt.ArrayLike) -> Floats:
    """Area under curves (..., n + 1) of a score at evenly spaced points of [0, 1], both ends included -> (...).

    Source: Petsiuk et al. 2018, "RISE", arXiv 1806.07421, section 4.3; the trapezoidal rule.
    """
    scores = np.asarray(curves, dtype=np.float64)
    return np.asarray((scores.sum(axis=-1) - (scores[..., 0] + scores[..., -1]) / 2) / (scores.shape[-1] - 1))


def gain(
    insertion: npt.ArrayLike, deletion: npt.ArrayLike, random_insertion: npt.ArrayLike, random_deletion: npt.ArrayLike
) -> Floats:
    """What an order gains over a random one, insertion and deletion together; 0 on average for a random order.

    Areas alone depend on how sure of itself a model is; of this difference the ends of the curves have dropped out.

    Args:
        insertion, deletion: areas of the map's order, large and small when it is right.
        random_insertion, random_deletion: areas of a random order on the same images.
    """
    ours = np.asarray(insertion, dtype=np.float64) - np.asarray(deletion)
    return np.asarray(ours - (np.asarray(random_insertion, dtype=np.float64) - np.asarray(random_deletion)))


# ----------------------------------------------------------------------------------------------------------------------
# ROAD


def linear_imputation(image: npt.ArrayLike, removed: npt.ArrayLike, noise: npt.ArrayLike | None = None) -> Floats:
    """The image with removed pixels that give nothing away: each is the weighted mean of its neighbours, plus noise.

    All removed pixels are solved for together; outside the image there is no neighbour, and the others count for more.
    The matrix is symmetric and the same for all channels, so it is factorised once, in an order made for such matrices.

    Args:
        image: (C, H, W).
        removed: bool (H, W); one pixel at least is left.
        noise: (C, H, W), added where pixels were removed; None for none. The source draws it from N(0, 0.01).

    Raises:
        InputError: nothing is left to fill in from.

    Source: Rong et al. 2022, "ROAD", arXiv 2202.00449, section 4.2.
    """
    filled, gone = np.array(image, dtype=np.float64), np.asarray(removed, dtype=bool)
    if gone.all():
        raise InputError("every pixel is removed, so there is nothing to fill in from; leave at least one")
    if not gone.any():
        return filled
    matrix, known = _mean_of_neighbours(filled, gone)
    # the matrix is diagonally dominant: pivoting would only spoil the order
    solver = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    filled[:, gone] = solver.solve(known.T).T
    if noise is not None:
        filled[:, gone] += np.asarray(noise)[:, gone]
    return filled


def _mean_of_neighbours(image: Floats, gone: npt.NDArray[np.bool_]) -> tuple[Any, Floats]:
    """Matrix (r, r) of the r removed pixels, and what the known ones bring in, (C, r)."""
    height, width = gone.shape
    number = np.full((height + 2, width + 2), -1)  # of an unknown; -1 for a known pixel, -2 outside
    number[1:-1, 1:-1][gone] = np.arange(gone.sum())
    number[[0, -1]] = number[:, [0, -1]] = -2
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    rows, columns = np.nonzero(gone)
    weights, known = np.zeros(len(rows)), np.zeros((len(image), len(rows)))
    entries = []
    for down, across, weight in NEIGHBOURS:
        at = rows + 1 + down, columns + 1 + across
        other = number[at]
        weights += weight * (other > -2)
        known += weight * np.where(other == -1, padded[:, at[0], at[1]], 0)
        unknown = np.flatnonzero(other >= 0)
        entries.append((np.full(len(unknown), -weight), unknown, other[unknown]))
    entries.append((weights, np.arange(len(rows)), np.arange(len(rows))))
    values, row, column = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    return csc_matrix((values, (row, column)), shape=(len(rows), len(rows))), known


def road_combined(most_first: npt.ArrayLike, least_first: npt.ArrayLike) -> Floats:
    """Half of how much less it costs to lose the least relevant patches than the most relevant ones.

    Args:
        most_first, least_first: (..., p) scores with p different shares removed, the most or least relevant first.

    Returns:
        (...), -1 to 1 for probabilities; 0 on average for a random order.

    Source: Rong et al. 2022, arXiv 2202.00449; the difference of both orders as in pytorch-grad-cam.
    """
    gap = np.asarray(least_first, dtype=np.float64) - np.asarray(most_first)
    return np.asarray(gap.mean(axis=-1) / 2)


# ----------------------------------------------------------------------------------------------------------------------
# small changes of the picture


def scaled_infidelity(foretold: npt.ArrayLike, changes: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Share of the score's changes that a map does not foretell, at the best scale for the map.

    Args:
        foretold: (..., draws) sums of perturbation times relevance.
        changes: (..., draws) F(x) - F(x - perturbation).

    Returns:
        E[(beta · foretold - change)^2] / E[change^2], 0 to 1 (1: useless), and beta = E[foretold · change] /
        E[foretold^2], each (...). A map and its negative have the same infidelity: the sign of beta tells. NaN where
        nothing was foretold or nothing changed.

    Source: Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations", arXiv 1901.09392, section 2.
    """
    said, done = np.asarray(foretold, dtype=np.float64), np.asarray(changes, dtype=np.float64)
    said2, done2 = _or_nan((said**2).mean(axis=-1)), _or_nan((done**2).mean(axis=-1))
    beta = (said * done).mean(axis=-1) / said2
    return np.asarray(((beta[..., None] * said - done) ** 2).mean(axis=-1) / done2), np.asarray(beta)


def max_sensitivity(maps: npt.ArrayLike, changed: npt.ArrayLike) -> Floats:
    """Largest relative change of a map over several small changes of the picture; NaN for a blank map.

    Args:
        maps: (..., h, w).
        changed: (draws, ..., h, w), of the changed pictures.

    Source: Yeh et al. 2019, arXiv 1901.09392, definition 2.3, over the norm of the map.
    """
    before, after = np.asarray(maps, dtype=np.float64), np.asarray(changed, dtype=np.float64)
    distance = np.sqrt(((after - before) ** 2).sum(axis=(-2, -1)))
    return np.asarray(distance.max(axis=0) / _or_nan(np.sqrt((before**2).sum(axis=(-2, -1)))))


def _or_nan(sizes: npt.ArrayLike) -> Floats:
    """Divisors, with NaN for 0: what is divided by nothing is not a number, and no warning either."""
    values = np.asarray(sizes, dtype=np.float64)
    return np.where(values == 0, np.nan, values)

"""Faithfulness: does the score react where a map says it would?

Patches are removed from a picture, or put back, in the order a map gives them; or the picture is moved a little
towards a baseline and the map must foretell by how much the score changes. Every function takes numbers, of maps and
of scores; the pictures in between are the business of `explain.evidence`.
"""

import numpy as np
import numpy.typing as npt

from explain.errors import InputError

Floats = npt.NDArray[np.float64]

ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Relative spread of a map's values that averaging a constant in float32 may leave."""


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

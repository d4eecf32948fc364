"""How concentrated a map is: over few patches or spread over all.

Neither is good by itself: a sharp map of the wrong patch is wrong, and evidence may be spread. So these describe a map
and never rank it. All of them ask of the absolute values, as a map against the class is as complex as one for it. A map
of zeros is neither sharp nor flat and gives NaN.
"""

import numpy as np
import numpy.typing as npt

from explain.errors import InputError

Floats = npt.NDArray[np.float64]


def gini(maps: npt.ArrayLike) -> Floats:
    """Gini index of the absolute values, (n,): 0 for a flat map, 1 - 1/(h w) for a single patch.

    Args:
        maps: (n, h, w) raw maps.

    Raises:
        InputError: another shape, or a value that is not finite.

    Source: Hurley and Rickard 2009, arXiv 0811.4706; for attributions Chalasani et al. 2020, arXiv 1810.06583.
    """
    shares = np.sort(_shares(maps), axis=1)
    count = shares.shape[1]
    return np.asarray((shares * (2 * np.arange(1, count + 1) - count - 1)).sum(axis=1) / count)


def entropy(maps: npt.ArrayLike) -> Floats:
    """Shannon entropy of the absolute values over its largest possible one, (n,): 1 for a flat map, 0 for one patch.

    Args, Raises: as in `gini`; a grid of one patch gives NaN.

    Source: Bhatt et al. 2020, arXiv 2005.00631 (complexity), here divided by the log of the number of patches.
    """
    shares = _shares(maps)
    most = np.log(shares.shape[1]) if shares.shape[1] > 1 else np.nan
    return _nats(shares) / most


def effective_area(maps: npt.ArrayLike) -> Floats:
    """Share of the grid that a flat map of the same entropy would cover, (n,): exp(entropy) / (h w), 1/(h w) to 1.

    Args, Raises: as in `gini`.

    Source: Hill 1973, "Diversity and evenness" (the effective number, order 1).
    """
    shares = _shares(maps)
    return np.asarray(np.exp(_nats(shares)) / shares.shape[1])


def _shares(maps: npt.ArrayLike) -> Floats:
    """Absolute values (n, h * w), each row summing to 1; NaN for a map of zeros."""
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim != 3 or not values.size or not np.isfinite(values).all():
        raise InputError(f"expected finite maps (n, h, w), got shape {values.shape}")
    sizes = np.abs(values).reshape(len(values), -1)
    # to a largest value of 1 first, so that neither huge nor tiny sums leave the range of numbers
    highest = sizes.max(axis=1, keepdims=True)
    scaled = sizes / np.where(highest > 0, highest, np.nan)
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def _nats(shares: Floats) -> Floats:
    # + 0.0: a single patch has entropy 0, not -0
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1) + 0.0)

"""Randomisation: does a map change when what the model learned is destroyed?"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from explain.errors import InputError
from explain.metrics.agreement import spearman

Array = npt.NDArray[np.float64]


class Similarity(NamedTuple):
    """Spearman correlation of two maps per image (n,): with their signs, and of what is left without them."""

    signed: Array
    absolute: Array


def map_similarity(maps: npt.ArrayLike, reference: npt.ArrayLike) -> Similarity:
    """How alike the maps of a model with random weights and of the model itself are, (n,) each.

    Both numbers are needed: the absolute maps of a method that multiplies by the input, such as Integrated Gradients,
    stay alike because the input does, while their signs are already gone.

    Args:
        maps: (n, h, w).
        reference: (n, h, w), of the same images.

    Returns:
        -1 to 1; NaN where either map is constant.

    Source: Adebayo et al. 2018, arXiv 1810.03292, §3.
    """
    one, other = np.asarray(maps, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    return Similarity(spearman(one, other), spearman(np.abs(one), np.abs(other)))


def label_randomisation(true_labels: npt.ArrayLike, random_labels: npt.ArrayLike) -> Similarity:
    """How alike the maps of a model trained on true labels and of one trained on random labels are, (n,) each.

    A map that explains what was learned must differ, so values near 0 speak for a method. The second model is trained
    with `label_noise` of (K - 1) / K for K classes: noise always gives a wrong label, so only this rate makes all K
    classes equally likely. A rate of 1 leaves something to learn, and with two classes everything.

    Args:
        true_labels: (n, h, w), maps for the images' true classes.
        random_labels: (n, h, w), the other model's maps for the same images and classes.

    Returns:
        -1 to 1; NaN where either map is constant.

    Source: Adebayo et al. 2018, arXiv 1810.03292, §3 (data randomisation test).
    """
    return map_similarity(random_labels, true_labels)


def map_entropy(maps: npt.ArrayLike, *, bins: int | None = None) -> Array:
    """Entropy of the values of each map, in nats, (n,): how evenly they fill a histogram from their least to greatest.

    Args:
        maps: (n, h, w).
        bins: of the histogram; None for the square root of the number of values, rounded up.

    Returns:
        0 to log(bins); NaN where a map is constant.

    Raises:
        InputError: no maps, or fewer than two bins.
    """
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim != 3 or not values.size:
        raise InputError(f"expected maps (n, h, w), got shape {values.shape}")
    values = values.reshape(len(values), -1)
    bins = max(2, int(np.ceil(np.sqrt(values.shape[1])))) if bins is None else bins
    if bins < 2:
        raise InputError(f"expected at least 2 bins, got {bins}")
    low, width = values.min(axis=1, keepdims=True), np.ptp(values, axis=1, keepdims=True)
    place = np.divide(values - low, width, out=np.zeros_like(values), where=width > 0)
    cells = np.minimum((place * bins).astype(np.int64), bins - 1) + bins * np.arange(len(values))[:, None]
    shares = np.bincount(cells.ravel(), minlength=bins * len(values)).reshape(len(values), bins) / values.shape[1]
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    return np.where(width[:, 0] > 0, entropy, np.nan)


def entropy_rise(random_maps: npt.ArrayLike, maps: npt.ArrayLike, *, bins: int | None = None) -> Array:
    """Efficient randomisation test, (n,): (H(random) - H(original)) / H(original) with H the `map_entropy`.

    Above 0 for a method whose maps lose their structure along with the model; no map is compared with another, so
    noise in a correlation plays no part.

    Args:
        random_maps: (n, h, w), of the model with random weights.
        maps: (n, h, w), of the model itself.
        bins: as in `map_entropy`.

    Returns:
        At least -1; NaN where either map is constant.

    Raises:
        InputError: maps of other shapes.

    Source: Hedström et al. 2024, arXiv 2401.06465 (eMPRT).
    """
    if np.shape(random_maps) != np.shape(maps):
        raise InputError(f"expected maps of one shape, got {np.shape(random_maps)} and {np.shape(maps)}")
    before = map_entropy(maps, bins=bins)
    return (map_entropy(random_maps, bins=bins) - before) / before

"""Representations: how alike two models' features are, and how far tuning moved weights and features.

Similarity of features says nothing about which of two models is better, and a single far-off image can make or break
it (Davari et al. 2023, arXiv 2210.16156): read it beside the same number between two seeds.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from explain.errors import InputError

FEWEST_FOR_CKA = 4
"""The debiased estimate divides by n - 3."""

ENOUGH_FOR_CKA = 100
"""Images from which a debiased CKA is steady enough to be read without a warning."""


def linear_cka_debiased(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Linear centred kernel alignment from the unbiased HSIC: 1 for equal up to rotation and scale, 0 for unrelated.

    The usual, biased estimate is far above 0 for unrelated features as soon as there are more dimensions than images;
    this one is 0 on average, so it can be a little below 0.

    Args:
        first: (n, d) features of n images.
        second: (n, e) features of the same images; e may differ from d.

    Returns:
        At most 1; NaN with fewer than 4 images, or when the features of all images are the same.

    Raises:
        InputError: shapes that do not fit, or values that are not finite.

    Source: Song et al. 2012, JMLR 13 (unbiased HSIC); Nguyen et al. 2021, arXiv 2010.15327.
    """
    x, y = _features(first), _features(second)
    if len(x) != len(y):
        raise InputError(f"expected features of the same images, got {len(x)} and {len(y)}")
    if len(x) < FEWEST_FOR_CKA:
        return float("nan")
    k, m = _centred_gram(x), _centred_gram(y)
    scale = np.sqrt((k * k).sum() * (m * m).sum())  # the factor 1 / n (n - 3) of each HSIC cancels
    return float((k * m).sum() / scale) if scale > 0 else float("nan")


def weight_drift(tuned: Sequence[npt.ArrayLike], pretrained: Sequence[npt.ArrayLike]) -> float:
    """How far tensors moved: L2 norm of the change of all of them together over the norm they had.

    Args:
        tuned: tensors after tuning.
        pretrained: the same tensors before, in the same order and shapes.

    Returns:
        At least 0; NaN when all pretrained values are 0.

    Raises:
        InputError: another number of tensors, or other shapes.
    """
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(tuned, pretrained, strict=False)]
    if len(tuned) != len(pretrained) or any(a.shape != b.shape for a, b in pairs):
        raise InputError(f"expected the same tensors twice, got {len(tuned)} and {len(pretrained)} of shapes "
                         f"{[(a.shape, b.shape) for a, b in pairs if a.shape != b.shape][:1]}")  # fmt: skip
    changed = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
    before = sum(float((b**2).sum()) for _, b in pairs)
    return float(np.sqrt(changed / before)) if before > 0 else float("nan")


def feature_drift(tuned: npt.ArrayLike, pretrained: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How far each image's features moved: L2 norm of the change over the norm they had, (n,).

    Args:
        tuned: (n, d) features after tuning.
        pretrained: (n, d) features of the same images before.

    Returns:
        (n,), at least 0; NaN where the pretrained features are all 0.
    """
    after, before = _same(tuned, pretrained)
    return _divide(np.linalg.norm(after - before, axis=1), np.linalg.norm(before, axis=1))


def feature_cosine(tuned: npt.ArrayLike, pretrained: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Cosine of each image's features after and before tuning, (n,): 1 where only their length changed.

    Args:
        tuned: (n, d) features after tuning.
        pretrained: (n, d) features of the same images before.

    Returns:
        (n,), -1 to 1; NaN where either is all 0.
    """
    after, before = _same(tuned, pretrained)
    return _divide((after * before).sum(1), np.linalg.norm(after, axis=1) * np.linalg.norm(before, axis=1))


def _centred_gram(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inner products of all pairs of images, centred without the diagonal, which is what makes HSIC unbiased."""
    count = len(features)
    features = features - features.mean(axis=0)  # changes nothing below but rounding
    if not features.any():
        return np.zeros((count, count))
    gram = features @ features.T
    np.fill_diagonal(gram, 0)
    sums = gram.sum(axis=1) / (count - 2)
    gram += -sums[:, None] - sums[None, :] + sums.sum() / (count - 1)
    np.fill_diagonal(gram, 0)
    return gram


def _features(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise InputError(f"expected features (n, d), one row per image; got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"features of {np.count_nonzero(~np.isfinite(array).all(axis=1))} images are not finite")
    return array


def _same(
    tuned: npt.ArrayLike, pretrained: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    after, before = _features(tuned), _features(pretrained)
    if after.shape != before.shape:
        raise InputError(f"expected features of one shape before and after, got {before.shape} and {after.shape}")
    return after, before


def _divide(values: npt.NDArray[np.float64], by: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.divide(values, by, out=np.full(len(values), np.nan), where=by > 0))

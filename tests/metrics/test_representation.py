"""Similarity of features and how far weights moved, on closed forms."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.metrics.representation import feature_cosine, feature_drift, linear_cka_debiased, weight_drift

Array = np.ndarray


def features(seed: int, count: int = 40, width: int = 300) -> Array:
    return np.random.default_rng(seed).standard_normal((count, width))


def biased_cka(x: Array, y: Array) -> float:
    """Kornblith et al. 2019, arXiv 1905.00414, in feature space."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def unbiased_hsic(x: Array, y: Array) -> float:
    """Song et al. 2012, written with the sums of the paper."""
    count, one = len(x), np.ones(len(x))
    k, m = x @ x.T * (1 - np.eye(count)), y @ y.T * (1 - np.eye(count))
    sums = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((count - 1) * (count - 2))
    return float((sums - 2 / (count - 2) * (one @ k @ m @ one)) / (count * (count - 3)))


def test_features_are_like_themselves_turned_scaled_and_moved() -> None:
    x = features(0, width=20)
    turned = x @ np.linalg.qr(features(1, 20, 20))[0]
    assert linear_cka_debiased(x, x) == pytest.approx(1, abs=1e-12)
    assert linear_cka_debiased(x, 3 * turned + 100) == pytest.approx(1, abs=1e-9)


def test_unrelated_features_are_near_zero_where_the_biased_estimate_is_near_one() -> None:
    pairs = [(features(seed), features(seed + 100)) for seed in range(20)]
    debiased = [linear_cka_debiased(x, y) for x, y in pairs]
    assert abs(np.mean(debiased)) < 0.03 and max(map(abs, debiased)) < 0.15
    assert min(biased_cka(x, y) for x, y in pairs) > 0.85


def test_it_is_the_ratio_of_unbiased_hsic() -> None:
    x = features(2, 9, 5)
    y = np.concatenate([x[:, :2], features(3, 9, 5)], axis=1)
    expected = unbiased_hsic(x, y) / np.sqrt(unbiased_hsic(x, x) * unbiased_hsic(y, y))
    assert linear_cka_debiased(x, y) == pytest.approx(expected, rel=1e-10)
    assert linear_cka_debiased(y, x) == pytest.approx(expected, rel=1e-10)


def test_similarity_that_is_not_defined_is_nan() -> None:
    assert np.isnan(linear_cka_debiased(features(0, 3), features(1, 3)))
    assert np.isfinite(linear_cka_debiased(features(0, 4), features(1, 4)))
    assert np.isnan(linear_cka_debiased(features(0, 9), np.ones((9, 4))))


def test_drift_of_weights_is_of_all_tensors_together() -> None:
    large, small = np.full((3, 4), 2.0), np.full(5, 0.1)
    assert weight_drift([large, small], [large, small]) == 0
    assert weight_drift([1.1 * large, 1.1 * small], [large, small]) == pytest.approx(0.1)
    assert weight_drift([large, 2 * small], [large, small]) == pytest.approx(np.sqrt(0.05 / (48 + 0.05)))
    assert np.isnan(weight_drift([small], [0 * small]))


def test_drift_and_cosine_of_features_are_of_each_image() -> None:
    before = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    after = np.array([[6.0, 8.0], [0.0, 1.0], [1.0, 1.0]])
    assert feature_drift(after, before) == pytest.approx([1, np.sqrt(2), np.nan], nan_ok=True)
    assert feature_cosine(after, before) == pytest.approx([1, 0, np.nan], nan_ok=True)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="got 4 and 5"):
        linear_cka_debiased(features(0, 4), features(0, 5))
    with pytest.raises(InputError, match="features of 1 images are not finite"):
        linear_cka_debiased(np.where(np.eye(5), np.nan, 1.0)[1:2].repeat(1, 0), features(0, 1))
    with pytest.raises(InputError, match="one row per image"):
        linear_cka_debiased(np.ones(4), np.ones(4))
    with pytest.raises(InputError, match="one shape before and after"):
        feature_drift(features(0, 4, 3), features(0, 4, 2))
    with pytest.raises(InputError, match="the same tensors twice"):
        weight_drift([np.ones(2)], [np.ones(3)])

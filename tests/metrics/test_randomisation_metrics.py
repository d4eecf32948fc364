"""Similarity and entropy of maps before and after a model is destroyed."""

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy
from scipy.stats import spearmanr

from explain.errors import InputError
from explain.metrics.randomisation import entropy_rise, label_randomisation, map_entropy, map_similarity

NOISE = np.random.default_rng(0).standard_normal((3, 5, 7))


def test_a_map_with_other_signs_is_the_opposite_and_alike_without_them() -> None:
    found = map_similarity(-NOISE, NOISE)
    assert found.signed == pytest.approx([-1, -1, -1]) and found.absolute == pytest.approx([1, 1, 1])
    assert map_similarity(NOISE**3, NOISE).signed == pytest.approx([1, 1, 1])


def test_unrelated_maps_are_near_zero_and_a_flat_one_is_nan() -> None:
    rng = np.random.default_rng(1)
    found = map_similarity(rng.standard_normal((50, 16, 16)), rng.standard_normal((50, 16, 16)))
    assert abs(found.signed.mean()) < 0.03 and abs(found.absolute.mean()) < 0.03
    assert np.isnan(map_similarity(np.ones((1, 3, 3)), NOISE[:1, :3, :3]).signed).all()
    signs = np.where(NOISE > 0, 1.0, -1.0)
    found = map_similarity(signs, NOISE)
    assert np.isfinite(found.signed).all() and np.isnan(found.absolute).all()


def test_label_randomisation_is_the_rank_correlation_of_each_image() -> None:
    other = NOISE + np.random.default_rng(2).standard_normal(NOISE.shape)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(NOISE, other, strict=True)]
    sizes = [spearmanr(abs(a).ravel(), abs(b).ravel()).statistic for a, b in zip(NOISE, other, strict=True)]
    found = label_randomisation(NOISE, other)
    assert found.signed == pytest.approx(expected) and found.absolute == pytest.approx(sizes)
    assert label_randomisation(NOISE, NOISE).signed == pytest.approx([1, 1, 1])


def test_entropy_is_that_of_a_histogram() -> None:
    expected = [scipy_entropy(np.histogram(values, bins=9)[0]) for values in NOISE]
    assert map_entropy(NOISE, bins=9) == pytest.approx(expected)
    assert map_entropy(NOISE) == pytest.approx(map_entropy(NOISE, bins=6))  # 35 values
    assert map_entropy(1e-9 * NOISE + 1) == pytest.approx(map_entropy(NOISE), abs=0.1)


def test_entropy_has_its_closed_forms() -> None:
    even = np.arange(16.0).reshape(1, 4, 4)
    point = np.zeros((1, 4, 4))
    point[0, 1, 2] = 5
    share = 1 / 16
    assert map_entropy(even)[0] == pytest.approx(np.log(4))
    assert map_entropy(point)[0] == pytest.approx(-share * np.log(share) - (1 - share) * np.log(1 - share))
    assert np.isnan(map_entropy(np.full((1, 4, 4), 0.3)))[0]


def test_entropy_rises_from_a_point_to_noise_and_not_from_a_map_to_itself() -> None:
    even = np.arange(16.0).reshape(1, 4, 4)
    point = (even == 6).astype(float)
    expected = (np.log(4) - map_entropy(point)[0]) / map_entropy(point)[0]
    assert entropy_rise(even, point)[0] == pytest.approx(expected) and expected > 0
    assert entropy_rise(NOISE, NOISE) == pytest.approx([0, 0, 0])
    assert np.isnan(entropy_rise(even, np.ones((1, 4, 4)))[0]) and np.isnan(entropy_rise(np.ones((1, 4, 4)), even)[0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="maps of one shape"):
        entropy_rise(NOISE, NOISE[:2])
    with pytest.raises(InputError, match="at least 2 bins"):
        map_entropy(NOISE, bins=1)
    with pytest.raises(InputError, match="expected maps"):
        map_entropy(NOISE[0])

"""Complexity against closed forms and the definition of Gini's index."""

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from explain.errors import InputError
from explain.metrics.complexity import effective_area, entropy, gini

SCORES = (gini, entropy, effective_area)


def test_a_flat_map_is_spread_over_everything() -> None:
    flat = np.full((1, 3, 4), -0.1)
    assert gini(flat) == pytest.approx([0], abs=1e-15)
    assert entropy(flat) == pytest.approx([1]) and effective_area(flat) == pytest.approx([1])


def test_a_single_patch_is_as_concentrated_as_the_grid_allows() -> None:
    point = np.zeros((1, 3, 4))
    point[0, 1, 2] = -7
    assert gini(point) == pytest.approx([1 - 1 / 12])
    assert entropy(point) == [0] and effective_area(point) == pytest.approx([1 / 12])


def test_k_equal_patches_cover_k_patches() -> None:
    few = np.zeros((1, 3, 4))
    few[0, 0, :3] = 5
    assert gini(few) == pytest.approx([1 - 3 / 12]) and effective_area(few) == pytest.approx([3 / 12])
    assert entropy(few) == pytest.approx([np.log(3) / np.log(12)])


def test_gini_is_the_mean_difference_of_two_patches_over_twice_the_mean_patch() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3, 4))
    for found, one in zip(gini(values), np.abs(values).reshape(4, -1), strict=True):
        assert found == pytest.approx(np.abs(one[:, None] - one).mean() / (2 * one.mean()))


def test_entropy_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).normal(size=(4, 3, 4))
    expected = scipy_entropy(np.abs(values).reshape(4, -1), axis=1, base=12)
    assert entropy(values) == pytest.approx(expected)


def test_scale_and_order_of_the_patches_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(1, 3, 4))
    for score in SCORES:
        assert score(rng.permuted(values, axis=2) * 1e-300) == pytest.approx(score(values))
        assert score(values * 1e300) == pytest.approx(score(values))


def test_a_map_of_zeros_is_undefined() -> None:
    for score in SCORES:
        assert np.isnan(score(np.zeros((2, 3, 4)))).all()
    assert np.isnan(entropy(np.ones((1, 1, 1))))


@pytest.mark.parametrize("maps", [np.ones((3, 4)), np.full((1, 3, 4), np.inf), np.ones((0, 3, 4))])
def test_what_is_no_map_is_refused(maps: np.ndarray) -> None:
    for score in SCORES:
        with pytest.raises(InputError, match="expected finite maps"):
            score(maps)

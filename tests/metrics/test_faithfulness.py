"""Faithfulness metrics against closed forms and the reference imputer."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.metrics.faithfulness import curve_area, gain, is_flat, patch_order, removal_counts


def test_the_most_relevant_patch_comes_first_and_signs_count() -> None:
    maps = np.array([[[0.5, -3.0, 2.0], [0.0, 1.0, -0.5]], [[6.0, 5.0, 4.0], [3.0, 2.0, 1.0]]])
    found = patch_order(maps, np.random.default_rng(0))
    assert found.tolist() == [[2, 4, 0, 3, 5, 1], [0, 1, 2, 3, 4, 5]]


def test_equal_patches_come_in_random_order_and_unequal_ones_never() -> None:
    rng, tied = np.random.default_rng(0), np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    orders = np.array([patch_order(tied, rng) for _ in range(2000)])
    assert (orders[:, 0] == 0).all() and (orders[:, 5] == 5).all()
    shares = np.stack([(orders[:, place, None] == np.arange(1, 5)).mean(0) for place in range(1, 5)])
    np.testing.assert_allclose(shares, 0.25, atol=0.04)  # four standard errors


def test_a_constant_is_flat_also_after_rounding_and_a_faint_map_is_not() -> None:
    constant = np.full((2, 3), 0.1, np.float32)
    rounded = constant * (1 + np.array([0, 1, -1, 0, 1, 0], np.float32).reshape(2, 3) * np.finfo(np.float32).eps)
    faint = constant.copy()
    faint[0, 0] *= 1.001
    assert is_flat(np.stack([constant, rounded, faint, 0 * faint])).tolist() == [True, True, False, True]


def test_removal_goes_from_none_to_all_in_steps_that_differ_by_one_patch_at_most() -> None:
    assert removal_counts(144, 8).tolist() == list(range(0, 145, 18))
    for patches, steps in ((12, 8), (12, 5), (7, 7), (9, 1)):
        counts = removal_counts(patches, steps)
        assert counts[0] == 0 and counts[-1] == patches and len(counts) == steps + 1
        assert np.ptp(np.diff(counts)) <= 1
    with pytest.raises(InputError, match="expected 1 to 6 steps for 6 patches, got 7"):
        removal_counts(6, 7)


def test_areas_of_lines_are_exact_and_do_not_grow_with_the_steps() -> None:
    for steps in (1, 8, 100):
        x = np.linspace(0, 1, steps + 1)
        np.testing.assert_allclose(curve_area([x, 1 - 0.5 * x, 0 * x + 0.3]), [0.5, 0.75, 0.3], rtol=1e-12)


def test_gain_counts_both_halves_in_the_direction_that_speaks_for_the_map() -> None:
    assert gain(0.8, 0.1, 0.5, 0.4) == pytest.approx(0.6)
    assert gain(0.5, 0.4, 0.5, 0.4) == 0 and gain(0.4, 0.5, 0.5, 0.4) < 0

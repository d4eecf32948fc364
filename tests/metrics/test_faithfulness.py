"""Faithfulness metrics against closed forms and the reference imputer."""

import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

from explain.errors import InputError
from explain.metrics.faithfulness import (
    curve_area,
    gain,
    is_flat,
    linear_imputation,
    max_sensitivity,
    patch_order,
    removal_counts,
    road_combined,
    scaled_infidelity,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the peers' imports
    from captum.metrics import infidelity as captum_infidelity
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer


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


def test_areas_are_those_of_the_trapezoidal_rule_and_do_not_grow_with_the_steps() -> None:
    for steps in (1, 8, 100):
        x = np.linspace(0, 1, steps + 1)
        np.testing.assert_allclose(curve_area([x, 1 - 0.5 * x, 0 * x + 0.3]), [0.5, 0.75, 0.3], rtol=1e-12)
    curves = np.random.default_rng(0).random((3, 9))
    np.testing.assert_allclose(curve_area(curves), trapezoid(curves, dx=1 / 8), rtol=1e-12)


def test_gain_counts_both_halves_in_the_direction_that_speaks_for_the_map() -> None:
    assert gain(0.8, 0.1, 0.5, 0.4) == pytest.approx(0.6)
    assert gain(0.5, 0.4, 0.5, 0.4) == 0 and gain(0.4, 0.5, 0.5, 0.4) < 0


@pytest.mark.parametrize("patches", [[0], [5], [0, 1, 3, 6, 11], [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]], ids=str)
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_filled_in_pixels_equal_those_of_grad_cam(patches: list[int], noise: float) -> None:
    image = np.random.default_rng(0).standard_normal((3, 24, 32)).astype(np.float32)
    gone = np.kron(np.isin(np.arange(12), patches).reshape(3, 4), np.ones((8, 8))).astype(bool)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of numpy, at the peer
            theirs = NoisyLinearImputer(noise=noise)(torch.from_numpy(image), torch.from_numpy(~gone).float()).numpy()
        torch.manual_seed(0)
        draws = np.zeros((3, 24, 32))
        draws[:, gone] = noise * torch.randn(3, int(gone.sum())).numpy()
    np.testing.assert_allclose(linear_imputation(image, gone, draws), theirs, atol=1e-5)


def test_a_constant_picture_is_filled_in_with_itself_and_what_is_kept_stays() -> None:
    gone = np.random.default_rng(0).random((9, 11)) < 0.8
    np.testing.assert_allclose(linear_imputation(np.full((3, 9, 11), 0.7), gone), 0.7, rtol=1e-12)
    image = np.random.default_rng(1).random((3, 9, 11))
    filled = linear_imputation(image, gone, np.ones_like(image))
    assert (filled[:, ~gone] == image[:, ~gone]).all() and (filled[:, gone] != image[:, gone]).all()
    assert (linear_imputation(image, np.zeros((9, 11), bool)) == image).all()
    with pytest.raises(InputError, match="leave at least one"):
        linear_imputation(image, np.ones((9, 11), bool))


def test_road_is_half_the_mean_gap_of_both_orders() -> None:
    assert road_combined([[0.2, 0.0], [0.5, 0.5]], [[0.8, 0.4], [0.5, 0.5]]).tolist() == [0.25, 0.0]


def test_infidelity_is_0_for_a_linear_score_1_for_a_useless_map_and_blind_to_scale() -> None:
    rng = np.random.default_rng(0)
    moves, slope, other = rng.standard_normal((50, 12)), rng.standard_normal(12), rng.standard_normal(12)
    changes = moves @ slope
    useless = np.linalg.qr(np.stack([changes, moves @ other], axis=1))[0][:, 1]  # foretells nothing of the changes
    for scale in (1.0, 7.0, -0.01):
        found, beta = scaled_infidelity(scale * np.stack([changes, useless, moves @ other]), changes)
        assert found[0] < 1e-12 and found[1] == pytest.approx(1) and 0.1 < found[2] < 1
        assert beta[0] == pytest.approx(1 / scale)


def test_infidelity_equals_captums_normalised_one() -> None:
    rng = np.random.default_rng(0)
    picture, relevance, moves = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((1, 6), (1, 6), (16, 6)))

    def score(inputs: torch.Tensor) -> torch.Tensor:
        return torch.tanh(inputs @ torch.arange(1.0, 7.0, dtype=torch.float64) / 6)

    theirs = captum_infidelity(
        score, lambda inputs: (moves, inputs - moves), picture, relevance, n_perturb_samples=16, normalize=True
    )
    changes = score(picture) - score(picture - moves)
    found, _ = scaled_infidelity((moves @ relevance[0]).numpy(), changes.numpy())
    assert found == pytest.approx(float(theirs) / float((changes**2).mean()), rel=1e-6)


def test_nothing_foretold_and_nothing_changed_have_no_infidelity() -> None:
    found, beta = scaled_infidelity([[0, 0], [1, -1]], [[1, 2], [0, 0]])
    assert np.isnan(found).all() and np.isnan(beta[0]) and beta[1] == 0


def test_sensitivity_is_the_largest_relative_distance_and_none_of_a_blank_map() -> None:
    maps = np.array([[[3.0, 4.0]], [[0.0, 0.0]], [[1.0, 0.0]]])
    changed = maps + np.array([[[[0.0, 1.0]]], [[[-2.0, 0.0]]]])
    np.testing.assert_allclose(max_sensitivity(maps, changed), [0.4, np.nan, 2.0])

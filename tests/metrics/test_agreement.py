"""Agreement of maps against scipy, loops written out, and closed forms."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import pearsonr, spearmanr, wasserstein_distance

from explain.errors import InputError
from explain.metrics.agreement import emd, pearson, spearman, ssim, top_iou

MEASURES = (pearson, spearman, top_iou, ssim, emd)


def pairs(count: int = 4, grid: tuple[int, int] = (5, 6), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(count, *grid))
    return a, a + rng.normal(size=(count, *grid))


def point(row: int, column: int, grid: tuple[int, int] = (5, 6)) -> np.ndarray:
    values = np.zeros((1, *grid))
    values[0, row, column] = 3
    return values


def test_correlations_agree_with_scipy_also_among_ties() -> None:
    a, b = pairs()
    for one, other in ((a, b), (a.round(), b.round())):
        flat = list(zip(one.reshape(4, -1), other.reshape(4, -1), strict=True))
        assert pearson(one, other) == pytest.approx([pearsonr(x, y).statistic for x, y in flat], abs=1e-12)
        assert spearman(one, other) == pytest.approx([spearmanr(x, y).statistic for x, y in flat], abs=1e-12)


def test_a_map_agrees_with_itself_and_its_negative_disagrees() -> None:
    a, _ = pairs()
    for correlation in (pearson, spearman):
        assert correlation(a, a) == pytest.approx([1] * 4) and correlation(a, -a) == pytest.approx([-1] * 4)
    assert top_iou(a, a).tolist() == [1] * 4 and ssim(a, a) == pytest.approx([1] * 4)
    assert emd(a, a).tolist() == [0] * 4


def test_neither_scale_nor_offset_nor_range_changes_a_correlation() -> None:
    a, b = pairs()
    for factor in (1e-300, 1e300):
        assert pearson(a * factor, 5 * b + 2) == pytest.approx(pearson(a, b))
    assert spearman(np.exp(a), b) == pytest.approx(spearman(a, b))


def test_a_constant_map_agrees_with_nothing() -> None:
    a, _ = pairs(1)
    flat = np.full_like(a, 0.1)  # whose mean is off by a rounding
    for measure in (pearson, spearman, top_iou, ssim):
        assert np.isnan(measure(a, flat)).all() and np.isnan(measure(flat, a)).all()
        assert np.isnan(measure(flat, flat)).all()


def test_one_bad_pair_leaves_the_others_of_the_batch() -> None:
    a, b = pairs(3)
    spoiled = b.copy()
    spoiled[1] = 0
    for measure in MEASURES:
        found, expected = measure(a, spoiled), measure(a, b)
        assert np.isnan(found[1]) and (found[[0, 2]] == expected[[0, 2]]).all()


def test_top_iou_of_ten_patches_by_hand() -> None:
    a = np.arange(30.0).reshape(1, 5, 6)
    assert top_iou(a, np.roll(a, 1), share=0.1) == [2 / 4]  # 29, 28, 27 and 28, 27, 26
    assert top_iou(a, -a, share=0.1) == [0]
    assert top_iou(a, np.roll(a, 1), share=0.001) == [0]  # the single highest patch


def test_top_iou_is_undefined_where_the_last_place_is_tied_and_only_there() -> None:
    a = np.arange(30.0).reshape(1, 5, 6)
    tied = a.copy()
    tied[0, 4, 2:4] = 27  # values 26 and 27 both become 27: third and fourth
    assert np.isnan(top_iou(a, tied)) and np.isnan(top_iou(tied, a))
    above = a.copy()
    above[0, 4, 4:] = 29  # the two highest are equal, and both are in
    assert top_iou(a, above) == [1]


def test_top_iou_of_independent_maps_is_its_chance() -> None:
    rng = np.random.default_rng(0)
    found = top_iou(rng.random((4000, 14, 14)), rng.random((4000, 14, 14)))
    assert found.mean() == pytest.approx(0.054, abs=0.003)


def test_ssim_agrees_with_a_loop_over_windows() -> None:
    a, b = pairs(2, (7, 6))
    for found, one, other in zip(ssim(a, b, window=3), a, b, strict=True):
        x, y = ((values - values.min()) / (values.max() - values.min()) for values in (one, other))
        local = []
        for row in range(5):
            for column in range(4):
                p, q = (values[row : row + 3, column : column + 3].ravel() for values in (x, y))
                shared = np.mean((p - p.mean()) * (q - q.mean()))
                local.append((2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
                             * (2 * shared + 9e-4) / (p.var() + q.var() + 9e-4))  # fmt: skip
        assert found == pytest.approx(np.mean(local))


def test_the_window_of_ssim_shrinks_to_a_small_grid() -> None:
    a, b = pairs(2, (3, 4))
    assert (ssim(a, b) == ssim(a, b, window=3)).all()
    assert (ssim(a, b) != ssim(a, b, window=2)).all()


def test_emd_of_two_points_is_their_distance() -> None:
    assert emd(point(0, 0), point(3, 4)) == pytest.approx([5])
    assert emd(point(0, 0), point(0, 0) + point(2, 0)) == pytest.approx([1])  # half of it moves by 2


def test_emd_on_a_line_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 1, 12))
    places = np.arange(12)
    expected = [wasserstein_distance(places, places, x[0], y[0]) for x, y in zip(a, b, strict=True)]
    assert emd(a, b) == pytest.approx(expected, abs=1e-9)
    assert emd(a.transpose(0, 2, 1), b.transpose(0, 2, 1)) == pytest.approx(expected, abs=1e-9)


def test_emd_of_equal_portions_is_the_cheapest_matching() -> None:
    rng = np.random.default_rng(1)
    places = [rng.permutation(30)[:9] for _ in range(2)]
    a, b = (np.isin(np.arange(30), chosen).astype(float).reshape(1, 5, 6) for chosen in places)
    (ra, ca), (rb, cb) = (np.divmod(np.sort(chosen), 6) for chosen in places)
    cost = np.hypot(ra[:, None] - rb, ca[:, None] - cb)
    assert emd(a, b) == pytest.approx([cost[linear_sum_assignment(cost)].mean()], abs=1e-9)


def test_emd_keeps_its_precision_when_hardly_anything_moves() -> None:
    a = np.ones((1, 5, 6))
    b = a + 1e-9 * (point(0, 0) - point(0, 4)) / 3
    assert emd(a, b) == pytest.approx([4e-9 / 30], rel=1e-3)
    assert emd(a, 7.3 * a).tolist() == [0]


def test_emd_takes_the_positive_part_and_needs_one() -> None:
    a, b = pairs(1)
    assert emd(a, b) == emd(np.maximum(a, 0), np.maximum(b, 0))
    assert np.isnan(emd(-np.abs(a), b)) and np.isnan(emd(a, np.zeros_like(a)))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=36, max_size=36))
def test_emd_is_a_metric(numbers: list[int]) -> None:
    a, b, c = (np.array(numbers[i::3], dtype=float).reshape(1, 3, 4) + 0.01 for i in range(3))
    assert emd(a, b) == pytest.approx(emd(b, a), abs=1e-8)
    assert emd(a, c)[0] <= emd(a, b)[0] + emd(b, c)[0] + 1e-8


def test_emd_of_sixteen_by_sixteen_patches_is_quick() -> None:
    a, b = np.random.default_rng(0).random((2, 1, 16, 16))
    start = time.process_time()
    emd(a, b)
    assert time.process_time() - start < 1


def test_wrong_maps_are_refused() -> None:
    a, b = pairs()
    for measure in MEASURES:
        for one, other in ((a, b[:2]), (a[0], b[0]), (a * np.nan, b), (a[:0], b[:0])):
            with pytest.raises(InputError, match="expected"):
                measure(one, other)
    for share in (0, 1, float("nan")):
        with pytest.raises(InputError, match="share"):
            top_iou(a, b, share=share)
    with pytest.raises(InputError, match="window"):
        ssim(a, b, window=0)

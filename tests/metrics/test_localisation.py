"""Localisation against closed forms, a count of all pairs, and what must not change it."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.errors import InputError
from explain.metrics.localisation import (
    equal_area_iou,
    grid_game,
    mask_on_grid,
    patches_inside,
    pixel_auroc,
    pointing_game,
    relevance_mass,
    relevance_rank,
)

Score = Callable[..., np.ndarray]
SCORES = [relevance_mass, relevance_rank, equal_area_iou, pixel_auroc, pointing_game]
GRID = (3, 4)


def block(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """(1, 3, 4), True in a rectangle."""
    inside = np.zeros((1, *GRID), dtype=bool)
    inside[:, top:bottom, left:right] = True
    return inside


def one_patch(row: int, column: int) -> np.ndarray:
    return block(row, row + 1, column, column + 1).astype(float)


def test_mask_shares_are_areas_in_a_grid_that_divides_the_image_or_not() -> None:
    mask = np.zeros((2, 24, 32), dtype=bool)
    mask[0, :8, 4:16] = True  # half of patch (0, 0), all of (0, 1)
    mask[1, :12] = True
    even = mask_on_grid(mask, GRID)
    assert even[0].tolist() == [[0.5, 1, 0, 0], [0] * 4, [0] * 4]
    odd = mask_on_grid(mask[1:], (5, 4))[0, :, 0]  # rows of 4.8 pixels, 12 of them inside
    assert odd == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-6)


def test_a_patch_is_inside_from_half_its_area_on() -> None:
    shares = np.array([[[0.49, 0.5, 1, 0]]])
    assert patches_inside(shares).tolist() == [[[False, True, True, False]]]
    exactly_half = np.zeros((1, 14, 28), dtype=bool)
    exactly_half[:, :7] = True
    assert patches_inside(mask_on_grid(exactly_half, (1, 2))).all()


def test_a_small_object_is_in_the_patches_that_hold_most_of_it() -> None:
    mask = np.zeros((1, 24, 32), dtype=bool)
    mask[0, 0, 0:2] = mask[0, 0, 8:10] = mask[0, 23, 31] = True
    assert patches_inside(mask_on_grid(mask, GRID)).tolist() == block(0, 1, 0, 2).tolist()
    assert not patches_inside(np.zeros((1, *GRID))).any()


def test_a_uniform_map_gets_chance_on_every_score() -> None:
    inside, share = block(0, 2, 1, 4), 6 / 12
    inside[0, 0, 1], share = False, 5 / 12
    flat = np.full((1, *GRID), 0.1)
    for score in (relevance_mass, relevance_rank, pointing_game):
        assert score(flat, inside) == pytest.approx([share])
    assert equal_area_iou(flat, inside) == pytest.approx([share / (2 - share)])
    assert pixel_auroc(flat, inside) == [0.5]


def test_the_region_itself_is_right_on_every_score_and_its_complement_wrong() -> None:
    inside = block(1, 3, 0, 2)
    for score in SCORES:
        assert score(inside * 1.0, inside) == [1.0]
        assert score(~inside * 1.0, inside) == [0.0]


def test_scores_by_hand_on_a_signed_map() -> None:
    values = np.array([[[4.0, 3, -9, 0], [1, 2, 0, 0], [0, 0, 0, -1]]])
    inside = block(0, 2, 0, 1) | block(2, 3, 3, 4)  # holds 4, 1 and -1
    assert relevance_mass(values, inside) == [5 / 10]
    assert relevance_rank(values, inside) == pytest.approx([1 / 3])  # 4, 3, 2 are the highest
    assert equal_area_iou(values, inside) == pytest.approx([1 / 5])
    assert pointing_game(values, inside) == [1.0]
    # 4 beats 9, 1 beats 7, -1 beats 1
    assert pixel_auroc(values, inside) == pytest.approx([17 / 27])


def test_places_that_patches_tie_for_are_shared() -> None:
    values = np.zeros((1, *GRID))
    values[0, 0, 0] = 1
    inside = block(0, 1, 0, 3)  # the highest and 2 of 11 that tie for 2 places
    assert relevance_rank(values, inside) == pytest.approx([(1 + 2 * 2 / 11) / 3])


def test_the_rank_of_a_tied_map_is_the_mean_over_random_tie_breaking() -> None:
    rng = np.random.default_rng(0)
    values, inside = rng.integers(0, 3, (1, *GRID)).astype(float), rng.random((1, *GRID)) < 0.4
    broken = np.repeat(values, 4000, axis=0) + rng.random((4000, *GRID)) / 10
    mean = relevance_rank(broken, np.repeat(inside, 4000, axis=0)).mean()
    assert relevance_rank(values, inside)[0] == pytest.approx(mean, abs=0.01)


def test_pointing_game_shares_a_tie_for_the_highest() -> None:
    values = one_patch(0, 0) + one_patch(2, 3) + one_patch(2, 2)
    assert pointing_game(values, block(0, 1, 0, 1)) == pytest.approx([1 / 3])


def test_nothing_inside_or_everything_inside_is_undefined() -> None:
    values = np.random.default_rng(0).random((2, *GRID))
    shares = np.stack([np.zeros(GRID), np.ones(GRID)])
    for score in SCORES:
        assert np.isnan(score(values, shares)).all()


def test_a_map_without_positive_relevance_has_no_mass_but_an_order() -> None:
    values, inside = -1 - np.arange(12.0).reshape(1, *GRID), block(0, 1, 0, 2)
    assert np.isnan(relevance_mass(values, inside)) and np.isnan(grid_game(values, [0]))
    assert pixel_auroc(values, inside) == relevance_rank(values, inside) == pointing_game(values, inside) == [1.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=12, max_size=12), st.integers(1, 2**12 - 2))
def test_auroc_counts_the_pairs_that_are_in_order(numbers: list[int], bits: int) -> None:
    values = np.array(numbers, dtype=float)
    inside = np.array([bits >> place & 1 for place in range(12)], dtype=bool)
    pairs = [(a > b) + 0.5 * (a == b) for a in values[inside] for b in values[~inside]]
    found = pixel_auroc(values.reshape(1, *GRID), inside.reshape(1, *GRID))
    assert found == pytest.approx([np.mean(pairs)], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=12, max_size=12), st.integers(1, 2**12 - 2))
def test_scores_by_order_do_not_see_an_increasing_transform(numbers: list[int], bits: int) -> None:
    values = np.array(numbers, dtype=float).reshape(1, *GRID)
    inside = np.array([bits >> place & 1 for place in range(12)], dtype=bool).reshape(1, *GRID)
    for score in (relevance_rank, equal_area_iou, pixel_auroc, pointing_game):
        assert score(values, inside) == pytest.approx(score(np.exp(values) - 100, inside), abs=1e-12)


def test_a_batch_is_its_images_one_by_one_and_no_scale_overflows() -> None:
    rng = np.random.default_rng(1)
    values, inside = rng.normal(size=(5, *GRID)), rng.random((5, *GRID)) < 0.5
    for score in SCORES:
        alone = np.concatenate([score(values[i : i + 1], inside[i : i + 1]) for i in range(5)])
        assert (score(values, inside) == alone).all()
        assert score(values * 1e307, inside) == pytest.approx(score(values * 1e-307, inside))


def test_grid_game_is_the_mass_of_the_cell_asked_for() -> None:
    corners = np.stack([np.pad([[1.0]], ((row, 3 - row), (column, 3 - column))) for row, column in
                        ((0, 0), (1, 3), (3, 0), (2, 2))])  # fmt: skip
    assert grid_game(corners, np.arange(4)).tolist() == [1, 1, 1, 1]
    assert grid_game(corners, np.arange(4)[::-1]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("grid", [(4, 6), (3, 4), (5, 5), (2, 1)])
def test_grid_game_gives_a_quarter_to_a_flat_map_and_cells_sum_to_one(grid: tuple[int, int]) -> None:
    flat, values = np.ones((4, *grid)), np.repeat(np.random.default_rng(0).random((1, *grid)), 4, axis=0)
    assert grid_game(flat, np.arange(4)) == pytest.approx([0.25] * 4)
    assert grid_game(values, np.arange(4)).sum() == pytest.approx(1)


def test_the_middle_row_of_an_odd_grid_counts_half_to_either_side() -> None:
    values = np.repeat(one_patch(1, 0), 4, axis=0)
    assert grid_game(values, np.arange(4)).tolist() == [0.5, 0, 0.5, 0]


@pytest.mark.parametrize("score", SCORES)
def test_wrong_maps_and_shares_are_refused(score: Score) -> None:
    maps = np.ones((2, *GRID))
    for values, shares in [(maps, maps[:1]), (maps * np.nan, maps), (maps, maps * 2), (maps[0], maps[0])]:
        with pytest.raises(InputError, match="expected"):
            score(values, shares)


def test_wrong_masks_and_cells_are_refused() -> None:
    masks = np.zeros((1, 8, 8), dtype=bool)
    for values, grid in [(masks * 1.0, (2, 2)), (masks[0], (2, 2)), (masks, (9, 2))]:
        with pytest.raises(InputError, match="expected"):
            mask_on_grid(values, grid)
    for cells in ([0], [0, 4], [0, -1], [0.5, 1]):
        with pytest.raises(InputError, match="expected"):
            grid_game(np.ones((2, *GRID)), cells)

"""What heads look at, on attention whose numbers are known."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.metrics.attention import attention_distance, attention_entropy, attention_mass

GRID, PATCHES = (3, 4), 12


def drawn(*shape: int) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    return values / values.sum(axis=-1, keepdims=True)


def test_uniform_attention_has_entropy_one_and_looks_as_far_as_two_patches_lie_apart() -> None:
    uniform = np.full((2, 3, PATCHES, PATCHES), 1 / PATCHES)
    places = [(8 * row, 6 * column) for row in range(3) for column in range(4)]
    apart = np.mean([np.hypot(a - c, b - d) for a, b in places for c, d in places])
    assert attention_distance(uniform, GRID, (8, 6)) == pytest.approx(np.full((2, 3), apart), abs=1e-12)
    assert attention_entropy(uniform) == pytest.approx(np.ones((2, 3)), abs=1e-12)


def test_attention_to_one_key_has_entropy_zero_and_the_distance_to_it() -> None:
    to_last = np.zeros((1, 1, PATCHES, PATCHES))
    to_last[..., -1] = 1
    expected = np.mean([np.hypot(2 - row, 3 - column) for row in range(3) for column in range(4)])
    assert attention_distance(to_last, GRID)[0, 0] == pytest.approx(expected)
    assert attention_distance(np.eye(PATCHES)[None, None], GRID)[0, 0] == 0
    assert attention_entropy(to_last)[0, 0] == 0


def test_the_distance_is_weighted_by_what_each_row_gives() -> None:
    first_row = np.zeros((1, 1, 2, 2))
    first_row[0, 0] = [[0.25, 0.75], [0.5, 0.5]]
    assert attention_distance(first_row, (1, 2), (1, 10))[0, 0] == pytest.approx((7.5 + 5) / 2)
    assert attention_distance(first_row, (2, 1), (1, 10))[0, 0] == pytest.approx((0.75 + 0.5) / 2)


def test_half_the_keys_evenly_give_the_entropy_of_half_the_keys() -> None:
    rows = np.array([0.5, 0.5, 0, 0]).reshape(1, 1, 1, 4)
    assert attention_entropy(rows)[0, 0] == pytest.approx(0.5)


def test_what_goes_to_other_tokens_changes_neither_distance_nor_entropy_of_the_patches() -> None:
    attention = drawn(2, 3, PATCHES, PATCHES)
    weaker = attention * np.random.default_rng(1).uniform(0.1, 0.9, size=(2, 3, PATCHES, 1))
    assert attention_distance(weaker, GRID) == pytest.approx(attention_distance(attention, GRID), rel=1e-12)
    assert attention_entropy(weaker) == pytest.approx(attention_entropy(attention), rel=1e-12)


def test_the_mass_of_keys_is_their_share_under_uniform_attention_and_one_over_all() -> None:
    prompts = np.arange(10) < 3
    assert attention_mass(np.full((1, 2, 4, 10), 0.1), prompts) == pytest.approx(np.full((1, 2), 0.3))
    attention = drawn(2, 2, 5, 10)
    both = attention_mass(attention, prompts) + attention_mass(attention, ~prompts)
    assert both == pytest.approx(np.ones((2, 2)))


def test_what_is_not_defined_is_nan() -> None:
    nothing = np.zeros((1, 1, PATCHES, PATCHES))
    assert np.isnan(attention_distance(nothing, GRID)).all() and np.isnan(attention_entropy(nothing)).all()
    assert np.isnan(attention_entropy(np.ones((1, 1, 2, 1)))).all()


def test_what_is_no_attention_is_refused() -> None:
    with pytest.raises(InputError, match="of 12 patches"):
        attention_distance(np.ones((1, 1, 4, 4)), GRID)
    with pytest.raises(InputError, match="at least 0"):
        attention_entropy(np.full((1, 1, 2, 2), np.nan))
    with pytest.raises(InputError, match="got shape"):
        attention_entropy(np.ones((2, 2)))
    with pytest.raises(InputError, match="one bool for each of 4 keys"):
        attention_mass(np.ones((1, 1, 2, 4)), np.ones(4))

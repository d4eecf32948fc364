"""TokenLayout: where prefix, prompts and patches sit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explain.errors import ExplainError, TokenLayoutError
from explain.tokens import TokenLayout

COUNTS = st.integers(0, 5)
LAYOUTS = st.builds(
    TokenLayout,
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    prefix=COUNTS,
    prompts=COUNTS,
    fresh_prompts=st.booleans(),
)


def numbered(count: int) -> torch.Tensor:
    """(2, count, 1): token i of image 0 is i, of image 1 it is 100 + i."""
    return torch.stack((torch.arange(count), 100 + torch.arange(count)))[..., None]


def test_a_sequence_reads_prefix_prompts_patches() -> None:
    layout = TokenLayout((2, 3), prefix=2, prompts=4)
    assert (layout.patches, layout.total) == (6, 12)
    tokens = numbered(12)[0, :, 0]
    assert tokens[layout.prompt_slice].tolist() == [2, 3, 4, 5]
    assert tokens[layout.patch_slice].tolist() == [6, 7, 8, 9, 10, 11]


def test_prompts_go_behind_the_prefix_and_patches_keep_their_order() -> None:
    layout = TokenLayout((1, 3), prefix=2, prompts=1)
    together = layout.insert_prompts(numbered(5), torch.full((2, 1, 1), -1))
    assert together[0, :, 0].tolist() == [0, 1, -1, 2, 3, 4]
    assert together[1, :, 0].tolist() == [100, 101, -1, 102, 103, 104]


@given(LAYOUTS)
def test_dropping_undoes_inserting(layout: TokenLayout) -> None:
    tokens = numbered(layout.prefix + layout.patches)
    together = layout.insert_prompts(tokens, torch.full((2, layout.prompts, 1), -1))
    assert together.shape[1] == layout.total and (together[:, layout.prompt_slice] == -1).all()
    assert torch.equal(layout.drop_prompts(together), tokens)
    assert torch.equal(layout.patch_tokens(together), layout.patch_tokens(tokens))


@given(LAYOUTS)
def test_the_grid_is_filled_row_by_row(layout: TokenLayout) -> None:
    grid = layout.to_grid(numbered(layout.total))
    assert grid.shape == (2, *layout.grid, 1)
    first = layout.prefix + layout.prompts
    for row in range(layout.grid[0]):
        for column in range(layout.grid[1]):
            assert grid[0, row, column, 0] == first + row * layout.grid[1] + column
    assert torch.equal(layout.to_grid(layout.patch_tokens(numbered(layout.total))), grid)


def test_a_layout_for_another_size_or_tuning_is_a_new_one() -> None:
    layout = TokenLayout((2, 2), prefix=1)
    prompted = layout.with_prompts(3, fresh=True)
    assert layout.prompts == 0 and prompted.total == 8 and prompted.fresh_prompts
    assert prompted.with_grid((3, 5)).total == 1 + 3 + 15


@given(LAYOUTS, st.integers(0, 3), st.integers(1, 3))
def test_blocks_outside_the_range_have_no_prompts(layout: TokenLayout, first: int, count: int) -> None:
    within = layout.with_prompts(layout.prompts, fresh=layout.fresh_prompts, blocks=range(first, first + count))
    for block in range(8):
        inside, here = within.at(block), first <= block < first + count
        assert inside.total == layout.prefix + layout.patches + layout.prompts * here
        assert (layout.at(block), inside.grid, inside.prefix) == (layout, layout.grid, layout.prefix)
        entering = block < first + count if layout.fresh_prompts else block == first
        assert within.enters(block) == (layout.prompts > 0 and here and entering)
        assert layout.enters(block) == (layout.prompts > 0 and (layout.fresh_prompts or block == 0))


def test_a_row_is_cut_where_prompts_enter_and_widened_where_they_leave() -> None:
    """Three blocks in which both tokens look at each other alone; one prompt in the second, which takes a half."""
    layout = TokenLayout((1, 1), prompts=1).with_prompts(1, fresh=False, blocks=range(1, 2))
    swap = torch.tensor([[[0.0, 1], [1, 0]]])
    half = torch.tensor([[[0.0, 0.5, 0.5], [0, 1, 0], [0, 0.5, 0.5]]])
    row, cut = layout.roll_back(torch.tensor([[1.0, 0]]), [swap, half, swap])
    # last: CLS 1, patch 1; second: CLS 1, prompt 1, patch 2; first: each gets the other's besides its own
    assert row.tolist() == [[3, 3]] and cut.tolist() == [[[1]]]
    for wrong in ([swap, swap, swap], [half, half, swap]):
        with pytest.raises(TokenLayoutError):
            layout.roll_back(torch.tensor([[1.0, 0]]), wrong)


def test_a_wrong_number_of_tokens_is_an_error_that_spells_out_the_layout() -> None:
    layout = TokenLayout((2, 3), prefix=1, prompts=2)
    message = r"expected 9 tokens \(1 prefix \+ 2 prompts \+ 2x3 patches = 9 inside a block\), got 8"
    for call in (layout.drop_prompts, layout.patch_tokens, layout.to_grid):
        with pytest.raises(TokenLayoutError, match=message):
            call(numbered(8))
    with pytest.raises(TokenLayoutError, match=message):
        layout.check_sequence(8)
    with pytest.raises(TokenLayoutError, match="expected 7 tokens"):
        layout.insert_prompts(numbered(9), numbered(2))
    layout.check_sequence(9)


@pytest.mark.parametrize("wrong", [{"grid": (0, 3)}, {"grid": (2, 2), "prefix": -1}, {"grid": (2, 2), "prompts": -1}])
def test_an_impossible_layout_is_refused(wrong: dict) -> None:
    with pytest.raises(TokenLayoutError, match="at least 1x1"):
        TokenLayout(**wrong)
    assert issubclass(TokenLayoutError, ExplainError) and issubclass(TokenLayoutError, ValueError)

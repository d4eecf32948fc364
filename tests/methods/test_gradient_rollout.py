"""Gradient rollout: closed forms, the full-matrix method on unfused attention, and prompts against brute force."""

import numpy as np
import pytest
import torch
from tiny_vits import GRID, tiny_images, tiny_vit
from torch import Tensor

from explain.attribution import Attribution
from explain.engine import attribute
from explain.errors import TokenLayoutError
from explain.methods.gradient_rollout import gradient_rollout
from explain.model import TunedModel
from explain.tokens import TokenLayout
from explain.tuning.base import tune
from explain.wrapping import wrap

PATCHES = GRID[0] * GRID[1]


def explained(model: TunedModel, targets: int | list[int]) -> Attribution:
    return attribute(model, tiny_images(), methods="gradient_rollout", targets=targets)["gradient_rollout"]


def weighted_attention(model: TunedModel, targets: list[int]) -> list[Tensor]:
    """Mean over heads of (dA · A)⁺ for all tokens (B, N, N), dA from autograd on timm's explicit softmax."""
    seen: list[Tensor] = []
    for module in model.vit.modules():
        if hasattr(module, "attn_drop") and hasattr(module, "fused_attn"):
            module.fused_attn = False
            module.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    scores = model(tiny_images().requires_grad_(True))[range(3), targets]
    gradients = torch.autograd.grad(scores.sum(), seen)
    return [(gradient * block).relu().mean(1).detach() for block, gradient in zip(seen, gradients, strict=True)]


def full_matrix(blocks: list[Tensor]) -> Tensor:
    """R = I, then R <- R + Abar R block after block, (B, N, N)."""
    relevance = torch.eye(blocks[0].shape[-1], dtype=torch.float64).expand(len(blocks[0]), -1, -1)
    for block in blocks:
        relevance = relevance + block @ relevance
    return relevance


def propagate(layout: TokenLayout, blocks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """VPT-Deep on the sources themselves, forwards: before each block the prompt rows become sources of their own.

    Returns the CLS row over the image's tokens, and over each block's prompts (L, P), of one image.
    """
    kept = layout.prefix + layout.patches
    keep = [*range(layout.prefix), *range(layout.prefix + layout.prompts, layout.total)]
    state = torch.zeros(layout.total, kept + len(blocks) * layout.prompts, dtype=torch.float64)
    state[keep, :kept] = torch.eye(kept, dtype=torch.float64)
    for index, block in enumerate(blocks):
        start = kept + index * layout.prompts
        state[layout.prompt_slice] = 0
        state[layout.prompt_slice, start : start + layout.prompts] = torch.eye(layout.prompts, dtype=torch.float64)
        state = state + block @ state
    return state[0, :kept], state[0, kept:].reshape(len(blocks), layout.prompts)


def test_two_blocks_by_hand() -> None:
    """One head, CLS and two patches; only positive products count."""
    layout, read = TokenLayout((1, 2)), torch.tensor([[1.0, 0, 0]])
    first = torch.tensor([[[[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.5, 0.25, 0.25]]]])
    last = torch.tensor([[[[0.5, 0.25, 0.25]]]])  # only the row the head reads
    up, ones = torch.tensor([[[[0.0, 4.0, -8.0]]]]), torch.ones(1, 1, 3, 3)
    row, fresh = gradient_rollout([first, last], [ones, up], layout, read)
    # the last block gives patch 1 a relevance of 1; the first passes on CLS's row and patch 1's
    assert torch.allclose(row, torch.tensor([[1 + 0.2 + 0.1, 1 + 0.3 + 0.8, 0.5 + 0.1]])) and fresh.numel() == 0


def test_heads_are_averaged_after_the_relu() -> None:
    layout, read = TokenLayout((1, 1)), torch.tensor([[1.0, 0]])
    attention = torch.full((1, 2, 1, 2), 0.5)
    gradients = torch.tensor([[[[0.0, 4.0]], [[0.0, -4.0]]]])
    assert gradient_rollout([attention], [gradients], layout, read)[0].tolist() == [[1.0, 1.0]]


def test_without_gradient_the_row_stays_where_it_was() -> None:
    layout = TokenLayout(GRID, prefix=2)
    read = torch.rand(1, layout.total)
    attention = torch.rand(1, 3, layout.total, layout.total)
    assert torch.equal(gradient_rollout([attention] * 3, [-attention] * 3, layout, read)[0], read)


@pytest.mark.parametrize(
    ("head", "rows"),
    [("cls", [0]), ("registers", [0]), ("distilled", [0, 1]), ("mean of patches", list(range(1, 1 + PATCHES)))],
)
def test_it_is_the_full_matrix_method_on_unfused_attention(head: str, rows: list[int]) -> None:
    model, targets = wrap(tiny_vit(head)), [0, 4, 2]
    found = explained(model, targets)
    expected = full_matrix(weighted_attention(model, targets))[:, rows].mean(1)[:, model.layout.patch_slice]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found.values.reshape(3, -1), expected.numpy(), rtol=1e-5, atol=1e-7)
    assert not found.extras


def test_shallow_prompts_travel_so_the_full_matrix_stays_right() -> None:
    model, targets = tune(tiny_vit("registers"), "prompt", num_tokens=4, deep=False).eval(), [0, 4, 2]
    found = explained(model, targets)
    expected = full_matrix(weighted_attention(model, targets))[:, 0].numpy()
    np.testing.assert_allclose(found.values.reshape(3, -1), expected[:, 7:], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.extras["prompt_relevance"], expected[:, 3:7].sum(1), rtol=1e-5)
    assert set(found.extras) == {"prompt_relevance"} and (found.extras["prompt_relevance"] > 1e-3).all()


def test_deep_prompts_are_cut_at_every_block() -> None:
    model, targets = tune(tiny_vit("registers"), "prompt", num_tokens=4).eval(), [0, 4, 2]
    found, layout = explained(model, targets), model.layout
    blocks = weighted_attention(model, targets)
    for image in range(3):
        sources, prompts = propagate(layout, [block[image] for block in blocks])
        np.testing.assert_allclose(found.values[image].ravel(), sources[3:].numpy(), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.extras["prompt_relevance_per_block"][image], prompts.sum(1), rtol=1e-5)
        np.testing.assert_allclose(found.extras["prompt_relevance"][image], prompts.sum(), rtol=1e-5)


def test_cutting_prompts_makes_a_difference_on_full_attention() -> None:
    """The full matrix lets a block's prompts claim what the image did to the prompts of the block before."""
    layout = TokenLayout(GRID, 1, 4, True)
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, 2, layout.total, layout.total)
    attention = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1)
    gradients = torch.randn(shape, generator=generator, dtype=torch.float64)
    read = torch.eye(1 + PATCHES, dtype=torch.float64)[:1]
    row, fresh = gradient_rollout(list(attention), list(gradients), layout, read)
    blocks = [block[0] for block in (gradients * attention).relu().mean(2)]
    sources, prompts = propagate(layout, blocks)
    assert torch.allclose(row[0], sources, atol=1e-12) and torch.allclose(fresh[0], prompts, atol=1e-12)
    leaky = full_matrix([block[None] for block in blocks])[0, 0, layout.patch_slice]
    assert (leaky - sources[1:]).abs().max() > 0.01


def test_an_attention_pool_starts_from_its_own_attention() -> None:
    model, targets = wrap(tiny_vit("attention pool")), [0, 4, 2]
    with model.capture() as trace, torch.no_grad():
        model(tiny_images())
    weights = trace.pool_attention.mean((1, 2))
    found = explained(model, targets)
    expected = torch.einsum("bi,bij->bj", weights, full_matrix(weighted_attention(model, targets)))
    np.testing.assert_allclose(found.values.reshape(3, -1), expected.numpy(), rtol=1e-5, atol=1e-7)


def test_a_sequence_that_is_not_the_layouts_is_refused() -> None:
    layout, attention = TokenLayout(GRID), torch.rand(1, 1, 16, 16)
    with pytest.raises(TokenLayoutError, match="expected 13 tokens .* got 16"):
        gradient_rollout([attention], [attention], layout, torch.rand(1, 13))

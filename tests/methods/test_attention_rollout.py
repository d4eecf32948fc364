"""Attention rollout: closed forms, prompt shares against brute force, and what capture records."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import BASE, GRID, tiny_images, tiny_vit
from torch import Tensor

from explain.attribution import Attribution
from explain.engine import attribute
from explain.errors import CaptureError, InputError, TokenLayoutError
from explain.methods.attention_rollout import AttentionRollout, rollout
from explain.model import TunedModel
from explain.tokens import TokenLayout
from explain.tuning.base import tune
from explain.wrapping import wrap

PATCHES = GRID[0] * GRID[1]


def cls(layout: TokenLayout) -> Tensor:
    return torch.eye(layout.prefix + layout.patches, dtype=torch.float64)[:1]


def roll(layout: TokenLayout, attention: list[Tensor], residual: float = 0.5) -> tuple[Tensor, Tensor]:
    row, shares = rollout([block[None] for block in attention], layout, cls(layout), residual)
    return row[0], shares[0]


def random_attention(count: int, tokens: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (3 * torch.randn(tokens, tokens, generator=generator, dtype=torch.float64)).softmax(-1) for _ in range(count)
    ]


def explained(model: TunedModel, **options: Any) -> Attribution:
    name = "attention_rollout"
    return attribute(model, tiny_images(), methods=name, options={name: options})[name]


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_uniform_attention_gives_every_patch_the_same_known_share(blocks: int) -> None:
    layout = TokenLayout(GRID)
    uniform = torch.full((layout.total, layout.total), 1 / layout.total, dtype=torch.float64)
    row, shares = roll(layout, [uniform] * blocks)
    expected = torch.full((PATCHES,), (1 - 0.5**blocks) / layout.total, dtype=torch.float64)
    assert torch.allclose(row[layout.patch_slice], expected, atol=1e-12) and shares.numel() == 0


def test_identity_attention_leaves_everything_with_the_head_token() -> None:
    layout = TokenLayout(GRID)
    row, _ = roll(layout, [torch.eye(layout.total, dtype=torch.float64)] * 4)
    assert torch.equal(row, cls(layout)[0])


def test_when_all_tokens_look_at_one_patch_it_gets_all_but_the_residual() -> None:
    layout = TokenLayout(GRID)
    looks = torch.zeros(layout.total, layout.total, dtype=torch.float64)
    looks[:, 7] = 1
    row, _ = roll(layout, [looks] * 3)
    assert row[7].item() == pytest.approx(1 - 2**-3, abs=1e-12)
    assert row[0].item() == pytest.approx(2**-3, abs=1e-12)


def test_two_blocks_by_hand() -> None:
    """CLS looks at the left patch in one block, at the right one in the other; patches look at themselves."""
    layout = TokenLayout((1, 2))
    left = torch.tensor([[0, 1, 0], [0, 1, 0], [0, 0, 1]]).double()
    right = torch.tensor([[0, 0, 1], [0, 1, 0], [0, 0, 1]]).double()
    # last block: (1/2, 0, 1/2); of the CLS half the first block sends a half to the left
    assert torch.equal(roll(layout, [left, right])[0], torch.tensor([0.25, 0.25, 0.5]).double())
    assert torch.equal(roll(layout, [right, left])[0], torch.tensor([0.25, 0.5, 0.25]).double())


@pytest.mark.parametrize("residual", [0.0, 0.3, 1.0])
def test_the_residual_weighs_the_identity(residual: float) -> None:
    layout, attention = TokenLayout(GRID, prefix=2), random_attention(3, 2 + PATCHES)
    whole = torch.eye(layout.total, dtype=torch.float64)
    for block in attention:
        whole = ((1 - residual) * block + residual * torch.eye(layout.total)) @ whole
    assert torch.allclose(roll(layout, attention, residual)[0], whole[0], atol=1e-12)


def chefer_rollout(attention: list[Tensor], start: int = 0) -> Tensor:
    """compute_rollout_attention of Chefer et al.: add the identity, normalise rows, multiply matrices."""
    blocks = [block + torch.eye(block.shape[-1], dtype=block.dtype) for block in attention]
    blocks = [block / block.sum(dim=-1, keepdim=True) for block in blocks]
    joint = blocks[start]
    for block in blocks[start + 1 :]:
        joint = block.matmul(joint)
    return joint


@pytest.mark.parametrize("layout", [TokenLayout(GRID), TokenLayout(GRID, prefix=3), TokenLayout(GRID, 1, 5)], ids=str)
def test_without_fresh_prompts_it_is_the_full_matrix_product(layout: TokenLayout) -> None:
    attention = random_attention(4, layout.total)
    row, shares = roll(layout, attention)
    whole = layout.insert_prompts(row[None], shares.reshape(1, layout.prompts))[0]
    assert torch.allclose(whole, chefer_rollout(attention)[0], atol=1e-12)


def propagate(layout: TokenLayout, attention: list[Tensor]) -> tuple[Tensor, Tensor]:
    """VPT-Deep as linear algebra on the sources themselves, without any backward recursion.

    A token is a vector of shares over the sources (input tokens, then block after block its own prompts). Before
    each block the prompt rows are overwritten by fresh sources.
    """
    kept = layout.prefix + layout.patches
    state = torch.zeros(layout.total, kept + len(attention) * layout.prompts, dtype=torch.float64)
    keep = [index for index in range(layout.total) if index not in range(*layout.prompt_slice.indices(layout.total))]
    state[keep, :kept] = torch.eye(kept, dtype=torch.float64)
    for index, block in enumerate(attention):
        start = kept + index * layout.prompts
        state[layout.prompt_slice] = 0
        state[layout.prompt_slice, start : start + layout.prompts] = torch.eye(layout.prompts, dtype=torch.float64)
        state = (block @ state + state) / 2
    return state[0, :kept], state[0, kept:].reshape(len(attention), layout.prompts)


def square(layout: TokenLayout, block: Tensor) -> Tensor:
    """Attention with a row for every token; what a prompt would attend to is overwritten anyway."""
    if len(block) == layout.total:
        return block
    prompts = block.new_full((layout.prompts, layout.total), torch.nan)
    return torch.cat((block[: layout.prefix], prompts, block[layout.prefix :]))


@pytest.mark.parametrize("layout", [TokenLayout(GRID, 1, 4, True), TokenLayout(GRID, 3, 2, True)], ids=str)
def test_deep_prompt_shares_equal_brute_force_propagation(layout: TokenLayout) -> None:
    attention = random_attention(4, layout.total)
    row, shares = roll(layout, attention)
    sources, prompts = propagate(layout, attention)
    assert torch.allclose(row, sources, atol=1e-12)
    assert torch.allclose(shares, prompts, atol=1e-12)
    assert (row.sum() + shares.sum()).item() == pytest.approx(1, abs=1e-12)
    assert abs(shares.sum() - chefer_rollout(attention)[0, layout.prompt_slice].sum()) > 0.05


@pytest.mark.parametrize("deep", [True, False])
def test_shares_of_a_real_model_sum_to_one_and_equal_brute_force(deep: bool) -> None:
    model = tune(tiny_vit("registers"), "prompt", num_tokens=4, deep=deep).eval()
    with model.capture() as trace, torch.no_grad():
        model(tiny_images())
    found = explained(model)
    whole = found.values.sum((1, 2)) + sum(found.extras[f"{part}_share"] for part in ("prompt", "cls", "register"))
    np.testing.assert_allclose(whole, 1, atol=1e-6)
    for row in range(3):
        attention = [square(model.layout, block[row].mean(0)) for block in trace.attention]
        if deep:
            sources, prompts = propagate(model.layout, attention)
            np.testing.assert_allclose(found.extras["prompt_share_per_prompt"][row], prompts.numpy(), atol=1e-6)
            np.testing.assert_allclose(found.extras["prompt_share_per_block"][row], prompts.sum(1).numpy(), atol=1e-6)
        else:
            full = chefer_rollout(attention)[0]
            sources = torch.cat((full[:3], full[7:]))
            prompts = full[3:7]
            assert "prompt_share_per_block" not in found.extras
            np.testing.assert_allclose(found.extras["prompt_share_per_prompt"][row, 0], prompts.numpy(), atol=1e-6)
        np.testing.assert_allclose(found.extras["prompt_share"][row], prompts.sum().item(), atol=1e-6)
        np.testing.assert_allclose(found.extras["cls_share"][row], sources[0].item(), atol=1e-6)
        np.testing.assert_allclose(found.extras["register_share"][row], sources[1:3].sum().item(), atol=1e-6)
        np.testing.assert_allclose(found.values[row].ravel(), sources[3:].numpy(), atol=1e-6)


def test_registers_without_a_class_token_are_not_called_cls() -> None:
    found = explained(wrap(tiny_vit("mean of patches", class_token=False, reg_tokens=2))).extras
    assert (found["cls_share"] == 0).all() and (found["register_share"] > 0.01).all()


NULLS = [(5, 0.139, 0.025), (10, 0.254, 0.048), (50, 0.722, 0.202), (100, 0.891, 0.337)]


@pytest.mark.parametrize(("prompts", "deep", "shallow"), NULLS)
def test_uniform_attention_puts_a_known_share_on_prompts(prompts: int, deep: float, shallow: float) -> None:
    """12 blocks, 197 tokens beside the prompts: what no information at all looks like."""
    for fresh, expected in ((True, deep), (False, shallow)):
        layout = TokenLayout((14, 14), 1, prompts, fresh)
        uniform = torch.full((layout.total, layout.total), 1 / layout.total, dtype=torch.float64)
        share = roll(layout, [uniform] * 12)[1].sum()
        pi = prompts / layout.total
        assert share.item() == pytest.approx(1 - (1 - pi / 2) ** 12 if fresh else pi * (1 - 0.5**12), abs=1e-12)
        assert round(share.item(), 3) == expected


@pytest.mark.parametrize("deep", [True, False])
def test_the_null_share_travels_with_the_map(deep: bool) -> None:
    found = explained(tune(tiny_vit(), "prompt", num_tokens=4, deep=deep))
    pi = 4 / (1 + 4 + PATCHES)
    expected = 1 - (1 - pi / 2) ** 3 if deep else pi * (1 - 0.5**3)
    np.testing.assert_allclose(found.extras["prompt_share_null"], [expected] * 3, atol=1e-6)


def unfused_attention(model: TunedModel, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """timm's own probabilities, from its unfused path; fused attention is switched off for good."""
    seen: list[Tensor] = []
    for module in model.vit.modules():
        if hasattr(module, "attn_drop") and hasattr(module, "fused_attn"):
            module.fused_attn = False
            module.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    return seen, model(images).detach()


@pytest.mark.parametrize("head", ["cls", "registers", "distilled", "mean of patches", "attention pool"])
@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "init_values": 0.5}])
def test_recorded_attention_equals_timms_unfused_attention(head: str, options: dict[str, Any]) -> None:
    model, images = wrap(tiny_vit(head, **options)), tiny_images()
    with model.capture() as trace, torch.no_grad():
        recorded = model(images)
    theirs, logits = unfused_attention(model, images)
    assert len(theirs) == len(trace.attention) == BASE["depth"]
    for ours, expected in zip(trace.attention, theirs, strict=True):
        assert torch.allclose(ours, expected, atol=1e-12)
    assert torch.allclose(recorded, logits, atol=1e-10)
    assert (trace.pool_attention is not None) == (head == "attention pool")


@pytest.mark.parametrize(
    ("head", "options", "rows"),
    [
        ("cls", {}, [0]),
        ("registers", {}, [0]),
        ("distilled", {}, [0, 1]),
        ("mean of patches", {}, list(range(1, 1 + PATCHES))),
        ("mean of patches", {"pool_include_prefix": True}, list(range(1 + PATCHES))),
    ],
)
def test_the_map_starts_from_what_the_head_reads(head: str, options: dict[str, Any], rows: list[int]) -> None:
    model = wrap(tiny_vit(head, **options))
    with model.capture() as trace, torch.no_grad():
        model(tiny_images())
    found = explained(model)
    for image in range(3):
        full = chefer_rollout([block[image].mean(0) for block in trace.attention])[rows].mean(0)
        np.testing.assert_allclose(found.values[image].ravel(), full[model.layout.patch_slice].numpy(), atol=1e-6)


@pytest.mark.parametrize("prefix", [{"class_token": False}, {"class_token": True}])
def test_an_attention_pool_starts_from_its_own_attention(prefix: dict[str, Any]) -> None:
    model = wrap(tiny_vit("attention pool", **prefix))
    with model.capture() as trace, torch.no_grad():
        model(tiny_images())
    found = explained(model)
    for image in range(3):
        weights = trace.pool_attention[image].mean((0, 1))  # over the patches: timm's pool leaves the prefix out
        assert len(weights) == PATCHES
        rows = chefer_rollout([block[image].mean(0) for block in trace.attention])[model.layout.patch_slice]
        expected = (weights @ rows)[model.layout.patch_slice]
        np.testing.assert_allclose(found.values[image].ravel(), expected.numpy(), atol=1e-6)


def test_heads_are_fused_by_mean_max_or_min() -> None:
    model = wrap(tiny_vit())
    with model.capture() as trace, torch.no_grad():
        model(tiny_images())
    for fusion, fuse in (("mean", lambda a: a.mean(0)), ("max", lambda a: a.amax(0)), ("min", lambda a: a.amin(0))):
        found = explained(model, head_fusion=fusion)
        joint = torch.eye(1 + PATCHES, dtype=torch.float64)
        for block in trace.attention:
            joint = (fuse(block[1]) + torch.eye(1 + PATCHES)) / 2 @ joint
        np.testing.assert_allclose(found.values[1].ravel(), joint[0, 1:].numpy(), rtol=1e-5)
        assert bool(found.extras) is (fusion == "mean"), "only the mean keeps shares"


def test_discarding_drops_the_weakest_entries_of_every_query() -> None:
    attention = torch.tensor([0.1, 0.4, 0.2, 0.3]).expand(1, 1, 4, 4)
    fused = AttentionRollout(discard_ratio=0.5)._fuse(attention)
    assert torch.equal(fused, torch.tensor([0.0, 0.4, 0.0, 0.3]).expand(1, 4, 4))
    assert torch.equal(AttentionRollout(discard_ratio=0.1)._fuse(attention), attention[0])
    assert not explained(wrap(tiny_vit()), discard_ratio=0.5).extras


def test_discarding_works_in_half_precision_and_on_many_tokens() -> None:
    fused = AttentionRollout(discard_ratio=0.9)._fuse(torch.rand(1, 1, 4100, 4100, dtype=torch.bfloat16))
    assert (fused == 0).float().mean().item() == pytest.approx(0.9, abs=0.02)


def test_a_sequence_that_is_not_the_layouts_is_refused() -> None:
    layout = TokenLayout(GRID)
    with pytest.raises(TokenLayoutError, match="expected 13 tokens .* got 16"):
        roll(layout, random_attention(2, 16))


def test_a_head_that_does_not_read_linearly_is_refused() -> None:
    with pytest.raises(CaptureError, match="this model pools by 'max'"):
        explained(wrap(tiny_vit("mean of patches", global_pool="max")))


@pytest.mark.parametrize(
    "options", [{"head_fusion": "median"}, {"residual": -0.1}, {"residual": 1.1}, {"discard_ratio": 1.0}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        AttentionRollout(**options)

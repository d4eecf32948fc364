"""LeGrad: every block's own score differentiated on timm's explicit attention, prompts, and its options."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import GRID, tiny_images, tiny_vit
from torch import Tensor
from torch.nn import functional as F

from explain.attribution import Attribution
from explain.engine import attribute
from explain.errors import InputError
from explain.methods.legrad import LeGrad
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

PATCHES = GRID[0] * GRID[1]
TARGETS = [0, 4, 2]


def explained(model: TunedModel, **options: Any) -> Attribution:
    return attribute(model, tiny_images(), methods="legrad", targets=TARGETS, options={"legrad": options})["legrad"]


def record_unfused(model: TunedModel) -> tuple[list[Tensor], list[Tensor]]:
    """timm's explicit probabilities (B, heads, N, N) and the outputs of the blocks, in one graph."""
    attention: list[Tensor] = []
    outputs: list[Tensor] = []
    for block in model.vit.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: attention.append(output))
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    model(tiny_images().requires_grad_(True))
    return attention, outputs


def columns(model: TunedModel, pool: Any, prompts: slice = slice(0, 0)) -> Tensor:
    """Per block the mean over heads and queries of the ReLU'd gradient, (B, blocks, N)."""
    vit = model.vit
    attention, outputs = record_unfused(model)
    found = []
    for block, tokens in zip(attention, outputs, strict=True):
        width = prompts.stop - prompts.start
        if width and tokens.shape[1] == block.shape[-1]:  # shallow prompts are among the outputs
            tokens = torch.cat((tokens[:, : prompts.start], tokens[:, prompts.stop :]), dim=1)
        norm = vit.norm
        pooled = pool(tokens, lambda values, norm=norm: F.layer_norm(values, (24,), norm.weight, norm.bias, norm.eps))
        score = F.linear(pooled, vit.head.weight, vit.head.bias)[range(3), TARGETS].sum()
        (gradient,) = torch.autograd.grad(score, block, retain_graph=True)
        queries = block.shape[2] - (width if model.layout.fresh_prompts else 0)  # deep prompts are no queries
        found.append(gradient.relu().mean(1).sum(1) / queries)
    return torch.stack(found, dim=1)


def mean_of_all(tokens: Tensor, norm: Any) -> Tensor:
    return norm(tokens.mean(1))


def cls(tokens: Tensor, norm: Any) -> Tensor:
    return norm(tokens)[:, 0]


@pytest.mark.parametrize(("pooling", "pool"), [("mean", mean_of_all), ("head", cls)])
@pytest.mark.parametrize("head", ["cls", "registers"])
def test_it_is_the_gradient_of_each_blocks_own_score(head: str, pooling: str, pool: Any) -> None:
    model = wrap(tiny_vit(head))
    found = explained(model, pooling=pooling)
    expected = columns(model, pool).mean(1)[:, model.layout.patch_slice].detach()
    assert expected.std() > 1e-4 and not found.extras
    np.testing.assert_allclose(found.values.reshape(3, -1), expected.numpy(), rtol=1e-5, atol=1e-9)


def test_heads_that_read_patches_pool_as_they_do() -> None:
    """Such a head has its norm behind the pooling, which is the published order anyway."""
    model = wrap(tiny_vit("mean of patches", fc_norm=False))
    found = {pooling: explained(model, pooling=pooling).values for pooling in ("mean", "head")}
    expected = columns(model, lambda tokens, norm: norm(tokens)[:, 1:].mean(1)).mean(1)[:, 1:].detach()
    for values in found.values():
        np.testing.assert_allclose(values.reshape(3, -1), expected.numpy(), rtol=1e-5, atol=1e-9)


def test_a_distilled_model_reads_the_mean_with_both_heads() -> None:
    model = wrap(tiny_vit("distilled"))
    found = explained(model)
    vit = model.vit
    attention, outputs = record_unfused(model)
    expected = []
    for block, tokens in zip(attention, outputs, strict=True):
        pooled = vit.norm(tokens.mean(1))
        score = ((vit.head(pooled) + vit.head_dist(pooled)) / 2)[range(3), TARGETS].sum()
        (gradient,) = torch.autograd.grad(score, block, retain_graph=True)
        expected.append(gradient.relu().mean((1, 2))[:, 2:])
    np.testing.assert_allclose(found.values.reshape(3, -1), torch.stack(expected).mean(0).numpy(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(("pooling", "pool"), [("mean", mean_of_all), ("head", cls)])
def test_prompts_are_looked_at_but_never_scored(deep: bool, pooling: str, pool: Any) -> None:
    model = tune(tiny_vit("registers"), "prompt", num_tokens=4, deep=deep).eval()
    found = explained(model, pooling=pooling)
    expected = columns(model, pool, slice(3, 7)).detach().numpy()
    np.testing.assert_allclose(found.values.reshape(3, -1), expected.mean(1)[:, 7:], rtol=1e-5, atol=1e-9)
    per_block = found.extras["prompt_relevance_per_block"]
    assert per_block.shape == (3, 3) and (per_block > 0).all()
    np.testing.assert_allclose(per_block, expected[..., 3:7].sum(2), rtol=1e-5)
    np.testing.assert_allclose(found.extras["prompt_relevance"], expected[..., 3:7].sum(2).mean(1), rtol=1e-5)


def test_the_head_poolings_last_block_explains_the_logit_itself() -> None:
    model = wrap(tiny_vit())
    found = explained(model, pooling="head", last_blocks=1)
    attention, _ = record_unfused(model)
    attention.clear()
    score = model(tiny_images().requires_grad_(True))[range(3), TARGETS].sum()
    (gradient,) = torch.autograd.grad(score, attention[-1])
    expected = gradient.relu().mean((1, 2))[:, 1:]
    np.testing.assert_allclose(found.values.reshape(3, -1), expected.numpy(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_that_many_last_blocks_are_averaged(count: int) -> None:
    model = wrap(tiny_vit())
    found = explained(model, last_blocks=count)
    expected = columns(model, mean_of_all)[:, -count:].mean(1)[:, 1:].detach()
    np.testing.assert_allclose(found.values.reshape(3, -1), expected.numpy(), rtol=1e-5, atol=1e-9)


def test_sharing_the_forward_with_other_methods_changes_nothing() -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=4).eval()
    names = ["attention_rollout", "raw_attention", "gradient_rollout", "legrad", "attn_lrp"]
    together = attribute(model, tiny_images(), methods=names, targets=TARGETS)
    for name in names:
        alone = attribute(model, tiny_images(), methods=name, targets=TARGETS)[name]
        np.testing.assert_allclose(together[name].values, alone.values, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "options", [{"last_blocks": 0}, {"last_blocks": 1.5}, {"last_blocks": True}, {"pooling": "max"}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        LeGrad(**options)


def test_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="at most 3, the blocks of this model, got 4"):
        explained(wrap(tiny_vit()), last_blocks=4)

"""Raw attention: closed forms, timm's own unfused rows, and what is left of a row beside its patches."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import GRID, tiny_images, tiny_vit
from torch import Tensor

from explain.attribution import Attribution
from explain.engine import attribute
from explain.errors import InputError
from explain.methods.raw_attention import RawAttention
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

PATCHES = GRID[0] * GRID[1]


def explained(model: TunedModel, **options: Any) -> Attribution:
    name = "raw_attention"
    return attribute(model, tiny_images(), methods=name, options={name: options})[name]


def unfused_attention(model: TunedModel) -> list[Tensor]:
    """timm's own probabilities with a row for every token; fused attention is switched off for good."""
    seen: list[Tensor] = []
    for module in model.vit.modules():
        if hasattr(module, "attn_drop") and hasattr(module, "fused_attn"):
            module.fused_attn = False
            module.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with torch.no_grad():
        model(tiny_images())
    return seen


def whole(found: Attribution) -> np.ndarray:
    """What all columns of the row sum to."""
    return found.values.sum((1, 2)) + sum(found.extras[f"{part}_share"] for part in ("prompt", "cls", "register"))


@pytest.mark.parametrize("prompts", [None, False, True], ids=["plain", "shallow", "deep"])
@pytest.mark.parametrize(("layer", "head"), [(-1, None), (0, None), (1, 2), (-1, 0), (-3, -1)])
def test_it_is_the_cls_row_of_timms_unfused_attention(prompts: bool | None, layer: int, head: int | None) -> None:
    vit = tiny_vit("registers")
    model = (wrap(vit) if prompts is None else tune(vit, "prompt", num_tokens=4, deep=prompts)).eval()
    found = explained(model, layer=layer, head=head)
    block = unfused_attention(model)[layer]
    row = (block.mean(1) if head is None else block[:, head])[:, 0].numpy()
    start = 3 if prompts is None else 7  # CLS, two registers, prompts
    assert row.shape[1] == start + PATCHES
    np.testing.assert_allclose(found.values.reshape(3, -1), row[:, start:], atol=1e-6)
    for name, columns in (("cls", row[:, :1]), ("register", row[:, 1:3]), ("prompt", row[:, 3:start])):
        np.testing.assert_allclose(found.extras[f"{name}_share"], columns.sum(1), atol=1e-6)
    np.testing.assert_allclose(whole(found), 1, atol=1e-6)
    assert (found.extras["prompt_share"] > 0).all() == (prompts is not None)


@pytest.mark.parametrize(
    ("head", "options", "rows"),
    [
        ("cls", {}, [0]),
        ("distilled", {}, [0, 1]),
        ("mean of patches", {}, list(range(1, 1 + PATCHES))),
        ("mean of patches", {"pool_include_prefix": True}, list(range(1 + PATCHES))),
    ],
)
@pytest.mark.parametrize("layer", [0, -1])
def test_the_rows_are_those_the_head_reads(head: str, options: dict[str, Any], rows: list[int], layer: int) -> None:
    model = wrap(tiny_vit(head, **options))
    found = explained(model, layer=layer)
    expected = unfused_attention(model)[layer].mean(1)[:, rows].mean(1)[:, model.layout.patch_slice]
    np.testing.assert_allclose(found.values.reshape(3, -1), expected.numpy(), atol=1e-6)


def test_an_attention_pool_weighs_the_rows_by_its_own_attention() -> None:
    model = wrap(tiny_vit("attention pool"))
    with model.capture() as trace, torch.no_grad():
        model(tiny_images())
    found = explained(model)
    weights, block = trace.pool_attention.mean((1, 2)), trace.attention[-1].mean(1)
    expected = torch.stack([weights[image] @ block[image] for image in range(3)])
    np.testing.assert_allclose(found.values.reshape(3, -1), expected.numpy(), atol=1e-6)


def test_without_queries_and_keys_all_tokens_get_the_same() -> None:
    vit = tiny_vit()
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.qkv.weight[:48] = 0
            block.attn.qkv.bias[:48] = 0
    found = explained(tune(vit, "prompt", num_tokens=3))
    np.testing.assert_allclose(found.values, 1 / (1 + 3 + PATCHES), atol=1e-7)
    np.testing.assert_allclose(found.extras["prompt_share"], 3 / (1 + 3 + PATCHES), atol=1e-7)


def test_registers_without_a_class_token_are_not_called_cls() -> None:
    found = explained(wrap(tiny_vit("mean of patches", class_token=False, reg_tokens=2)))
    assert (found.extras["cls_share"] == 0).all() and (found.extras["register_share"] > 0.01).all()
    np.testing.assert_allclose(whole(found), 1, atol=1e-6)


def test_the_block_is_recorded_by_its_number_from_the_first() -> None:
    assert explained(wrap(tiny_vit()), layer=-1).provenance["block"] == 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"layer": 3}, "layer from -3 to 2"),
        ({"layer": -4}, "layer from -3 to 2"),
        ({"head": 3}, "head from -3 to 2 or None"),
        ({"head": -4}, "head from -3 to 2 or None"),
    ],
)
def test_a_block_or_head_the_model_lacks_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        explained(wrap(tiny_vit()), **options)


@pytest.mark.parametrize("options", [{"layer": 0.5}, {"layer": True}, {"layer": None}, {"head": "mean"}])
def test_an_option_that_is_no_whole_number_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected (layer|head) to be a whole number"):
        RawAttention(**options)

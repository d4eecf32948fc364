"""Prompts on a range of blocks: the model itself, and everything that looks at attention block by block.

The references are written out over timm's own blocks, from the range alone: they know no layout and no wrapped block.
"""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import GRID, SIZE, tiny_images, tiny_vit
from torch import Tensor
from torch.nn import functional as F

from explain.attribution import Attribution
from explain.engine import attribute
from explain.errors import InputError
from explain.methods.base import METHODS
from explain.model import TunedModel
from explain.prompted_block import insert_prompts, parse_blocks
from explain.tuning.base import tune
from explain.wrapping import wrap

DEPTH, COUNT, PATCHES, TARGETS = 4, 5, GRID[0] * GRID[1], [1, 0, 2]
RANGES = ["1-2", "0-1", "2-3", "1-1", "3-3"]
KINDS = pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
BLOCKS = pytest.mark.parametrize("blocks", RANGES)


def prompted(blocks: str, deep: bool, head: str = "cls", **changes: Any) -> TunedModel:
    """Four blocks, with prompts far from the small values they start with."""
    vit = tiny_vit(head, depth=DEPTH, **changes)
    model = tune(vit, "prompt", class_names="abc", num_tokens=COUNT, deep=deep, blocks=blocks)
    generator = torch.Generator().manual_seed(1)
    for value in model.trained_state().values():
        value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64) / 2)
    return model.eval()


def where(blocks: str) -> range:
    first, last = map(int, blocks.split("-"))
    return range(first, last + 1)


def walk(model: TunedModel, images: Tensor, blocks: str, deep: bool, prompts: Any = None) -> list[Tensor]:
    """What enters each of timm's blocks, and last what leaves them without prompts, by concatenation."""
    vit, prefix, here = model.vit, model.vit.num_prefix_tokens, where(blocks)
    prompts = list(prompts or [block.prompts for block in vit.blocks if getattr(block, "prompts", None) is not None])
    tokens, seen, count = vit.norm_pre(vit._pos_embed(vit.patch_embed(images))), [], 0
    for index, block in enumerate(vit.blocks):
        if index in here and (deep or index == here[0]):
            own = prompts.pop(0)
            count = own.shape[-2]
            tokens = torch.cat((tokens[:, :prefix], own.expand(len(tokens), -1, -1), tokens[:, prefix:]), dim=1)
        seen.append(tokens)
        tokens = getattr(block, "block", block)(tokens)
        if index in here and (deep or index == here[-1]):
            tokens = torch.cat((tokens[:, :prefix], tokens[:, prefix + count :]), dim=1)
    assert not prompts
    return [*seen, tokens]


def reference(model: TunedModel, images: Tensor, blocks: str, deep: bool, prompts: Any = None) -> Tensor:
    """Logits of `walk`."""
    logits: Tensor = model.vit.forward_head(model.vit.norm(walk(model, images, blocks, deep, prompts)[-1]))
    return logits


def explained(model: TunedModel, name: str, **options: Any) -> Attribution:
    return attribute(model, tiny_images(), methods=name, targets=TARGETS, options={name: options})[name]


@KINDS
@BLOCKS
@pytest.mark.parametrize("head", ["cls", "registers", "mean of patches"])
def test_logits_and_gradients_equal_the_ordinary_path(head: str, blocks: str, deep: bool) -> None:
    model, labels = prompted(blocks, deep, head).requires_grad_(True), torch.tensor([0, 1, 2])
    images = tiny_images().requires_grad_(True)
    leaves = [*model.parameters(), images]  # the backbone too: a tuning may leave it trainable
    expected = reference(model, images, blocks, deep)
    theirs = torch.autograd.grad(F.cross_entropy(expected, labels), leaves, allow_unused=True)
    for view in (model, model.training_view()):
        logits = view(images)
        assert torch.allclose(logits, expected, rtol=1e-10, atol=1e-10)
        ours = torch.autograd.grad(F.cross_entropy(logits, labels), leaves, allow_unused=True)
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine is None) == (other is None)
            assert mine is None or torch.allclose(mine, other, rtol=1e-8, atol=1e-10)
    assert torch.allclose(model.replica()(images), expected, rtol=1e-10, atol=1e-10)


@KINDS
@BLOCKS
@pytest.mark.parametrize("head", ["cls", "registers"])
def test_each_block_sees_as_many_tokens_as_the_layout_says(head: str, blocks: str, deep: bool) -> None:
    model, here = prompted(blocks, deep, head), where(blocks)
    prefix = 3 if head == "registers" else 1
    expected = [prefix + COUNT * (index in here) + PATCHES for index in range(DEPTH)]
    assert [model.layout.at(index).total for index in range(DEPTH)] == expected
    entering = list(here) if deep else [here[0]]
    assert [index for index in range(DEPTH) if model.layout.enters(index)] == entering
    assert sum("prompts" in name for name in model.trained_state()) == len(model.prompts()) == len(entering)
    for view in (model, model.replica()):
        with view.capture() as trace, torch.no_grad():
            view(tiny_images())
        assert [block.shape[-1] for block in trace.attention] == expected


@KINDS
def test_blocks_outside_the_range_are_timms_own_and_know_no_prompt(deep: bool) -> None:
    model, bare = prompted("1-2", deep), wrap(tiny_vit(depth=DEPTH))
    wrapped = [hasattr(block, "prompts") for block in model.vit.blocks]
    assert wrapped == [False, True, True, False]
    outputs = []
    for one in (model, bare):
        with one.capture(attention=False, layers=["blocks.0", "blocks.3.norm1"]) as trace:
            one(tiny_images())
        outputs.append(trace.activations)
    assert torch.equal(outputs[0]["blocks.0"], outputs[1]["blocks.0"])
    assert outputs[0]["blocks.3.norm1"].shape == outputs[1]["blocks.3.norm1"].shape
    assert not torch.allclose(outputs[0]["blocks.3.norm1"], outputs[1]["blocks.3.norm1"], rtol=1e-2)


@KINDS
@BLOCKS
def test_the_last_block_computes_one_row_wherever_prompts_end(deep: bool, blocks: str) -> None:
    widths: list[int] = []
    for make in (TunedModel.replica, TunedModel.training_view):
        view = make(prompted(blocks, deep))
        view.vit.blocks[-1].mlp.fc1.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[1]))
        view(tiny_images())
    assert widths == [1, 1]


@KINDS
def test_naming_every_block_is_the_same_as_all(deep: bool) -> None:
    every, named = (tune(tiny_vit(), "prompt", deep=deep, blocks=blocks, seed=4).eval() for blocks in ("all", "0-2"))
    assert every.layout == named.layout == wrap(tiny_vit()).layout.with_prompts(10, fresh=deep)
    assert every.trained_state().keys() == named.trained_state().keys()
    assert torch.equal(every(tiny_images()), named(tiny_images()))
    assert tune(tiny_vit(), "prompt", num_tokens=3).tuning_options["blocks"] == "all"  # of a run that names none


@KINDS
@BLOCKS
def test_other_prompts_may_be_fewer_and_go_again(deep: bool, blocks: str) -> None:
    model, images = prompted(blocks, deep, dynamic_img_size=True), tiny_images(2, (40, 16))
    replica, own = model.replica(), model.prompts()
    for given in ([value[1:3] for value in own], [value[:0] for value in own], [2 * value for value in own]):
        replica.give_prompts(given)
        assert torch.allclose(replica(images), reference(model, images, blocks, deep, given), rtol=1e-10)
    replica.give_prompts([None] * len(own))
    assert torch.allclose(replica(images), model(images), rtol=1e-10)
    assert torch.allclose(model(images), reference(model, images, blocks, deep), rtol=1e-10)


@pytest.mark.parametrize("wrong", ["", "3", "6-", "2-1", "a-b", "-1-2", "1 - 2", "1-2-3", "٣-٤", "All"])
def test_what_is_no_range_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match='expected blocks to be "all" or a range from first to last such as "6-11"'):
        tune(tiny_vit(), "prompt", blocks=wrong)


def test_a_range_is_inclusive_counts_from_zero_and_must_be_the_models() -> None:
    assert (parse_blocks("6-11"), parse_blocks("3-3"), parse_blocks("all")) == (range(6, 12), range(3, 4), None)
    with pytest.raises(InputError, match="range of blocks within 0-2, the blocks of this model, got '2-3'"):
        tune(tiny_vit(), "prompt", blocks="2-3")


def test_inserting_prompts_freezes_nothing() -> None:
    model = wrap(tiny_vit())
    layout = insert_prompts(model.vit, model.layout, torch.Generator().manual_seed(0), num_tokens=2, deep=True,
                            blocks="1-2")  # fmt: skip
    assert layout.prompts == 2 and all(value.requires_grad for value in model.parameters())
    assert sum(name.endswith(".prompts") for name, _ in model.named_parameters()) == 2


# What looks at attention block by block, against timm's explicit softmax


def unfused(model: TunedModel) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The targets' scores, timm's explicit probabilities (B, heads, N, N) and the blocks' outputs, in one graph."""
    attention: list[Tensor] = []
    outputs: list[Tensor] = []
    for block in model.vit.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: attention.append(output))
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    return model(tiny_images().requires_grad_(True))[range(3), TARGETS].sum(), attention, outputs


def propagate(
    matrices: list[Tensor], prefix: int, blocks: str, deep: bool, kept: float, mixed: float
) -> tuple[Tensor, Tensor]:
    """Every token as shares of the sources, forwards: the image's tokens, and prompts from where they enter.

    Args:
        matrices: per block (N, N) of one image.

    Returns:
        Rows of the tokens that leave over the image's tokens (T, T), and over the prompts (T, E, P).
    """
    here, tokens = where(blocks), prefix + PATCHES
    entering = list(here) if deep else [here[0]]
    state = torch.eye(tokens, tokens + len(entering) * COUNT, dtype=torch.float64)
    for index, matrix in enumerate(matrices):
        if index in entering:
            start = tokens + entering.index(index) * COUNT
            own = torch.zeros(COUNT, state.shape[1], dtype=torch.float64)
            own[:, start : start + COUNT] = torch.eye(COUNT)
            state = torch.cat((state[:prefix], own, state[prefix:]))
        state = mixed * matrix @ state + kept * state
        if index in here and (deep or index == here[-1]):
            state = torch.cat((state[:prefix], state[prefix + COUNT :]))
    return state[:, :tokens], state[:, tokens:].unflatten(1, (len(entering), COUNT))


READS = {"registers": (3, [0]), "mean of patches": (1, list(range(1, 1 + PATCHES)))}
"""Tokens of the prefix, and the rows a head reads."""


@KINDS
@BLOCKS
@pytest.mark.parametrize("head", READS)
def test_rollout_shares_equal_brute_force_and_sum_to_one(head: str, blocks: str, deep: bool) -> None:
    prefix, rows = READS[head]
    model = prompted(blocks, deep, head)
    found = explained(model, "attention_rollout")
    whole = found.values.sum((1, 2)) + sum(found.extras[f"{part}_share"] for part in ("prompt", "cls", "register"))
    np.testing.assert_allclose(whole, 1, atol=1e-6)
    _, attention, _ = unfused(model)
    entering = len(where(blocks)) if deep else 1
    assert found.extras["prompt_share_per_prompt"].shape == (3, entering, COUNT)
    assert ("prompt_share_per_block" in found.extras) is deep
    for image in range(3):
        matrices = [block[image].mean(0).detach() for block in attention]
        for suffix, given in (("", matrices), ("_null", [torch.ones_like(one) / len(one) for one in matrices])):
            sources, prompts = propagate(given, prefix, blocks, deep, 0.5, 0.5)
            share = prompts[rows].mean(0)
            if not suffix:
                np.testing.assert_allclose(found.values[image].ravel(), sources[rows].mean(0)[prefix:], atol=1e-6)
            np.testing.assert_allclose(found.extras[f"prompt_share{suffix}"][image], share.sum(), atol=1e-6)
            np.testing.assert_allclose(found.extras[f"prompt_share_per_prompt{suffix}"][image], share, atol=1e-6)
            if deep:
                per_block = found.extras[f"prompt_share_per_block{suffix}"][image]
                np.testing.assert_allclose(per_block, share.sum(1), atol=1e-6)


@KINDS
@BLOCKS
@pytest.mark.parametrize("head", READS)
def test_gradient_rollout_equals_brute_force(head: str, blocks: str, deep: bool) -> None:
    prefix, rows = READS[head]
    model = prompted(blocks, deep, head)
    found = explained(model, "gradient_rollout")
    score, attention, _ = unfused(model)
    pairs = zip(torch.autograd.grad(score, attention), attention, strict=True)
    weighted = [(gradient * block).relu().mean(1).detach() for gradient, block in pairs]
    for image in range(3):
        sources, prompts = propagate([block[image] for block in weighted], prefix, blocks, deep, 1.0, 1.0)
        values, share = sources[rows].mean(0)[prefix:], prompts[rows].mean(0)
        assert share.max() > 1e-4
        np.testing.assert_allclose(found.values[image].ravel(), values, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.extras["prompt_relevance"][image], share.sum(), rtol=1e-5)
        if deep:
            per_block = found.extras["prompt_relevance_per_block"][image]
            np.testing.assert_allclose(per_block, share.sum(1), rtol=1e-5, atol=1e-9)


@KINDS
@BLOCKS
def test_raw_attention_is_one_blocks_row_with_prompts_only_where_there_are_some(blocks: str, deep: bool) -> None:
    model = prompted(blocks, deep, "registers")
    found = [explained(model, "raw_attention", layer=layer) for layer in (0, 1, 2, -1)]
    _, attention, _ = unfused(model)
    for index, (ours, block) in enumerate(zip(found, attention, strict=True)):
        row, start = block.mean(1)[:, 0].detach().numpy(), 3 + COUNT * (index in where(blocks))
        np.testing.assert_allclose(ours.values.reshape(3, -1), row[:, start:], atol=1e-6)
        np.testing.assert_allclose(ours.extras["prompt_share"], row[:, 3:start].sum(1), atol=1e-6)
        whole = ours.values.sum((1, 2)) + sum(ours.extras[f"{part}_share"] for part in ("prompt", "cls", "register"))
        np.testing.assert_allclose(whole, 1, atol=1e-6)


@KINDS
@BLOCKS
def test_legrad_scores_each_block_without_its_prompts(blocks: str, deep: bool) -> None:
    model, here = prompted(blocks, deep, "registers"), where(blocks)
    found, vit = explained(model, "legrad"), model.vit
    _, attention, outputs = unfused(model)
    for index, (block, tokens) in enumerate(zip(attention, outputs, strict=True)):
        if tokens.shape[1] > 3 + PATCHES:
            tokens = torch.cat((tokens[:, :3], tokens[:, 3 + COUNT :]), dim=1)
        score = vit.head(vit.norm(tokens.mean(1)))[range(3), TARGETS].sum()
        (gradient,) = torch.autograd.grad(score, block, retain_graph=True)
        inside = COUNT * (index in here)
        # what is computed of prompts that leave where they entered is their keys: no query of theirs is averaged
        keys_only = inside and (deep or len(here) == 1)
        column = gradient.relu().mean(1).sum(1) / (block.shape[-1] - COUNT * bool(keys_only))
        per_block = found.extras["prompt_relevance_per_block"][:, index]
        np.testing.assert_allclose(per_block, column[:, 3 : 3 + inside].sum(1), rtol=1e-5, atol=1e-12)
        outputs[index] = column[:, 3 + inside :]
    expected = torch.stack(outputs).mean(0).detach().numpy()
    np.testing.assert_allclose(found.values.reshape(3, -1), expected, rtol=1e-5, atol=1e-9)
    mean = found.extras["prompt_relevance_per_block"].mean(1)
    np.testing.assert_allclose(found.extras["prompt_relevance"], mean, rtol=1e-5)


@KINDS
@BLOCKS
def test_masked_prompts_leave_the_backbone_and_each_block_has_its_effect(blocks: str, deep: bool) -> None:
    model, own = prompted(blocks, deep), prompted(blocks, deep).prompts()
    found = explained(model, "prompt_ablation")

    def score(prompts: Any) -> np.ndarray:
        with torch.no_grad():
            return reference(model, tiny_images(), blocks, deep, prompts)[range(3), TARGETS].numpy()

    whole = score(own)
    per_block = np.stack([whole - score([value[:0] if index == block else value for index, value in enumerate(own)])
                          for block in range(len(own))], axis=1)  # fmt: skip
    np.testing.assert_allclose(found.extras["prompt_effect"], whole - score([x[:0] for x in own]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.extras["prompt_effect_per_block"], per_block, rtol=1e-4, atol=1e-6)


@KINDS
@BLOCKS
def test_the_joint_path_equals_a_plain_loop(blocks: str, deep: bool) -> None:
    model = prompted(blocks, deep)
    found = explained(model, "integrated_gradients", prompts=True, n_steps=2)
    images, own = tiny_images(), [value.expand(3, -1, -1) for value in model.prompts()]
    black = model.transform.normalise(torch.zeros_like(images))
    sums = [torch.zeros_like(value) for value in (images, *own)]
    for point in np.polynomial.legendre.leggauss(2)[0] / 2 + 0.5:
        at = [(start + point * (end - start)).requires_grad_(True)
              for start, end in zip((black, *map(torch.zeros_like, own)), (images, *own), strict=True)]  # fmt: skip
        score = reference(model, at[0], blocks, deep, at[1:])[range(3), TARGETS].sum()
        sums = [total + part / 2 for total, part in zip(sums, torch.autograd.grad(score, at), strict=True)]
    values = ((images - black) * sums[0]).sum(1).numpy()
    parts = torch.stack([(value * total).sum(-1) for value, total in zip(own, sums[1:], strict=True)], dim=1).numpy()
    assert parts.shape == (3, len(where(blocks)) if deep else 1, COUNT)
    np.testing.assert_allclose(found.values, values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.extras["prompt_attribution"], parts, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_explains_a_model_through_whose_middle_prompts_travel(name: str) -> None:
    quick = {"integrated_gradients": {"max_nodes": 5}, "kernel_shap": {"samples": 20}, "rise": {"masks": 20}}
    quick |= {one: {"samples": 3} for one in ("smooth_grad", "smooth_grad_squared", "gradient_shap")}
    model = prompted("1-2", deep=False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = explained(model, name, **quick.get(name, {}))
    assert found.values.shape in {(3, *GRID), (3, *SIZE)} and np.isfinite(found.values).all() and found.values.std() > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("layer", ["blocks.0", "blocks.1.norm1", "blocks.2.norm1", "blocks.3.norm1"])
@KINDS
def test_a_layer_gives_the_map_of_its_patches_with_and_without_prompts_beside_them(layer: str, deep: bool) -> None:
    model = prompted("1-2", deep, "mean of patches")
    found, kept = explained(model, "grad_cam", layer=layer), []
    model.vit.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = reference(model, tiny_images().requires_grad_(True), "1-2", deep)[range(3), TARGETS].sum()
    (gradient,) = torch.autograd.grad(score, kept[0])
    features, gradient = kept[0][:, -PATCHES:].detach(), gradient[:, -PATCHES:]
    expected = (gradient.mean(1, keepdim=True) * features).sum(-1).numpy()
    np.testing.assert_allclose(found.values.reshape(3, -1), expected, rtol=1e-5, atol=1e-9)

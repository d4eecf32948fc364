"""Layer-wise learning-rate decay against its closed form and timm's own grouping."""

import math

import pytest
import torch
from timm.optim import param_groups_layer_decay
from tiny_vits import BASE, HEADS, tiny_vit
from tuned_cases import tuned

from explain.errors import InputError
from explain.tuning.base import TUNINGS, tune

DEPTH = BASE["depth"]


def scales(head: str, decay: float) -> dict[str, float]:
    tuning = TUNINGS.create("layer_decay", decay=decay)
    return {name: tuning.rate_scale(name, DEPTH) for name, _ in tiny_vit(head).named_parameters()}


def test_the_factor_falls_by_the_decay_from_the_head_to_the_embeddings() -> None:
    found = scales("registers", 0.5)
    assert {found[name] for name in ("cls_token", "reg_token", "pos_embed", "patch_embed.proj.bias")} == {0.5**4}
    for block in range(DEPTH):
        of_block = {scale for name, scale in found.items() if name.startswith(f"blocks.{block}.")}
        assert of_block == {0.5 ** (DEPTH - block)}
    assert {found[name] for name in ("norm.weight", "head.weight", "head.bias")} == {1.0}


@pytest.mark.parametrize("head", HEADS)
def test_the_factors_are_timms_but_for_the_norm_that_timm_counts_to_the_last_block(head: str) -> None:
    vit, ours = tiny_vit(head), scales(head, 0.65)
    names = {id(value): name for name, value in vit.named_parameters()}
    theirs = {
        names[id(value)]: group["lr_scale"]
        for group in param_groups_layer_decay(vit, layer_decay=0.65)
        for value in group["params"]
    }
    final = {"norm.weight", "norm.bias"} & theirs.keys()
    assert theirs.keys() == ours.keys()
    assert all(ours[name] == pytest.approx(theirs[name]) for name in theirs.keys() - final)
    assert all(ours[name] == 1.0 and theirs[name] == pytest.approx(0.65) for name in final)


def test_no_decay_is_full_fine_tuning() -> None:
    assert set(scales("cls", 1.0).values()) == {1.0}
    model, full = tuned("layer_decay", {}, "cls"), tuned("full", {}, "cls")
    assert model.trained_state().keys() == full.trained_state().keys()
    assert all(torch.equal(value, full.trained_state()[name]) for name, value in model.trained_state().items())


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1, math.nan])
def test_a_decay_outside_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match="expected 0 < decay <= 1"):
        tune(tiny_vit(), "layer_decay", decay=decay)

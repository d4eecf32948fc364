"""LoRA against the same model with the update multiplied out into plain weights."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from tiny_vits import BASE, tiny_images, tiny_vit
from tuned_cases import FEW_NODES, METHODS_BY_KIND, tuned

from explain.engine import attribute
from explain.errors import InputError
from explain.model import TunedModel
from explain.tuning.base import tune

WIDTH, HIDDEN, DEPTH, CLASSES = BASE["embed_dim"], int(BASE["embed_dim"] * BASE["mlp_ratio"]), BASE["depth"], 2
TARGETS = ["qv", "k", "o", "m", "qkvom"]


def trained(**options: Any) -> TunedModel:
    """A LoRA model whose updates are large."""
    model = tuned("lora", options, "cls")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".b"):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return model


def multiplied_out(model: TunedModel) -> TunedModel:
    """The plain model with W + alpha / rank · B A, built from the state's names alone."""
    state, scale = dict(model.vit.state_dict()), model.tuning_options["alpha"] / model.tuning_options["rank"]
    for name in [name for name in state if name.endswith(".a")]:
        layer, part = name.removesuffix(".a").split(".updates.")
        update = scale * state[f"{layer}.updates.{part}.b"] @ state[name]
        weight = state[f"{layer}.weight"].clone()
        weight[int(part) * len(update) : (int(part) + 1) * len(update)] += update
        state[f"{layer}.weight"] = weight
    plain = tuned("full", {}, "cls")
    plain.vit.load_state_dict({name: value for name, value in state.items() if ".updates." not in name})
    return plain


@pytest.mark.parametrize("targets", TARGETS)
def test_the_model_computes_with_w_plus_alpha_over_rank_b_a(targets: str) -> None:
    model = trained(rank=3, alpha=5.0, targets=targets)
    plain = multiplied_out(model)
    with torch.no_grad():
        assert torch.allclose(model(tiny_images()), plain(tiny_images()), rtol=1e-10, atol=1e-12)
        start = tuned("linear", {}, "cls")(tiny_images())
    assert not torch.allclose(plain(tiny_images()), start, rtol=1e-2)


@pytest.mark.parametrize("targets", ["qv", "om"])
def test_its_maps_are_those_of_the_multiplied_out_model(targets: str) -> None:
    """The plain model takes the lean path through its blocks, the adapted one the whole attention."""
    model = trained(rank=3, targets=targets)
    maps, expected = (
        attribute(one, tiny_images(), methods=METHODS_BY_KIND, options=FEW_NODES, targets=0)
        for one in (model, multiplied_out(model))
    )
    for method, found in maps.items():
        values = expected[method].values
        np.testing.assert_allclose(found.values, values, rtol=1e-5, atol=1e-6 * np.abs(values).max(), err_msg=method)


def test_it_starts_as_the_backbone() -> None:
    images = tiny_images()
    assert torch.equal(tuned("lora", {"targets": "qkvom"}, "cls")(images), tuned("linear", {}, "cls")(images))


@pytest.mark.parametrize("targets", TARGETS)
def test_the_number_of_trained_parameters_is_closed_form(targets: str) -> None:
    rank = 3
    sides = {"q": 2 * WIDTH, "k": 2 * WIDTH, "v": 2 * WIDTH, "o": 2 * WIDTH, "m": 2 * (WIDTH + HIDDEN)}
    stored = tuned("lora", {"rank": rank, "targets": targets}, "cls").trained_state()
    updates = DEPTH * rank * sum(sides[letter] for letter in targets)
    assert sum(value.numel() for value in stored.values()) == updates + (WIDTH + 1) * CLASSES


def test_a_starts_normal_with_variance_one_over_its_inputs_and_b_at_zero() -> None:
    state = tuned("lora", {"rank": 64}, "cls").trained_state()
    a = torch.cat([value.flatten() for name, value in state.items() if name.endswith(".a")])
    assert (a.std() * math.sqrt(WIDTH)).item() == pytest.approx(1, rel=0.05)
    assert a.abs().max() > 2.5 * a.std() and abs(a.mean()) < 0.05 * a.std()
    assert all(not value.any() for name, value in state.items() if name.endswith(".b"))


def test_the_backbones_weights_keep_their_names_and_get_no_gradient() -> None:
    model = trained(targets="qkvom")
    model(tiny_images()).sum().backward()
    for name, value in tiny_vit().named_parameters():
        if not name.startswith("head."):
            assert torch.equal(model.vit.get_parameter(name), value)
            assert model.vit.get_parameter(name).grad is None


def test_wrong_options_are_refused_in_one_sentence() -> None:
    vit = tiny_vit()
    for rank, alpha in ((0, 1.0), (1, 0.0), (1, math.nan), (1, math.inf)):
        with pytest.raises(InputError, match="expected rank >= 1 and a finite alpha > 0"):
            tune(vit, "lora", rank=rank, alpha=alpha)
    for targets in ("", "qq", "qx"):
        with pytest.raises(InputError, match="expected targets to be different letters of 'qkvom'"):
            tune(vit, "lora", targets=targets)
    with pytest.raises(InputError, match="wrong type"):
        tune(vit, "lora", rank="8")
    parallel = VisionTransformer(**{**BASE, "depth": 1}, block_fn=ParallelScalingBlock)
    with pytest.raises(InputError, match="a ParallelScalingBlock has no linear layer 'attn.qkv' to adapt"):
        tune(parallel, "lora")

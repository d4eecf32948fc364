"""One contract for every method on every tuning and every kind of head."""

import hashlib
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tiny_vits import GRID, SIZE, tiny_images
from torch import nn
from tuned_cases import PROMPTED, TUNED, VARIANTS, shared_tuned, title, tuned

from explain.attribution import Attribution
from explain.engine import attribute
from explain.errors import CaptureError
from explain.methods.base import METHODS
from explain.model import TunedModel
from explain.wrapping import wrap

QUICK: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"max_nodes": 5},
    "fem": {"k": 0.5},  # at 2 a threshold decides, and bfloat16 may fall on the other side of it
    "smooth_grad": {"samples": 3},
    "smooth_grad_squared": {"samples": 3},
    "gradient_shap": {"samples": 3},
    "kernel_shap": {"samples": 20},
    "rise": {"masks": 20},
}
"""Options that make a method quick or smooth; the contract holds for any."""

SEES_PIXELS = {"score_cam"}
"""Methods whose masks reach over patches: another order of patches is another picture to them."""



def variants_for(name: str) -> list[Any]:
    return PROMPTED if METHODS[name].needs_prompts else VARIANTS


CASES = [
    pytest.param(name, index, id=f"{name}-{title(case)}")
    for name in METHODS
    for index, case in enumerate(TUNED)
    if case[:2] in variants_for(name)
]
PLAIN = [
    pytest.param(name, variant, id=f"{name}-{title(variant)}") for name in METHODS for variant in variants_for(name)
]


def explain_one(name: str, model: TunedModel, images: torch.Tensor, **more: Any) -> Attribution:
    return attribute(model, images, methods=name, options={name: QUICK.get(name, {})}, **more)[name]


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that a call could leave changed."""
    found: dict[str, Any] = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        digest = hashlib.sha256(value.detach().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        grad = None if value.grad is None else (id(value.grad), value.grad.clone().sum().item())
        found[f"tensor {name}"] = (id(value), value._version, value.requires_grad, grad, digest)
    for name, module in model.named_modules():
        hooks = {key: list(hooks) for key, hooks in vars(module).items() if "hook" in key and hooks}
        own = {key: value for key, value in vars(module).items() if isinstance(value, bool | int | float | str)}
        found[f"module {name}"] = (id(module), hooks, own)
    return found


@pytest.mark.parametrize(("name", "index"), CASES)
def test_maps_are_finite_float32_on_the_grid_or_in_pixels(name: str, index: int) -> None:
    found = explain_one(name, shared_tuned(index), tiny_images())
    assert found.values.dtype == np.float32 and found.values.shape in {(3, *GRID), (3, *SIZE)}
    assert np.isfinite(found.values).all() and found.values.std() > 0
    assert found.logits.shape == (3, 2) and found.targets.dtype == np.int64 and found.image_size == SIZE
    assert all(len(values) == 3 for values in found.extras.values())


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_batch_equals_its_images_one_by_one(name: str, index: int) -> None:
    model, images = shared_tuned(index), tiny_images()
    together = explain_one(name, model, images)
    for row in range(3):
        alone = explain_one(name, model, images[row : row + 1])
        assert_same(together[row], alone)
    assert_same(together, explain_one(name, model, images, batch_size=2))


def assert_same(left: Attribution, right: Attribution) -> None:
    np.testing.assert_allclose(left.values, right.values, rtol=1e-5, atol=1e-7 * np.abs(left.values).max())
    assert left.extras.keys() == right.extras.keys()
    for key, values in left.extras.items():
        np.testing.assert_allclose(values, right.extras[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_call_repeats_bitwise_and_leaves_model_and_random_state_alone(name: str, index: int) -> None:
    model, images = shared_tuned(index), tiny_images()
    before, random, given = fingerprint(model), torch.get_rng_state(), images.clone()
    first, second = explain_one(name, model, images), explain_one(name, model, images)
    assert np.array_equal(first.values, second.values)
    assert fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), random) and torch.equal(images, given)


@pytest.mark.parametrize(("name", "variant"), PLAIN)
def test_a_model_in_training_with_hooks_and_gradients_is_left_as_found(name: str, variant: Any) -> None:
    model, calls = tuned(*variant, "cls"), []
    expected = explain_one(name, model, tiny_images())
    model.vit.head_drop.p = model.vit.blocks[0].attn.proj_drop.p = 0.5
    model.train()
    model.vit.blocks[1].eval()
    model.vit.blocks[0].attn.fused_attn = False
    model.vit.set_grad_checkpointing(True)
    model.vit.norm.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    model.vit.head.weight.grad = torch.ones_like(model.vit.head.weight)
    before = fingerprint(model)
    assert np.array_equal(explain_one(name, model, tiny_images()).values, expected.values)
    assert fingerprint(model) == before
    assert calls, "the user's own hook has to see the forward"


class Broken(Exception):
    """Raised on purpose in the middle of a forward."""


@pytest.mark.parametrize(("name", "variant"), PLAIN)
def test_a_forward_that_raises_leaves_the_model_as_found(name: str, variant: Any) -> None:
    model = tuned(*variant, "cls")

    def fail(module: nn.Module, inputs: Any, output: Any) -> None:
        raise Broken

    handle = model.vit.norm.register_forward_hook(fail)
    before, random = fingerprint(model), torch.get_rng_state()
    with pytest.raises(Broken):
        explain_one(name, model, tiny_images())
    assert fingerprint(model) == before and torch.equal(torch.get_rng_state(), random)
    handle.remove()
    attention = nn.functional.scaled_dot_product_attention
    assert torch.isfinite(model(tiny_images())).all() and nn.functional.scaled_dot_product_attention is attention


@pytest.mark.parametrize(("name", "variant"), PLAIN)
def test_grad_modes_frozen_weights_and_gradient_inputs_do_not_change_a_map(name: str, variant: Any) -> None:
    model, images = tuned(*variant, "cls"), tiny_images()
    expected = explain_one(name, model, images).values
    with torch.no_grad():
        assert np.array_equal(explain_one(name, model, images).values, expected)
    with torch.inference_mode():
        assert np.array_equal(explain_one(name, model, images).values, expected)
        assert np.array_equal(explain_one(name, model, images * 1).values, expected)
    leaf = images.clone().requires_grad_(True)
    assert np.array_equal(explain_one(name, model, leaf).values, expected)
    assert leaf.grad is None and leaf.requires_grad
    model.requires_grad_(False)
    assert np.array_equal(explain_one(name, model, images).values, expected)


@pytest.mark.parametrize(("name", "variant"), PLAIN)
def test_a_bfloat16_model_gives_nearly_the_same_float32_map(name: str, variant: Any) -> None:
    model = tuned(*variant, "cls")
    exact = explain_one(name, model, tiny_images(), targets=0).values
    rough = explain_one(name, model.bfloat16(), tiny_images(), targets=0).values
    assert rough.dtype == np.float32
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("name", "variant"), PLAIN)
def test_another_image_size_gives_another_grid(name: str, variant: Any) -> None:
    model = tuned(*variant, "cls", dynamic_img_size=True)
    found = explain_one(name, model, tiny_images(2, (40, 16)))
    assert found.values.shape in {(2, 5, 2), (2, 40, 16)} and found.image_size == (40, 16)


@pytest.mark.parametrize("name", list(METHODS))
def test_the_target_matters_exactly_when_the_method_says_so(name: str) -> None:
    model = tuned(*variants_for(name)[0], "cls")
    cat, dog = (explain_one(name, model, tiny_images(), targets=target).values for target in (0, 1))
    assert np.array_equal(cat, dog) != METHODS[name].class_specific


@pytest.mark.parametrize("name", [name for name in METHODS if name not in SEES_PIXELS and not METHODS[name].random])
def test_a_map_moves_with_the_picture(name: str) -> None:
    """Without position embeddings a ViT has no left or right, so flipping the patch order flips the map."""
    model = tuned(*variants_for(name)[0], "cls", pos_embed="none")
    images = tiny_images()
    rows = images.reshape(3, 3, GRID[0], 8, GRID[1], 8)
    flipped = explain_one(name, model, rows.flip(2, 4).reshape(images.shape)).values
    straight = explain_one(name, model, images).values
    if straight.shape[1:] == SIZE:
        straight = straight.reshape(3, GRID[0], 8, GRID[1], 8)[:, ::-1, :, ::-1].reshape(straight.shape)
    else:
        straight = straight[:, ::-1, ::-1]
    np.testing.assert_allclose(flipped, straight, rtol=1e-4, atol=1e-5 * np.abs(straight).max())


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_says_what_a_reader_must_know(name: str) -> None:
    method = METHODS[name]
    assert method.name == name and method.label and method.source and method.picture in {"positive", "signed"}
    assert all(isinstance(flag, bool) for flag in (method.signed, method.class_specific, method.random))
    assert ("F" in method.cost or "G" in method.cost) and (method.signed or method.picture == "positive")
    assert not (method.convolutional and (method.attention or method.attention_gradients or method.needs_prompts))
    assert method.random == any(field.name == "seed" for field in fields(method)) or name == "integrated_gradients"


@pytest.mark.parametrize("name", list(METHODS))
def test_29_prompts_beside_196_patches_are_no_15_by_15_grid(name: str) -> None:
    """29 + 196 = 225 = 15²: whoever takes a square root of the tokens draws prompts as patches."""
    model = tuned("prompt", {"num_tokens": 29}, "cls", img_size=112)
    found = explain_one(name, model, tiny_images(1, (112, 112)))
    assert found.values.shape in {(1, 14, 14), (1, 112, 112)} and np.isfinite(found.values).all()


@pytest.mark.parametrize("cnn", ["resnet18", "convnext_atto"])
@pytest.mark.parametrize("name", list(METHODS))
def test_a_convolutional_network_is_explained_or_refused_in_one_line(name: str, cnn: str) -> None:
    model, images = wrap(convolutional(cnn)), tiny_images(2, (64, 96)).float()
    method = METHODS[name]
    if not method.convolutional:
        with pytest.raises(CaptureError, match="attention|prompts|convolutional"):
            explain_one(name, model, images)
        return
    before, random = fingerprint(model), torch.get_rng_state()
    found = explain_one(name, model, images)
    assert found.values.shape in {(2, 2, 3), (2, 64, 96)} and np.isfinite(found.values).all()
    assert found.values.std() > 0 and fingerprint(model) == before and torch.equal(torch.get_rng_state(), random)
    alone = explain_one(name, model, images[1:])
    np.testing.assert_allclose(found.values[1], alone.values[0], rtol=1e-3, atol=1e-4 * np.abs(alone.values).max())


@cache
def convolutional(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        narrow = {"channels": (8, 12, 16, 24)} if name == "resnet18" else {"dims": (8, 12, 16, 24)}
        network = timm.create_model(name, num_classes=2, **narrow).eval()
    randomised = [value for key, value in network.named_parameters() if key.endswith("gamma")]
    for value in randomised:  # layer scales start so small that nothing would show
        nn.init.ones_(value)
    return network

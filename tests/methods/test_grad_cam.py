"""GradCAM: closed forms, the zero-gradient layers, and agreement with pytorch-grad-cam."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from tiny_vits import GRID, SIZE, tiny_images, tiny_vit
from torch import Tensor, nn
from torch.nn.functional import interpolate

from explain.engine import attribute
from explain.errors import CaptureError
from explain.methods.base import METHODS, Maps, Method
from explain.methods.grad_cam import grad_cam
from explain.model import Trace, TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

NORM = "blocks.2.norm1"


def raw(model: TunedModel, images: Tensor | None = None, **more: Any) -> np.ndarray:
    layer = more.pop("layer", None)
    images = tiny_images() if images is None else images
    return attribute(model, images, methods="grad_cam", options={"grad_cam": {"layer": layer}}, **more)[
        "grad_cam"
    ].values


def test_weights_are_the_gradient_averaged_over_patches() -> None:
    features = torch.tensor([[[[1.0, 3.0]], [[2.0, -1.0]]]])  # two channels on a 1x2 grid
    gradient = torch.tensor([[[[1.0, 3.0]], [[0.0, -4.0]]]])  # means 2 and -2
    assert torch.equal(grad_cam(features, gradient), torch.tensor([[[2 * 1 - 2 * 2, 2 * 3 + 2 * 1]]]).float())


def test_each_image_has_weights_of_its_own() -> None:
    features, gradient = torch.ones(2, 3, 2, 2), torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.equal(grad_cam(features, gradient)[1], grad_cam(features[1:], gradient[1:])[0])


@pytest.mark.parametrize("prompts", [None, False, True], ids=["plain", "shallow", "deep"])
def test_a_mean_pooled_head_gives_the_class_activation_map(prompts: bool | None) -> None:
    """Layer = final norm, pooling = mean: the raw map is head_t · A_p / N and sums to the logit less the bias."""
    vit = tiny_vit("mean of patches", fc_norm=False)
    model = wrap(vit) if prompts is None else tune(vit, "prompt", num_tokens=4, deep=prompts)
    images, target = tiny_images(), 3
    with torch.no_grad():
        tokens, head = model.vit.forward_features(images), model.vit.head
        expected = (tokens @ head.weight[target] / math.prod(GRID))[:, 1:].reshape(3, *GRID)
        scores = model(images)[:, target] - head.bias[target]
    found = raw(model, images, targets=target)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.sum((1, 2)), scores.numpy(), rtol=1e-5)


@pytest.mark.parametrize("layer", ["blocks.2", "blocks.2.attn", "blocks.2.norm2", "blocks.2.mlp", "norm"])
def test_a_layer_behind_the_last_attention_is_refused(layer: str) -> None:
    with pytest.raises(CaptureError, match=rf"gradient at layer '{layer}' is exactly zero .* such as '{NORM}'"):
        raw(wrap(tiny_vit()), layer=layer)


@pytest.mark.parametrize("layer", ["blocks.1", "blocks.0.norm1", "blocks.2.attn.qkv", "pos_drop"])
def test_a_layer_that_feeds_an_attention_is_not(layer: str) -> None:
    assert raw(wrap(tiny_vit()), layer=layer).std() > 0


@pytest.mark.parametrize(
    ("layer", "problem"),
    [("blocks.7", "no layer 'blocks.7'"), ("head", r"output is \(B, tokens, D\); 'head' gives \(3, 5\)"),
     ("blocks.2.attn.attn_drop", "took no part"), ("blocks.2.attn.q_norm", "gives")],
)  # fmt: skip
def test_a_layer_that_shows_no_tokens_is_refused(layer: str, problem: str) -> None:
    with pytest.raises(CaptureError, match=problem):
        raw(wrap(tiny_vit()), layer=layer)


def test_a_layer_of_patches_alone_needs_no_guess() -> None:
    assert raw(wrap(tiny_vit()), layer="patch_embed").shape == (3, *GRID)


@pytest.mark.parametrize(
    ("head", "options", "layer"),
    [("cls", {}, NORM), ("registers", {}, NORM), ("distilled", {}, NORM), ("attention pool", {}, "norm"),
     ("mean of patches", {}, "blocks.2"), ("mean of patches", {"fc_norm": False}, "norm")],
)  # fmt: skip
def test_the_layer_follows_from_the_structure(head: str, options: dict[str, Any], layer: str) -> None:
    model = wrap(tiny_vit(head, **options))
    assert model.default_layer() == layer
    assert attribute(model, tiny_images(), methods="grad_cam")["grad_cam"].provenance["layer"] == layer


def oracle_picture(model: TunedModel, images: Tensor, targets: list[int], layer: nn.Module) -> np.ndarray:
    """pytorch-grad-cam told where the patches are: the LAST h*w tokens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peer's imports
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def reshape(tokens: Tensor) -> Tensor:
        patches = tokens[:, -math.prod(GRID) :]
        return patches.reshape(len(tokens), *GRID, -1).permute(0, 3, 1, 2)

    cam = GradCAM(model, [layer], reshape_transform=reshape)
    try:
        return cam(images, [ClassifierOutputTarget(target) for target in targets])
    finally:
        cam.activations_and_grads.release()


def their_picture(values: np.ndarray) -> np.ndarray:
    """Raw maps as pytorch-grad-cam draws them: ReLU, min-max on the grid, bilinear, ReLU, min-max again."""

    def stretch(maps: Tensor) -> Tensor:
        maps = maps - maps.amin((1, 2), keepdim=True)
        return maps / (1e-7 + maps.amax((1, 2), keepdim=True))

    grid = stretch(torch.from_numpy(values).relu())
    return stretch(interpolate(grid[:, None], SIZE, mode="bilinear", align_corners=False)[:, 0].relu()).numpy()


@pytest.mark.parametrize("case", ["plain", "registers", "shallow", "deep"])
def test_the_picture_equals_pytorch_grad_cams(case: str) -> None:
    vit = tiny_vit("registers" if case == "registers" else "cls", dtype=torch.float32)
    deep = {"shallow": False, "deep": True}.get(case)
    model = (wrap(vit) if deep is None else tune(vit, "prompt", num_tokens=5, deep=deep)).eval()
    model.requires_grad_(True)  # the peer cannot explain a frozen model
    images, targets = tiny_images(6).float(), [0, 1, 2, 3, 4, 0]
    theirs = oracle_picture(model, images, targets, model.vit.blocks[2].norm1)
    ours = their_picture(raw(model, images, targets=targets))
    drawn = theirs.reshape(6, -1).max(1) > 0.9
    assert drawn.sum() >= 4, "blank pictures, of maps without a positive value, would agree whatever we do"
    assert np.abs(ours - theirs).max() < 1e-5


def test_29_prompts_beside_196_patches_do_not_become_a_15_by_15_grid() -> None:
    """29 + 196 = 225 = 15²: whoever takes a square root of the tokens draws prompts as patches."""
    model = tune(tiny_vit(img_size=112), "prompt", num_tokens=29)
    images = tiny_images(1, (112, 112))
    found = raw(model, images, targets=0)
    assert found.shape == (1, 14, 14)
    with model.capture(attention=False, layers=[NORM]) as trace:
        score = model.eval()(images)[0, 0]
    features = trace.activations[NORM]
    assert features.shape[1] == 1 + 196, "deep prompts are keys and values, not tokens"
    (gradient,) = torch.autograd.grad(score, features)
    expected = (features * gradient[:, 1:].mean(1, keepdim=True)).sum(-1)[:, 1:].reshape(1, 14, 14)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-9)


def test_negative_values_stay() -> None:
    assert (raw(wrap(tiny_vit())) < 0).any()


def test_the_method_of_the_documentation_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/attribution.md shows a whole method; it is run as it stands there."""
    text = (Path(__file__).parents[2] / "docs/attribution.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    METHODS["grad_cam"]  # fill the registry first
    monkeypatch.setattr(METHODS, "_classes", METHODS._classes.copy())
    exec(code, {"METHODS": METHODS, "Method": Method, "Maps": Maps, "dataclass": dataclass, "ClassVar": ClassVar,
                "Literal": Literal, "TunedModel": TunedModel, "Trace": Trace, "Tensor": Tensor,
                "Sequence": Sequence, "__name__": __name__})  # fmt: skip
    found = attribute(tune(tiny_vit(), "prompt", num_tokens=3), tiny_images(), methods="gradient_norm")
    assert found["gradient_norm"].values.shape == (3, *GRID) and (found["gradient_norm"].values > 0).all()

"""Numbers that are none, maps that are flat, the same call again: what comes out is finite, told, and repeats."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import tiny_images, tiny_vit

from explain.attribution import Array, Attribution
from explain.engine import attribute
from explain.errors import CaptureError, InputError, IntegrityError, MismatchedRunsError, NonFiniteError
from explain.files import read_json, write_json
from explain.metrics import agreement, complexity
from explain.metrics.localisation import relevance_mass
from explain.model import TunedModel
from explain.render.heatmap import is_blank
from explain.training.pair import MatchedPair
from explain.training.run import Run
from explain.tuning.base import tune
from explain.wrapping import wrap

METHODS = ("grad_cam", "integrated_gradients", "attention_rollout")
FEW_NODES = {"integrated_gradients": {"n_steps": 8}}

SAME_CALL = 5e-6
"""Largest difference between batches of other sizes, or other thread counts, as a share of a map's largest value.

The matrix products of a CPU library depend on the shape of the matrices, so float32 maps agree but for rounding.
"""


def explain_all(model: TunedModel, images: Any, **options: Any) -> dict[str, Attribution]:
    return attribute(model, images, methods=METHODS, options=FEW_NODES, **options)


# N1: NaN and infinite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("weight", ["patch_embed.proj.weight", "blocks.1.attn.qkv.bias", "blocks.2.mlp.fc2.weight",
                                    "norm.bias", "head.weight"])  # fmt: skip
@pytest.mark.parametrize("method", METHODS)
def test_a_weight_that_is_no_number_is_an_error_for_every_method(method: str, weight: str, value: float) -> None:
    model = wrap(tiny_vit())
    with torch.no_grad():
        model.vit.get_parameter(weight).flatten()[0] = value
    with pytest.raises(NonFiniteError, match=r"of image\(s\) \[0, 1\] are NaN or infinite"):
        attribute(model, tiny_images(2), methods=method, options={k: v for k, v in FEW_NODES.items() if k == method})


class Cliff(torch.nn.Module):
    """The identity, whose gradient is NaN."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + (values * 0).sqrt().detach() + (values - values).abs().sqrt()


@pytest.mark.parametrize(
    ("method", "label"), [("grad_cam", "GradCAM"), ("integrated_gradients", "Integrated Gradients")]
)
def test_a_gradient_that_is_no_number_is_an_error_with_the_methods_name(method: str, label: str) -> None:
    model = wrap(tiny_vit())
    model.vit.blocks[-1].mlp.fc2 = torch.nn.Sequential(model.vit.blocks[-1].mlp.fc2, Cliff())
    assert torch.isfinite(model(tiny_images(2))).all()
    with pytest.raises(NonFiniteError, match=rf"{label} maps of image\(s\) \[0, 1\]"):
        attribute(model, tiny_images(2), methods=method, options={k: v for k, v in FEW_NODES.items() if k == method})
    assert np.isfinite(attribute(model, tiny_images(2), methods="attention_rollout")["attention_rollout"].values).all()


# N2: nothing to see

FLAT = np.stack([np.zeros((4, 5)), np.full((4, 5), 0.25), np.full((4, 5), -3.0), np.full((4, 5), 1e-12)])
RAMP = np.arange(20, dtype=float).reshape(1, 4, 5).repeat(len(FLAT), 0)
MASK = np.zeros((len(FLAT), 4, 5))
MASK[:, :2] = 1.0


@pytest.mark.parametrize("metric", [agreement.pearson, agreement.spearman], ids=lambda metric: metric.__name__)
def test_a_flat_map_has_no_correlation_instead_of_0(metric: Callable[[Array, Array], Array]) -> None:
    with np.errstate(all="raise"):
        assert np.isnan(metric(FLAT, RAMP)).all() and np.isnan(metric(RAMP, FLAT)).all()


@pytest.mark.parametrize("metric", [complexity.gini, complexity.entropy], ids=lambda metric: metric.__name__)
def test_a_map_of_zeros_has_no_concentration_instead_of_0(metric: Callable[[Array], Array]) -> None:
    with np.errstate(all="raise"):
        found = metric(FLAT)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()


def test_a_map_without_positive_values_has_no_mass_and_no_picture() -> None:
    with np.errstate(all="raise"):
        found = relevance_mass(FLAT, MASK)
    assert np.isnan(found[[0, 2]]).all() and np.isfinite(found[[1, 3]]).all()
    assert [is_blank(values, signed=False) for values in FLAT] == [True, False, True, False]


def test_a_model_whose_answer_nothing_decides_gives_zeros_or_says_why() -> None:
    model = wrap(tiny_vit())
    with torch.no_grad():
        model.vit.head.weight.zero_()
    maps = attribute(model, tiny_images(2), methods="integrated_gradients", options=FEW_NODES)["integrated_gradients"]
    assert np.array_equal(maps.values, np.zeros_like(maps.values))
    with pytest.raises(CaptureError, match="zero"):
        attribute(model, tiny_images(2), methods="grad_cam")


# N4: the same call again


@pytest.fixture(scope="module")
def model() -> TunedModel:
    names = ("a", "b", "c")
    return tune("random:vit_tiny_patch16_224", "prompt", class_names=names, image_size=64, num_tokens=3).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_same_call_twice_gives_the_same_bits(model: TunedModel, images: torch.Tensor) -> None:
    once, again = (explain_all(model, images, targets=1, batch_size=8) for _ in range(2))
    for name in METHODS:
        assert np.array_equal(once[name].values, again[name].values)
        assert np.array_equal(once[name].logits, again[name].logits)


def test_batches_of_one_and_of_eight_agree_but_for_rounding(model: TunedModel, images: torch.Tensor) -> None:
    ones, eight = (explain_all(model, images, targets=1, batch_size=size) for size in (1, 8))
    agree(ones, eight)


def test_one_thread_and_two_agree_but_for_rounding(model: TunedModel, images: torch.Tensor) -> None:
    one = explain_all(model, images, targets=1, batch_size=8)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = explain_all(model, images, targets=1, batch_size=8)
    finally:
        torch.set_num_threads(threads)
    agree(one, two)


def agree(first: dict[str, Attribution], second: dict[str, Attribution]) -> None:
    for name in METHODS:
        a, b = first[name].values, second[name].values
        peak = np.abs(a).reshape(len(a), -1).max(axis=1)
        assert (peak > 0).all()
        assert (np.abs(a - b).reshape(len(a), -1).max(axis=1) <= SAME_CALL * peak).all(), name
        assert np.array_equal(first[name].targets, second[name].targets)


# N6: classes


@pytest.mark.parametrize("targets", [3, -1, 10**30, [0, 1, 3], torch.tensor([0, 1, -1])])
def test_a_class_that_does_not_exist_is_refused_before_the_first_image(
    targets: Any, model: TunedModel, images: torch.Tensor
) -> None:
    calls: list[int] = []
    handle = model.vit.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(InputError) as caught:
            explain_all(model, images[:3], targets=targets)
    finally:
        handle.remove()
    assert calls == [] and caught.value.exit_code == 2


def test_arms_that_number_their_classes_differently_are_no_pair(tiny_pair: MatchedPair, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_pair.path, tmp_path / "pair"))
    manifest = read_json(copy / "ft" / "manifest.json")
    write_json(copy / "ft" / "manifest.json", manifest | {"class_names": manifest["class_names"][::-1]})
    with pytest.raises(MismatchedRunsError, match="classes: vpt left, right, ft right, left") as caught:
        MatchedPair.load(copy)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("names", [["left"], ["left", "right", "up"]])
def test_class_names_that_are_too_few_or_too_many_are_refused(
    names: list[str], tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_pair.path, tmp_path / "pair"))
    manifest = read_json(copy / "vpt" / "manifest.json")
    write_json(copy / "vpt" / "manifest.json", manifest | {"class_names": names})
    run = Run.load(copy / "vpt")
    for use in (lambda: run.model, lambda: run.predictions):
        with pytest.raises(IntegrityError):
            use()
    with pytest.raises(InputError, match="the model has 2 outputs"):
        wrap(tiny_pair.ft.model.vit, class_names=names)

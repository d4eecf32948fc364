"""Integrated Gradients: closed forms, completeness, the nested rule, baselines, and agreement with captum."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vits import GRID, PATCH, SIZE, tiny_images, tiny_vit
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from explain.attribution import Attribution
from explain.engine import attribute, attribute_targets
from explain.errors import CaptureError, InputError
from explain.methods.integrated_gradients import IntegratedGradients
from explain.model import TunedModel
from explain.passes import Passes
from explain.path import REMEMBERED, completeness_gap
from explain.quadrature import clenshaw_curtis
from explain.tuning.base import tune
from explain.wrapping import wrap

BLACK = -torch.tensor([0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225], dtype=torch.float64).view(1, 3, 1, 1)


def integrate(model: TunedModel, images: Tensor | None = None, targets: Any = None, **options: Any) -> Attribution:
    images = tiny_images() if images is None else images
    name = "integrated_gradients"
    return attribute(model, images, methods=name, targets=targets, options={name: options})[name]


def gentle_vit(head: str = "cls", **options: Any) -> Any:
    """A tiny ViT whose path is smooth enough for a few hundred nodes to be exact."""
    vit = tiny_vit(head, **options)
    with torch.no_grad():
        vit.patch_embed.proj.weight.mul_(0.2)
    return vit


class Linear(nn.Module):
    """Reads its input linearly; stands for the transformer inside a TunedModel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * SIZE[0] * SIZE[1], 5, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


class LinearModel(TunedModel):
    """A TunedModel whose logits are W x + b."""

    def __init__(self) -> None:
        super().__init__(tiny_vit(), wrap(tiny_vit()).layout, wrap(tiny_vit()).transform)
        self.linear = Linear()

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images)


@pytest.mark.parametrize("options", [{"n_steps": 1}, {"n_steps": 7}, {"max_nodes": 5}, {}])
def test_a_linear_model_is_split_exactly_into_weight_times_difference(options: dict[str, Any]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LinearModel()
    images, targets = tiny_images(), [4, 0, 2]
    weight = model.linear.head.weight.detach()[targets].reshape(3, 3, *SIZE)
    expected = (weight * (images - BLACK)).sum(1)
    found = integrate(model, images, targets, **options)
    np.testing.assert_allclose(found.values, expected.numpy(), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.extras["score_difference"], expected.sum((1, 2)).numpy(), rtol=1e-5)
    assert found.extras["completeness_gap"].max() < 1e-6


def test_an_additive_transformer_gets_every_patchs_own_contribution() -> None:
    """Without attention and with a mean head, patch p contributes (g(x_p) - g(x'_p)) / N."""
    vit = gentle_vit("mean of patches", fc_norm=False)
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.proj.weight.zero_()
    images, target = tiny_images(), 1

    def contributions(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            return vit.forward_features(pictures)[:, 1:] @ vit.head.weight[target] / (GRID[0] * GRID[1])

    truth = (contributions(images) - contributions(BLACK.expand_as(images))).reshape(3, *GRID).numpy()
    found = integrate(wrap(vit), images, target, n_steps=200).values.astype(np.float64)
    patches = found.reshape(3, GRID[0], PATCH, GRID[1], PATCH).sum((2, 4))
    assert np.abs(patches - truth).max() < 1e-5 * np.abs(truth).max()


@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-5), (torch.float64, 1e-7)])
@pytest.mark.parametrize("case", ["plain", "shallow", "deep"])
@pytest.mark.parametrize("steps", [3, 16])
def test_the_map_equals_captums(case: str, steps: int, dtype: torch.dtype, bar: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peer's imports
        from captum.attr import IntegratedGradients as Captum
    vit, deep = tiny_vit(dtype=dtype), {"shallow": False, "deep": True}.get(case)
    model = (wrap(vit) if deep is None else tune(vit, "prompt", num_tokens=5, deep=deep)).eval()
    images, targets = tiny_images().to(dtype), torch.tensor([4, 0, 2])
    black = model.transform.normalise(torch.zeros_like(images))
    theirs, delta = Captum(model).attribute(
        images, baselines=black, target=targets, n_steps=steps, method="gausslegendre",
        internal_batch_size=8, return_convergence_delta=True,
    )  # fmt: skip
    theirs = theirs.detach().sum(1).numpy()
    found = integrate(model, images, targets, n_steps=steps)
    assert np.abs(found.values - theirs).max() < bar * np.abs(theirs).max()
    gap = (delta.abs() / torch.from_numpy(found.extras["score_difference"]).abs()).numpy()
    np.testing.assert_allclose(found.extras["completeness_gap"], gap, rtol=1e-2, atol=1e-5)
    assert (found.extras["nodes"] == steps).all()


@pytest.mark.parametrize("baseline", ["black", "mean", "blur"])
def test_the_map_sums_to_what_the_score_gained(baseline: str) -> None:
    model, images, targets = wrap(gentle_vit()), tiny_images(), torch.tensor([1, 1, 3])
    found = integrate(model, images, targets, n_steps=300, baseline=baseline)
    starts = {"black": BLACK.expand_as(images), "mean": torch.zeros_like(images), "blur": blurred(model, images)}
    with torch.no_grad():
        gained = (model(images) - model(starts[baseline])).gather(1, targets[:, None])[:, 0].numpy()
    np.testing.assert_allclose(found.extras["score_difference"], gained, rtol=1e-5)
    np.testing.assert_allclose(found.values.sum((1, 2)), gained, rtol=1e-3)
    assert found.extras["completeness_gap"].max() < 1e-3


def blurred(model: TunedModel, images: Tensor) -> Tensor:
    sigma = max(SIZE) / 12
    return model.transform.normalise(gaussian_blur(model.transform.denormalise(images), [11, 11], [sigma, sigma]))


def clenshaw_curtis_map(model: TunedModel, images: Tensor, targets: Tensor, nodes: int) -> np.ndarray:
    """The rule node by node, its weights the integrals of the Lagrange polynomials through the nodes."""
    points = (1 - np.cos(np.pi * np.arange(nodes) / (nodes - 1))) / 2
    exact, scale = np.polynomial.legendre.leggauss(nodes)
    weights = []
    for index, point in enumerate(points):
        others = np.delete(points, index)
        lagrange = np.prod(((exact[:, None] + 1) / 2 - others) / (point - others), axis=1)
        weights.append(lagrange @ scale / 2)
    total, difference = torch.zeros_like(images), images - BLACK
    for point, weight in zip(points, weights, strict=True):
        at = (BLACK + point * difference).requires_grad_(True)
        score = model(at).gather(1, targets[:, None]).sum()
        total += weight * torch.autograd.grad(score, at)[0]
    return (total * difference).sum(1).numpy()


@pytest.mark.parametrize("nodes", [5, 9, 17])
def test_nested_nodes_give_the_plain_rule_on_the_same_nodes(nodes: int) -> None:
    model, images, targets = wrap(tiny_vit()), tiny_images(), torch.tensor([4, 0, 2])
    found = integrate(model, images, targets, max_nodes=nodes, tol_gap=0, tol_map=0)
    assert (found.extras["nodes"] == nodes).all() and not found.extras["converged"].any()
    expected = clenshaw_curtis_map(model, images, targets, nodes)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_an_image_stops_at_the_first_level_where_gap_and_change_are_small() -> None:
    model, images, targets = wrap(gentle_vit()), tiny_images(6), torch.tensor([0, 1, 2, 3, 4, 0])
    found = integrate(model, images, targets, tol_gap=0.02, tol_map=0.05)
    difference = torch.from_numpy(found.extras["score_difference"])
    levels = {nodes: torch.from_numpy(clenshaw_curtis_map(model, images, targets, nodes)) for nodes in (5, 9, 17, 33)}
    counts = []
    for row in range(6):
        for nodes in (9, 17, 33):
            now, before = levels[nodes][row], levels[nodes // 2 + 1][row]
            change = (now - before).abs().sum() / now.abs().sum()
            gap = completeness_gap(now.sum()[None], difference[row : row + 1])[0]
            if gap <= 0.02 and change <= 0.05:
                break
        counts.append(nodes)
        np.testing.assert_allclose(found.values[row], now.numpy(), rtol=1e-4, atol=1e-6 * now.abs().max().item())
    assert found.extras["nodes"].tolist() == counts and len(set(counts)) > 1
    assert found.extras["converged"].all()


def test_a_converged_image_does_not_feel_who_else_is_in_the_batch() -> None:
    model, images, targets = wrap(gentle_vit()), tiny_images(6), [0, 1, 2, 3, 4, 0]
    together = integrate(model, images, targets, tol_map=0.05)
    for row in range(6):
        alone = integrate(model, images[row : row + 1], targets[row], tol_map=0.05)
        assert alone.extras["nodes"][0] == together.extras["nodes"][row]
        np.testing.assert_allclose(alone.values[0], together.values[row], rtol=1e-5, atol=1e-8)


def test_a_small_gap_alone_does_not_stop_the_refinement() -> None:
    model = wrap(tiny_vit())
    eager = integrate(model, tol_gap=1e9, tol_map=1e9)
    careful = integrate(model, tol_gap=1e9, tol_map=1e-9, max_nodes=33)
    assert (eager.extras["nodes"] == 9).all() and eager.extras["converged"].all()
    assert (careful.extras["nodes"] == 33).all() and not careful.extras["converged"].any()


def test_named_baselines_equal_the_same_baselines_given_as_images() -> None:
    model = wrap(tiny_vit())
    mean = torch.tensor(model.transform.mean, dtype=torch.float64).view(3, 1, 1).expand(3, *SIZE)
    given = {"black": torch.zeros(3, *SIZE), "mean": mean}
    for name, image in given.items():
        named, image = integrate(model, n_steps=3, baseline=name), integrate(model, n_steps=3, baseline=image)
        np.testing.assert_allclose(named.values, image.values, rtol=1e-5, atol=1e-7)
        assert named.options["baseline"] == name and image.options["baseline"] == "given image"


def test_a_baseline_image_means_the_same_in_every_form() -> None:
    model = wrap(tiny_vit())
    array = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    channels_first = torch.from_numpy(array).permute(2, 0, 1)
    forms = [array, Image.fromarray(array), channels_first, channels_first.double() / 255]
    first, *others = (integrate(model, n_steps=3, baseline=form).values for form in forms)
    for other in others:
        np.testing.assert_allclose(first, other, rtol=1e-4, atol=1e-6)
    assert np.abs(first - integrate(model, n_steps=3).values).max() > 0.1


def test_noise_is_the_average_over_draws_of_a_seed() -> None:
    model = wrap(tiny_vit())
    generator = torch.Generator().manual_seed(5)
    draws = [torch.rand(3, *SIZE, generator=generator) for _ in range(3)]
    parts = [integrate(model, targets=0, n_steps=4, baseline=draw) for draw in draws]
    found = integrate(model, targets=0, n_steps=4, baseline="noise", noise_draws=3, seed=5)
    np.testing.assert_allclose(found.values, np.mean([part.values for part in parts], 0), rtol=1e-4, atol=1e-6)
    expected = np.mean([part.extras["score_difference"] for part in parts], 0)
    np.testing.assert_allclose(found.extras["score_difference"], expected, rtol=1e-5)
    other = integrate(model, targets=0, n_steps=4, baseline="noise", noise_draws=3, seed=6)
    assert not np.allclose(found.values, other.values)


def test_a_picture_equal_to_its_baseline_gets_nothing_and_no_alarm() -> None:
    model = wrap(tiny_vit(dtype=torch.float32))
    found = integrate(model, BLACK.expand(1, 3, *SIZE))
    assert np.abs(found.values).max() < 1e-4 and found.extras["completeness_gap"][0] < 0.02
    assert found.extras["converged"].all()


def test_pixels_equal_to_the_baseline_get_exactly_nothing() -> None:
    images = tiny_images()
    images[:, :, :8, 8:16] = BLACK.to(images)
    found = np.abs(integrate(wrap(tiny_vit()), images, n_steps=3).values)
    assert found[:, :8, 8:16].max() < 1e-12 and (found[:, 8:] > 1e-12).all()


def test_the_number_of_path_points_at_once_changes_nothing() -> None:
    model, name = wrap(tiny_vit()), "integrated_gradients"
    first, *others = (
        attribute(model, tiny_images(), methods=name, options={name: {"n_steps": 5}}, memory_budget=size)[name].values
        for size in (1, 10**6, "auto")
    )
    for other in others:
        np.testing.assert_allclose(first, other, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"baseline": "white"}, "expected a baseline in .*'black'.*got 'white'"),
        ({"baseline": 0}, "expected a baseline name or image, got int"),
        ({"n_steps": 0}, "whole numbers of at least 1"),
        ({"n_steps": "50"}, "whole numbers of at least 1"),
        ({"n_steps": 2.5}, "whole numbers of at least 1"),
        ({"noise_draws": 0}, "whole numbers of at least 1"),
        ({"max_nodes": 3}, r"max_nodes of 2\^k \+ 1 and at least 5"),
        ({"max_nodes": 50}, r"max_nodes of 2\^k \+ 1 and at least 5"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        IntegratedGradients(**options)


@pytest.mark.parametrize(
    "baseline",
    [torch.zeros(3, 8, 8), torch.full((3, *SIZE), -2.0), torch.full((3, *SIZE), torch.nan), torch.zeros(3, *SIZE).int(),
     np.zeros(SIZE, np.float32), np.zeros((*SIZE, 3)), np.zeros(SIZE, np.uint8)],
)  # fmt: skip
def test_a_baseline_that_is_no_picture_of_pixels_is_refused(baseline: Any) -> None:
    with pytest.raises(InputError, match="expected a baseline"):
        integrate(wrap(tiny_vit()), baseline=baseline)


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
@pytest.mark.parametrize("options", [{"n_steps": 300}, {"tol_gap": 1e-4, "tol_map": 1e-3, "max_nodes": 257}], ids=str)
def test_pixels_and_prompts_together_sum_to_what_the_score_gained(deep: bool, options: dict[str, Any]) -> None:
    model = tune(gentle_vit(), "prompt", num_tokens=4, deep=deep).eval()
    images, targets = tiny_images(), torch.tensor([4, 0, 2])
    found = integrate(model, images, targets, prompts=True, **options)
    zero = model.replica()
    zero.give_prompts([torch.zeros_like(value) for value in model.prompts()])
    with torch.no_grad():
        gained = (model(images) - zero(BLACK.expand_as(images))).gather(1, targets[:, None])[:, 0]
    parts = found.extras["prompt_attribution"]
    assert parts.shape == (3, 3 if deep else 1, 4) and np.abs(parts).min() > 0
    np.testing.assert_allclose(found.extras["score_difference"], gained.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.values.sum((1, 2)) + parts.sum((1, 2)), gained.numpy(), rtol=1e-3)
    assert found.extras["completeness_gap"].max() < 1e-3


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
def test_gradient_times_prompt_is_that_of_the_model_itself(deep: bool) -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=4, deep=deep).eval()
    images, targets = tiny_images(), [4, 0, 2]
    found = integrate(model, images, targets, prompts=True, n_steps=2).extras["prompt_gradient"]
    for row, target in enumerate(targets):
        values = [block.prompts for block in model.prompted_blocks()]
        gradients = torch.autograd.grad(model(images[row : row + 1])[0, target], values)
        expected = torch.stack([(value * gradient).sum(-1) for value, gradient in zip(values, gradients, strict=True)])
        np.testing.assert_allclose(found[row], expected.detach().numpy(), rtol=1e-5)


def test_the_joint_path_equals_a_plain_loop() -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=4).eval()
    images, points = tiny_images(1), np.polynomial.legendre.leggauss(3)
    replica, total = model.replica(), torch.zeros_like(images)
    prompts = model.prompts()
    parts = [torch.zeros_like(value) for value in prompts]
    for point, weight in zip((points[0] + 1) / 2, points[1] / 2, strict=True):
        at = (BLACK + point * (images - BLACK)).requires_grad_(True)
        scaled = [(point * value).requires_grad_(True) for value in prompts]
        replica.give_prompts(scaled)
        found = torch.autograd.grad(replica(at)[0, 3], [at, *scaled])
        total += weight * found[0]
        parts = [part + weight * gradient for part, gradient in zip(parts, found[1:], strict=True)]
    ours = integrate(model, images, 3, prompts=True, n_steps=3)
    np.testing.assert_allclose(ours.values, (total * (images - BLACK)).sum(1).numpy(), rtol=1e-4, atol=1e-7)
    expected = torch.stack([(part * value).sum(-1) for part, value in zip(parts, prompts, strict=True)])
    np.testing.assert_allclose(ours.extras["prompt_attribution"][0], expected.numpy(), rtol=1e-4)


def test_the_joint_path_needs_prompts() -> None:
    with pytest.raises(CaptureError, match="prompts=True needs a model tuned with prompts"):
        integrate(wrap(tiny_vit()), prompts=True)


@pytest.mark.parametrize("options", [{"n_steps": 4}, {"tol_map": 0.05}, {"max_nodes": 9, "baseline": "blur"}], ids=str)
@pytest.mark.parametrize("case", ["plain", "deep", "norm behind the patches"])
def test_several_targets_share_the_path(case: str, options: dict[str, Any]) -> None:
    vit = gentle_vit()
    if case == "norm behind the patches":
        vit.patch_embed.norm = nn.LayerNorm(24, dtype=torch.float64)  # not affine: the path is walked in pixels
    model = tune(vit, "prompt", num_tokens=3).eval() if case == "deep" else wrap(vit)
    name, images = "integrated_gradients", tiny_images()
    together = attribute_targets(model, images, [0, [1, 2, 3], None], methods=name, options={name: options})
    assert len(together) == 3
    for targets, found in zip((0, [1, 2, 3], None), together, strict=True):
        alone = integrate(model, images, targets, **options)
        assert found[name].targets.tolist() == alone.targets.tolist()
        if "tol_map" in options:  # an image leaves when all its targets converged
            assert (found[name].extras["nodes"] >= alone.extras["nodes"]).all()
            largest = np.abs(alone.values).max()
            np.testing.assert_allclose(found[name].values, alone.values, rtol=0.1, atol=0.1 * largest)
        else:
            np.testing.assert_allclose(found[name].values, alone.values, rtol=1e-5, atol=1e-8)
            gained = found[name].extras["score_difference"]
            np.testing.assert_allclose(gained, alone.extras["score_difference"], rtol=1e-5)


def test_the_rule_is_exact_for_polynomials_up_to_its_number_of_intervals() -> None:
    for intervals in (4, 8, 16):
        points, weights = clenshaw_curtis(intervals)
        for power in range(intervals + 1):
            assert weights @ points**power == pytest.approx(1 / (power + 1), abs=1e-14)
        assert (weights > 0).all()


def test_what_is_kept_of_a_baseline_does_not_grow_with_the_classes() -> None:
    model = wrap(gentle_vit(num_classes=60))
    passes, found = Passes(), {}
    for start in range(0, 60, 20):
        targets = torch.arange(start, start + 20)
        with torch.no_grad(), model.replica().capture(attention=False, passes=passes) as trace:
            trace.model(tiny_images(20))
        found[start] = IntegratedGradients(max_nodes=9)(trace, targets).values
        (memory,) = passes.memory.values()
        assert len(memory) <= 1 + REMEMBERED
    alone = integrate(model, tiny_images(20)[:1], [40], max_nodes=9)
    np.testing.assert_allclose(found[40][0].numpy(), alone.values[0], rtol=1e-4, atol=1e-8)

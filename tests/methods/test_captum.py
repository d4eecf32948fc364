"""The captum family: agreement with captum called by hand, plain loops, closed forms, and what draws depend on."""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tiny_vits import GRID, PATCH, SIZE, tiny_images, tiny_vit
from torch import Tensor, nn

import explain.passes
from explain.attribution import Attribution
from explain.engine import attribute, attribute_targets
from explain.errors import Cancelled, InputError
from explain.methods.base import METHODS
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

NAMES = ("saliency", "input_x_gradient", "smooth_grad", "smooth_grad_squared", "gradient_shap", "occlusion",
         "feature_ablation", "kernel_shap")  # fmt: skip
RANDOM = ("smooth_grad", "smooth_grad_squared", "gradient_shap", "kernel_shap")
NOISY = ("smooth_grad", "smooth_grad_squared", "gradient_shap")
QUICK: dict[str, dict[str, Any]] = {name: {"samples": 5} for name in NOISY} | {"kernel_shap": {"samples": 24}}
TARGETS = torch.tensor([4, 0, 2])


def explain_one(name: str, model: TunedModel, images: Tensor, targets: Any = TARGETS, **options: Any) -> Attribution:
    return attribute(model, images, methods=name, targets=targets, options={name: options})[name]


def values_of(name: str, model: TunedModel, images: Tensor, targets: Any = TARGETS, **options: Any) -> np.ndarray:
    return explain_one(name, model, images, targets, **options).values.astype(np.float64)


def assert_near(found: np.ndarray, expected: Any, tolerance: float = 1e-5) -> None:
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def per_pixel(grid: np.ndarray) -> np.ndarray:
    """Values (B, h, w) of patches at their pixels."""
    return grid.repeat(PATCH, 1).repeat(PATCH, 2)


def black(model: TunedModel, images: Tensor) -> Tensor:
    return model.transform.normalise(torch.zeros_like(images[:1]))


def gradient(model: TunedModel, points: Tensor, targets: Tensor) -> Tensor:
    points = points.detach().requires_grad_(True)
    (found,) = torch.autograd.grad(model(points).gather(1, targets[:, None]).sum(), points)
    return found


def model_of(case: str) -> tuple[TunedModel, Tensor]:
    """A float32 model with several classes and three images for it."""
    if case == "resnet18":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = timm.create_model("resnet18", num_classes=5).eval()
        return wrap(network), tiny_images(3, (64, 96)).float()
    deep = {"shallow": False, "deep": True}.get(case)
    vit = tiny_vit("registers" if case == "registers" else "cls", dtype=torch.float32)
    return (wrap(vit) if deep is None else tune(vit, "prompt", num_tokens=5, deep=deep)).eval(), tiny_images().float()


CASES = ["plain", "registers", "shallow", "deep", "resnet18"]


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_captums(case: str) -> None:
    from captum.attr import InputXGradient, Saliency

    model, images = model_of(case)
    leaf = images.clone().requires_grad_(True)
    saliency = Saliency(model).attribute(leaf, target=TARGETS)
    product = InputXGradient(model).attribute(leaf, target=TARGETS)
    assert_near(values_of("saliency", model, images), saliency.amax(1).detach())
    assert_near(values_of("input_x_gradient", model, images), product.sum(1).detach())


@pytest.mark.parametrize("baseline", ["black", "blur"])
@pytest.mark.parametrize("case", CASES)
def test_ablations_equal_captums(case: str, baseline: str) -> None:
    """One image at a time there, several at once here; blur is a baseline per image."""
    from captum.attr import FeatureAblation, Occlusion

    from explain.baselines import baseline_images

    model, images = model_of(case)
    size, cell = images.shape[-2:], 32 if case == "resnet18" else PATCH
    window, stride = 5 * cell // 4, 7 * cell // 8  # neither divides the image
    rows, columns = torch.arange(size[0]) // cell, torch.arange(size[1]) // cell
    patches = (rows[:, None] * (size[1] // cell) + columns)[None, None]
    (start,) = baseline_images(baseline, images, model.transform)
    start = start.expand_as(images)
    ablated, covered, fine = [], [], []
    for row in range(3):
        given: dict[str, Any] = dict(baselines=start[row : row + 1], target=int(TARGETS[row]))
        image = images[row : row + 1]
        ablated.append(FeatureAblation(model).attribute(image, feature_mask=patches, **given)[0, 0])
        covered.append(Occlusion(model).attribute(image, (3, 2 * cell, 2 * cell), (3, cell, cell), **given)[0, 0])
        fine.append(Occlusion(model).attribute(image, (3, window, window), (3, stride, stride), **given)[0, 0])
    tolerance = 1e-3 if case == "resnet18" else 1e-5  # float32 sums of a convolution depend on the batch
    grid = values_of("feature_ablation", model, images, baseline=baseline)
    assert_near(grid.repeat(cell, 1).repeat(cell, 2), torch.stack(ablated), tolerance)
    assert_near(values_of("occlusion", model, images, baseline=baseline), torch.stack(covered), tolerance)
    odd = values_of("occlusion", model, images, baseline=baseline, window=window, stride=stride)
    assert_near(odd, torch.stack(fine), tolerance)


def test_windows_of_one_patch_side_by_side_are_feature_ablation() -> None:
    model, images = wrap(tiny_vit()), tiny_images()
    tiles = values_of("occlusion", model, images, window=PATCH, stride=PATCH)
    assert_near(tiles, per_pixel(values_of("feature_ablation", model, images)), 1e-6)


def test_a_patch_is_worth_what_the_logit_loses_without_it() -> None:
    """By hand, and with the sign: positive where the patch speaks for the class."""
    model, images = wrap(tiny_vit()), tiny_images()
    found = values_of("feature_ablation", model, images)
    without = images.clone()
    without[:, :, PATCH : 2 * PATCH, 3 * PATCH :] = black(model, images)[..., :1, :1]
    with torch.no_grad():
        lost = (model(images) - model(without)).gather(1, TARGETS[:, None])[:, 0]
    np.testing.assert_allclose(found[:, 1, 3], lost, rtol=1e-6)
    assert (found > 0).any() and (found < 0).any()


def additive(seed: int = 0) -> tuple[TunedModel, Any]:
    """A transformer whose patches do not see each other, and what each of them adds to a logit, (B, h, w)."""
    vit = tiny_vit("mean of patches", fc_norm=False, seed=seed)
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.proj.weight.zero_()

    def contributions(images: Tensor, target: int) -> np.ndarray:
        with torch.no_grad():
            tokens = vit.forward_features(images) @ vit.head.weight[target] / math.prod(GRID)
        return tokens[:, -math.prod(GRID) :].reshape(-1, *GRID).numpy()

    return wrap(vit), contributions


@pytest.mark.parametrize("options", [{"samples": 40}, {"samples": 40, "seed": 7}, {"samples": 5000}])
def test_players_of_an_additive_model_get_their_own_contributions(options: dict[str, Any]) -> None:
    """Then Shapley values are known, and more coalitions than players find them; 5000 are all there are."""
    model, contributions = additive()
    images, target = tiny_images(), 1
    truth = contributions(images, target) - contributions(black(model, images), target)
    assert_near(values_of("kernel_shap", model, images, target, **options), truth, 1e-6)
    assert_near(values_of("feature_ablation", model, images, target), truth, 1e-6)


def coalition_scores(model: TunedModel, image: Tensor, target: int) -> Any:
    """The logit (float) when only a set of patch columns shows, remembered."""
    known: dict[frozenset[int], float] = {}

    def score(players: frozenset[int]) -> float:
        if players not in known:
            shown = black(model, image).expand_as(image).clone()
            for player in players:
                area = slice(player * PATCH, (player + 1) * PATCH)
                shown[..., area] = image[..., area]
            with torch.no_grad():
                known[players] = float(model(shown)[0, target])
        return known[players]

    return score


def test_all_coalitions_give_the_shapley_values() -> None:
    """Four players on a model that is not additive: the mean over all orders of what each adds on arrival."""
    model, image, target = wrap(tiny_vit(img_size=(PATCH, 4 * PATCH))), tiny_images(1, (PATCH, 4 * PATCH)), 2
    score, truth = coalition_scores(model, image, target), np.zeros(4)
    for order in itertools.permutations(range(4)):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            truth[player] += (score(before | {player}) - score(before)) / math.factorial(4)
    found = values_of("kernel_shap", model, image, target, samples=14)
    assert_near(found, truth.reshape(1, 1, 4), 1e-6)
    alone = values_of("feature_ablation", model, image, target)[0, 0]
    assert np.abs(alone - truth).max() > 0.05 * np.abs(truth).max(), "else any method would do"


def test_sampled_coalitions_approach_the_shapley_values() -> None:
    model, images = wrap(tiny_vit()), tiny_images(1)
    exact = values_of("kernel_shap", model, images, 1, samples=2**12)
    errors = [np.abs(values_of("kernel_shap", model, images, 1, samples=samples, seed=3) - exact).mean()
              for samples in (32, 1024)]  # fmt: skip
    assert errors[1] < 0.35 * errors[0] and errors[1] < 0.1 * np.abs(exact).mean()


def assert_same_mean(ours: list[Any], theirs: list[Any], *, error: float) -> None:
    """Two estimators, run with several seeds, differ by what their own spread allows, and that is little."""
    left, right = np.stack(ours), np.stack(theirs)
    variance = left.var(0, ddof=1) / len(left) + (right.var(0, ddof=1) / len(right) if len(right) > 1 else 0)
    difference = left.mean(0) - right.mean(0)
    assert np.sqrt(variance).mean() < error * np.abs(right.mean(0)).mean(), "too rough to tell anything"
    assert (difference**2 / variance).mean() < 2


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random numbers, which is where captum draws from."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        yield
    np.random.set_state(state)


def test_captums_kernel_shap_comes_to_our_exact_values() -> None:
    from captum.attr import KernelShap

    model, images = wrap(tiny_vit(dtype=torch.float32)), tiny_images(1).float()
    rows, columns = torch.arange(SIZE[0]) // PATCH, torch.arange(SIZE[1]) // PATCH
    patches = (rows[:, None] * GRID[1] + columns)[None, None]
    theirs = []
    for seed in range(6):
        with seeded(seed):
            found = KernelShap(model).attribute(images, baselines=black(model, images), target=1, feature_mask=patches,
                                                n_samples=300, perturbations_per_eval=50)  # fmt: skip
        theirs.append(found[:, 0, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].numpy())
    assert_same_mean(theirs, [values_of("kernel_shap", model, images, 1, samples=2**12)], error=0.25)


@pytest.mark.parametrize("segments", [1, 2, 5, 12, 49])
def test_shapley_values_add_up_however_few_the_samples(segments: int) -> None:
    model, images = wrap(tiny_vit()), tiny_images()
    found = values_of("kernel_shap", model, images, segments=segments, samples=4)
    with torch.no_grad():
        gained = (model(images) - model(black(model, images))).gather(1, TARGETS[:, None])[:, 0].numpy()
    np.testing.assert_allclose(found.sum((1, 2)), gained, rtol=1e-5)
    assert len(np.unique(found[0])) <= segments


@pytest.mark.parametrize(
    ("grid", "wanted", "counts"),
    [((14, 14), 49, (7, 7)), ((16, 16), 49, (7, 7)), ((3, 4), 49, (3, 4)), ((14, 14), 1, (1, 1)),
     ((7, 28), 49, (4, 12)), ((1, 9), 4, (1, 4)), ((2, 3), 6, (2, 3))],
)  # fmt: skip
def test_rectangles_are_about_as_many_as_asked_for(
    grid: tuple[int, int], wanted: int, counts: tuple[int, int]
) -> None:
    model = wrap(tiny_vit(img_size=(grid[0] * 8, grid[1] * 8)))
    found = values_of("kernel_shap", model, tiny_images(1, (grid[0] * 8, grid[1] * 8)), 0,
                      segments=wanted, samples=4096 if math.prod(counts) <= 12 else 400)[0]  # fmt: skip
    rows = 1 + (np.abs(np.diff(found, axis=0)).max(1, initial=0) > 0).sum()
    columns = 1 + (np.abs(np.diff(found, axis=1)).max(0, initial=0) > 0).sum()
    assert (rows, columns) == counts


def noises(samples: int, seed: int = 0, size: tuple[int, int] = SIZE) -> list[Tensor]:
    """The standard normal pictures of a seed."""
    from explain.methods.captum import NOISE, _generator

    return [torch.randn(3, *size, generator=_generator(seed, NOISE, draw)) for draw in range(samples)]


def test_noise_is_normal_and_new_in_every_draw() -> None:
    drawn = torch.stack(noises(8)).double()
    assert abs(drawn.mean()) < 0.03 and abs(drawn.std() - 1) < 0.03
    against = torch.corrcoef(drawn.flatten(1)) - torch.eye(8)
    assert against.abs().max() < 0.1
    assert torch.corrcoef(torch.stack((noises(1)[0].flatten(), noises(1, seed=1)[0].flatten())))[0, 1].abs() < 0.1


@pytest.mark.parametrize("case", ["plain", "deep"])
def test_smooth_grads_equal_a_plain_loop(case: str) -> None:
    model, images = model_of(case)
    model, images = model.double(), images.double() * torch.tensor([1.0, 0.5, 2.0]).view(3, 1, 1, 1)
    spread = images.flatten(1).amax(1) - images.flatten(1).amin(1)
    gradients = torch.stack([gradient(model, images + 0.2 * spread[:, None, None, None] * noise, TARGETS)
                             for noise in noises(6, seed=5)])  # fmt: skip
    options = {"samples": 6, "noise": 0.2, "seed": 5}
    assert_near(values_of("smooth_grad", model, images, **options), gradients.mean(0).abs().amax(1), 1e-6)
    assert_near(values_of("smooth_grad_squared", model, images, **options), gradients.square().mean(0).amax(1), 1e-6)


def test_without_noise_smooth_grads_are_the_saliency() -> None:
    model, images = wrap(tiny_vit()), tiny_images()
    plain = values_of("saliency", model, images)
    assert_near(values_of("smooth_grad", model, images, samples=3, noise=0.0), plain, 1e-6)
    assert_near(values_of("smooth_grad_squared", model, images, samples=3, noise=0), plain**2, 1e-6)


@pytest.mark.parametrize("name", ["smooth_grad", "smooth_grad_squared"])
def test_captums_noise_tunnel_has_the_same_mean(name: str) -> None:
    from captum.attr import NoiseTunnel, Saliency

    model, images = wrap(smooth_vit()), tiny_images(1).float().requires_grad_(True)
    tunnel, kind = NoiseTunnel(Saliency(model)), {"smooth_grad": "smoothgrad"}.get(name, "smoothgrad_sq")
    spread = 0.1 * float(images.detach().max() - images.detach().min())
    ours, theirs = [], []
    for seed in range(8):
        with seeded(seed):
            found = tunnel.attribute(images, nt_type=kind, nt_samples=120, stdevs=spread, target=1, abs=False)
        theirs.append(found.abs().amax(1).detach().numpy())
        ours.append(values_of(name, model, images, 1, samples=120, noise=0.1, seed=seed))
    assert_same_mean(ours, theirs, error=0.15)


def smooth_vit() -> Any:
    """A float32 tiny ViT that bends little along a path, so that few samples tell."""
    vit = tiny_vit(dtype=torch.float32)
    with torch.no_grad():
        vit.patch_embed.proj.weight.mul_(0.2)
    return vit


@pytest.mark.parametrize("baseline", ["noise", "black", "blur"])
def test_gradient_shap_equals_a_plain_loop(baseline: str) -> None:
    from explain.baselines import baseline_images
    from explain.methods.captum import BASELINE, PLACE, _generator, _stream

    model, images = wrap(tiny_vit()), tiny_images()
    spread = 0.1 * (images.flatten(1).amax(1) - images.flatten(1).amin(1))[:, None, None, None]
    total = torch.zeros_like(images)
    for draw, noise in enumerate(noises(5, seed=2)):
        (start,) = baseline_images(baseline, images, model.transform, seed=_stream(2, BASELINE, draw))
        place = torch.rand((), generator=_generator(2, PLACE, draw))
        end = images + spread * noise
        total += (end - start) * gradient(model, start + float(place) * (end - start), TARGETS) / 5
    found = values_of("gradient_shap", model, images, baseline=baseline, samples=5, noise=0.1, seed=2)
    assert_near(found, total.sum(1), 1e-6)


def test_gradient_shap_of_one_baseline_has_the_mean_of_integrated_gradients() -> None:
    model, images = wrap(smooth_vit()), tiny_images(1).float()
    exact = values_of("integrated_gradients", model, images, 1, n_steps=64)
    found = [values_of("gradient_shap", model, images, 1, baseline="black", samples=40, seed=seed)
             for seed in range(8)]  # fmt: skip
    assert_same_mean(found, [exact], error=0.1)


def test_captums_gradient_shap_has_the_same_mean() -> None:
    from captum.attr import GradientShap

    model, images = wrap(smooth_vit()), tiny_images(1).float()
    spread = 0.1 * float(images.max() - images.min())
    ours, theirs = [], []
    for seed in range(8):
        with seeded(seed):
            starts = model.transform.normalise(torch.rand(200, 3, *SIZE))
            found = GradientShap(model).attribute(images, starts, n_samples=200, stdevs=spread, target=1)
        theirs.append(found.sum(1).detach().numpy())
        ours.append(values_of("gradient_shap", model, images, 1, samples=200, noise=0.1, seed=seed))
    assert_same_mean(ours, theirs, error=0.3)


def test_gradient_shap_adds_up_to_what_the_score_gained_over_its_baselines() -> None:
    """One baseline per sample, so that is what its own noise pictures say."""
    from explain.baselines import baseline_images
    from explain.methods.captum import BASELINE, _stream

    model, images = wrap(smooth_vit()), tiny_images().float()
    sums, gains = [], []
    for seed in range(8):
        sums.append(values_of("gradient_shap", model, images, samples=200, seed=seed).sum((1, 2)))
        noise = torch.cat([baseline_images("noise", images, model.transform, seed=_stream(seed, BASELINE, draw))[0]
                           for draw in range(200)])  # fmt: skip
        with torch.no_grad():
            gains.append((model(images) - model(noise).mean(0)).gather(1, TARGETS[:, None])[:, 0].numpy())
    difference = np.stack(sums) - np.stack(gains)
    spread = difference.std(0, ddof=1) / math.sqrt(len(difference))
    assert (np.abs(difference.mean(0)) < 4 * spread).all() and (spread < 0.1 * np.abs(np.mean(gains, 0))).all()


def linear_model() -> TunedModel:
    """Logits W x + b, behind the interface of a TunedModel."""

    class Linear(TunedModel):
        def __init__(self) -> None:
            plain = wrap(tiny_vit())
            super().__init__(plain.vit, plain.layout, plain.transform)
            self.linear = nn.Linear(3 * math.prod(SIZE), 5, dtype=torch.float64)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images.flatten(1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Linear()


def test_on_a_linear_model_every_method_gives_its_closed_form() -> None:
    model, images = linear_model(), tiny_images()
    weight = model.linear.weight.detach()[TARGETS].reshape(3, 3, *SIZE)
    gained = (weight * (images - black(model, images))).sum(1)
    per_patch = gained.reshape(3, GRID[0], PATCH, GRID[1], PATCH).sum((2, 4))
    largest = weight.abs().amax(1)
    assert_near(values_of("saliency", model, images), largest, 1e-6)
    assert_near(values_of("input_x_gradient", model, images), (weight * images).sum(1), 1e-6)
    assert_near(values_of("smooth_grad", model, images, samples=2), largest, 1e-6)
    assert_near(values_of("smooth_grad_squared", model, images, samples=2), largest**2, 1e-6)
    assert_near(values_of("gradient_shap", model, images, samples=2, baseline="black"), gained, 1e-6)
    assert_near(values_of("feature_ablation", model, images), per_patch, 1e-6)
    assert_near(values_of("kernel_shap", model, images, samples=30), per_patch, 1e-6)
    pixels = values_of("occlusion", model, images, window=1, stride=1)
    assert_near(pixels, gained, 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_depends_on_neither_chunk_batch_nor_memory_budget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = wrap(tiny_vit()), tiny_images(5)
    targets = torch.tensor([4, 0, 2, 2, 1])
    whole = values_of(name, model, images, targets, **QUICK.get(name, {}))
    alone = values_of(name, model, images[3:4], targets[3:4], **QUICK.get(name, {}))
    assert_near(alone, whole[3:4], 1e-6)
    for size in (1, 3, 7):
        monkeypatch.setitem(explain.passes.LARGEST_CHUNK, "cpu", size)
        assert_near(values_of(name, model, images, targets, **QUICK.get(name, {})), whole, 1e-6)
    monkeypatch.undo()
    small = attribute(model, images, methods=name, targets=targets, options={name: QUICK.get(name, {})},
                      batch_size=2, memory_budget=1)[name]  # fmt: skip
    assert_near(small.values, whole, 1e-6)


@pytest.mark.parametrize("name", RANDOM)
def test_the_seed_decides_and_the_global_random_state_does_not(name: str) -> None:
    model, images = wrap(tiny_vit()), tiny_images(1)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    first = values_of(name, model, images, 1, **QUICK[name], seed=1)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        np.random.seed(1234)
        assert np.array_equal(values_of(name, model, images, 1, **QUICK[name], seed=1), first)
    np.random.set_state(numpy_state)
    assert not np.allclose(values_of(name, model, images, 1, **QUICK[name], seed=2), first, rtol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_several_targets_are_the_same_as_one_after_the_other(name: str) -> None:
    model, images = wrap(tiny_vit()), tiny_images()
    both = attribute_targets(model, images, [TARGETS, 1], methods=name, options={name: QUICK.get(name, {})})
    for target, found in zip((TARGETS, 1), both, strict=True):
        alone = values_of(name, model, images, target, **QUICK.get(name, {}))
        assert_near(found[name].values, alone, 1e-6)


@pytest.mark.parametrize(
    ("name", "samples", "targets"),
    [("occlusion", 1 + 2 * 3, 1), ("occlusion", 1 + 2 * 3, 2), ("feature_ablation", 1 + 12, 1),
     ("feature_ablation", 1 + 12, 2), ("kernel_shap", 2 + 24, 2), ("smooth_grad", 5, 1), ("saliency", 1, 1)],
)  # fmt: skip
def test_a_map_costs_what_it_says(name: str, samples: int, targets: int) -> None:
    """Forwards per image besides the shared one; targets share them where no gradient is needed."""
    seen: list[int] = []
    vit = tiny_vit()
    vit.patch_embed.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    attribute_targets(wrap(vit), tiny_images(), list(range(targets)), methods=name,
                      options={name: QUICK.get(name, {})})  # fmt: skip
    assert sum(seen) == 3 * (1 + samples)
    assert max(seen) <= explain.passes.LARGEST_CHUNK["cpu"]
    assert len(seen) <= 2 + math.ceil(3 * samples / 12), "perturbations share passes"


@pytest.mark.parametrize("name", NAMES)
def test_the_work_stops_between_passes(name: str) -> None:
    asked, forwards = [], []
    vit = tiny_vit()
    vit.patch_embed.register_forward_hook(lambda module, inputs, output: forwards.append(len(output)))

    def cancelled() -> bool:
        asked.append(len(forwards))
        return len(forwards) >= 2 or (len(forwards) == 1 and name in ("saliency", "input_x_gradient"))

    with pytest.raises(Cancelled):
        attribute(wrap(vit), tiny_images(), methods=name, options={name: QUICK.get(name, {})}, cancelled=cancelled)
    assert len(forwards) <= 2 and len(asked) >= 2


def test_a_baseline_picture_is_what_shows_instead() -> None:
    model, images = wrap(tiny_vit()), tiny_images(1)
    dark = Image.new("RGB", (SIZE[1], SIZE[0]))
    for name in ("feature_ablation", "occlusion", "kernel_shap", "gradient_shap"):
        options = QUICK.get(name, {})
        assert_near(values_of(name, model, images, 1, baseline=dark, **options),
                    values_of(name, model, images, 1, baseline="black", **options), 1e-5)  # fmt: skip
        other = values_of(name, model, images, 1, baseline="mean", **options)
        assert not np.allclose(other, values_of(name, model, images, 1, baseline="black", **options), rtol=0.01)


def test_a_flat_image_has_no_range_and_no_noise() -> None:
    model, images = wrap(tiny_vit()), torch.full((1, 3, *SIZE), 0.3, dtype=torch.float64)
    assert_near(values_of("smooth_grad", model, images, 1, samples=2), values_of("saliency", model, images, 1), 1e-6)


def test_windows_cover_images_whose_sides_they_do_not_divide() -> None:
    """A feature map of 3x3 over 65 pixels: the last window overhangs, and every pixel has a value."""
    model, _ = model_of("resnet18")
    images = tiny_images(1, (65, 70)).float()
    assert (values_of("occlusion", model, images, 1) != 0).all()
    assert values_of("feature_ablation", model, images, 1).shape == (1, 3, 3)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("smooth_grad", {"samples": 0}, "expected samples to be a whole number of at least 1, got 0"),
        ("smooth_grad", {"samples": 2.5}, "got 2.5"),
        ("smooth_grad_squared", {"noise": -0.1}, "expected noise of at least 0"),
        ("smooth_grad", {"noise": math.nan}, "expected noise of at least 0"),
        ("smooth_grad", {"seed": -1}, "expected seed to be a whole number of at least 0"),
        ("gradient_shap", {"baseline": "white"}, "expected a baseline in"),
        ("gradient_shap", {"samples": True}, "expected samples"),
        ("feature_ablation", {"baseline": 3}, "expected a baseline name or image"),
        ("occlusion", {"window": 0}, "expected window to be a whole number"),
        ("occlusion", {"window": 8, "stride": 9}, "expected a stride of at most the window's 8 pixels"),
        ("kernel_shap", {"segments": 0}, "expected segments"),
        ("kernel_shap", {"seed": "x"}, "expected seed"),
    ],
)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        METHODS.create(name, **options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"window": 25}, "window of at most 24 pixels for images of 24x32, got 25"),
     ({"stride": 17}, "stride of at most the window's 16 pixels")],
)  # fmt: skip
def test_a_window_that_does_not_fit_the_image_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        explain_one("occlusion", wrap(tiny_vit()), tiny_images(), **options)

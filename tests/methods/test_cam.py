"""The CAM family: agreement with pytorch-grad-cam on every head and tuning, closed forms, and what it gets wrong."""

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tiny_vits import GRID, HEADS, SIZE, tiny_images, tiny_vit
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from explain.engine import attribute, attribute_targets
from explain.errors import CaptureError, InputError
from explain.methods import cam
from explain.methods.base import METHODS
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

NORM = "blocks.2.norm1"

PEERS = {
    "grad_cam_plusplus": "GradCAMPlusPlus", "x_grad_cam": "XGradCAM", "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM", "grad_cam_elementwise": "GradCAMElementWise", "eigen_grad_cam": "EigenGradCAM",
    "finer_cam": "FinerCAM", "shapley_cam": "ShapleyCAM", "eigen_cam": "EigenCAM", "kpca_cam": "KPCA_CAM",
    "fem": "FEM", "score_cam": "ScoreCAM", "ablation_cam": "AblationCAM",
}  # fmt: skip
EITHER_SIGN = {"eigen_cam", "eigen_grad_cam", "kpca_cam"}


def raw(name: str, model: TunedModel, images: Tensor | None = None, **more: Any) -> np.ndarray:
    options = {key: more.pop(key) for key in list(more) if key not in ("targets", "memory_budget")}
    images = tiny_images() if images is None else images
    return attribute(model, images, methods=name, options={name: options}, **more)[name].values


def prompted(deep: bool) -> Callable[[], TunedModel]:
    return lambda: tune(tiny_vit(), "prompt", num_tokens=5, deep=deep)


def square(deep: bool) -> Callable[[], TunedModel]:
    return lambda: tune(tiny_vit(img_size=112), "prompt", num_tokens=29, deep=deep)


def convnet() -> TunedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("convnext_atto", num_classes=5, dims=(8, 12, 16, 24), depths=(1, 1, 1, 1))
    for key, value in network.named_parameters():
        if key.endswith("gamma"):  # layer scales start so small that nothing would show
            nn.init.ones_(value)
    return wrap(network.double().eval())


MODELS: dict[str, Callable[[], TunedModel]] = {
    **{head: (lambda head=head: wrap(tiny_vit(head))) for head in HEADS},
    "linear head": lambda: wrap(tiny_vit("mean of patches", fc_norm=False)),
    "shallow": prompted(False), "deep": prompted(True),
    "shallow 29 + 196": square(False), "deep 29 + 196": square(True),
    "convolutional": convnet,
}  # fmt: skip


def images_for(model: TunedModel) -> Tensor:
    return tiny_images(3, (64, 96)) if not model.num_blocks else tiny_images(3, model.transform.size)


def peer_package() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peer's imports
        import pytorch_grad_cam
    return pytorch_grad_cam


class ZeroAtPatches:
    """An ablation layer for the peer that ablates as the paper says, by zero, and what the map shows, the patches."""

    def __new__(cls, model: TunedModel, images: Tensor, layer: nn.Module) -> Any:
        class Layer(peer_package().AblationLayer):  # type: ignore[misc]
            def set_next_batch(self, input_batch_index: int, activations: Tensor, num_channels_to_ablate: int) -> None:
                one = activations[input_batch_index : input_batch_index + 1]
                self.activations = one.repeat(num_channels_to_ablate, *[1] * (one.ndim - 1))

            def __call__(self, x: Tensor) -> Tensor:
                features = model.feature_map(self.activations, images, "")  # a view
                for row, channel in enumerate(self.indices[: len(features)]):
                    features[row, channel] = 0
                return self.activations

            forward = staticmethod(layer.forward)  # what prompts pass through, on their way to keys and values

        return Layer()


def repaired_shapley() -> Any:
    """The peer's ShapleyCAM, which forgets to reshape tokens where it weights them."""

    class Repaired(peer_package().ShapleyCAM):  # type: ignore[misc]
        def get_cam_image(self, images: Any, layer: Any, targets: Any, values: Tensor, grads: Any, smooth: Any) -> Any:
            weights = self.get_cam_weights(images, layer, targets, values, grads)
            features = self.activations_and_grads.reshape_transform(values).detach().numpy()
            return (weights[:, :, None, None] * features).sum(1)

    return Repaired


def peer_picture(name: str, model: TunedModel, images: Tensor, targets: list[int], layer: str) -> np.ndarray:
    """pytorch-grad-cam run the ordinary way: its hooks, its forward and backward, its loops, its picture."""
    package = peer_package()
    chosen = [package.utils.model_targets.ClassifierOutputTarget(target) for target in targets]
    module = model.network.get_submodule(layer)
    more = {"ablation_layer": ZeroAtPatches(model, images, module)} if name == "ablation_cam" else {}
    if name == "finer_cam":
        order = (model(images) - model(images)[range(len(targets)), targets][:, None]).abs().argsort(1)
        chosen = [package.utils.model_targets.FinerWeightedTarget(target, row[1:4].tolist(), 1.0)
                  for target, row in zip(targets, order, strict=True)]  # fmt: skip
    made = (repaired_shapley() if name == "shapley_cam" else getattr(package, PEERS[name]))(
        model, [module], reshape_transform=lambda values: model.feature_map(values, images, layer), **more
    )
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
            found: np.ndarray = made(images, chosen)
    finally:
        held = getattr(made, "base_cam", made).activations_and_grads
        held.gradients, held.activations = [], []  # its release fails on views
        held.release()
    return found


def picture(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Raw maps drawn by the peer's own post-processing."""
    scale = peer_package().utils.image.scale_cam_image
    drawn: np.ndarray = scale(np.maximum(scale(np.maximum(values, 0), (size[1], size[0])), 0))
    return drawn


def test_every_class_here_is_compared_with_its_peer() -> None:
    assert {name for name in METHODS if METHODS[name].__module__ == cam.__name__} == set(PEERS)


CASES = [
    (name, case) for name in PEERS for case in MODELS
    if name != "shapley_cam" or case in ("convolutional", "attention pool")  # elsewhere the peer cannot run, see below
]  # fmt: skip


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_picture_equals_pytorch_grad_cams(name: str, case: str) -> None:
    model = MODELS[case]().eval().requires_grad_(True)  # the peer cannot explain a frozen model
    images, targets = images_for(model), [0, 1, 0]
    size = (int(images.shape[-2]), int(images.shape[-1]))
    ours = raw(name, model, images, targets=targets)
    scores = model(images)[range(3), targets].detach().numpy()
    theirs = peer_picture(name, model, images, targets, model.default_layer())
    if name == "ablation_cam":  # the peer divides by the score, so that a negative one turns its map round
        ours = ours * np.sign(scores)[:, None, None]
    candidates = [picture(sign * ours, size) for sign in ((1, -1) if name in EITHER_SIGN else (1,))]
    apart = np.abs(np.stack(candidates) - theirs).max((2, 3)).min(0)
    assert apart.max() < 1e-5
    drawn = theirs.reshape(3, -1).max(1) > 0.9
    assert drawn.any(), "blank pictures, of maps without a positive value, would agree whatever we do"


@pytest.mark.parametrize("name", sorted(EITHER_SIGN))
def test_a_principal_component_keeps_its_scale_and_gets_a_sign_of_its_own(name: str) -> None:
    peer_package()
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection, get_2d_projection_kernel

    model, images = wrap(tiny_vit()), tiny_images(12)
    with model.capture(attention=False, layers=[NORM]) as trace:
        model.eval()(images)
    features, gradient = (part.numpy() for part in trace.features(NORM, torch.zeros(12, dtype=torch.long)))
    theirs = {"eigen_cam": lambda: get_2d_projection(features), "kpca_cam": lambda: get_2d_projection_kernel(features),
              "eigen_grad_cam": lambda: get_2d_projection(features * gradient)}[name]()  # fmt: skip
    ours = raw(name, model, images, targets=0)
    third = (theirs.astype(np.float64) ** 3).sum((1, 2))
    assert {-1.0, 1.0} == set(np.sign(third)), "both signs must occur for the rule to show"
    np.testing.assert_allclose(ours, theirs * np.sign(third)[:, None, None], rtol=1e-4, atol=1e-5)


def test_the_longer_tail_is_the_positive_side() -> None:
    tail = torch.tensor([[[-1.0, -1.0, 2.0]], [[1.0, 1.0, -2.0]]])
    assert torch.equal(cam._orient(tail), torch.tensor([[[-1.0, -1.0, 2.0]]]).expand(2, 1, 3))


def linear() -> TunedModel:
    """Mean of patches after the final norm: the logit is linear in the features, and gradients are head / N."""
    return wrap(tiny_vit("mean of patches", fc_norm=False))


def features_of(model: TunedModel) -> tuple[Tensor, Tensor]:
    """Features (B, D, h, w) of the linear model and its gradient for class 3, (1, D, 1, 1)."""
    with torch.no_grad():
        tokens = model.eval().vit.forward_features(tiny_images())
    return model.feature_map(tokens, tiny_images(), "norm"), (model.vit.head.weight[3] / math.prod(GRID))[
        None, :, None, None
    ].detach()


def test_closed_forms_on_a_linear_head() -> None:
    model = linear()
    features, gradient = features_of(model)
    terms, positive = gradient * features, gradient.clamp_min(0)
    total = features.sum((2, 3), keepdim=True)
    ratio = gradient**2 / (2 * gradient**2 + total * gradient**3 + 1e-6)
    expected = {
        "hires_cam": terms.sum(1), "x_grad_cam": terms.sum(1), "layer_cam": (positive * features).sum(1),
        "grad_cam_elementwise": terms.clamp_min(0).sum(1), "shapley_cam": terms.sum(1),
        "grad_cam_plusplus": (math.prod(GRID) * positive * ratio * features).sum(1),
    }  # fmt: skip
    for name, maps in expected.items():
        scale = float(maps.abs().max())
        np.testing.assert_allclose(raw(name, model, targets=3), maps.numpy(), rtol=1e-4, atol=1e-5 * scale)
    with torch.no_grad():
        score = model(tiny_images())[:, 3]
    np.testing.assert_allclose(
        raw("hires_cam", model, targets=3).sum((1, 2)), (score - model.vit.head.bias[3]).detach(), rtol=1e-5
    )
    drop = (gradient * total)[:, :, 0, 0] / score.abs()[:, None]
    maps = (drop[:, :, None, None] * features).sum(1).numpy()
    np.testing.assert_allclose(raw("ablation_cam", model, targets=3), maps, rtol=1e-5, atol=1e-5 * np.abs(maps).max())


def test_ablation_keeps_its_sign_when_the_logit_is_negative() -> None:
    """A channel that holds the logit up counts for the class, whatever the logit's sign; the peer turns it round."""
    model = linear()
    with torch.no_grad():
        above = model(tiny_images())[:, 3].numpy() + 50
        model.vit.head.bias[3] += 50
    high = raw("ablation_cam", model, targets=3) * np.abs(above)[:, None, None]
    with torch.no_grad():
        model.vit.head.bias[3] -= 100
    low = raw("ablation_cam", model, targets=3) * np.abs(above - 100)[:, None, None]
    assert (above > 0).all() and (above < 100).all()
    np.testing.assert_allclose(low, high, rtol=1e-4, atol=1e-5 * np.abs(high).max())


def test_fem_counts_what_is_rare_in_a_channel() -> None:
    model = linear()
    features, _ = features_of(model)
    values = features.flatten(2).numpy()
    rare = values > values.mean(2, keepdims=True) + 1.5 * values.std(2, keepdims=True)
    expected = (rare.mean(2, keepdims=True) * values).sum(1).reshape(3, *GRID)
    np.testing.assert_allclose(raw("fem", model, k=1.5), expected, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(raw("fem", model), raw("fem", model, k=1.5))


def test_score_cam_weighs_by_the_logit_of_the_masked_image() -> None:
    model = wrap(tiny_vit()).eval()
    image = tiny_images(1)
    with torch.no_grad(), model.capture(attention=False, layers=[NORM]) as trace:
        model(image)
    features = model.feature_map(trace.activations[NORM].detach(), image, NORM)
    upsampled = nn.UpsamplingBilinear2d(SIZE)(features)[0]
    with torch.no_grad():
        scores = torch.stack([
            model(image * (one - one.min()) / (one.max() - one.min() + 1e-8))[0, 2] for one in upsampled
        ])  # fmt: skip
    expected = (scores.softmax(0)[None, :, None, None] * features).sum(1).numpy()
    np.testing.assert_allclose(raw("score_cam", model, image, targets=2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["cls", "registers", "distilled", "shallow", "deep"])
def test_shapley_takes_half_the_curvature_along_the_patches(case: str) -> None:
    """H·A by central differences of the gradient, on the model as it stands, moving patches only."""
    model, images = MODELS[case]().eval(), tiny_images()
    layer = model.default_layer()
    scale = [0.0]

    def move(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        moved = output.clone()
        model.feature_map(moved, images, layer).mul_(1 + scale[0])  # a view
        return moved

    model.network.get_submodule(layer).register_forward_hook(move)

    def gradient(at: float) -> tuple[Tensor, Tensor]:
        scale[0] = at
        with model.capture(attention=False, layers=[layer]) as trace:
            model(images)
        return trace.features(layer, torch.tensor([0, 1, 0]))

    features, middle = gradient(0)
    along = (gradient(1e-4)[1] - gradient(-1e-4)[1]) / 2e-4
    expected = ((middle - along / 2).mean((2, 3), keepdim=True) * features).sum(1).numpy()
    scale[0] = 0
    found = raw("shapley_cam", model, targets=[0, 1, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    first_order = raw("grad_cam", model, targets=[0, 1, 0])
    assert np.abs(found - first_order).max() > 0.01 * np.abs(found).max(), "the curvature must show"


def test_shapley_says_so_where_attention_has_no_second_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cam, "AttentionRecorder", lambda recording, explicit: nullcontext())  # fused
    with pytest.raises(CaptureError, match="needs second derivatives"):
        raw("shapley_cam", wrap(tiny_vit()))


@pytest.mark.parametrize("name", sorted(set(PEERS) - {"fem"}))  # FEM counts what is above a sharp threshold
def test_mixed_precision_gives_nearly_the_same_map(name: str) -> None:
    model, images = tune(tiny_vit(dtype=torch.float32), "prompt", num_tokens=5), tiny_images().float()
    exact = raw(name, model, images, targets=0)
    rough = attribute(model, images, methods=name, targets=0, precision="bf16")[name].values
    assert rough.dtype == np.float32 and np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.97


def test_the_peers_shapley_cam_cannot_weigh_tokens() -> None:
    """If this starts to fail, compare on every head."""
    with pytest.raises(ValueError, match="Invalid activation shape"):
        model = MODELS["attention pool"]().eval()
        module, images = model.vit.norm, tiny_images()
        package = peer_package()
        made = package.ShapleyCAM(model, [module], lambda values: model.feature_map(values, images, "norm"))
        held = made.activations_and_grads
        try:
            with sdpa_kernel(SDPBackend.MATH):
                made(images, [package.utils.model_targets.ClassifierOutputTarget(0)] * 3)
        finally:
            held.gradients, held.activations = [], []
            held.release()


def test_finer_cam_of_two_classes_is_a_difference_of_grad_cams() -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=3, class_names=("cat", "dog"))
    cat, dog = (raw("grad_cam", model, targets=target) for target in (0, 1))
    np.testing.assert_allclose(raw("finer_cam", model, targets=0), cat - dog, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(raw("finer_cam", model, targets=0, alpha=0.25), cat - dog / 4, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(raw("finer_cam", model, targets=0, alpha=0), cat, rtol=1e-4, atol=1e-6)


def test_finer_cam_compares_the_nearest_logits() -> None:
    model = wrap(tiny_vit()).eval()
    with torch.no_grad():
        logits = model(tiny_images())
    for row in range(3):
        order = (logits[row] - logits[row, 2]).abs().argsort()
        assert order[0] == 2
        other = raw("grad_cam", model, targets=int(order[1]))[row]
        expected = raw("grad_cam", model, targets=2)[row] - other
        found = raw("finer_cam", model, targets=2, comparisons=1)[row]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_finer_cam_stays_right_when_the_model_is_sure() -> None:
    """With 40 logits between them the others' probabilities vanish beside the peer's 1e-9 and its map turns round."""
    model = tune(tiny_vit(), "linear", class_names=("cat", "dog"))
    expected = raw("finer_cam", model, targets=0)
    with torch.no_grad():
        model.vit.head.bias[0] += 40
    np.testing.assert_allclose(raw("finer_cam", model, targets=0), expected, rtol=1e-4, atol=1e-6)
    package = peer_package()
    logits = model.eval()(tiny_images())
    (slope,) = torch.autograd.grad(package.utils.model_targets.FinerWeightedTarget(0, [1], 1.0)(logits[0]), logits)
    assert slope[0, 0] <= 0, "the peer's score falls as the target's logit rises"


def test_finer_cam_of_one_class_is_refused() -> None:
    with pytest.raises(CaptureError, match="compares classes, and this model has one"):
        raw("finer_cam", wrap(tiny_vit(num_classes=1)))


@pytest.mark.parametrize("name", ["hires_cam", "ablation_cam", "shapley_cam", "finer_cam"])
def test_a_layer_behind_the_last_attention_is_refused(name: str) -> None:
    with pytest.raises(CaptureError, match="gradient at layer 'norm' is exactly zero"):
        raw(name, wrap(tiny_vit()), layer="norm")


@pytest.mark.parametrize("name", ["eigen_cam", "kpca_cam", "fem", "score_cam"])
def test_a_method_that_asks_for_no_gradient_takes_any_layer_of_tokens(name: str) -> None:
    assert raw(name, wrap(tiny_vit()), layer="norm").std() > 0


LAYERS = ["patch_embed", "pos_drop", "blocks.0.norm1", "blocks.0", "blocks.1.norm1", "blocks.1.mlp", "blocks.1", NORM]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("case", ["cls", "registers", "shallow", "deep"])
def test_ablating_through_the_last_blocks_alone_changes_nothing(
    case: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS[case]()
    short = raw("ablation_cam", model, layer=layer)
    monkeypatch.setattr(cam, "_resuming", lambda model, layer: (0, None))
    whole = raw("ablation_cam", model, layer=layer)
    np.testing.assert_allclose(short, whole, rtol=1e-6, atol=1e-9 * np.abs(whole).max())


def test_ablating_a_part_of_the_last_block_that_a_lean_model_would_not_run() -> None:
    model = wrap(tiny_vit())
    for layer in ("blocks.2.attn.qkv", NORM):
        picture_peer = peer_picture("ablation_cam", model.requires_grad_(True), tiny_images(), [0, 1, 0], layer)
        scores = model(tiny_images())[range(3), [0, 1, 0]].detach().numpy()
        ours = raw("ablation_cam", model, targets=[0, 1, 0], layer=layer) * np.sign(scores)[:, None, None]
        assert np.abs(picture(ours, SIZE) - picture_peer).max() < 1e-5


def test_blocks_before_the_layer_run_once_and_targets_share_the_forwards() -> None:
    model, rows = wrap(tiny_vit()), {"first": 0, "last": 0}

    def count(key: str) -> Any:
        return lambda module, inputs, output: rows.__setitem__(key, rows[key] + len(output))

    model.vit.blocks[0].mlp.register_forward_hook(count("first"))
    model.vit.blocks[2].mlp.register_forward_hook(count("last"))
    one, two = attribute_targets(model, tiny_images(), [0, 1], methods="ablation_cam")
    assert rows == {"first": 3, "last": 3 + 3 * 24}
    for target, found in enumerate((one, two)):
        assert np.array_equal(found["ablation_cam"].values, raw("ablation_cam", model, targets=target))
    rows["first"] = 0
    attribute_targets(model, tiny_images(), [0, 1], methods=["score_cam", "eigen_cam", "hires_cam"])
    assert rows["first"] == 3 + 3 * 24


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam", "shapley_cam"])
def test_a_small_memory_budget_changes_nothing(name: str) -> None:
    model = prompted(True)()
    wide, narrow = (raw(name, model, memory_budget=budget) for budget in ("auto", 1))
    np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-7 * np.abs(wide).max())


def test_threads_do_not_meet_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    model, names = prompted(True)(), sorted(PEERS)
    alone = {name: raw(name, model) for name in names}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for name, found in zip(names, pool.map(lambda name: raw(name, model), names), strict=True):
                assert np.array_equal(found, alone[name]), name
    assert capfd.readouterr() == ("", "")


def test_the_process_state_is_left_alone() -> None:
    large = wrap(tiny_vit(img_size=128))  # above 200 patches the peer's kernel method draws a random start
    numpy_state, torch_state = np.random.get_state()[1].tolist(), torch.get_rng_state()
    for name in sorted(PEERS):
        raw(name, large, tiny_images(1, (128, 128)))
    assert np.random.get_state()[1].tolist() == numpy_state and torch.equal(torch.get_rng_state(), torch_state)


def test_a_method_of_activations_runs_once_for_all_targets() -> None:
    one, two = attribute_targets(prompted(False)(), tiny_images(), [0, 1], methods=["eigen_cam", "fem", "kpca_cam"])
    for name in one:
        assert np.array_equal(one[name].values, two[name].values) and (one[name].targets != two[name].targets).all()


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [("hires_cam", {"layer": 3}, "name of a module, got 3"), ("hires_cam", {"layer": ""}, "name of a module"),
     ("finer_cam", {"comparisons": 0}, "at least 1, got 0"), ("finer_cam", {"comparisons": 1.5}, "whole number"),
     ("finer_cam", {"alpha": -1.0}, "alpha to be finite"), ("fem", {"k": math.nan}, "k to be finite"),
     ("fem", {"k": "2"}, "wrong type"), ("eigen_cam", {"seed": 1}, "no option 'seed'")],
)  # fmt: skip
def test_options_are_checked(name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        METHODS.create(name, **options)


def test_the_layer_is_recorded_and_may_be_chosen() -> None:
    for name in sorted(PEERS):
        found = attribute(wrap(tiny_vit()), tiny_images(), methods=name, options={name: {"layer": "blocks.1"}})[name]
        assert found.provenance["layer"] == "blocks.1" and found.options["layer"] == "blocks.1"


def test_listing_methods_does_not_import_the_package() -> None:
    code = ("import sys; from explain.methods.base import METHODS; assert 'score_cam' in list(METHODS); "
            "assert not {'pytorch_grad_cam', 'sklearn'} & sys.modules.keys()")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)

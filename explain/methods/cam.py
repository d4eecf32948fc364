"""The CAM family: maps that are a weighted sum of one layer's features, with pytorch-grad-cam's formulas.

Features and gradients come from the shared forward; of pytorch-grad-cam only the formula of a class is run, on an
instance without a model. Its hooks, its own forward and backward, its `zero_grad` and its min-max are not used, so the
maps are raw and signed: apply ReLU, min-max, a half-pixel bilinear resize and min-max again to get its pictures. Only
patches enter: prefix and prompt tokens are no part of a feature map.

Left out of the package: FullGrad (reads biases of convolutions only), RandomCAM (random weights), SegEigenCAM (for
segmentation), and RefineCAM and SESS (they fuse normalised pictures, not values).
"""

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import MethodType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from explain.attention import AttentionRecorder, Recording
from explain.errors import CaptureError, InputError
from explain.methods.base import METHODS, Maps, Method, check_whole
from explain.model import ROWS_READ, Trace, TunedModel

SMALLEST_SCORE = 1e-4
"""Logits; a drop relative to the score is relative to at least this."""

STUB = "one backward pass through what follows the layer: about 0.1 F"
NOTHING = "0 F: the shared forward is all"


@dataclass(frozen=True)
class _Cam(Method):
    """A map from one layer's features and the gradient of the target's logit there.

    Args:
        layer: name of a module of the timm model; None picks the same as `grad_cam`.
    """

    layer: str | None = None

    formula: ClassVar[str]
    """The class of pytorch_grad_cam that turns features and gradient into a map."""
    cost: ClassVar[str] = STUB
    picture: ClassVar[Literal["positive", "signed"]] = "positive"

    def __post_init__(self) -> None:
        if not (self.layer is None or (isinstance(self.layer, str) and self.layer)):
            raise InputError(f"expected layer to be None or the name of a module, got {self.layer!r}")

    def layers(self, model: TunedModel) -> Sequence[str]:
        """The one layer it looks at."""
        return (self.layer or model.default_layer(),)

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`.

        Raises:
            CaptureError: the layer's output is no grid, or the gradient there is exactly zero.
        """
        layer = self.layers(trace.model)[0]
        return Maps(self._map(trace, layer, targets), notes={"layer": layer})

    def _map(self, trace: Trace, layer: str, targets: Tensor) -> Tensor:
        """(B, h, w)."""
        return _run_formula(self.formula, *trace.features(layer, targets))


@METHODS.register("grad_cam_plusplus")
@dataclass(frozen=True)
class GradCAMPlusPlus(_Cam):
    """Positive gradients, each weighted by its share of the score's second and third derivative.

    The closed form assumes non-negative features. On those of a transformer, which have both signs, its denominator
    can come near zero, and then one channel rules the map.

    Source: Chattopadhyay et al. 2018, arXiv 1710.11063, eq. 19.
    """

    formula: ClassVar[str] = "GradCAMPlusPlus"
    label: ClassVar[str] = "GradCAM++"
    source: ClassVar[str] = "Chattopadhyay et al. 2018, arXiv 1710.11063"


@METHODS.register("x_grad_cam")
@dataclass(frozen=True)
class XGradCAM(_Cam):
    """A channel's weight is its gradient averaged with the channel's own activations as weights.

    They sum to 1 and, for non-negative features, form an average. On features with both signs a channel that sums to
    nearly zero gets a very large weight.

    Source: Fu et al. 2020, arXiv 2008.02312.
    """

    formula: ClassVar[str] = "XGradCAM"
    label: ClassVar[str] = "XGradCAM"
    source: ClassVar[str] = "Fu et al. 2020, arXiv 2008.02312"


@METHODS.register("hires_cam")
@dataclass(frozen=True)
class HiResCAM(_Cam):
    """Gradient times features, summed over channels: nothing is averaged over patches.

    Source: Draelos and Carin 2020, arXiv 2011.08891.
    """

    formula: ClassVar[str] = "HiResCAM"
    label: ClassVar[str] = "HiResCAM"
    source: ClassVar[str] = "Draelos and Carin 2020, arXiv 2011.08891"


@METHODS.register("layer_cam")
@dataclass(frozen=True)
class LayerCAM(_Cam):
    """Positive gradients times features, summed over channels.

    Source: Jiang et al. 2021, IEEE Transactions on Image Processing 30, doi 10.1109/TIP.2021.3089943.
    """

    formula: ClassVar[str] = "LayerCAM"
    label: ClassVar[str] = "LayerCAM"
    source: ClassVar[str] = "Jiang et al. 2021, doi 10.1109/TIP.2021.3089943"


@METHODS.register("grad_cam_elementwise")
@dataclass(frozen=True)
class GradCAMElementwise(_Cam):
    """What is positive of gradient times features, summed over channels; HiResCAM without its negative terms.

    Source: Gildenblat et al. 2021, pytorch-grad-cam, `GradCAMElementWise`; the terms are those of Selvaraju et al.
    2017, arXiv 1610.02391.
    """

    formula: ClassVar[str] = "GradCAMElementWise"
    label: ClassVar[str] = "GradCAM element-wise"
    source: ClassVar[str] = "Gildenblat et al. 2021, pytorch-grad-cam; after arXiv 1610.02391"
    signed: ClassVar[bool] = False


@METHODS.register("eigen_grad_cam")
@dataclass(frozen=True)
class EigenGradCAM(_Cam):
    """First principal component over patches of gradient times features; its sign as in `_orient`.

    Source: Muhammad and Yeasin 2020, arXiv 2008.00299, with gradient times features for features.
    """

    formula: ClassVar[str] = "EigenGradCAM"
    label: ClassVar[str] = "EigenGradCAM"
    source: ClassVar[str] = "Gildenblat et al. 2021, pytorch-grad-cam; after arXiv 2008.00299"

    def _map(self, trace: Trace, layer: str, targets: Tensor) -> Tensor:
        return _orient(super()._map(trace, layer, targets))


@METHODS.register("finer_cam")
@dataclass(frozen=True)
class FinerCAM(_Cam):
    """GradCAM of what sets the target apart from the classes with the most similar logits.

    The score is Σ_c w_c (z_t - alpha z_c), with w the softmax over the compared classes c. pytorch-grad-cam computes
    it from probabilities with 1e-9 added to their sum, which turns the gradient's sign once the target has nearly all
    the probability; this form does not.

    Source: Zhang et al. 2025, arXiv 2501.11309.

    Args:
        layer: see `_Cam`.
        alpha: how much of the other classes is taken away; 0 gives GradCAM of the target.
        comparisons: classes compared with, at most.
    """

    alpha: float = 1.0
    comparisons: int = 3

    formula: ClassVar[str] = "GradCAM"
    label: ClassVar[str] = "Finer-CAM"
    source: ClassVar[str] = "Zhang et al. 2025, arXiv 2501.11309"
    cost: ClassVar[str] = "two backward passes through what follows the layer: about 0.2 F"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, comparisons=self.comparisons)
        if not 0 <= self.alpha < math.inf:
            raise InputError(f"expected alpha to be finite and at least 0, got {self.alpha!r}")

    def _map(self, trace: Trace, layer: str, targets: Tensor) -> Tensor:
        features, _ = trace.features(layer, targets)
        score = self._score(trace.logits, targets).sum()
        (gradient,) = torch.autograd.grad(score, trace.activations[layer], retain_graph=True)
        return _run_formula(self.formula, features, trace.model.feature_map(gradient, trace.images, layer))

    def _score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The comparison (B,) of logits (B, K)."""
        if logits.shape[1] < 2:
            raise CaptureError(f"{self.label} compares classes, and this model has one; use grad_cam")
        own = logits.gather(1, targets[:, None])
        distance = (logits - own).detach().abs().scatter(1, targets[:, None], math.inf)
        nearest = distance.argsort(dim=1, stable=True)
        others = logits.gather(1, nearest[:, : min(self.comparisons, logits.shape[1] - 1)])
        return (others.softmax(1) * (own - self.alpha * others)).sum(1)


@METHODS.register("shapley_cam")
@dataclass(frozen=True)
class ShapleyCAM(_Cam):
    """GradCAM with a second-order term: a channel's weight is the mean over patches of g - ½ H·A.

    g is the gradient and H the Hessian of the target's logit at the features A, from Shapley values of the
    second-order Taylor expansion. The players of the game are the patches: A is zero at prefix and prompt tokens,
    which stay as they are. The product H·A is exact, a second backward pass. Fused attention has no second derivative,
    so a transformer runs once more with explicit attention. (pytorch-grad-cam's class runs on convolutional networks
    alone, where both agree.)

    Source: Cai 2025, arXiv 2501.06261.
    """

    label: ClassVar[str] = "ShapleyCAM"
    source: ClassVar[str] = "Cai 2025, arXiv 2501.06261"
    cost: ClassVar[str] = "1 F and three backward passes through what follows the layer: about 1.2 F"

    def _map(self, trace: Trace, layer: str, targets: Tensor) -> Tensor:
        maps: list[Tensor] = []
        places = _places(trace, layer).flatten()

        def work(rows: slice) -> None:
            images, chosen = trace.images[rows], targets[rows]
            with (
                torch.enable_grad(),
                trace.passes.measuring("second order", len(images)),
                AttentionRecorder(Recording(), explicit=True),
                trace.model.capture(attention=False, layers=[layer]) as own,
            ):
                trace.model(images)
                at = own.activations[layer]
                (gradient,) = torch.autograd.grad(own.score(chosen).sum(), at, create_graph=True)
            values = at.detach().flatten(1)
            along = torch.zeros_like(values).index_copy(1, places, values.index_select(1, places)).reshape(at.shape)
            weights = gradient.detach() - _second_order(gradient, at, along) / 2
            features, _ = own.features(layer, chosen)
            mean = trace.model.feature_map(weights, images, layer).mean((2, 3), keepdim=True)
            maps.append((mean * features).sum(1))

        trace.passes.run(work, len(targets), targets.device, "second order")
        return torch.cat(maps)


def _second_order(gradient: Tensor, at: Tensor, along: Tensor) -> Tensor:
    """Hessian times a vector: the gradient of ⟨gradient, along⟩ at `at`."""
    if not gradient.requires_grad:  # the score is linear in the features
        return torch.zeros_like(at)
    try:
        (product,) = torch.autograd.grad(gradient, at, along, retain_graph=True, materialize_grads=True)
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise CaptureError(f"shapley_cam needs second derivatives, and an operation of this model has none on "
                           f"{at.device.type}; move the model to the CPU, or use grad_cam") from error  # fmt: skip
    return product


class _ActivationCam(_Cam):
    """A map of the features alone: it is the same for every class."""

    class_specific: ClassVar[bool] = False
    cost: ClassVar[str] = NOTHING

    def each(self, trace: Trace, targets: Sequence[Tensor]) -> list[Maps]:
        """See `Method`; one map serves all targets."""
        return [self(trace, targets[0])] * len(targets)

    def _map(self, trace: Trace, layer: str, targets: Tensor) -> Tensor:
        features = _features(trace, layer)
        return _run_formula(self.formula, features, features)


@METHODS.register("eigen_cam")
@dataclass(frozen=True)
class EigenCAM(_ActivationCam):
    """First principal component of the features over patches; its sign as in `_orient`. Class-agnostic.

    Source: Muhammad and Yeasin 2020, arXiv 2008.00299; centred over patches, as pytorch-grad-cam does.
    """

    formula: ClassVar[str] = "EigenCAM"
    label: ClassVar[str] = "EigenCAM"
    source: ClassVar[str] = "Muhammad and Yeasin 2020, arXiv 2008.00299"

    def _map(self, trace: Trace, layer: str, targets: Tensor) -> Tensor:
        return _orient(super()._map(trace, layer, targets))


@METHODS.register("kpca_cam")
@dataclass(frozen=True)
class KPCACAM(_ActivationCam):
    """First kernel principal component of the features over patches; its sign as in `_orient`. Class-agnostic.

    The kernel is tanh(x·y / D + 1) of features centred over patches. pytorch-grad-cam leaves the eigenvector to a
    solver that starts from a random vector above 200 patches; a dense one is used here.

    Source: Karmani et al. 2024, arXiv 2410.00267.
    """

    label: ClassVar[str] = "KPCA-CAM"
    source: ClassVar[str] = "Karmani et al. 2024, arXiv 2410.00267"

    def _map(self, trace: Trace, layer: str, targets: Tensor) -> Tensor:
        features = _features(trace, layer)
        points = features.flatten(2) - features.flatten(2).mean(2, keepdim=True)
        kernel = torch.tanh(points.transpose(1, 2) @ points / points.shape[1] + 1)
        rows = kernel.mean(2, keepdim=True)
        kernel = kernel - rows - rows.transpose(1, 2) + rows.mean(1, keepdim=True)
        values, vectors = torch.linalg.eigh(kernel)  # ascending: the component of the largest value comes last
        component = vectors[..., -1] * values[:, -1:].clamp_min(0).sqrt()
        return _orient(component.unflatten(1, features.shape[2:]))


@METHODS.register("fem")
@dataclass(frozen=True)
class FEM(_ActivationCam):
    """Features weighted by how many of a channel's patches are rare: above its mean by k deviations. Class-agnostic.

    Source: Fuad et al. 2020, IPTA, "Features understanding in 3D CNNs for actions recognition in video",
    hal-02963298.

    Args:
        layer: see `_Cam`.
        k: deviations above the mean.
    """

    k: float = 2.0

    label: ClassVar[str] = "FEM"
    source: ClassVar[str] = "Fuad et al. 2020, hal-02963298"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.k < math.inf:
            raise InputError(f"expected k to be finite and at least 0, got {self.k!r}")

    def _map(self, trace: Trace, layer: str, targets: Tensor) -> Tensor:
        features = _features(trace, layer)
        return _run_formula("FEM", features, features, k=self.k)


class _ForwardCam(_Cam):
    """Weights from one further forward per channel, shared between targets."""

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        return self.each(trace, [targets])[0]

    def each(self, trace: Trace, targets: Sequence[Tensor]) -> list[Maps]:
        """See `Method`; the forwards are shared.

        Raises:
            CaptureError: the layer's output is no grid.
        """
        layer = self.layers(trace.model)[0]
        features = _features(trace, layer)
        images, channels = features.shape[:2]
        ask = self._asking(trace, layer, features)
        parts: list[Tensor] = []

        def work(rows: slice) -> None:
            samples = torch.arange(rows.start, rows.stop, device=features.device)
            with torch.no_grad(), trace.passes.measuring("forward", len(samples)):
                logits = ask(samples // channels, samples % channels)
            parts.append(logits)

        trace.passes.run(work, images * channels, features.device, "forward")
        logits = _as_float(torch.cat(parts)).unflatten(0, (images, channels))
        maps = []
        for chosen in targets:
            found = logits.gather(2, chosen[:, None, None].expand(-1, channels, 1))[:, :, 0]
            weights = self._weights(found, _as_float(trace.score(chosen).detach()))
            maps.append(Maps((weights[:, :, None, None] * features).sum(1), notes={"layer": layer}))
        return maps

    def _asking(self, trace: Trace, layer: str, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """What gives the logits (S, K) of S pairs of an image's and a channel's index."""
        raise NotImplementedError

    def _weights(self, found: Tensor, score: Tensor) -> Tensor:
        """Weights (B, D) from the target's logit for each channel (B, D) and the clean one (B,)."""
        raise NotImplementedError


@METHODS.register("score_cam")
@dataclass(frozen=True)
class ScoreCAM(_ForwardCam):
    """A channel's weight is the softmax over channels of the logit that the image masked by the channel gets.

    Masks are the channel's features, resized with the corners aligned and stretched to 0-1; what they cover becomes
    the mean colour. The logit of an empty picture, which the paper takes away, cancels in the softmax.

    Source: Wang et al. 2020, arXiv 1910.01279, algorithm 1.
    """

    label: ClassVar[str] = "Score-CAM"
    source: ClassVar[str] = "Wang et al. 2020, arXiv 1910.01279"
    cost: ClassVar[str] = "one F per channel of the layer: 384 F for a ViT-S, 768 F for a ViT-B"

    def _asking(self, trace: Trace, layer: str, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        images = trace.images

        def ask(image: Tensor, channel: Tensor) -> Tensor:
            masks = features[image, channel][:, None]
            masks = interpolate(masks, images.shape[-2:], mode="bilinear", align_corners=True)
            lowest, highest = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
            masks = (masks - lowest) / (highest - lowest + 1e-8)
            logits: Tensor = trace.model(images[image] * masks.to(images.dtype))
            return logits

        return ask

    def _weights(self, found: Tensor, score: Tensor) -> Tensor:
        return found.softmax(1)


@METHODS.register("ablation_cam")
@dataclass(frozen=True)
class AblationCAM(_ForwardCam):
    """A channel's weight is the share of the target's logit that is lost when the channel is zero at every patch.

    Prefix and prompt tokens keep the channel: the weight speaks of the patches, as the map does. Two things differ
    from pytorch-grad-cam. Where features can be negative it puts in their minimum less a multiple of 1e7 that grows
    along the chunk, which saturates what follows; zero is what the paper sets. And the loss is relative to the
    logit's size, so that a negative logit does not turn the map round.

    On a vision transformer only the blocks from the layer on are run again.

    Source: Desai and Ramaswamy 2020, WACV, doi 10.1109/WACV45572.2020.9093360.
    """

    label: ClassVar[str] = "Ablation-CAM"
    source: ClassVar[str] = "Desai and Ramaswamy 2020, doi 10.1109/WACV45572.2020.9093360"
    cost: ClassVar[str] = (
        "per channel a forward of the blocks from the layer on, 0.04 F at the default one: 15 F for a ViT-S; "
        "a whole F per channel of a convolutional network"
    )

    def layers(self, model: TunedModel) -> Sequence[str]:
        """The layer, and the block whose output the forwards start from."""
        layer = self.layer or model.default_layer()
        _, start = _resuming(model, layer)
        return (layer,) if start is None else (layer, start)

    def each(self, trace: Trace, targets: Sequence[Tensor]) -> list[Maps]:
        """See `Method`; the forwards are shared.

        Raises:
            CaptureError: the layer's output is no grid, or what is there does not reach the logit.
        """
        for chosen in targets:
            trace.features(self.layers(trace.model)[0], chosen)  # refuses a layer whose ablation could change nothing
        return super().each(trace, targets)

    def _asking(self, trace: Trace, layer: str, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        model = trace.model
        given: dict[str, Tensor] = {}
        recorded = {name: trace.activations[name].detach() for name in self.layers(model)}
        twin = model.replica()  # its forward is about to be cut short
        _give(twin, layer, list(recorded), given)
        places = _places(trace, layer).flatten(1)

        def ask(image: Tensor, channel: Tensor) -> Tensor:
            given.update({name: value[image] for name, value in recorded.items()})
            ablated = given[layer].flatten(1).scatter(1, places[channel], 0)
            given[layer] = ablated.reshape(given[layer].shape)
            with twin.capture(attention=False, layers=[layer]):  # computes the rows that the layer needs
                logits: Tensor = twin(trace.images[image])
            return logits

        return ask

    def _weights(self, found: Tensor, score: Tensor) -> Tensor:
        return (score[:, None] - found) / score[:, None].abs().clamp_min(SMALLEST_SCORE)


def _resuming(model: TunedModel, layer: str) -> tuple[int, str | None]:
    """How many blocks need not run when a layer's output is given, and the block whose output must be given too."""
    network: Any = model.network
    if type(network) not in ROWS_READ or vars(network).keys() & {"forward", "forward_features"}:
        return 0, None  # how it uses its blocks is not known
    kind, index, *inner = [*layer.split("."), ""]
    if kind in ("norm", "fc_norm"):
        return model.num_blocks, None
    if kind != "blocks" or not index.isdigit():
        return 0, None
    if inner == [""]:
        return int(index) + 1, None
    return int(index), f"blocks.{int(index) - 1}" if int(index) else None


def _give(twin: TunedModel, layer: str, names: Sequence[str], given: dict[str, Tensor]) -> None:
    """Make layers of a private twin put out what is `given`, and skip the blocks that then need not run."""
    network: Any = twin.network
    skipped, _ = _resuming(twin, layer)
    for index in range(skipped):
        block = network.blocks[index]
        block.forward = MethodType(lambda block, tokens, **options: tokens, block)
    for name in names:
        hook = _giving(name, given)
        network.get_submodule(name).register_forward_hook(hook)


def _giving(name: str, given: dict[str, Tensor]) -> Callable[[nn.Module, Any, Any], Tensor]:
    return lambda module, inputs, output: given[name]


def _features(trace: Trace, layer: str) -> Tensor:
    """A recorded layer's output (B, D, h, w) in float32 or finer."""
    return _as_float(trace.model.feature_map(trace.activations[layer].detach(), trace.images, layer))


def _places(trace: Trace, layer: str) -> Tensor:
    """Where in one image's flattened layer output the values of its feature map are, (D, h, w)."""
    one = trace.activations[layer][:1]
    numbers = torch.arange(one.numel(), device=one.device).reshape(one.shape)
    return trace.model.feature_map(numbers, trace.images[:1], layer)[0]


def _as_float(values: Tensor) -> Tensor:
    """In float32 when it was coarser: numpy has no bfloat16, and sums over channels want the digits."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _orient(maps: Tensor) -> Tensor:
    """Maps (B, h, w) whose sign is arbitrary, turned so that Σ map³ is positive.

    A principal component has no sign of its own. Its longer tail, the few patches that lie far from the mean, is made
    the positive side; this depends on the values alone, so an image alone and in a batch agree.
    """
    third = maps.pow(3).sum((1, 2), keepdim=True)
    return torch.where(third < 0, -maps, maps)


def _run_formula(name: str, features: Tensor, gradient: Tensor, **attributes: float) -> Tensor:
    """The map (B, h, w) of a pytorch-grad-cam class before its ReLU.

    Args:
        name: of the class.
        features: (B, D, h, w).
        gradient: same shape.
        attributes: what the formula reads of its instance.
    """
    instance = _formula_class(name)()
    vars(instance).update(attributes)
    arrays = [_as_float(part).cpu().numpy() for part in (features, gradient)]
    found = torch.from_numpy(instance.get_cam_image(None, None, None, *arrays, eigen_smooth=False))
    return found.to(features.device)


@cache
def _formula_class(name: str) -> Any:
    """A class of pytorch_grad_cam without its constructor, which would hook a model, and its clean-up of hooks.

    Imported here: the package brings scikit-learn and matplotlib along, seconds that `import explain` does without.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module("pytorch_grad_cam")
    return type(name, (getattr(package, name),), {"__init__": lambda self: None, "__del__": lambda self: None})

"""The captum family: gradients at the pixels, ablation and Shapley values, by captum's definitions.

captum computes the gradients and does the ablations; what surrounds it is written here, because its own way would
change the numbers or the machine: it draws from the global random state, by batch; it sizes passes by a number the
caller guesses; and its KernelShap takes one image at a time. Here a draw depends on `seed` and its own number only, so
that every image of every call meets the same noise, and all passes run under the memory budget and can be cancelled.

Two of captum's methods are not offered: its trapezoid rule for integrated gradients, whose weights do not sum to 1, and
its LayerGradCam, which takes tokens for channels; `integrated_gradients` and `grad_cam` take their place.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from explain.baselines import baseline_images, check_baseline
from explain.errors import InputError
from explain.methods.base import METHODS, Maps, Method, check_whole
from explain.model import Trace
from explain.passes import LARGEST_CHUNK

NOISE, BASELINE, PLACE = range(3)
"""What a random number is for; each purpose has a stream of its own."""


class _Gradient(Method):
    """The gradient of the target's logit, averaged over draws of points near the image."""

    def _draws(self) -> int:
        """How many points per image."""
        return 1

    def _point(self, trace: Trace, rows: slice, draw: int) -> tuple[Tensor, Tensor]:
        """Where the gradient of some images is taken, and what it is multiplied with, each (n, 3, H, W)."""
        images = trace.images[rows]
        return images, torch.ones_like(images)

    def _term(self, gradient: Tensor, factor: Tensor) -> Tensor:
        """What a draw adds to the average."""
        return gradient * factor

    def _over_channels(self, average: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H, W)."""
        return average.sum(1)

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        from captum.attr import Saliency

        gradients = Saliency(trace.model)
        images, count = trace.images, len(trace.images)
        total = torch.zeros_like(images, dtype=torch.promote_types(images.dtype, torch.float32))

        def work(chunk: slice) -> None:
            parts = _split(chunk, count)
            points, factors = zip(*[self._point(trace, rows, draw) for draw, rows in parts], strict=True)
            at = torch.cat(points).detach().requires_grad_(True)
            wanted = torch.cat([targets[rows] for _, rows in parts])
            with trace.passes.measuring("gradient at the pixels", len(at)):
                found = gradients.attribute(at, target=wanted, abs=False)
            terms = self._term(found.to(total.dtype), torch.cat(factors).to(total.dtype))
            for (_, rows), part in zip(parts, terms.split([len(point) for point in points]), strict=True):
                total[rows] += part

        trace.passes.run(work, count * self._draws(), images.device, "gradient at the pixels")
        return Maps(self._over_channels(total / self._draws()))


class _Magnitude(_Gradient):
    """A map of how much the score moves, whichever way: the largest absolute value over the channels."""

    signed: ClassVar[bool] = False
    picture: ClassVar[Literal["positive", "signed"]] = "positive"

    def _over_channels(self, average: Tensor) -> Tensor:
        return average.abs().amax(1)


@METHODS.register("saliency")
@dataclass(frozen=True)
class Saliency(_Magnitude):
    """How fast the target's logit changes with each pixel: |gradient|, the largest over the colour channels.

    The gradient is that in model space, so a channel with a small standard deviation weighs more than in pixels.

    Source: Simonyan et al. 2013, arXiv 1312.6034, section 3.1.
    """

    label: ClassVar[str] = "Saliency"
    source: ClassVar[str] = "Simonyan et al. 2013, arXiv 1312.6034"
    cost: ClassVar[str] = "1 G"


@METHODS.register("input_x_gradient")
@dataclass(frozen=True)
class InputXGradient(_Gradient):
    """Gradient times the input in model space, summed over the colour channels.

    Zero in model space is the mean colour, so this is the first-order effect of turning a pixel from the mean colour
    to what it is; a pixel of the mean colour gets zero whatever the model does with it.

    Source: Shrikumar et al. 2016, arXiv 1605.01713.
    """

    label: ClassVar[str] = "Input × gradient"
    source: ClassVar[str] = "Shrikumar et al. 2016, arXiv 1605.01713"
    cost: ClassVar[str] = "1 G"

    def _point(self, trace: Trace, rows: slice, draw: int) -> tuple[Tensor, Tensor]:
        return trace.images[rows], trace.images[rows]


@dataclass(frozen=True)
class _Noisy(_Gradient):
    """Gradients at noisy copies of the image.

    Args:
        samples: noisy copies per image.
        noise: standard deviation of the noise over the range of the image's own values, max - min in model space.
        seed: of the noise; every image gets the same.
    """

    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    cost: ClassVar[str] = "one G per sample"
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_whole(1, samples=self.samples)
        check_whole(0, seed=self.seed)
        if not (isinstance(self.noise, int | float) and 0 <= self.noise < math.inf):
            raise InputError(f"expected noise of at least 0, as a share of the image's range, got {self.noise!r}")

    def _draws(self) -> int:
        return self.samples

    def _noisy(self, images: Tensor, draw: int) -> Tensor:
        """Images (n, 3, H, W) with the draw's noise."""
        values = images.float().flatten(1)
        spread = (values.amax(1) - values.amin(1))[:, None, None, None] * self.noise
        noise = torch.randn(images.shape[1:], generator=_generator(self.seed, NOISE, draw))
        return images + (noise.to(images.device) * spread).to(images.dtype)

    def _point(self, trace: Trace, rows: slice, draw: int) -> tuple[Tensor, Tensor]:
        points = self._noisy(trace.images[rows], draw)
        return points, torch.ones_like(points)


@METHODS.register("smooth_grad")
@dataclass(frozen=True)
class SmoothGrad(_Noisy, _Magnitude):
    """The gradient averaged over noisy copies of the image; drawn as in `saliency`, to which it falls without noise.

    Source: Smilkov et al. 2017, arXiv 1706.03825, section 3: magnitude, and noise of 10 to 20 % of the range.
    """

    label: ClassVar[str] = "SmoothGrad"
    source: ClassVar[str] = "Smilkov et al. 2017, arXiv 1706.03825"


@METHODS.register("smooth_grad_squared")
@dataclass(frozen=True)
class SmoothGradSquared(_Noisy, _Magnitude):
    """The squared gradient averaged over noisy copies: noise in the gradient's sign no longer cancels.

    Source: Hooker et al. 2018, arXiv 1806.10758.
    """

    label: ClassVar[str] = "SmoothGrad squared"
    source: ClassVar[str] = "Hooker et al. 2018, arXiv 1806.10758"

    def _term(self, gradient: Tensor, factor: Tensor) -> Tensor:
        return gradient.square()


@METHODS.register("gradient_shap")
@dataclass(frozen=True)
class GradientShap(_Noisy):
    """Expected gradients: at a random place between a random baseline and the image, times the difference of the two.

    The map's sum estimates F(image) less the mean F(baseline). With one fixed baseline it is `integrated_gradients`
    estimated at random places; the default draws a new baseline each time.

    Source: Lundberg and Lee 2017, arXiv 1705.07874; Erion et al. 2019, arXiv 1906.10670, eq. 2.

    Args:
        samples: places per image.
        noise: standard deviation of noise on the image, over the range of its values; the sources have none.
        seed: of places, baselines and noise.
        baseline: "noise" (uniform, a new one per sample), "black", "mean" (mean colour), "blur", or an image: a PIL
            image, a uint8 array (H, W, 3), or a tensor of pixels 0-1 (3, H, W).
    """

    noise: float = 0.0
    baseline: Any = "noise"

    label: ClassVar[str] = "GradientSHAP"
    source: ClassVar[str] = "Lundberg and Lee 2017, arXiv 1705.07874"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.baseline)

    def _point(self, trace: Trace, rows: slice, draw: int) -> tuple[Tensor, Tensor]:
        images, seed = trace.images[rows], _stream(self.seed, BASELINE, draw)
        (start,) = baseline_images(self.baseline, images, trace.model.transform, seed=seed)
        place = float(torch.rand((), generator=_generator(self.seed, PLACE, draw)))
        difference = self._noisy(images, draw) - start
        return start + place * difference, difference


@dataclass(frozen=True)
class _Perturbation(Method):
    """What the target's logit loses when parts of the image give way to a baseline.

    Args:
        baseline: "black", "mean" (mean colour), "blur", "noise" (one uniform picture), or an image: a PIL image, a
            uint8 array (H, W, 3), or a tensor of pixels 0-1 (3, H, W). The grey of most papers is "mean"; black is the
            default of every method that has one baseline, so that their maps answer the same question.
    """

    baseline: Any = "black"

    def __post_init__(self) -> None:
        check_baseline(self.baseline)

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        return self.each(trace, [targets])[0]

    def each(self, trace: Trace, targets: Sequence[Tensor]) -> list[Maps]:
        """See `Method`; the targets share every forward."""
        (start,) = baseline_images(self.baseline, trace.images, trace.model.transform)
        values = self._values(trace, start, _scorer(trace, targets), len(targets))
        return [Maps(one) for one in values.unbind(1)]

    def _values(self, trace: Trace, start: Tensor, score: Callable[[Tensor], Tensor], targets: int) -> Tensor:
        """Maps (B, targets, …) with the baseline `start` (1 or B, 3, H, W) and what `_scorer` gives."""
        raise NotImplementedError


@METHODS.register("feature_ablation")
@dataclass(frozen=True)
class FeatureAblation(_Perturbation):
    """What the target's logit loses without one patch, patch by patch, on the patch grid.

    Source: Zeiler and Fergus 2013, arXiv 1311.2901, section 4, with windows that are the model's own patches.
    """

    label: ClassVar[str] = "Feature ablation"
    source: ClassVar[str] = "Zeiler and Fergus 2013, arXiv 1311.2901"
    cost: ClassVar[str] = "1 + h · w F"

    def _values(self, trace: Trace, start: Tensor, score: Callable[[Tensor], Tensor], targets: int) -> Tensor:
        from captum.attr import FeatureAblation as Captum

        (height, width), size = trace.grid, trace.images.shape[-2:]
        patches = torch.arange(height * width, device=start.device).reshape(height, width)
        found = Captum(score).attribute(
            trace.images, baselines=start, feature_mask=_on_pixels(patches, size)[None, None],
            perturbations_per_eval=_at_once(trace),
        )  # fmt: skip
        # a patch has one value: that of the pixel in its middle
        rows, columns = ((2 * torch.arange(count) + 1) * side // (2 * count)
                         for count, side in zip((height, width), size, strict=True))  # fmt: skip
        values: Tensor = found[:, 0][:, rows[:, None], columns].unflatten(0, (-1, targets))
        return values


@METHODS.register("occlusion")
@dataclass(frozen=True)
class Occlusion(_Perturbation):
    """What the target's logit loses when a square window is covered, averaged over the windows that cover a pixel.

    By default windows of two by two patches overlap by one patch; without an overlap it would be `feature_ablation`.

    Source: Zeiler and Fergus 2013, arXiv 1311.2901, section 4.

    Args:
        window: side in pixels; None takes two patches, or the image where it is smaller.
        stride: from one window to the next in pixels, at most `window`; None takes one patch, at most `window`.
    """

    window: int | None = None
    stride: int | None = None

    label: ClassVar[str] = "Occlusion"
    source: ClassVar[str] = "Zeiler and Fergus 2013, arXiv 1311.2901"
    cost: ClassVar[str] = "one F per window: about h · w"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"window": self.window, "stride": self.stride}
        check_whole(1, **{name: value for name, value in given.items() if value is not None})
        if self.window is not None:
            self._check_stride(self.window)

    def _check_stride(self, window: int) -> None:
        if self.stride is not None and self.stride > window:
            raise InputError(f"expected a stride of at most the window's {window} pixels, as larger steps leave pixels "
                             f"uncovered; got {self.stride}")  # fmt: skip

    def _values(self, trace: Trace, start: Tensor, score: Callable[[Tensor], Tensor], targets: int) -> Tensor:
        from captum.attr import Occlusion as Captum

        size, patch = trace.images.shape[-2:], _patch(trace)
        if self.window is not None and self.window > min(size):
            raise InputError(f"expected a window of at most {min(size)} pixels for images of {size[0]}x{size[1]}, "
                             f"got {self.window}")  # fmt: skip
        windows = [self.window or min(2 * one, side) for one, side in zip(patch, size, strict=True)]
        strides = [self.stride or min(one, window) for one, window in zip(patch, windows, strict=True)]
        self._check_stride(min(windows))
        found: Tensor = Captum(score).attribute(
            trace.images, (3, *windows), (3, *strides), baselines=start, perturbations_per_eval=_at_once(trace)
        )
        values: Tensor = found[:, 0].unflatten(0, (-1, targets))  # a window covers all channels alike
        return values


@METHODS.register("kernel_shap")
@dataclass(frozen=True)
class KernelShap(_Perturbation):
    """Shapley values of rectangles of patches: a linear model of the logit, fitted to random coalitions.

    Coalitions come in pairs of a set and its complement, their sizes by the Shapley kernel; the fit is held to add up
    to F(image) - F(baseline), which a regression with large weights, as in captum, only approaches. Where all
    coalitions are no more than `samples` every one is taken, and the values are exact. A rectangle's value is shared
    out to its patches, so that a map adds up as well; with fewer samples than rectangles what the samples leave open
    is split evenly.

    Source: Lundberg and Lee 2017, arXiv 1705.07874, theorem 2; pairs: Covert and Lee 2021, arXiv 2012.01536.

    Args:
        baseline: of a rectangle that is no part of a coalition; see `feature_ablation`.
        segments: about how many rectangles; no more than there are patches.
        samples: coalitions, rounded up to an even number.
        seed: of the coalitions; every image of a size gets the same.
    """

    segments: int = 49
    samples: int = 200
    seed: int = 0

    label: ClassVar[str] = "KernelSHAP"
    source: ClassVar[str] = "Lundberg and Lee 2017, arXiv 1705.07874"
    cost: ClassVar[str] = "2 + samples F"
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, segments=self.segments, samples=self.samples)
        check_whole(0, seed=self.seed)

    def _values(self, trace: Trace, start: Tensor, score: Callable[[Tensor], Tensor], targets: int) -> Tensor:
        images, count, device = trace.images, len(trace.images), trace.images.device
        rectangles = _rectangles(trace.grid, self.segments)
        players = int(rectangles.max()) + 1
        coalitions, weights = _coalitions(players, self.samples, self.seed)
        present = torch.cat((torch.zeros(1, players), torch.ones(1, players), coalitions)).bool()
        where = _on_pixels(rectangles, images.shape[-2:])
        scores = []
        for some in present.split(_at_once(trace)):
            keep = some[:, where][:, None, None].to(device)
            pictures = torch.where(keep, images, start)  # (coalitions, B, 3, H, W)
            scores.append(score(pictures.flatten(0, 1)).unflatten(0, (-1, count)).cpu().double())
        by_rectangle = _shapley(coalitions, weights, torch.cat(scores).flatten(1)).unflatten(1, (count, targets))
        shared = by_rectangle / torch.bincount(rectangles.flatten())[:, None, None]
        values: Tensor = shared[rectangles].permute(2, 3, 0, 1)
        return values.to(device, torch.promote_types(images.dtype, torch.float32))


def _split(chunk: slice, count: int) -> list[tuple[int, slice]]:
    """The draws of a chunk, each with its images; draw by draw over all images, so that a chunk makes few draws."""
    return [
        (draw, slice(max(chunk.start - draw * count, 0), min(chunk.stop - draw * count, count)))
        for draw in range(chunk.start // count, (chunk.stop - 1) // count + 1)
    ]


def _stream(seed: int, purpose: int, draw: int) -> int:
    """The seed of one draw for one purpose: neither a batch, nor a chunk, nor another draw moves it."""
    return int(np.random.SeedSequence((seed, purpose, draw)).generate_state(1)[0])


def _generator(seed: int, purpose: int, draw: int) -> torch.Generator:
    return torch.Generator().manual_seed(_stream(seed, purpose, draw))


def _scorer(trace: Trace, targets: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """A function from pictures (n · B, 3, H, W), all images n times over, to the targets' logits (n · B, targets)."""
    wanted, passes = torch.stack(list(targets), dim=1), trace.passes

    def score(pictures: Tensor) -> Tensor:
        columns = wanted.repeat(len(pictures) // len(wanted), 1)
        parts: list[Tensor] = []

        def work(rows: slice) -> None:
            with torch.no_grad(), passes.measuring("forward", len(pictures[rows])):
                logits = trace.model(pictures[rows])
            parts.append(logits.to(torch.promote_types(logits.dtype, torch.float32)).gather(1, columns[rows]))

        passes.run(work, len(pictures), pictures.device, "forward")
        return torch.cat(parts)

    return score


def _at_once(trace: Trace) -> int:
    """How many times the whole batch is perturbed at once, so that the pictures fill one chunk of a pass."""
    return max(1, LARGEST_CHUNK.get(trace.images.device.type, 64) // len(trace.images))


def _patch(trace: Trace) -> tuple[int, int]:
    """Sides of a patch in pixels, rounded up where the last one overhangs."""
    (height, width), (rows, columns) = trace.images.shape[-2:], trace.grid
    return math.ceil(height / rows), math.ceil(width / columns)


def _on_pixels(grid: Tensor, size: Sequence[int]) -> Tensor:
    """Values (h, w) of patches at each of their pixels, (H, W)."""
    rows, columns = (torch.arange(side, device=grid.device) * count // side
                     for side, count in zip(size, grid.shape, strict=True))  # fmt: skip
    return grid[rows[:, None], columns]


def _rectangles(grid: tuple[int, int], wanted: int) -> Tensor:
    """Number of the rectangle each patch belongs to, (h, w): about `wanted` of them, as square as the grid allows."""
    rows = min(max(round(math.sqrt(wanted * grid[0] / grid[1])), 1), grid[0])
    columns = min(max(round(wanted / rows), 1), grid[1])
    return _on_pixels(torch.arange(rows * columns).reshape(rows, columns), grid)


def _coalitions(players: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Coalitions (n, players) of some but not all players, as 0 and 1, and their weights (n,) in the fit."""
    if players < 2:
        return torch.zeros(0, players), torch.zeros(0)
    sizes = torch.arange(1, players)
    if players <= 30 and 2**players - 2 <= samples:
        every = torch.arange(1, 2**players - 1)[:, None] >> torch.arange(players) & 1
        kernel = [(players - 1) / (math.comb(players, k) * k * (players - k)) for k in every.sum(1).tolist()]
        return every.float(), torch.tensor(kernel, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    pairs = (samples + 1) // 2
    # a size is drawn as often as the kernel weighs all coalitions of it together, so each weighs 1 in the fit
    drawn = sizes[torch.multinomial(1 / (sizes * (players - sizes)), pairs, replacement=True, generator=generator)]
    ranks = torch.rand(pairs, players, generator=generator).argsort(1).argsort(1)
    half = (ranks < drawn[:, None]).float()
    return torch.stack((half, 1 - half), dim=1).flatten(0, 1), torch.ones(2 * pairs, dtype=torch.float64)


def _shapley(coalitions: Tensor, weights: Tensor, scores: Tensor) -> Tensor:
    """Weighted least squares under the condition that the values add up to the whole difference.

    Args:
        coalitions: (n, players).
        weights: (n,).
        scores: (2 + n, m) of nobody, of everybody and of each coalition, in float64.

    Returns:
        (players, m).
    """
    empty, difference = scores[0], scores[1] - scores[0]
    present = coalitions.double()
    players = present.shape[1]
    # an even split plus what adds up to nothing: the condition holds whatever the fit finds
    even = (difference / players).expand(players, -1)
    gained = scores[2:] - empty - present @ even
    free = present - present.mean(1, keepdim=True)
    root = weights.sqrt()[:, None]
    fitted: Tensor = torch.linalg.pinv(root * free, rtol=1e-9) @ (root * gained)
    return even + fitted

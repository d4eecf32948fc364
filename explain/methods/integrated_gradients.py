"""Integrated Gradients: the target's logit, split over the pixels by walking from a baseline picture to the image.

The gradient is averaged along the straight path and multiplied by the difference to the baseline. The sum over pixels
must equal F(image) - F(baseline); what is missing is the completeness gap, and it travels with the map. One fixed
number of steps is unfair between models, so by default nodes are doubled, 5 → 9 → 17 → …, each level reusing the one
before, until the gap and the change of the map are both small; an image that got there leaves the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from explain.backbone import InputTransform
from explain.errors import InputError
from explain.methods.base import METHODS, Maps
from explain.model import Trace, TunedModel

BASELINES = ("black", "mean", "blur", "noise")
SMALLEST_CHANGE = 1e-4
"""Logits; what is relative is relative to at least this, as rounding alone moves a score by about 1e-6."""


@METHODS.register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated Gradients in pixels, signed and summed over colour channels.

    `extras`, each (B,): `completeness_gap` (relative: |Σ map - (F(x) - F(x'))| / |F(x) - F(x')|),
    `score_difference` F(x) - F(x'), `nodes` used per image and baseline, `converged` (nested rule only).

    Source: Sundararajan et al. 2017, arXiv 1703.01365, eq. 1.

    Args:
        n_steps: that many Gauss-Legendre nodes; None refines nested nodes until converged.
        tol_gap: largest relative completeness gap of a converged image.
        tol_map: largest relative change (L1) of a converged map between two levels.
        max_nodes: nested nodes at most, 2^k + 1.
        baseline: "black", "mean" (mean colour: zero in model space), "blur" (Gaussian, sigma a twelfth of the side),
            "noise" (uniform, averaged over `noise_draws`), or an image: a PIL image, a uint8 array (H, W, 3), or a
            tensor of pixels 0-1 (3, H, W).
        noise_draws: noise baselines averaged.
        seed: of the noise.
        path_batch: path points evaluated at once.
    """

    n_steps: int | None = None
    tol_gap: float = 0.02
    tol_map: float = 0.03
    max_nodes: int = 65
    baseline: Any = "black"
    noise_draws: int = 4
    seed: int = 0
    path_batch: int = 16

    label: ClassVar[str] = "Integrated Gradients"
    source: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"
    signed: ClassVar[bool] = True
    class_specific: ClassVar[bool] = True
    picture: ClassVar[Literal["positive", "signed"]] = "signed"
    attention: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.baseline, str) and self.baseline not in BASELINES:
            raise InputError(f"expected a baseline in {BASELINES} or an image, got {self.baseline!r}")
        if not isinstance(self.baseline, str | Tensor | np.ndarray | Image.Image):
            raise InputError(f"expected a baseline name or image, got {type(self.baseline).__name__}")
        counts = (self.max_nodes, self.noise_draws, self.path_batch, 1 if self.n_steps is None else self.n_steps)
        if not all(isinstance(number, int) and number >= 1 for number in counts):
            raise InputError(f"expected n_steps, max_nodes, noise_draws and path_batch to be whole numbers of at "
                             f"least 1, got {self}")  # fmt: skip
        if self.max_nodes < 5 or (self.max_nodes - 1) & (self.max_nodes - 2):
            raise InputError(f"expected max_nodes of 2^k + 1 and at least 5 (5, 9, 17, 33, …), got {self.max_nodes}")

    def layers(self, model: TunedModel) -> Sequence[str]:
        """It differentiates to the input, on passes of its own."""
        return ()

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        parts = [self._from(trace, targets, baseline) for baseline in self._baselines(trace)]
        values = torch.stack([part.values for part in parts]).mean(0)
        difference = torch.stack([part.extras["score_difference"] for part in parts]).mean(0)
        extras = {name: torch.stack([part.extras[name] for part in parts]).amax(0) for name in parts[0].extras}
        if "converged" in extras:
            extras["converged"] = torch.stack([part.extras["converged"] for part in parts]).all(0)
        extras["score_difference"] = difference
        extras["completeness_gap"] = completeness_gap(values, difference)
        return Maps(values, extras)

    def _baselines(self, trace: Trace) -> list[Tensor]:
        """Baselines in model space, each (B, 3, H, W)."""
        images, transform = trace.images, trace.model.transform
        pixels = transform.denormalise(images)
        if not isinstance(self.baseline, str):
            given = _pixels(self.baseline, transform)
            if given.shape != images.shape[1:]:
                raise InputError(f"expected a baseline of shape {tuple(images.shape[1:])}, got {tuple(given.shape)}")
            return [transform.normalise(given.to(images)).expand_as(images)]
        if self.baseline == "mean":
            return [torch.zeros_like(images)]
        if self.baseline == "black":
            return [transform.normalise(torch.zeros_like(pixels))]
        if self.baseline == "blur":
            sigma = max(images.shape[-2:]) / 12
            largest = min(images.shape[-2:])
            kernel = min(2 * round(2 * sigma) + 1, largest - (largest + 1) % 2)
            return [transform.normalise(gaussian_blur(pixels, [kernel, kernel], [sigma, sigma]))]
        generator = torch.Generator().manual_seed(self.seed)
        draws = [torch.rand(images.shape[1:], generator=generator) for _ in range(self.noise_draws)]
        return [transform.normalise(draw.to(images)).expand_as(images) for draw in draws]

    def _from(self, trace: Trace, targets: Tensor, baseline: Tensor) -> Maps:
        path = _Path(trace.model, baseline, trace.images - baseline, targets, self.path_batch)
        with torch.no_grad():
            end = trace.logits.detach().gather(1, targets[:, None])[:, 0]
            start = path.scores(baseline)
        if self.n_steps is not None:
            points, weights = np.polynomial.legendre.leggauss(self.n_steps)
            total = path.weighted_gradient(torch.arange(len(end)), (points + 1) / 2, weights / 2)
            nodes = torch.full_like(targets, self.n_steps)
            return Maps(path.attribute(total), {"score_difference": end - start, "nodes": nodes})
        return self._nested(path, end - start)

    def _nested(self, path: "_Path", difference: Tensor) -> Maps:
        """Nested trapezoid: every level adds the midpoints of the one before."""
        count = len(difference)
        active = torch.arange(count, device=difference.device)
        ends = path.weighted_gradient(active, [0.0, 1.0], [0.5, 0.5])
        interior = path.weighted_gradient(active, [0.25, 0.5, 0.75], [1.0, 1.0, 1.0])
        values = path.attribute((ends + interior) / 4)
        nodes = torch.full((count,), 5, device=active.device)
        converged = torch.zeros(count, dtype=torch.bool, device=active.device)
        intervals = 4
        while intervals * 2 + 1 <= self.max_nodes and len(active):
            midpoints = (np.arange(intervals) + 0.5) / intervals
            interior[active] += path.weighted_gradient(active, midpoints, np.ones(intervals))
            intervals *= 2
            finer = path.attribute((ends + interior) / intervals)[active]
            change = (finer - values[active]).flatten(1).abs().sum(1)
            change = change / finer.flatten(1).abs().sum(1).clamp_min(SMALLEST_CHANGE)
            gap = completeness_gap(finer, difference[active])
            values[active], nodes[active] = finer, intervals + 1
            done = (gap <= self.tol_gap) & (change <= self.tol_map)
            converged[active] = done
            active = active[~done]
        return Maps(values, {"score_difference": difference, "nodes": nodes, "converged": converged})


def _pixels(image: Any, transform: InputTransform) -> Tensor:
    """A baseline image as pixels 0-1 (3, H, W)."""
    if isinstance(image, Tensor):
        pixels = image.float() / 255 if image.dtype == torch.uint8 else image
        if not (pixels.is_floating_point() and bool(((pixels >= 0) & (pixels <= 1)).all())):
            raise InputError("expected a baseline tensor of pixels from 0 to 1; "
                             "use transform.denormalise on one in model space")  # fmt: skip
        return pixels
    if isinstance(image, np.ndarray) and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3):
        raise InputError(f"expected a baseline array of uint8 (H, W, 3), got {image.dtype} of shape {image.shape}")
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return transform.pixels(picture.convert("RGB")).float() / 255


def completeness_gap(values: Tensor, difference: Tensor) -> Tensor:
    """|Σ values - difference| / |difference| per image: (B, H, W), (B,) -> (B,); see `SMALLEST_CHANGE`."""
    return (values.flatten(1).sum(1) - difference).abs() / difference.abs().clamp_min(SMALLEST_CHANGE)


@dataclass
class _Path:
    """The straight path from the baselines to the images, and gradients along it."""

    model: TunedModel
    baseline: Tensor
    difference: Tensor
    targets: Tensor
    batch: int

    def scores(self, images: Tensor) -> Tensor:
        """Target logits (B,)."""
        parts = [self.model(chunk) for chunk in images.split(self.batch)]
        return torch.cat(parts).gather(1, self.targets[:, None])[:, 0]

    def weighted_gradient(self, rows: Tensor, points: Any, weights: Any) -> Tensor:
        """Σ_k weight_k · gradient at path point_k, for the images `rows`: (len(rows), 3, H, W)."""
        rows = rows.to(self.targets.device)
        total = torch.zeros_like(self.difference[rows])
        image = torch.arange(len(rows), device=rows.device).repeat_interleave(len(points))
        point = torch.as_tensor(points, dtype=total.dtype, device=rows.device).repeat(len(rows))
        weight = torch.as_tensor(weights, dtype=total.dtype, device=rows.device).repeat(len(rows))
        for chunk in torch.arange(len(image), device=rows.device).split(self.batch):
            source = rows[image[chunk]]
            at = self.baseline[source] + point[chunk, None, None, None] * self.difference[source]
            with torch.enable_grad():
                at = at.detach().requires_grad_(True)
                score = self.model(at).gather(1, self.targets[source][:, None]).sum()
                (gradient,) = torch.autograd.grad(score, at)
            total.index_add_(0, image[chunk], gradient * weight[chunk, None, None, None])
        return total

    def attribute(self, gradient: Tensor) -> Tensor:
        """Average gradient (B, 3, H, W) times the difference to the baseline, summed over channels: (B, H, W)."""
        return (gradient * self.difference).sum(1)

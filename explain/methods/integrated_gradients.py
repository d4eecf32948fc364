"""Integrated Gradients: the target's logit, split over the pixels by walking from a baseline picture to the image.

The gradient is averaged along the straight path and multiplied by the difference to the baseline. The sum over pixels
must equal F(image) - F(baseline); what is missing is the completeness gap, and it travels with the map. One fixed
number of steps is unfair between models, so by default nodes are doubled, 5 → 9 → 17 → …, each level reusing the one
before, until the gap and the change of the map are both small; an image that got there leaves the batch.

Three things make it cheap without changing a number. The patch embedding is affine, so the path is walked behind it
and only the averaged gradient is brought back to the pixels. The ends of the path are known: the image's own gradient
comes from the shared forward, the baseline's is computed once per class. And the forward of a path point serves every
target asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from explain.baselines import baseline_images, check_baseline
from explain.errors import CaptureError, InputError
from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace, TunedModel
from explain.passes import Passes

EMBEDDING = "patch_embed"
SMALLEST_CHANGE = 1e-4
"""Logits; what is relative is relative to at least this, as rounding alone moves a score by about 1e-6."""


@METHODS.register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Integrated Gradients in pixels, signed and summed over colour channels.

    `extras`, each (B,): `completeness_gap` (relative: |Σ map - (F(x) - F(x'))| / |F(x) - F(x')|),
    `score_difference` F(x) - F(x'), `nodes` used per image and baseline; of the nested rule also `converged` and
    `map_change`, the relative L1 change of the map at the last level. The finer map's own error is smaller than that
    change: a tenth of it is typical, a half the worst seen on trained ViTs.

    With `prompts` the path also leads from zero prompts to the trained ones, and the difference is split over pixels
    and prompts together: `extras` then hold `prompt_attribution` and `prompt_gradient` (gradient · prompt at the
    image), each (B, L, P) for VPT-Deep and (B, 1, P) for VPT-Shallow, and F(x') is the score of the baseline picture
    with zero prompts. Zero prompts are a point of the model, not their removal: see `prompt_ablation` for that.

    Source: Sundararajan et al. 2017, arXiv 1703.01365, eq. 1; nested nodes: Clenshaw and Curtis 1960, Numer. Math. 2.

    Args:
        n_steps: that many Gauss-Legendre nodes; None refines nested nodes until converged.
        tol_gap: largest relative completeness gap of a converged image.
        tol_map: largest `map_change` of a converged map.
        max_nodes: nested nodes at most, 2^k + 1.
        baseline: "black", "mean" (mean colour: zero in model space), "blur" (Gaussian, sigma a twelfth of the side),
            "noise" (uniform, averaged over `noise_draws`), or an image: a PIL image, a uint8 array (H, W, 3), or a
            tensor of pixels 0-1 (3, H, W).
        noise_draws: noise baselines averaged.
        seed: of the noise.
        prompts: attribute to image and prompts together.
    """

    n_steps: int | None = None
    tol_gap: float = 0.02
    tol_map: float = 0.1
    max_nodes: int = 513
    baseline: Any = "black"
    noise_draws: int = 4
    seed: int = 0
    prompts: bool = False

    label: ClassVar[str] = "Integrated Gradients"
    source: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"
    cost: ClassVar[str] = "one G per node: n_steps, or 15 to 31 for most images by the nested rule"

    def __post_init__(self) -> None:
        check_baseline(self.baseline)
        counts = (self.max_nodes, self.noise_draws, 1 if self.n_steps is None else self.n_steps)
        if not all(isinstance(number, int) and number >= 1 for number in counts):
            raise InputError(f"expected n_steps, max_nodes and noise_draws to be whole numbers of at least 1, "
                             f"got {self}")  # fmt: skip
        if self.max_nodes < 5 or (self.max_nodes - 1) & (self.max_nodes - 2):
            raise InputError(f"expected max_nodes of 2^k + 1 and at least 5 (5, 9, 17, 33, …), got {self.max_nodes}")

    def layers(self, model: TunedModel) -> Sequence[str]:
        """The patch embedding, when the gradient at the image itself is one of the nodes."""
        shared = self.n_steps is None and not self.prompts and model.embeds
        return (EMBEDDING,) if shared else ()

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        return self.each(trace, [targets])[0]

    def each(self, trace: Trace, targets: Sequence[Tensor]) -> list[Maps]:
        """See `Method`; the forwards along the path are shared.

        Raises:
            CaptureError: `prompts` of a model without.
        """
        if self.prompts and not trace.model.prompted_blocks():
            raise CaptureError("integrated_gradients with prompts=True needs a model tuned with prompts")
        starts = baseline_images(
            self.baseline, trace.images, trace.model.transform, draws=self.noise_draws, seed=self.seed
        )
        walks = [self._walk(trace, targets, index, start) for index, start in enumerate(starts)]
        return [_average([walk[target] for walk in walks]) for target in range(len(targets))]

    def _walk(self, trace: Trace, targets: Sequence[Tensor], index: int, start: Tensor) -> list[Maps]:
        """Maps of each target from one baseline (1 or B, 3, H, W), the `index`-th of the call."""
        # what depends on the baseline alone is kept for the batches to come; a picture of its own keeps nothing
        memory = trace.passes.memory.setdefault((self.name, index), {}) if len(start) == 1 else {}
        path = _Path(trace, torch.stack(list(targets)), start, self.prompts, memory)
        if self.n_steps is None:
            found = self._nested(path)
        else:
            points, weights = np.polynomial.legendre.leggauss(self.n_steps)
            total = path.walk(torch.arange(len(trace.images)), (points + 1) / 2, weights[None] / 2)
            nodes = torch.full_like(targets[0], self.n_steps)
            found = path.split([part[0] for part in total]) | {"nodes": nodes.expand(len(targets), -1)}
        if self.prompts:
            found["prompt_gradient"] = path.prompt_gradient()
        return [Maps(found["values"][t], {name: part[t] for name, part in found.items() if name != "values"})
                for t in range(len(targets))]  # fmt: skip

    def _nested(self, path: "_Path") -> dict[str, Tensor]:
        """Clenshaw-Curtis nodes: every level adds the points between those of the one before.

        A point's weight differs from level to level, so a sum is kept for each level still to come.
        """
        levels = [4 * 2**k for k in range((self.max_nodes - 1).bit_length() - 2)]
        count = path.targets.shape[1]
        active = torch.arange(count)
        sums = path.ends(np.stack([clenshaw_curtis(level)[[0, -1]] for level in levels]))
        nodes = torch.full((count,), levels[0] + 1)
        converged = torch.zeros(count, dtype=torch.bool)
        found: dict[str, Tensor] = {}
        for index, level in enumerate(levels):
            fresh = np.arange(1, level, 1 if index == 0 else 2)
            weights = np.stack([clenshaw_curtis(later)[fresh * (later // level)] for later in levels[index:]])
            for total, part in zip(sums, path.walk(active, _chebyshev(level)[fresh], weights), strict=True):
                total[index:, :, active] += part
            finer = path.split([total[index] for total in sums])
            if not index:
                found = finer
            else:
                change = _relative_change(found["values"], finer["values"])
                finer["map_change"] = change
                done = ((finer["completeness_gap"] <= self.tol_gap) & (change <= self.tol_map)).all(0).cpu()
                nodes[active] = level + 1
                found = {name: _replace(found.get(name, new), new, active) for name, new in finer.items()}
                converged[active] = done[active]
                active = active[~done[active]]
            if not len(active):
                break
        repeated = {"nodes": nodes, "converged": converged}
        return found | {name: part.expand(len(path.targets), -1) for name, part in repeated.items()}


@cache
def clenshaw_curtis(intervals: int) -> Any:
    """Weights of the rule on [0, 1] at (1 - cos(kπ/n)) / 2, k = 0 … n, for an even n; they sum to 1.

    Source: Trefethen 2008, SIAM Review 50(1), "Is Gauss quadrature better than Clenshaw-Curtis?".
    """
    angles = np.pi * np.arange(intervals + 1) / intervals
    even = np.arange(2, intervals + 1, 2)
    factors = 2 / (1 - even**2.0)
    factors[-1] /= 2  # the highest cosine is counted once
    weights = (1 + np.cos(np.outer(angles, even)) @ factors) / intervals
    weights[[0, -1]] /= 2
    return weights


def _chebyshev(intervals: int) -> Any:
    """Points of the rule on [0, 1]."""
    return (1 - np.cos(np.pi * np.arange(intervals + 1) / intervals)) / 2


def completeness_gap(total: Tensor, difference: Tensor) -> Tensor:
    """|total - difference| / |difference|; see `SMALLEST_CHANGE`."""
    return (total - difference).abs() / difference.abs().clamp_min(SMALLEST_CHANGE)


def _relative_change(before: Tensor, after: Tensor) -> Tensor:
    """L1 change of maps (T, B, H, W) between two levels over the size of the later one, (T, B)."""
    change, size = (after - before).flatten(2).abs().sum(2), after.flatten(2).abs().sum(2)
    return change / size.clamp_min(SMALLEST_CHANGE)


def _replace(old: Tensor, new: Tensor, rows: Tensor) -> Tensor:
    """`old` (T, B, …) with the images `rows` of `new`."""
    old = old.clone()
    old[:, rows] = new[:, rows]
    return old


def _average(parts: list[Maps]) -> Maps:
    """The mean over baselines; a measure of trouble is that of the worst one."""
    if len(parts) == 1:
        return parts[0]
    stacked = {name: torch.stack([part.extras[name] for part in parts]) for name in parts[0].extras}
    values = torch.stack([part.values for part in parts]).mean(0)
    extras = {name: part.amax(0) if name in ("nodes", "map_change") else part.float().mean(0)
              for name, part in stacked.items()}  # fmt: skip
    if "converged" in stacked:
        extras["converged"] = stacked["converged"].all(0)
    total = values.flatten(1).sum(1)
    if "prompt_attribution" in extras:
        total = total + extras["prompt_attribution"].flatten(1).sum(1)
    extras["completeness_gap"] = completeness_gap(total, extras["score_difference"])
    return Maps(values, extras)


@dataclass
class _Path:
    """The straight path from a baseline to the images, and gradients along it.

    What moves along it are the variables: the patch embedding (the pixels, when it is not affine), and with `prompts`
    the prompts of every block that inserts some. Each has a start (1 or B, …) and a difference (B, …).
    """

    trace: Trace
    targets: Tensor  # (T, B)
    baseline: Tensor
    prompts: bool
    memory: dict[Any, Any]
    starts: list[Tensor] = field(init=False)
    differences: list[Tensor] = field(init=False)
    difference: Tensor = field(init=False)

    def __post_init__(self) -> None:
        model, images = self.trace.model, self.trace.images
        self.model = model.tail() if model.embeds else model
        with torch.no_grad():
            start, end = (model.embed(part) if model.embeds else part for part in (self.baseline, images))
        self.starts, self.differences = [start], [end - start]
        if self.prompts:
            self.model = model.tail() if model.embeds else model.replica()  # its prompts are about to be replaced
            for value in model.prompts():
                self.starts.append(torch.zeros_like(value)[None])
                self.differences.append(value.expand(len(images), -1, -1))
        end_scores = self.trace.logits.detach().gather(1, self.targets.T).T
        start_logits = self._remembered("logits", self._start_logits)
        self.difference = end_scores - start_logits.expand(len(images), -1).gather(1, self.targets.T).T

    @property
    def passes(self) -> Passes:
        return self.trace.passes

    def _remembered(self, key: Any, compute: Any) -> Any:
        if key not in self.memory:
            self.memory[key] = compute()
        return self.memory[key]

    def _start_logits(self) -> Tensor:
        """(1 or B, K)."""
        parts: list[Tensor] = []

        def work(rows: slice) -> None:
            at = [start[rows if len(start) > 1 else slice(None)] for start in self.starts]
            with torch.no_grad(), self.passes.measuring("forward", len(at[0])):
                parts.append(self._logits(at))

        self.passes.run(work, len(self.baseline), self.baseline.device, "forward")
        return torch.cat(parts)

    def _logits(self, at: Sequence[Tensor]) -> Tensor:
        if self.prompts:
            self.model.give_prompts([part.expand(len(at[0]), -1, -1) for part in at[1:]])
        logits: Tensor = self.model(at[0])
        return logits

    def walk(self, rows: Tensor, points: Any, weights: Any) -> list[Tensor]:
        """Weighted sums of the gradient at path points, for some images.

        Args:
            rows: indices of the images.
            points: (n,) in 0-1.
            weights: (S, n), one row per sum.

        Returns:
            Per variable (S, T, len(rows), …).
        """
        device = self.baseline.device
        like = self.starts[0]
        rows = rows.to(device)
        sums = [part.new_zeros(len(weights), len(self.targets), len(rows), *part.shape[1:])
                for part in self.differences]  # fmt: skip
        image = torch.arange(len(rows), device=device).repeat_interleave(len(points))
        point = torch.as_tensor(points, dtype=like.dtype, device=device).repeat(len(rows))
        weight = torch.as_tensor(weights, dtype=like.dtype, device=device).repeat(1, len(rows))

        def work(chunk: slice) -> None:
            with self.passes.measuring("gradient", len(point[chunk])):
                gradients = self._gradients(rows[image[chunk]], point[chunk])
            for total, by_target in zip(sums, gradients, strict=True):
                for row in range(len(weight)):
                    for target, gradient in enumerate(by_target):
                        shape = (-1, *[1] * (gradient.ndim - 1))
                        total[row, target].index_add_(0, image[chunk], gradient * weight[row, chunk].reshape(shape))

        self.passes.run(work, len(image), device, "gradient")
        return sums

    def _gradients(self, rows: Tensor, points: Tensor) -> list[list[Tensor]]:
        """Per variable and target the gradient at one point of the path of each image in `rows`, (len(rows), …)."""
        at = []
        for start, difference in zip(self.starts, self.differences, strict=True):
            first = start[rows] if len(start) > 1 else start
            step = points.reshape(-1, *[1] * (difference.ndim - 1))
            at.append((first + step * difference[rows]).detach().requires_grad_(True))
        with torch.enable_grad():
            logits = self._logits(at)
            scores = logits.gather(1, self.targets[:, rows].T).sum(0)
            last = len(scores) - 1
            found = [torch.autograd.grad(score, at, retain_graph=target < last)
                     for target, score in enumerate(scores)]  # fmt: skip
        return [list(by_target) for by_target in zip(*found, strict=True)]

    def ends(self, weights: Any) -> list[Tensor]:
        """Weighted gradients of both ends of the path.

        Args:
            weights: (S, 2), of the baseline and of the image.

        Returns:
            Per variable (S, T, B, …).
        """
        everyone = torch.arange(self.targets.shape[1])
        shared_end = EMBEDDING in self.trace.activations and not self.prompts and self.model is not self.trace.model
        shared_start = len(self.baseline) == 1
        left = [0.0] * (not shared_start) + [1.0] * (not shared_end)
        columns = [0] * (not shared_start) + [1] * (not shared_end)
        sums = self.walk(everyone, left, weights[:, columns])
        scale = torch.as_tensor(weights, dtype=sums[0].dtype, device=sums[0].device)
        if shared_end:
            known = torch.stack([self.trace.gradient(EMBEDDING, targets) for targets in self.targets])
            sums[0] += scale[:, 1].reshape(-1, *[1] * known.ndim) * known.to(sums[0].dtype)
        if shared_start:
            for total, known in zip(sums, self._start_gradients(), strict=True):
                total += scale[:, 0].reshape(-1, *[1] * known.ndim) * known
        return sums

    def _start_gradients(self) -> list[Tensor]:
        """Per variable the gradient at the one baseline, (T, B, …): once per class and call."""
        for target in self.targets.unique().tolist():
            if ("gradient", target) not in self.memory:
                # any image with that target will do: at the start of its path its own difference does not count
                line, image = (self.targets == target).nonzero()[0].tolist()
                rows = torch.tensor([image], device=self.baseline.device)
                found = self._gradients(rows, self.starts[0].new_zeros(1))
                self.memory["gradient", target] = [by_target[line][0] for by_target in found]
        parts = [[self.memory["gradient", target] for target in line] for line in self.targets.tolist()]
        return [torch.stack([torch.stack([entry[index] for entry in line]) for line in parts])
                for index in range(len(self.starts))]  # fmt: skip

    def split(self, gradients: Sequence[Tensor]) -> dict[str, Tensor]:
        """The attribution that averaged gradients (T, B, …) of each variable give.

        Returns:
            `values` (T, B, H, W), `completeness_gap` and `score_difference` (T, B), with prompts also
            `prompt_attribution` (T, B, L, P).
        """
        images = self.trace.images
        values = torch.stack([self._to_pixels(one) for one in gradients[0]]) * (images - self.baseline)
        found = {"values": values.sum(2), "score_difference": self.difference}
        total = values.flatten(2).sum(2)
        if self.prompts:
            parts = [(gradient * self.differences[1 + index]).sum(-1) for index, gradient in enumerate(gradients[1:])]
            found["prompt_attribution"] = torch.stack(parts, dim=2)
            total = total + found["prompt_attribution"].flatten(2).sum(2)
        return found | {"completeness_gap": completeness_gap(total, self.difference)}

    def prompt_gradient(self) -> Tensor:
        """Gradient times prompt at the image, (T, B, L, P)."""
        everyone = torch.arange(self.targets.shape[1])
        gradients = [total[0] for total in self.walk(everyone, [1.0], np.ones((1, 1)))[1:]]
        parts = zip(gradients, self.differences[1:], strict=True)
        return torch.stack([(gradient * value).sum(-1) for gradient, value in parts], dim=2)

    def _to_pixels(self, gradient: Tensor) -> Tensor:
        """Gradient at the patch embedding -> gradient at the pixels (B, 3, H, W)."""
        if not self.trace.model.embeds:
            return gradient
        pixels = torch.zeros_like(self.trace.images).requires_grad_(True)
        with torch.enable_grad():
            embedded = self.trace.model.embed(pixels)
        (found,) = torch.autograd.grad(embedded, pixels, gradient)
        return found

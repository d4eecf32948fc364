"""GradientPath: gradients on the straight line from a baseline to the images.

Three things make it cheap without changing a number. The patch embedding is affine, so the path is walked behind it
and only an averaged gradient is brought back to the pixels. The ends of the path are known: the image's own gradient
comes from the shared forward, the baseline's is computed once per class. And the forward of a path point serves every
target asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explain.passes import Passes
from explain.trace import Trace

EMBEDDING = "patch_embed"
"""The layer behind which the path is walked."""

REMEMBERED = 32
"""Classes whose gradient at a baseline is kept for the batches to come; each is as large as one image's embedding."""

SMALLEST_CHANGE = 1e-4
"""Logits; what is relative is relative to at least this, as rounding alone moves a score by about 1e-6."""


@dataclass
class GradientPath:
    """The straight path from a baseline to the images, and gradients along it.

    What moves along it are the variables: the patch embedding (the pixels, when it is not affine), and with `prompts`
    the prompts of every block that inserts some. Each has a start (1 or B, …) and a difference (B, …).

    Args:
        trace: of the images' own forward.
        targets: T classes for each image, (T, B).
        baseline: (1 or B, 3, H, W) in model space.
        prompts: walk from zero prompts to the trained ones as well.
        memory: what is known of the baseline from earlier batches.
    """

    trace: Trace
    targets: Tensor
    baseline: Tensor
    prompts: bool
    memory: dict[Any, Any]
    starts: list[Tensor] = field(init=False)
    differences: list[Tensor] = field(init=False)
    difference: Tensor = field(init=False)

    def __post_init__(self) -> None:
        model, images = self.trace.model, self.trace.images
        # prompts are about to be replaced, so the model has to be the path's own; a tail always is
        self.model = model.tail() if model.embeds else model.replica() if self.prompts else model
        with torch.no_grad():
            start, end = (model.embed(part) if model.embeds else part for part in (self.baseline, images))
        self.starts, self.differences = [start], [end - start]
        if self.prompts:
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
        kind = torch.promote_types(like.dtype, torch.float32)  # many small terms: never summed in half precision
        sums = [part.new_zeros(len(weights), len(self.targets), len(rows), *part.shape[1:], dtype=kind)
                for part in self.differences]  # fmt: skip
        image = torch.arange(len(rows), device=device).repeat_interleave(len(points))
        point = torch.as_tensor(points, dtype=like.dtype, device=device).repeat(len(rows))
        weight = torch.as_tensor(weights, dtype=kind, device=device).repeat(1, len(rows))

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
        for key in list(self.memory)[1:-REMEMBERED]:  # the first holds the logits
            del self.memory[key]
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
        (found,) = torch.autograd.grad(embedded, pixels, gradient.to(embedded.dtype))
        return found


def completeness_gap(total: Tensor, difference: Tensor) -> Tensor:
    """|total - difference| / |difference|; see `SMALLEST_CHANGE`."""
    return (total - difference).abs() / difference.abs().clamp_min(SMALLEST_CHANGE)

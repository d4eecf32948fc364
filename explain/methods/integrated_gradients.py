"""Integrated Gradients: the target's logit, split over the pixels by walking from a baseline picture to the image.

The gradient is averaged along the straight path and multiplied by the difference to the baseline. The sum over pixels
must equal F(image) - F(baseline); what is missing is the completeness gap, and it travels with the map. One fixed
number of steps is unfair between models, so by default nodes are doubled, 5 → 9 → 17 → …, each level reusing the one
before, until the gap and the change of the map are both small; an image that got there leaves the batch.

How the path is walked, and why that is cheap: `explain.path`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from explain.baselines import baseline_images, check_baseline
from explain.errors import CaptureError, InputError
from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace, TunedModel
from explain.path import EMBEDDING, SMALLEST_CHANGE, GradientPath, completeness_gap
from explain.quadrature import clenshaw_curtis, gauss_legendre


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
    image), each (B, E, P) for the E blocks of VPT-Deep that have prompts and (B, 1, P) for VPT-Shallow, and F(x') is
    the score of the baseline picture with zero prompts. Zero prompts are a point of the model, not their removal: see
    `prompt_ablation` for that.

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
        path = GradientPath(trace, torch.stack(list(targets)), start, self.prompts, memory)
        if self.n_steps is None:
            found = self._nested(path)
        else:
            points, weights = gauss_legendre(self.n_steps)
            total = path.walk(torch.arange(len(trace.images)), points, weights[None])
            nodes = torch.full_like(targets[0], self.n_steps)
            found = path.split([part[0] for part in total]) | {"nodes": nodes.expand(len(targets), -1)}
        if self.prompts:
            found["prompt_gradient"] = path.prompt_gradient()
        return [Maps(found["values"][t], {name: part[t] for name, part in found.items() if name != "values"})
                for t in range(len(targets))]  # fmt: skip

    def _nested(self, path: GradientPath) -> dict[str, Tensor]:
        """Clenshaw-Curtis nodes: every level adds the points between those of the one before.

        A point's weight differs from level to level, so a sum is kept for each level still to come.
        """
        levels = [4 * 2**k for k in range((self.max_nodes - 1).bit_length() - 2)]
        count = path.targets.shape[1]
        active = torch.arange(count)
        sums = path.ends(np.stack([clenshaw_curtis(level)[1][[0, -1]] for level in levels]))
        nodes = torch.full((count,), levels[0] + 1)
        converged = torch.zeros(count, dtype=torch.bool)
        found: dict[str, Tensor] = {}
        for index, level in enumerate(levels):
            fresh = np.arange(1, level, 1 if index == 0 else 2)
            weights = np.stack([clenshaw_curtis(later)[1][fresh * (later // level)] for later in levels[index:]])
            for total, part in zip(sums, path.walk(active, clenshaw_curtis(level)[0][fresh], weights), strict=True):
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

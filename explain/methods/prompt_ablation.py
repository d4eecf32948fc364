"""Prompt ablation: what changes when the model may not attend to its prompts.

Masking a prompt's keys removes it: no token attends to it, and nothing else of the model moves. (Setting it to zero
would not: a normalised zero still makes a key and a value.) The map shows where the evidence moved, the extras say by
how much the target's logit fell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from explain.errors import CaptureError
from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace, TunedModel


@METHODS.register("prompt_ablation")
@dataclass(frozen=True)
class PromptAblation(Method):
    """GradCAM with all prompts less GradCAM without any, on the patch grid, and the prompts' effect on the logit.

    `extras`: `prompt_effect` (B,) is the target's logit with all prompts less that without any;
    `prompt_effect_per_block` (B, E) masks the prompts of one of the E blocks that have some of their own, (B, 1) for
    VPT-Shallow, whose prompts are masked in every block at once; with `per_prompt` also `prompt_effect_per_prompt`
    (B, E, P), one prompt at a time.
    Effects of blocks or prompts do not add up to the whole: prompts act together.

    Source: occlusion as in Zeiler and Fergus 2014, arXiv 1311.2901, applied to keys of attention; the map is that of
    Selvaraju et al. 2017, arXiv 1610.02391.

    Args:
        layer: of the GradCAM map; None picks the same as `grad_cam`.
        per_prompt: also mask each prompt alone, E · P further forwards per image.
    """

    layer: str | None = None
    per_prompt: bool = False

    label: ClassVar[str] = "Prompt ablation"
    source: ClassVar[str] = "Zeiler and Fergus 2014, arXiv 1311.2901"
    cost: ClassVar[str] = "(1 + L) F; with per_prompt (1 + L + L · P) F"
    needs_prompts: ClassVar[bool] = True
    convolutional: ClassVar[bool] = False

    def layers(self, model: TunedModel) -> Sequence[str]:
        """The one layer its map looks at."""
        return (self.layer or model.default_layer(),)

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`.

        Raises:
            CaptureError: the model has no prompts.
        """
        prompts = trace.model.prompts()
        if not prompts:
            raise CaptureError(f"{self.label} needs a model tuned with prompts, this one was tuned by "
                               f"{trace.model.tuning!r}")  # fmt: skip
        (layer,) = self.layers(trace.model)
        blocks = range(len(prompts))
        variants = [[_less(value, other == block) for other, value in enumerate(prompts)] for block in blocks]
        if self.per_prompt:
            variants += [[_less(value, other == block, prompt) for other, value in enumerate(prompts)]
                         for block in blocks for prompt in range(len(prompts[block]))]  # fmt: skip
        twin = trace.model.replica()  # its prompts are about to be replaced
        bare_map, bare_score = self._bare(trace, twin, layer, targets)
        score = trace.score(targets).detach()
        effects = score[:, None] - self._scores(trace, twin, targets, variants)
        extras = {"prompt_effect": score - bare_score, "prompt_effect_per_block": effects[:, : len(prompts)]}
        if self.per_prompt:
            extras["prompt_effect_per_prompt"] = effects[:, len(prompts) :].unflatten(1, (len(prompts), -1))
        return Maps(_cam(*trace.features(layer, targets)) - bare_map, extras, {"layer": layer})

    def _bare(self, trace: Trace, twin: TunedModel, layer: str, targets: Tensor) -> tuple[Tensor, Tensor]:
        """GradCAM (B, h, w) and the target's logit (B,) without any prompt."""
        maps: list[Tensor] = []
        scores: list[Tensor] = []
        twin.give_prompts([value[:0] for value in trace.model.prompts()])

        def work(rows: slice) -> None:
            with torch.enable_grad(), twin.capture(attention=False, layers=[layer]) as bare:
                twin(trace.images[rows])
            maps.append(_cam(*bare.features(layer, targets[rows])))
            scores.append(bare.score(targets[rows]).detach())

        trace.passes.run(work, len(targets), targets.device, "forward")
        return torch.cat(maps), torch.cat(scores)

    def _scores(
        self, trace: Trace, twin: TunedModel, targets: Tensor, variants: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """The target's logit with each of the variants' prompts, (B, variants)."""
        columns: list[Tensor] = []
        for variant in variants:
            twin.give_prompts(variant)
            parts: list[Tensor] = []

            def work(rows: slice, parts: list[Tensor] = parts) -> None:
                with torch.no_grad(), trace.passes.measuring("forward", len(trace.images[rows])):
                    logits = twin(trace.images[rows])
                parts.append(logits.gather(1, targets[rows, None])[:, 0])

            trace.passes.run(work, len(targets), targets.device, "forward")
            columns.append(torch.cat(parts))
        return torch.stack(columns, dim=1)


def _cam(features: Tensor, gradient: Tensor) -> Tensor:
    """GradCAM of features and their gradient (B, D, h, w)."""
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1)


def _less(prompts: Tensor, here: bool, prompt: int | None = None) -> Tensor:
    """Prompts (P, D) without one of them, or without all; unchanged when not `here`."""
    if not here:
        return prompts
    return prompts[:0] if prompt is None else torch.cat((prompts[:prompt], prompts[prompt + 1 :]))

"""LeGrad: how sensitive each block's own idea of the target is to attending to each patch.

Every block's output is scored as if it were the last: pooled, normalised and put through the head. The gradient of that
score with respect to the same block's attention, ReLU'd, is the signal; it is not multiplied by the attention, so a key
counts by what more attention to it would do. Blocks are then averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from explain.attention import Recording, attention_gradients
from explain.errors import InputError
from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace, TunedModel

POOLINGS = ("mean", "head")


@METHODS.register("legrad")
@dataclass(frozen=True)
class LeGrad(Method):
    """LeGrad on the patch grid: mean over blocks, heads and queries of the ReLU'd gradient; min-max is the picture's.

    Prompts never enter a score, but attention to them can raise it: with prompts `extras` hold `prompt_relevance` (B,)
    and `prompt_relevance_per_block` (B, blocks), the same measure summed over the prompts' columns: one entry for each
    block that is averaged, exactly 0 where no prompts are.

    Source: Bousselham et al. 2024, arXiv 2404.03214; a block's score as in the authors' code: the mean of its tokens,
    CLS included, goes through the final norm and the head.

    Args:
        last_blocks: that many last blocks are averaged; None for all.
        pooling: of a head that reads the CLS token: "mean" scores the mean of all tokens, as published; "head" scores
            the CLS token, so that the last block's score is the model's own logit. Other heads always pool as they do.
    """

    last_blocks: int | None = None
    pooling: str = "mean"

    label: ClassVar[str] = "LeGrad"
    source: ClassVar[str] = "Bousselham et al. 2024, arXiv 2404.03214"
    cost: ClassVar[str] = "one backward pass through the MLP of each block: about 0.7 F"
    signed: ClassVar[bool] = False
    picture: ClassVar[Literal["positive", "signed"]] = "positive"
    attention: ClassVar[bool] = True
    attention_gradients: ClassVar[bool] = True
    convolutional: ClassVar[bool] = False

    def __post_init__(self) -> None:
        count = self.last_blocks
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise InputError(f"expected last_blocks of at least 1, or None for all, got {count!r}")
        if self.pooling not in POOLINGS:
            raise InputError(f"expected pooling in {POOLINGS}, got {self.pooling!r}")

    def blocks(self, model: TunedModel) -> range:
        """Indices of the blocks that are averaged.

        Raises:
            InputError: the model has fewer.
        """
        count = model.num_blocks if self.last_blocks is None else self.last_blocks
        if count > model.num_blocks > 0:
            raise InputError(f"expected last_blocks of at most {model.num_blocks}, the blocks of this model, "
                             f"got {count}")  # fmt: skip
        return range(max(0, model.num_blocks - count), model.num_blocks)

    def layers(self, model: TunedModel) -> Sequence[str]:
        """The output of each of the blocks."""
        return [f"blocks.{index}" for index in self.blocks(model)]

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        layout = trace.layout
        columns = {index: self._sensitivity(trace, index, targets) for index in self.blocks(trace.model)}
        extras = {}
        if layout.prompts:
            sums = [each[:, layout.at(index).prompt_slice].sum(1) for index, each in columns.items()]
            per_block = torch.stack(sums, dim=1)
            extras = {"prompt_relevance": per_block.mean(1), "prompt_relevance_per_block": per_block}
        patches = [layout.patch_tokens(each) for each in columns.values()]
        return Maps(layout.to_grid(torch.stack(patches).mean(0)), extras)

    def _sensitivity(self, trace: Trace, index: int, targets: Tensor) -> Tensor:
        """Mean over heads and queries of the ReLU'd gradient of one block's score at its attention, (B, N)."""
        score = self._scores(trace, trace.activations[f"blocks.{index}"]).gather(1, targets[:, None]).sum()
        recorded = trace.recording
        block = Recording(True, outputs=[recorded.outputs[index]], values=[recorded.values[index]])
        (gradient,) = attention_gradients(block, score)
        return gradient.clamp_min(0).mean((1, 2))

    def _scores(self, trace: Trace, tokens: Tensor) -> Tensor:
        """Logits (B, K) of a block's output, read as if it were the last block's."""
        layout, vit = trace.layout, trace.model.vit
        if layout.prompts and tokens.shape[1] == layout.total:  # of VPT-Shallow, on their way through the blocks
            tokens = layout.drop_prompts(tokens)
        if self.pooling == "mean" and vit.global_pool == "token":
            # whichever token of the prefix the head reads, it reads the mean
            tokens = tokens.mean(1, keepdim=True).expand(-1, layout.prefix, -1)
        kind = trace.model.autocast
        with torch.autocast(tokens.device.type, kind, enabled=kind is not None):
            logits: Tensor = vit.forward_head(vit.norm(tokens))
        return logits

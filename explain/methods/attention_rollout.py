"""Attention rollout: how much of the head's token comes from each patch, if blocks only mixed tokens by attention.

Each block mixes tokens by (1 - residual) · A + residual · I. Rolling a row vector back from the head's token through
the blocks gives each token's share. Prompts are constants that enter at a block, so their share is taken out there; of
VPT-Deep at every block, as what they became in the block before was thrown away. Shares of image, CLS, registers and
prompts sum to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from explain.errors import InputError
from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace
from explain.tokens import TokenLayout

FUSIONS = ("mean", "max", "min")


def rollout(
    attention: Sequence[Tensor], layout: TokenLayout, readout: Tensor, residual: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Roll the head's token back to the input.

    Source: Abnar and Zuidema 2020, arXiv 2005.00928, eq. 1, as a row-vector recursion that is cut where prompts enter.

    Args:
        attention: per block, head-fused probabilities (B, queries, N); see `TokenLayout.queries`.
        layout: the tokens, N = layout.at(block).total.
        readout: what the head reads of the last block's output, (B, prefix + patches), rows sum to 1.
        residual: weight of the identity, 0-1.

    Returns:
        Shares of the input tokens (B, prefix + patches), and of prompts (B, E, P), one entry for each of the E blocks
        at which some enter.
    """
    return layout.roll_back(readout, attention, mixed=1 - residual, kept=residual)


@METHODS.register("attention_rollout")
@dataclass(frozen=True)
class AttentionRollout(Method):
    """Attention rollout on the patch grid: the head token's row over the patches, not rescaled; class-agnostic.

    `extras` hold what the picture leaves out, each (B,): `prompt_share`, `cls_share`, `register_share`; with these the
    map sums to 1. Prompted models also have `prompt_share_per_prompt` (B, E, P), one entry for each of the E blocks at
    which prompts enter (every prompted block of VPT-Deep, the first of VPT-Shallow), and VPT-Deep
    `prompt_share_per_block` (B, E). A name with `_null` holds what uniform attention gives: a share says something only
    beside it.

    Source: Abnar and Zuidema 2020, arXiv 2005.00928.

    Args:
        head_fusion: "mean", "max" or "min" over heads; only the mean keeps shares that sum to 1.
        residual: weight of the identity that stands for the residual connection, 0-1.
        discard_ratio: share of the weakest attention entries of each query set to zero before fusing, 0 for none.
    """

    head_fusion: str = "mean"
    residual: float = 0.5
    discard_ratio: float = 0.0

    label: ClassVar[str] = "Attention rollout"
    source: ClassVar[str] = "Abnar and Zuidema 2020, arXiv 2005.00928"
    cost: ClassVar[str] = "the attention probabilities of the shared forward: about 0.2 F on a CPU"
    signed: ClassVar[bool] = False
    class_specific: ClassVar[bool] = False
    picture: ClassVar[Literal["positive", "signed"]] = "positive"
    attention: ClassVar[bool] = True
    convolutional: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.head_fusion not in FUSIONS:
            raise InputError(f"expected head_fusion in {FUSIONS}, got {self.head_fusion!r}")
        if not 0 <= self.residual <= 1 or not 0 <= self.discard_ratio < 1:
            raise InputError(f"expected 0 <= residual <= 1 and 0 <= discard_ratio < 1, got {self}")

    @property
    def conserves(self) -> bool:
        """True when shares sum to 1."""
        return self.head_fusion == "mean" and self.discard_ratio == 0

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`; the targets are not used."""
        layout = trace.layout
        fused = [self._fuse(block) for block in trace.attention]
        read = trace.readout()
        row, entered = rollout(fused, layout, read, self.residual)
        maps = layout.to_grid(row)
        if not self.conserves:
            return Maps(maps)  # entries no longer are shares
        uniform = [torch.full_like(block[:1], 1 / block.shape[-1]) for block in fused]
        null = _prompt_shares(layout, rollout(uniform, layout, read[:1], self.residual)[1])
        extras = _prompt_shares(layout, entered)
        extras |= {f"{name}_null": share.expand_as(extras[name]) for name, share in null.items()}
        extras["cls_share"], extras["register_share"] = trace.prefix_sums(row)
        return Maps(maps, extras)

    def _fuse(self, probabilities: Tensor) -> Tensor:
        """(B, heads, N, N) -> (B, N, N)."""
        if self.discard_ratio:
            weakest = int(self.discard_ratio * probabilities.shape[-1])
            threshold = probabilities.kthvalue(weakest + 1, dim=-1, keepdim=True).values
            probabilities = probabilities.where(probabilities >= threshold, 0)
        if self.head_fusion == "mean":
            return probabilities.mean(1)
        return probabilities.amax(1) if self.head_fusion == "max" else probabilities.amin(1)


def _prompt_shares(layout: TokenLayout, entered: Tensor) -> dict[str, Tensor]:
    """Shares of prompts (B, E, P): (B,) in all, and as fine as the layout has them."""
    shares = {"prompt_share": entered.sum((1, 2))}
    if layout.fresh_prompts:
        shares["prompt_share_per_block"] = entered.sum(2)
    return shares | ({"prompt_share_per_prompt": entered} if layout.prompts else {})

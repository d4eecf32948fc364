"""Attention rollout: how much of the head's token comes from each patch, if blocks only mixed tokens by attention.

Each block mixes tokens by (1 - residual) · A + residual · I. Rolling a row vector back from the head's token through
the blocks gives each token's share. Prompts of VPT-Deep are constants that enter at a block, so their share is taken
out there: what they became in the block before was thrown away. Shares of image, CLS, registers and prompts sum to 1.
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

    Source: Abnar and Zuidema 2020, arXiv 2005.00928, eq. 1, as a row-vector recursion; with fresh prompts the row
    is cut at the prompts of every block.

    Args:
        attention: per block, head-fused probabilities (B, queries, N); see `TokenLayout.queries`.
        layout: the tokens, N = layout.total.
        readout: what the head reads of the last block's output, (B, prefix + patches), rows sum to 1.
        residual: weight of the identity, 0-1.

    Returns:
        Shares of the input tokens (B, prefix + prompts + patches), and the share of fresh prompts per block (B, L).
    """
    layout.check_sequence(attention[0].shape[-1])
    row = layout.insert_prompts(readout[..., None], readout.new_zeros(len(readout), layout.prompts, 1))[..., 0]
    shares = []
    for probabilities in reversed(attention):
        mixed = torch.einsum("bi,bij->bj", layout.queries(row, probabilities.shape[1]), probabilities)
        row = (1 - residual) * mixed + residual * row
        if layout.fresh_prompts:
            shares.append(row[:, layout.prompt_slice].sum(1))
            row = row.clone()
            row[:, layout.prompt_slice] = 0
    per_block = torch.stack(shares[::-1], dim=1) if shares else row.new_zeros(len(row), 0)
    return row, per_block


@METHODS.register("attention_rollout")
@dataclass(frozen=True)
class AttentionRollout(Method):
    """Attention rollout on the patch grid: the head token's row over the patches, not rescaled; class-agnostic.

    `extras` hold what the picture leaves out, each (B,): `prompt_share`, `cls_share`, `register_share`; for
    VPT-Deep also `prompt_share_per_block` (B, L). `prompt_share_null` is the share that uniform attention gives.

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
    cost: ClassVar[str] = "none beyond the attention probabilities: about 0.2 F on a CPU"
    signed: ClassVar[bool] = False
    class_specific: ClassVar[bool] = False
    picture: ClassVar[Literal["positive", "signed"]] = "positive"
    attention: ClassVar[bool] = True

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
        row, per_block = rollout(fused, layout, _readout(trace, layout), self.residual)
        maps = layout.to_grid(row[:, layout.patch_slice])
        if not self.conserves:
            return Maps(maps)  # entries no longer are shares
        uniform = [torch.full_like(block[:1], 1 / layout.total) for block in fused]
        null_row, null_blocks = rollout(uniform, layout, _readout(trace, layout)[:1], self.residual)
        cls_tokens = int(trace.model.vit.has_class_token)  # a prefix may hold registers alone
        extras = _shares(layout, row, per_block, cls_tokens)
        null = _shares(layout, null_row, null_blocks, cls_tokens)["prompt_share"]
        extras["prompt_share_null"] = null.expand(len(row))
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


def _readout(trace: Trace, layout: TokenLayout) -> Tensor:
    """What the head reads, (B, prefix + patches)."""
    pooled = trace.pool_attention
    if pooled is None:
        return trace.model.readout(layout).expand(len(trace.images), -1)
    weights = pooled.mean((1, 2))
    skipped = layout.prefix + layout.patches - weights.shape[1]  # a pool that leaves the prefix out
    return torch.cat((weights.new_zeros(len(weights), skipped), weights), dim=1)


def _shares(layout: TokenLayout, row: Tensor, per_block: Tensor, cls_tokens: int) -> dict[str, Tensor]:
    """Shares of the tokens that are not patches; (B,) each, and the deep prompts' (B, L)."""
    prompts = per_block if layout.fresh_prompts else row[:, layout.prompt_slice]
    shares = {
        "prompt_share": prompts.sum(1),
        "cls_share": row[:, :cls_tokens].sum(1),
        "register_share": row[:, cls_tokens : layout.prefix].sum(1),
    }
    return shares | ({"prompt_share_per_block": per_block} if layout.fresh_prompts else {})

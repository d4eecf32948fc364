"""Gradient rollout: attention that raises the target's logit, followed back through the blocks.

Each block adds to a token's relevance what its attention brings in, weighted by how much the target's logit gains from
that attention. As in attention rollout one row vector is rolled back from what the head reads, and is cut where prompts
enter; of VPT-Deep at every block, as what they became in the block before was thrown away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace
from explain.tokens import TokenLayout


def gradient_rollout(
    attention: Sequence[Tensor], gradients: Sequence[Tensor], layout: TokenLayout, readout: Tensor
) -> tuple[Tensor, Tensor]:
    """Roll what the head reads back to the input: r <- r + r · mean over heads of (dA · A)⁺.

    Source: Chefer et al. 2021, arXiv 2103.15679, eq. 5-6, as a row-vector recursion from the last block to the first.

    Args:
        attention: per block the probabilities A (B, heads, queries, N); see `TokenLayout.queries`.
        gradients: per block dA, the target's logit with respect to A, same shapes.
        layout: the tokens, N = layout.at(block).total.
        readout: what the head reads of the last block's output, (B, prefix + patches), rows sum to 1.

    Returns:
        Relevance of the input tokens (B, prefix + patches), and of prompts (B, E, P), one entry for each of the E
        blocks at which some enter.
    """
    pairs = zip(attention, gradients, strict=True)
    return layout.roll_back(readout, [(gradient * block).clamp_min(0).mean(1) for block, gradient in pairs])


@METHODS.register("gradient_rollout")
@dataclass(frozen=True)
class GradientRollout(Method):
    """Class-specific rollout on the patch grid: the patches' entries of the final row, not rescaled.

    The row starts from what the head reads, so patches of a head that averages them keep that constant start of 1
    over their number; those of a CLS head start at 0. An attention pool starts from its own attention, ungated by
    gradients. With prompts `extras` hold `prompt_relevance` (B,), and for VPT-Deep `prompt_relevance_per_block` (B, E)
    of each of the E blocks that have prompts. Relevance is not a share: rows do not sum to 1.

    Source: Chefer et al. 2021, Generic Attention-model Explainability, arXiv 2103.15679, eq. 5-6.
    """

    label: ClassVar[str] = "Gradient rollout"
    source: ClassVar[str] = "Chefer et al. 2021, arXiv 2103.15679"
    cost: ClassVar[str] = "one backward pass through all blocks: about 1 F"
    signed: ClassVar[bool] = False
    picture: ClassVar[Literal["positive", "signed"]] = "positive"
    attention: ClassVar[bool] = True
    attention_gradients: ClassVar[bool] = True
    convolutional: ClassVar[bool] = False

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        layout = trace.layout
        row, entered = gradient_rollout(trace.attention, trace.attention_gradients(targets), layout, trace.readout())
        extras = {"prompt_relevance": entered.sum((1, 2))} if layout.prompts else {}
        if layout.fresh_prompts:
            extras["prompt_relevance_per_block"] = entered.sum(2)
        return Maps(layout.to_grid(row), extras)

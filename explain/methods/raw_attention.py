"""Raw attention: where the tokens that the head reads look in one block, as the softmax gives it.

It shows one block's attention and nothing of how values are mixed before or after; `attention_rollout` follows the
blocks. Which row is shown follows from the head: the CLS row, the mean of the rows of all patches for a head that
averages them, the rows weighted by the pool's own attention for an attention pool.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from explain.errors import InputError
from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace


@METHODS.register("raw_attention")
@dataclass(frozen=True)
class RawAttention(Method):
    """Attention from what the head reads to each patch, on the patch grid; class-agnostic, not rescaled.

    `extras` hold the rest of that row, each (B,): `prompt_share`, `cls_share`, `register_share`; with these the map
    sums to 1. `register_share` counts every other token of the prefix, a distillation token included.

    Source: Vaswani et al. 2017, arXiv 1706.03762, eq. 1; as maps of a ViT in Caron et al. 2021, arXiv 2104.14294.

    Args:
        layer: index of the block, negative ones count from the last.
        head: index of one attention head; None for the mean over heads.
    """

    layer: int = -1
    head: int | None = None

    label: ClassVar[str] = "Raw attention"
    source: ClassVar[str] = "Vaswani et al. 2017, arXiv 1706.03762"
    cost: ClassVar[str] = "the attention probabilities of the shared forward: about 0.2 F on a CPU"
    signed: ClassVar[bool] = False
    class_specific: ClassVar[bool] = False
    picture: ClassVar[Literal["positive", "signed"]] = "positive"
    attention: ClassVar[bool] = True
    convolutional: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value in (("layer", self.layer), ("head", 0 if self.head is None else self.head)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise InputError(f"expected {name} to be a whole number, got {value!r}")

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`; the targets are not used.

        Raises:
            InputError: the model has no such block or head.
        """
        blocks = len(trace.attention)
        if not -blocks <= self.layer < blocks:
            raise InputError(f"expected layer from {-blocks} to {blocks - 1}, the blocks of this model, "
                             f"got {self.layer}")  # fmt: skip
        index = self.layer % blocks
        layout, probabilities = trace.layout.at(index), self._fuse(trace.attention[index])
        layout.check_sequence(probabilities.shape[-1])
        read = layout.spread(trace.readout())
        row = torch.einsum("bi,bij->bj", layout.queries(read, probabilities.shape[1]), probabilities)
        extras = {"prompt_share": row[:, layout.prompt_slice].sum(1)}
        extras["cls_share"], extras["register_share"] = trace.prefix_sums(row)
        return Maps(layout.to_grid(row[:, layout.patch_slice]), extras, {"block": index})

    def _fuse(self, probabilities: Tensor) -> Tensor:
        """(B, heads, queries, N) -> (B, queries, N)."""
        heads = probabilities.shape[1]
        if self.head is None:
            return probabilities.mean(1)
        if not -heads <= self.head < heads:
            raise InputError(f"expected head from {-heads} to {heads - 1} or None for the mean, got {self.head}")
        return probabilities[:, self.head]

"""LoRA: each chosen weight matrix W of the frozen backbone gets an update of low rank, W + (alpha / rank) · B A."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from explain.errors import InputError
from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, Tuning, train_only_head

FUSED = "qkv"
"""timm keeps the matrices of query, key and value in one layer, in this order."""
WHOLE = {"o": ("attn.proj",), "m": ("mlp.fc1", "mlp.fc2")}
LETTERS = FUSED + "".join(WHOLE)


@TUNINGS.register("lora")
@dataclass(frozen=True)
class LowRankAdaptation(Tuning):
    """Low-rank updates of chosen matrices and the head train. B starts at zero, so the model starts as the backbone.

    Written here rather than taken from peft (0.21), which sees timm's fused `qkv` as one matrix: its update would
    always reach the keys and share one A between query, key and value, which is not the method of the paper. It would
    also rename the weights and bring transformers along.

    Source: Hu et al. 2021, LoRA, arXiv 2106.09685, eq. 3; §4.2 adapts query and value.

    Args:
        rank: r, columns of B and rows of A, at least 1.
        alpha: the update is scaled by alpha / rank.
        targets: letters of what is adapted in every block: q, k, v, o (the attention's output projection) and m (both
            matrices of the MLP).
    """

    rank: int = 8
    alpha: float = 16.0
    targets: str = "qv"

    label: ClassVar[str] = "LoRA"
    source: ClassVar[str] = "Hu et al. 2021, arXiv 2106.09685"
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 5e-3)

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf:
            raise InputError(f"expected rank >= 1 and a finite alpha > 0, got {self}")
        if not self.targets or len(set(self.targets)) < len(self.targets) or set(self.targets) - set(LETTERS):
            raise InputError(f"expected targets to be different letters of {LETTERS!r}, such as 'qv', "
                             f"got {self.targets!r}")  # fmt: skip

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Freeze the backbone and put adapted layers in; see `Tuning.apply`.

        Raises:
            InputError: a block has no such layer.
        """
        train_only_head(vit)
        for block in vit.blocks:
            for name, parts, slices in self._layers():
                holder, _, attribute = name.partition(".")
                linear = getattr(getattr(block, holder, None), attribute, None)
                if type(linear) is not nn.Linear:
                    raise InputError(f"a {type(block).__name__} has no linear layer {name!r} to adapt; choose other "
                                     f"targets than {self.targets!r}, or another backbone")  # fmt: skip
                adapted = AdaptedLinear(linear, parts, slices, self.rank, self.alpha, generator)
                setattr(getattr(block, holder), attribute, adapted)
        return layout

    def _layers(self) -> Iterator[tuple[str, list[int], int]]:
        """Of each adapted layer of a block: its name, which slices of its output are adapted, and of how many."""
        fused = [FUSED.index(letter) for letter in FUSED if letter in self.targets]
        if fused:
            yield "attn.qkv", fused, len(FUSED)
        for letter, names in WHOLE.items():
            if letter in self.targets:
                yield from ((name, [0], 1) for name in names)


class AdaptedLinear(nn.Linear):
    """A linear layer whose output, or equal slices of it, get a low-rank update. It keeps its weights and their names.

    The update is added to the output, never to the weight: no gradient of the full matrix is ever computed. Being of
    another class than nn.Linear, it is called by the attention as a whole: who reads its `weight` alone would miss the
    update.

    Args:
        linear: the layer it replaces; the tensors are shared.
        parts: which of the slices are adapted.
        slices: into how many equal slices the output falls.
        rank: r.
        alpha: the update is scaled by alpha / rank.
        generator: source of A.
    """

    def __init__(
        self, linear: nn.Linear, parts: Sequence[int], slices: int, rank: int, alpha: float, generator: Generator
    ) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.slices = slices
        width = linear.out_features // slices
        self.updates = nn.ModuleDict(
            {str(part): LowRank(linear.weight, width, rank, alpha, generator) for part in parts}
        )

    def forward(self, values: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        parts = list(super().forward(values).chunk(self.slices, dim=-1))
        for part, update in self.updates.items():
            parts[int(part)] = parts[int(part)] + update(values)
        return torch.cat(parts, dim=-1)


class LowRank(nn.Module):
    """The update x -> (alpha / rank) · B A x; A starts normal with variance 1 / in, B at zero.

    Args:
        weight: matrix (out, in) that is updated, for its width, type and device.
        width: rows of B.
        rank: r.
        alpha: the update is scaled by alpha / rank.
        generator: source of A.
    """

    def __init__(self, weight: Tensor, width: int, rank: int, alpha: float, generator: Generator) -> None:
        super().__init__()
        inputs = weight.shape[1]
        self.a = nn.Parameter((torch.randn(rank, inputs, generator=generator) / math.sqrt(inputs)).to(weight))
        self.b = nn.Parameter(weight.new_zeros(width, rank))
        self.scale = alpha / rank

    def forward(self, values: Tensor) -> Tensor:
        """(…, in) -> (…, width)."""
        return self.scale * nn.functional.linear(nn.functional.linear(values, self.a), self.b)

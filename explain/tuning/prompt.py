"""Visual Prompt Tuning: learned tokens beside the patches of a frozen backbone.

VPT-Shallow inserts P prompts before the first block; they travel through all blocks. VPT-Deep gives every block its
own P prompts and throws away what became of them before the next block.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from explain.attention import is_plain, prompt_keys, run_block
from explain.errors import InputError
from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, train_only_head


@TUNINGS.register("prompt")
@dataclass(frozen=True)
class PromptTuning:
    """Prompts and head train; the backbone is frozen.

    Source: Jia et al. 2022, Visual Prompt Tuning, arXiv 2203.12119, eq. 4-6; prompts start uniform in ±v with
    v² = 6 / (3 · patch height · patch width + D).

    Args:
        num_tokens: prompts P per block, at least 1.
        deep: VPT-Deep when True, VPT-Shallow when False.
        prompt_dropout: share of prompt values dropped in training, drawn anew for every image.
    """

    num_tokens: int = 10
    deep: bool = True
    prompt_dropout: float = 0.0

    label: ClassVar[str] = "VPT"
    source: ClassVar[str] = "Jia et al. 2022, arXiv 2203.12119"

    def __post_init__(self) -> None:
        if self.num_tokens < 1 or not 0 <= self.prompt_dropout < 1:
            raise InputError(f"expected num_tokens >= 1 and 0 <= prompt_dropout < 1, got {self}")

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Wrap the blocks that take in or give up prompts; see `Tuning.apply`."""
        train_only_head(vit)
        layout = layout.with_prompts(self.num_tokens, fresh=self.deep)
        last = len(vit.blocks) - 1
        for index, block in enumerate(vit.blocks):
            enters, leaves = self.deep or index == 0, self.deep or index == last
            if enters or leaves:
                prompts = self._first_values(vit, generator) if enters else None
                vit.blocks[index] = PromptedBlock(block, layout, prompts, self.prompt_dropout, leaves=leaves)
        return layout

    def _first_values(self, vit: VisionTransformer, generator: Generator) -> Tensor:
        height, width = vit.patch_embed.patch_size
        bound = math.sqrt(6 / (3 * height * width + vit.embed_dim))
        values = torch.rand(self.num_tokens, vit.embed_dim, generator=generator) * 2 * bound - bound
        return values.to(vit.patch_embed.proj.weight)


class PromptedBlock(nn.Module):
    """A block that inserts its prompts before it runs and drops what became of them when it `leaves`.

    Dropping at the exit keeps timm's pooling and head unchanged: they never see a prompt. Prompts that enter and leave
    in one plain block only serve as keys and values, and that is all that is computed of them.

    Args:
        block: the frozen timm block.
        layout: tokens inside the block, prompts included.
        prompts: first values (P, D), or None for a block that only drops them.
        dropout: prompt dropout in training.
        leaves: True when prompts end here (every deep block, the last shallow one).

    Attributes:
        rows: outputs that are read of the last block, set on a lean replica; None for all.
        given: prompts (P', D) or (B, P', D) to use instead of the trained ones, set on a replica only.
        keeps_keys: True on a frozen replica, whose prompt keys are computed once.
    """

    def __init__(
        self, block: nn.Module, layout: TokenLayout, prompts: Tensor | None, dropout: float, *, leaves: bool
    ) -> None:
        super().__init__()
        self.block = block
        self.layout = layout
        self.prompts = None if prompts is None else nn.Parameter(prompts)
        self.dropout = nn.Dropout(dropout)
        self.leaves = leaves
        self.rows: int | None = None
        self.given: Tensor | None = None
        self.keeps_keys = False
        self._kept: tuple[Tensor, Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        """Parts of the wrapped block keep their timm names: `blocks.11.norm1` stays `blocks.11.norm1`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "block":
                raise
            return getattr(self.block, name)

    def forward(self, tokens: Tensor, **options: Any) -> Tensor:
        """(B, N, D) -> (B, N', D), with or without prompts as the position asks."""
        prompts = self.prompts if self.given is None else self.given
        lean = not options and is_plain(self.block)
        if lean and self.leaves and prompts is not None and not (self.training and self.dropout.p):
            return run_block(self.block, tokens, extra=self._keys(prompts), at=self.layout.prefix, rows=self.rows)
        count = self.layout.prompts if prompts is None else prompts.shape[-2]
        patches = tokens.shape[1] - self.layout.prefix - (count if prompts is None else 0)
        # the grid's shape does not matter here, its size may vary
        layout = self.layout.with_grid((1, patches)).with_prompts(count, fresh=self.layout.fresh_prompts)
        if prompts is not None:
            tokens = layout.insert_prompts(tokens, self.dropout(prompts.expand(len(tokens), -1, -1)))
        if lean and self.rows is not None:
            return run_block(self.block, tokens, rows=self.rows)
        tokens = self.block(tokens, **options)
        return layout.drop_prompts(tokens) if self.leaves else tokens

    def _keys(self, prompts: Tensor) -> tuple[Tensor, Tensor]:
        if not self.keeps_keys or self.given is not None:
            return prompt_keys(self.block, prompts)
        if self._kept is None:
            self._kept = prompt_keys(self.block, prompts)
        return self._kept

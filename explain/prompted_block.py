"""PromptedBlock: a transformer block that takes in prompts or gives them up, and what wraps blocks in it."""

import math
import re
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from explain.attention import is_plain, prompt_keys, run_block
from explain.errors import InputError
from explain.tokens import TokenLayout


def insert_prompts(
    vit: VisionTransformer,
    layout: TokenLayout,
    generator: Generator,
    *,
    num_tokens: int,
    deep: bool,
    blocks: str = "all",
    dropout: float = 0.0,
) -> TokenLayout:
    """Wrap, in place, the blocks that take in prompts or give them up; what trains is the caller's to say.

    Source: Jia et al. 2022, Visual Prompt Tuning, arXiv 2203.12119, eq. 4-6; prompts start uniform in ±v with
    v² = 6 / (3 · patch height · patch width + D).

    Args:
        vit: the model.
        layout: its tokens before.
        generator: source of the prompts' first values.
        num_tokens: prompts P, at least 1.
        deep: True gives each of the blocks prompts of its own; with False they enter at the first of the blocks and
            travel to the last.
        blocks: which blocks see prompts; see `parse_blocks`.
        dropout: share of prompt values dropped in training.

    Returns:
        The layout with prompts.

    Raises:
        InputError: the model has no such blocks.
    """
    depth = len(vit.blocks)
    where = parse_blocks(blocks) or range(depth)
    if where.stop > depth:
        raise InputError(f'expected "all" or a range of blocks within 0-{depth - 1}, the blocks of this model, '
                         f"got {blocks!r}")  # fmt: skip
    layout = layout.with_prompts(num_tokens, fresh=deep, blocks=None if len(where) == depth else where)
    for index in where:
        enters, leaves = layout.enters(index), deep or index == where[-1]
        if enters or leaves:
            prompts = _first_values(vit, num_tokens, generator) if enters else None
            vit.blocks[index] = PromptedBlock(vit.blocks[index], layout, prompts, dropout, leaves=leaves)
    return layout


def parse_blocks(blocks: str) -> range | None:
    """The blocks that an inclusive range names, counted from 0 as timm does: "6-11", "3-3"; None for "all".

    Raises:
        InputError: neither of the two.
    """
    if blocks == "all":
        return None
    found = re.fullmatch("([0-9]+)-([0-9]+)", blocks)
    if found is None or int(found[1]) > int(found[2]):
        raise InputError(f'expected blocks to be "all" or a range from first to last such as "6-11" or "3-3", '
                         f"got {blocks!r}")  # fmt: skip
    return range(int(found[1]), int(found[2]) + 1)


def _first_values(vit: VisionTransformer, count: int, generator: Generator) -> Tensor:
    height, width = vit.patch_embed.patch_size
    bound = math.sqrt(6 / (3 * height * width + vit.embed_dim))
    values = torch.rand(count, vit.embed_dim, generator=generator) * 2 * bound - bound
    return values.to(vit.patch_embed.proj.weight)


class PromptedBlock(nn.Module):
    """A block that inserts its prompts before it runs and drops what became of them when it `leaves`.

    Dropping at the exit keeps timm's pooling and head unchanged: they never see a prompt. Prompts that enter and leave
    in one plain block only serve as keys and values, and that is all that is computed of them.

    Args:
        block: the timm block.
        layout: tokens inside the block, prompts included.
        prompts: first values (P, D), or None for a block that only drops them.
        dropout: prompt dropout in training.
        leaves: True when prompts end here (every deep block, the last of the shallow ones).

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

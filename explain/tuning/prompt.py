"""Visual Prompt Tuning: learned tokens beside the patches of a frozen backbone.

VPT-Shallow inserts P prompts before the first block; they travel through all blocks. VPT-Deep gives every block its
own P prompts and throws away what became of them before the next block. Either can be kept to a range of blocks; the
others then see no prompt.
"""

from dataclasses import dataclass
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.errors import InputError
from explain.prompted_block import insert_prompts, parse_blocks
from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, Tuning, train_only_head


@TUNINGS.register("prompt")
@dataclass(frozen=True)
class PromptTuning(Tuning):
    """Prompts and head train; the backbone is frozen.

    Source: Jia et al. 2022, Visual Prompt Tuning, arXiv 2203.12119; its §4.4 varies which blocks are prompted, as do
    Han et al. 2023, E²VPT, arXiv 2307.13770. First values: `insert_prompts`.

    Args:
        num_tokens: prompts P per block, at least 1.
        deep: VPT-Deep when True, VPT-Shallow when False.
        prompt_dropout: share of prompt values dropped in training, drawn anew for every image.
        blocks: which blocks see prompts: "all", or from first to last, counted from 0, such as "6-11" or "3-3".
            Prompts of VPT-Shallow enter at the first of them and leave after the last.
    """

    num_tokens: int = 10
    deep: bool = True
    prompt_dropout: float = 0.0
    blocks: str = "all"

    label: ClassVar[str] = "VPT"
    source: ClassVar[str] = "Jia et al. 2022, arXiv 2203.12119"

    def __post_init__(self) -> None:
        if self.num_tokens < 1 or not 0 <= self.prompt_dropout < 1:
            raise InputError(f"expected num_tokens >= 1 and 0 <= prompt_dropout < 1, got {self}")
        parse_blocks(self.blocks)

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Freeze the backbone and wrap its blocks; see `Tuning.apply`."""
        train_only_head(vit)
        return insert_prompts(
            vit, layout, generator,
            num_tokens=self.num_tokens, deep=self.deep, blocks=self.blocks, dropout=self.prompt_dropout,
        )  # fmt: skip

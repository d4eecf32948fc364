"""PromptedTuning: the options of every tuning that inserts prompts, checked once."""

from dataclasses import dataclass

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.errors import InputError
from explain.prompted_block import insert_prompts, parse_blocks
from explain.tokens import TokenLayout
from explain.tuning.base import Tuning


@dataclass(frozen=True)
class PromptedTuning(Tuning):
    """A tuning with prompts; what else trains is its own to say.

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

    def __post_init__(self) -> None:
        if self.num_tokens < 1 or not 0 <= self.prompt_dropout < 1:
            raise InputError(f"expected num_tokens >= 1 and 0 <= prompt_dropout < 1, got {self}")
        parse_blocks(self.blocks)

    def insert(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Insert the prompts in place, trainable; the layout with them."""
        return insert_prompts(
            vit, layout, generator,
            num_tokens=self.num_tokens, deep=self.deep, blocks=self.blocks, dropout=self.prompt_dropout,
        )  # fmt: skip

"""Visual Prompt Tuning: learned tokens beside the patches of a frozen backbone.

VPT-Shallow inserts P prompts before the first block; they travel through all blocks. VPT-Deep gives every block its
own P prompts and throws away what became of them before the next block. Either can be kept to a range of blocks; the
others then see no prompt.
"""

from dataclasses import dataclass
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, train_only_head
from explain.tuning.prompted import PromptedTuning


@TUNINGS.register("prompt")
@dataclass(frozen=True)
class PromptTuning(PromptedTuning):
    """Prompts and head train; the backbone is frozen. The options are those of `PromptedTuning`.

    Source: Jia et al. 2022, Visual Prompt Tuning, arXiv 2203.12119; its §4.4 varies which blocks are prompted, as do
    Han et al. 2023, E²VPT, arXiv 2307.13770. First values: `insert_prompts`.
    """

    label: ClassVar[str] = "VPT"
    source: ClassVar[str] = "Jia et al. 2022, arXiv 2203.12119"

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Freeze the backbone and insert prompts; see `Tuning.apply`."""
        train_only_head(vit)
        return self.insert(vit, layout, generator)

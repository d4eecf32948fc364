"""FT-then-PT: prompt tuning on a backbone that full fine-tuning already adapted.

The frozen backbone is another run's, which no name or hash of a published file stands for: the run keeps it whole.
"""

from dataclasses import dataclass
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, train_only_head
from explain.tuning.prompted import PromptedTuning


@TUNINGS.register("ft_then_pt")
@dataclass(frozen=True)
class FineTuningThenPrompts(PromptedTuning):
    """Prompts and head train on the frozen backbone of a fully tuned model, which `tune` takes as `start`.

    The head too goes on from that model's. The options are those of `PromptedTuning`.

    Source: Han et al. 2024, Facing the Elephant in the Room: Visual Prompt Tuning or Full Finetuning?,
    arXiv 2401.12902, §5.2.
    """

    label: ClassVar[str] = "FT-then-PT"
    source: ClassVar[str] = "Han et al. 2024, arXiv 2401.12902"
    continues: ClassVar[bool] = True

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Freeze the backbone and insert prompts; see `Tuning.apply`."""
        train_only_head(vit)
        return self.insert(vit, layout, generator)

"""Mixed: prompts and every weight train together, in one run.

It asks whether prompts win because they add dimensions to the search (then prompts and weights together should win) or
because they keep the backbone as it is.
"""

from dataclasses import dataclass
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS
from explain.tuning.prompted import PromptedTuning


@TUNINGS.register("mixed")
@dataclass(frozen=True)
class MixedTuning(PromptedTuning):
    """Prompts, backbone and head train; the options are those of `PromptedTuning`.

    Source: Han et al. 2024, Facing the Elephant in the Room: Visual Prompt Tuning or Full Finetuning?,
    arXiv 2401.12902, §5.2.
    """

    label: ClassVar[str] = "Mixed"
    source: ClassVar[str] = "Han et al. 2024, arXiv 2401.12902"
    learning_rates: ClassVar[tuple[float, ...]] = (1e-5, 1e-4, 1e-3)

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Insert prompts and freeze nothing; see `Tuning.apply`."""
        return self.insert(vit, layout, generator)

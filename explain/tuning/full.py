"""Full fine-tuning: every parameter trains."""

from dataclasses import dataclass
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, Tuning


@TUNINGS.register("full")
@dataclass(frozen=True)
class FullFineTuning(Tuning):
    """Every weight of the backbone and the head trains."""

    label: ClassVar[str] = "FT"
    source: ClassVar[str] = "full fine-tuning"
    learning_rates: ClassVar[tuple[float, ...]] = (1e-5, 5e-5, 3e-4)

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Leave everything trainable; see `Tuning.apply`."""
        return layout

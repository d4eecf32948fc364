"""Linear probe: only the head trains, on features that never change."""

from dataclasses import dataclass
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, Tuning, train_only_head


@TUNINGS.register("linear")
@dataclass(frozen=True)
class LinearProbe(Tuning):
    """Only the classification head trains."""

    label: ClassVar[str] = "linear probe"
    source: ClassVar[str] = "linear classifier on frozen features"

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Freeze the backbone; see `Tuning.apply`."""
        train_only_head(vit)
        return layout

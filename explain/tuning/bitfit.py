"""BitFit: only the offsets of the backbone train, about a thousandth of its parameters."""

from dataclasses import dataclass
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, Tuning, train_only_head


@TUNINGS.register("bitfit")
@dataclass(frozen=True)
class BiasTuning(Tuning):
    """Every bias vector (of projections, MLPs, norms and the patch embedding) and the head train.

    Source: Ben Zaken et al. 2021, BitFit, arXiv 2106.10199.
    """

    label: ClassVar[str] = "BitFit"
    source: ClassVar[str] = "Ben Zaken et al. 2021, arXiv 2106.10199"
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 5e-3)

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Freeze all but biases and head; see `Tuning.apply`."""
        train_only_head(vit)
        for name, value in vit.named_parameters():
            if name.endswith(".bias"):
                value.requires_grad_(True)
        return layout

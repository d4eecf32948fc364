"""Layer-wise learning-rate decay: full fine-tuning that moves early layers less than late ones."""

from dataclasses import dataclass
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Generator

from explain.errors import InputError
from explain.tokens import TokenLayout
from explain.tuning.base import TUNINGS, Tuning

AFTER_BLOCKS = {"norm", "attn_pool", "fc_norm", "head", "head_dist"}
"""Parts of a timm ViT that come after its blocks."""


@TUNINGS.register("layer_decay")
@dataclass(frozen=True)
class LayerDecay(Tuning):
    """Every weight trains, at learning rate · decay^(L + 1 - depth): embeddings have depth 0, block l has l + 1.

    The head and what else follows the blocks have depth L + 1, so their factor is 1.

    Source: Clark et al. 2020, ELECTRA, arXiv 2003.10555; for vision transformers, with these depths, Bao et al. 2021,
    BEiT, arXiv 2106.08254.

    Args:
        decay: factor per layer, above 0 and at most 1; 1 is plain full fine-tuning.
    """

    decay: float = 0.75

    label: ClassVar[str] = "FT, layer decay"
    source: ClassVar[str] = "Bao et al. 2021, arXiv 2106.08254"
    learning_rates: ClassVar[tuple[float, ...]] = (2e-5, 1e-4, 5e-4)

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise InputError(f"expected 0 < decay <= 1, got {self.decay!r}")

    def apply(self, vit: VisionTransformer, layout: TokenLayout, generator: Generator) -> TokenLayout:
        """Leave everything trainable; see `Tuning.apply`."""
        return layout

    def rate_scale(self, name: str, blocks: int) -> float:
        """The factor of a parameter's depth; see `Tuning.rate_scale`."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            depth = int(rest.partition(".")[0]) + 1
        else:
            depth = blocks + 1 if part in AFTER_BLOCKS else 0
        return float(self.decay ** (blocks + 1 - depth))

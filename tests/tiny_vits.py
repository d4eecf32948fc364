"""Tiny vision transformers for the tests: float64, a non-square grid, weights large enough to bend every map."""

from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

PATCH, GRID, SIZE = 8, (3, 4), (24, 32)
BASE = dict(img_size=SIZE, patch_size=PATCH, embed_dim=24, depth=3, num_heads=3, num_classes=5, mlp_ratio=2.0)

HEADS: dict[str, tuple[type[VisionTransformer], dict[str, Any]]] = {
    "cls": (VisionTransformer, {}),
    "registers": (VisionTransformer, {"reg_tokens": 2, "no_embed_class": True}),
    "mean of patches": (VisionTransformer, {"global_pool": "avg"}),
    "distilled": (VisionTransformerDistilled, {}),
    "attention pool": (VisionTransformer, {"global_pool": "map", "class_token": False}),
}


def tiny_vit(
    head: str = "cls", *, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any
) -> VisionTransformer:
    """A ViT in evaluation mode whose weights depend on nothing but the seed."""
    kind, extra = HEADS[head]
    vit = kind(**{**BASE, **extra, **options}).double().eval()
    randomise(vit, seed)
    return vit.to(dtype)


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Fill every parameter: scales spread round 1, everything else round 0, wide enough for uneven attention."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.3 * noise)


def tiny_images(count: int = 3, size: tuple[int, int] = SIZE, *, seed: int = 0) -> Tensor:
    """(count, 3, H, W) in float64."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

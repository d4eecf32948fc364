"""Truth: models and pictures for which the right map is known without anybody having labelled it.

Three kinds, each of which a method of one's own can be held against:

- `additive_vit`: patches do not see each other, so what each adds to a logit is exact (`additive_contributions`), and
  so is every deletion curve. Integrated Gradients has to return it.
- `cam_identity`: where the head is linear in the mean patch, GradCAM at the final norm is what each patch feeds it.
- `mosaic` and `composite`: pictures whose answer lies in a place of our choosing.

Example:
    >>> model = additive_vit(grid=(3, 4), classes=5)
    >>> images = torch.rand(2, 3, *model.transform.size, dtype=model.dtype)
    >>> truth = additive_contributions(model, images)[:, 1]       # what every patch adds to logit 1, (2, 3, 4)
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from explain.baselines import baseline_images
from explain.errors import InputError
from explain.model import TunedModel
from explain.wrapping import wrap

Pixels = npt.NDArray[np.uint8]


def additive_vit(
    *, grid: tuple[int, int] = (3, 4), patch_px: int = 8, classes: int = 5, depth: int = 3, seed: int = 0
) -> TunedModel:
    """A random vision transformer, float64, whose logits are a sum over patches: without attention, mean head.

    Args:
        grid: rows and columns (h, w) of patches.
        patch_px: side of a patch in pixels.
        classes: logits.
        depth: blocks.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        vit = VisionTransformer(
            img_size=(grid[0] * patch_px, grid[1] * patch_px), patch_size=patch_px, embed_dim=24, depth=depth,
            num_heads=3, mlp_ratio=2.0, num_classes=classes, global_pool="avg", fc_norm=False,
        ).double().eval()  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in vit.named_parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.3 * noise)
        vit.patch_embed.proj.weight.mul_(0.2)  # a path of integration smooth enough for a few hundred nodes
        for block in vit.blocks:
            block.attn.proj.weight.zero_()
    return wrap(vit)


def additive_contributions(model: TunedModel, images: Tensor, baseline: Any = "black") -> Tensor:
    """What every patch adds to each logit, exactly: (g(x_p) - g(x'_p)) / N, (B, K, h, w).

    Their sum over the patches is F(x) - F(x'), over any set of patches the change of F when these are replaced by x'.

    Args:
        model: `additive_vit`, or any model without attention and with a head that is linear in the mean patch.
        images: (B, 3, H, W) in model space.
        baseline: what the patches are compared with; as `integrated_gradients` takes it.

    Raises:
        InputError: patches of the model see each other, or its head is another.
    """
    if any(block.attn.proj.weight.any() for block in model.vit.blocks):
        raise InputError("expected a model without attention (every attn.proj.weight is 0); see additive_vit")
    start = baseline_images(baseline, images, model.transform)[0]
    return _fed(model, images) - _fed(model, start)


def cam_identity(model: TunedModel, images: Tensor) -> Tensor:
    """What every patch feeds each logit, head_t · A_p / N for the features A behind the final norm, (B, K, h, w).

    Its sum over the patches is the logit less the head's bias, and raw GradCAM at the layer "norm" equals it.

    Args:
        model: any whose head is linear in the mean patch behind the final norm (global_pool "avg", fc_norm False).
        images: (B, 3, H, W) in model space.

    Raises:
        InputError: its head is another.

    Source: Selvaraju et al. 2017, arXiv 1610.02391 §3.1, on the class activation maps of Zhou et al., arXiv 1512.04150.
    """
    return _fed(model, images)


def _fed(model: TunedModel, images: Tensor) -> Tensor:
    vit = model.vit
    plain = vit.global_pool == "avg" and not vit.pool_include_prefix and isinstance(vit.fc_norm, nn.Identity)
    if not plain or not isinstance(vit.head, nn.Linear):
        raise InputError(f"expected a model whose head is linear in the mean patch (global_pool 'avg', fc_norm False), "
                         f"got one that pools by {vit.global_pool!r}")  # fmt: skip
    twin, layout = model.replica(), model.layout_for(images)
    with torch.no_grad():
        tokens = twin.vit.forward_features(images.to(model.device, model.dtype))
        return layout.to_grid(tokens @ vit.head.weight.T / layout.patches).permute(0, 3, 1, 2)


def mosaic(images: Tensor) -> Tensor:
    """Four images as one of the same size, 2x2 and row by row, each halved with antialiasing.

    Args:
        images: (4, 3, H, W) in model space; the middle row and column of odd sides belong to the second half.

    Returns:
        (3, H, W).

    Raises:
        InputError: not four images of at least 2 x 2 pixels.

    Source: the grid pointing game, Boehle et al. 2021, arXiv 2104.00032.
    """
    if images.ndim != 4 or len(images) != 4 or min(images.shape[2:]) < 2:
        raise InputError(f"expected four images (4, 3, H, W), got {tuple(images.shape)}")
    heights, widths = ((side // 2, side - side // 2) for side in images.shape[2:])
    cells = [
        interpolate(one[None], (heights[index // 2], widths[index % 2]), mode="bilinear", antialias=True)[0]
        for index, one in enumerate(images)
    ]
    return torch.cat([torch.cat(cells[:2], 2), torch.cat(cells[2:], 2)], 1)


def composite(
    picture: Pixels, background: Pixels, mask: npt.NDArray[np.bool_] | None = None
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """An object laid over a background: the picture, and the region that is the object, to the pixel.

    Args:
        picture: uint8 (H, W, 4) with an alpha channel, or (H, W, 3) with `mask`.
        background: uint8 (H, W, 3).
        mask: bool (H, W), where the object is; None takes it from the alpha channel.

    Returns:
        uint8 (H, W, 3), and bool (H, W): where the object counts at least half.

    Raises:
        InputError: other types or shapes, or neither an alpha channel nor a mask.
    """
    shape = background.shape[:2]
    channels = 4 if mask is None else 3
    if any(one.dtype != np.uint8 for one in (picture, background)) or background.shape != (*shape, 3):
        raise InputError(f"expected uint8 pixels on a background (H, W, 3), got {picture.dtype} on {background.shape}")
    if picture.shape != (*shape, channels) or (mask is not None and (mask.shape != shape or mask.dtype != np.bool_)):
        raise InputError(f"expected a picture {(*shape, 4)}, or {(*shape, 3)} with a bool mask {shape}, got "
                         f"{picture.shape} and {'no mask' if mask is None else mask.shape}")  # fmt: skip
    alpha = picture[..., 3] / 255 if mask is None else mask.astype(np.float64)
    mixed = alpha[..., None] * picture[..., :3] + (1 - alpha[..., None]) * background
    return np.round(mixed).astype(np.uint8), alpha >= 0.5

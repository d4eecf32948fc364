"""Changes: what alters a picture without altering what a person sees in it."""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

BRIGHTER = 1.2
"""Factor on pixels 0-1, clipped at white."""

BLUR_SIGMA_PX = 1.0

JPEG_QUALITY = 50

DISTURBANCES = ("brightness", "blur", "shift", "jpeg")


def change_pixels(pixels: Tensor, name: str, patch_px: int) -> Tensor:
    """Pixels (n, 3, H, W), 0-1, changed as a person would hardly notice.

    Args:
        pixels: the pictures.
        name: one of `DISTURBANCES`.
        patch_px: width of a patch, by which a shift moves.
    """
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "brightness": lambda pixels: (pixels * BRIGHTER).clamp(0, 1),
        "blur": lambda pixels: gaussian_blur(pixels, [7, 7], [BLUR_SIGMA_PX, BLUR_SIGMA_PX]),
        "shift": lambda pixels: shifted(pixels, patch_px),
        "jpeg": compressed,
    }
    return changes[name](pixels)


def shifted(pixels: Tensor, by_px: int) -> Tensor:
    """Pixels (n, 3, H, W) moved to the right; the first column is repeated where nothing is known."""
    columns = (torch.arange(pixels.shape[-1], device=pixels.device) - by_px).clamp_min(0)
    return pixels.index_select(-1, columns)


def compressed(pixels: Tensor) -> Tensor:
    """Pixels (n, 3, H, W), 0-1, written as JPEG and read back."""
    pictures = (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    read = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
        read.append(np.asarray(Image.open(file)))
    found = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2)
    return found.to(pixels) / 255

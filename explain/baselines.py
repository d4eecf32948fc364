"""Baselines: what "nothing there" looks like, as a picture.

A baseline is defined in pixels and converted with the model's own mean and standard deviation, so that two models are
asked about the same picture. Zero in model space is the mean colour, not black.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from explain.backbone import InputTransform
from explain.errors import InputError

BASELINES = ("black", "mean", "blur", "noise")


def check_baseline(baseline: Any) -> None:
    """Raise InputError unless it is one of `BASELINES` or a picture."""
    if isinstance(baseline, str) and baseline not in BASELINES:
        raise InputError(f"expected a baseline in {BASELINES} or an image, got {baseline!r}")
    if not isinstance(baseline, str | Tensor | np.ndarray | Image.Image):
        raise InputError(f"expected a baseline name or image, got {type(baseline).__name__}")


def baseline_images(
    baseline: Any, images: Tensor, transform: InputTransform, *, draws: int = 1, seed: int = 0
) -> list[Tensor]:
    """Baselines in model space, each (1, 3, H, W) for all images, or (B, 3, H, W) when it depends on the image.

    Args:
        baseline: "black", "mean" (mean colour), "blur" (Gaussian, sigma a twelfth of the side), "noise" (uniform), or
            a picture: a PIL image, a uint8 array (H, W, 3), or a tensor of pixels 0-1 (3, H, W).
        images: (B, 3, H, W) in model space.
        transform: of the model.
        draws: noise pictures wanted; every other baseline is one picture.
        seed: of the noise.

    Raises:
        InputError: the picture does not have the images' shape, or its values are no pixels.
    """
    if not isinstance(baseline, str):
        given = _pixels(baseline, transform)
        if given.shape != images.shape[1:]:
            raise InputError(f"expected a baseline of shape {tuple(images.shape[1:])}, got {tuple(given.shape)}")
        return [transform.normalise(given.to(images)[None])]
    if baseline == "mean":
        return [torch.zeros_like(images[:1])]
    if baseline == "black":
        return [transform.normalise(torch.zeros_like(images[:1]))]
    if baseline == "blur":
        sigma = max(images.shape[-2:]) / 12
        largest = min(images.shape[-2:])
        kernel = min(2 * round(2 * sigma) + 1, largest - (largest + 1) % 2)
        pixels = transform.denormalise(images)
        return [transform.normalise(gaussian_blur(pixels, [kernel, kernel], [sigma, sigma]))]
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.rand(images.shape[1:], generator=generator) for _ in range(draws)]
    return [transform.normalise(draw.to(images)[None]) for draw in noise]


def _pixels(image: Any, transform: InputTransform) -> Tensor:
    """A baseline picture as pixels 0-1 (3, H, W)."""
    if isinstance(image, Tensor):
        pixels = image.float() / 255 if image.dtype == torch.uint8 else image
        if not (pixels.is_floating_point() and bool(((pixels >= 0) & (pixels <= 1)).all())):
            raise InputError("expected a baseline tensor of pixels from 0 to 1; "
                             "use transform.denormalise on one in model space")  # fmt: skip
        return pixels
    if isinstance(image, np.ndarray) and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3):
        raise InputError(f"expected a baseline array of uint8 (H, W, 3), got {image.dtype} of shape {image.shape}")
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return transform.pixels(picture.convert("RGB")).float() / 255

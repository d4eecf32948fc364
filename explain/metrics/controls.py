"""Maps that no model made: what a random, a centre and an edge map score is what a number has to beat.

They depend on the image alone, so they are the same beside every model that is compared.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from explain.errors import InputError
from explain.metrics.patch_grid import patch_means

Float32 = npt.NDArray[np.float32]

CONTROL_LABELS = {"random": "Random map", "centre": "Centre prior", "sobel": "Edges (Sobel)"}
"""Control -> label for tables and figures."""

CENTRE_SIGMA = 0.25
"""Width of the centre prior, a share of the image's shorter side."""


def control_maps(
    pixels: npt.ArrayLike, grid: tuple[int, int], seeds: Sequence[int | str | np.random.Generator]
) -> dict[str, Float32]:
    """The control maps of n images on the patch grid, each float32 (n, h, w) and nowhere negative.

    "random" is uniform in 0..1 in every patch, "centre" a Gaussian of the distance in pixels between patch and image
    centre, of `CENTRE_SIGMA` times the shorter side, and "sobel" the gradient magnitude of the grey image, averaged
    over every patch; an image of one colour has a "sobel" map of zeros.

    Args:
        pixels: uint8 (n, H, W, 3), as the model sees them: resized and cropped, not normalised.
        grid: rows and columns (h, w) of patches.
        seeds: what the random map of each image depends on: a number or its id, or a generator to draw from.

    Raises:
        InputError: another shape or type, a grid finer than the image, or not one seed per image.
    """
    images = np.asarray(pixels)
    if images.ndim != 4 or images.shape[3] != 3 or not images.size or images.dtype != np.uint8:
        raise InputError(f"expected uint8 images (n, H, W, 3), got {images.dtype} of shape {images.shape}")
    if len(seeds) != len(images):
        raise InputError(f"expected one seed per image, got {len(seeds)} for {len(images)} images")
    noise = [_generator(seed).random(grid, dtype=np.float32) for seed in seeds]
    centre = np.broadcast_to(_centre(images.shape[1:3], grid), (len(images), *grid))
    edges = patch_means(np.stack([_gradient(image) for image in images]), grid)
    return {"random": np.stack(noise), "centre": centre.copy(), "sobel": edges}


def _generator(seed: int | str | np.random.Generator) -> np.random.Generator:
    if isinstance(seed, np.random.Generator):
        return seed
    if not isinstance(seed, (int, str, np.integer)):
        raise InputError(f"expected a number, an image id or a generator as seed, got {type(seed).__name__}")
    return np.random.default_rng(list(str(seed).encode()))


def _centre(size: tuple[int, ...], grid: tuple[int, int]) -> Float32:
    y, x = ((np.arange(cells) + 0.5) * length / cells - length / 2 for length, cells in zip(size, grid, strict=True))
    squared = (y[:, None] ** 2 + x**2) / (CENTRE_SIGMA * min(size)) ** 2
    return np.exp(-squared / 2).astype(np.float32)


def _gradient(image: npt.NDArray[np.uint8]) -> Float32:
    grey = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2GRAY)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return np.asarray(np.hypot(across, down))

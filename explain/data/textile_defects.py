"""Where the defect of a simulated textile image lies: the most likely place of an ellipse of known shape, or none.

The images are drawn by a published recipe. A nominal image is a sum of what lies left, what lies below and noise,
pixel by pixel; a local defect is an ellipse, 9 pixels wide and 21 high, cut out of it and filled with white noise that
spans black to white. Only the centre is unknown, so every centre has a likelihood: how probable white noise is inside
the ellipse, over how probable it is that the weave goes on there as its surroundings demand. The finder answers when
one centre is far more likely than no defect and than every other centre, and is silent otherwise.

Source: recipe: Bui and Apley 2021, "spc4sts", Journal of Quality Technology 53, 219-242 (its `sarGen` and
`imposeDefect`), with the settings of Megahed et al. 2025, arXiv 2501.12596. Measured: docs/textile_defects.md.
"""

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from explain.errors import InputError

FINDER_VERSION = 1
"""Part of the name under which found masks are kept: another finder makes new ones."""

LEAST_EVIDENCE = 60.0
"""Log likelihood ratio of the best centre over no defect from which on the finder speaks."""

LEAST_LEAD = 8.0
"""Log likelihood ratio of the best centre over the second from which on the finder speaks."""

HALF_WIDTH_PX, HALF_HEIGHT_PX, ROUNDING = 4, 10, 0.05
FROM_LEFT, FROM_BELOW = 0.6, 0.35
NOISE_MEAN, NOISE_SD = 127.5, 46.6
"""Of 9 x 21 normal numbers stretched to 0..255, whose range is 5.47 standard deviations on average."""

MARGIN_PX = 1
"""Rows at the bottom and columns at the right that the recipe's plot leaves white."""

CANDIDATES = 150

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def find_local_defect(pixels: npt.NDArray[np.uint8]) -> Mask | None:
    """The region of the defect, or None where there is none or its place is not certain to the pixel.

    Args:
        pixels: (H, W, 3) or (H, W), 0 to 255, at its published size; None is found in one under 32 x 32.

    Returns:
        bool (H, W), True inside the ellipse.

    Raises:
        InputError: not such an image.
    """
    if pixels.ndim not in (2, 3) or pixels.dtype != np.uint8:
        raise InputError(f"expected uint8 pixels (H, W, 3), got {pixels.dtype} {pixels.shape}")
    if min(pixels.shape[:2]) < 32:
        return None
    centre, evidence, lead = most_likely_centre(pixels)
    if evidence < LEAST_EVIDENCE or lead < LEAST_LEAD:
        return None
    mask = np.zeros(pixels.shape[:2], dtype=np.bool_)
    top, left = centre[0] - HALF_HEIGHT_PX, centre[1] - HALF_WIDTH_PX
    mask[top : top + 2 * HALF_HEIGHT_PX + 1, left : left + 2 * HALF_WIDTH_PX + 1] = ellipse()
    return mask


def most_likely_centre(pixels: npt.NDArray[np.uint8]) -> tuple[tuple[int, int], float, float]:
    """((row, column), its log likelihood ratio over no defect, its lead over the second best centre)."""
    grey = (pixels if pixels.ndim == 2 else pixels.mean(axis=2))[:-MARGIN_PX, :-MARGIN_PX].astype(np.float64)
    surprise, scale = _surprise(grey - grey.mean())
    rows, columns = _candidates(surprise)
    inside = ellipse()
    at = np.argwhere(inside) - (HALF_HEIGHT_PX, HALF_WIDTH_PX)
    where = (rows[:, None] + at[:, 0], columns[:, None] + at[:, 1])
    root, log_determinant = _weave_inside()
    weave = log_determinant - len(at) * np.log(scale) - ((surprise[where] @ root) ** 2).sum(axis=1) / 2
    noise = -((grey[where] - NOISE_MEAN) ** 2).sum(axis=1) / (2 * NOISE_SD**2) - len(at) * np.log(NOISE_SD)
    ratio = noise - weave
    second, best = np.argsort(ratio)[-2:]
    return (int(rows[best]), int(columns[best])), float(ratio[best]), float(ratio[best] - ratio[second])


@cache
def ellipse() -> Mask:
    """The defect's shape, bool (21, 9)."""
    down = np.arange(-HALF_HEIGHT_PX, HALF_HEIGHT_PX + 1)[:, None] / HALF_HEIGHT_PX
    right = np.arange(-HALF_WIDTH_PX, HALF_WIDTH_PX + 1) / HALF_WIDTH_PX
    return np.asarray(down**2 + right**2 <= 1 + ROUNDING)


def _surprise(weave: Floats) -> tuple[Floats, float]:
    """How far each pixel is from what all its neighbours demand, over the noise's scale; and that scale.

    This is the precision matrix of the recipe times the image: with noise e = A z, the precision is A'A / scale^2.
    """
    noise = np.zeros_like(weave)
    noise[:-1, 1:] = weave[:-1, 1:] - FROM_LEFT * weave[:-1, :-1] - FROM_BELOW * weave[1:, 1:]
    scale = float(np.median(np.abs(noise[:-1, 1:]))) / 0.6745  # the median: a defect is too small to move it
    found = noise.copy()
    found[:, :-1] -= FROM_LEFT * noise[:, 1:]
    found[1:, :] -= FROM_BELOW * noise[:-1, :]
    return found / max(scale, 1e-6), max(scale, 1e-6)


def _candidates(surprise: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the centres with the most surprise inside; the exact ratio is asked of these only.

    An ellipse may not touch the border, where pixels lack the neighbours that a surprise is made of.
    """
    energy = cv2.filter2D(surprise**2, -1, ellipse().astype(np.float64), borderType=cv2.BORDER_CONSTANT)
    allowed = np.full(energy.shape, -1.0)
    high, wide = HALF_HEIGHT_PX + 1, HALF_WIDTH_PX + 1
    allowed[high:-high, wide:-wide] = energy[high:-high, wide:-wide]
    found = np.argpartition(allowed, -CANDIDATES, axis=None)[-CANDIDATES:]
    rows, columns = np.unravel_index(found, energy.shape)
    return rows, columns


@cache
def _weave_inside() -> tuple[Floats, float]:
    """Root of the covariance of the weave inside the ellipse, given all around it, and log root determinant of its
    inverse, both for noise of scale 1."""
    at = np.argwhere(ellipse())
    step = at[:, None] - at[None]
    stencil = {
        (0, 0): 1 + FROM_LEFT**2 + FROM_BELOW**2, (0, 1): -FROM_LEFT, (0, -1): -FROM_LEFT, (1, 0): -FROM_BELOW,
        (-1, 0): -FROM_BELOW, (1, 1): FROM_LEFT * FROM_BELOW, (-1, -1): FROM_LEFT * FROM_BELOW,
    }  # fmt: skip
    precision = np.zeros(step.shape[:2])
    for (down, right), weight in stencil.items():
        precision[(step[..., 0] == down) & (step[..., 1] == right)] = weight
    root = np.linalg.cholesky(np.linalg.inv(precision))
    return root, float(-np.log(np.diag(root)).sum())

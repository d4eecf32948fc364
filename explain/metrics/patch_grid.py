"""Patch grid: pixels averaged over patches, the resolution that maps, masks and pictures are compared at."""

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from explain.errors import InputError

T = TypeVar("T", np.float32, np.float64)


def patch_means(values: npt.NDArray[T], grid: tuple[int, int]) -> npt.NDArray[T]:
    """Mean over every cell of a coarser grid, (n, h, w) of the same type; a pixel on a border counts to both by area.

    Args:
        values: (n, H, W), such as maps, masks as 0 and 1, or grey pictures.
        grid: rows and columns (h, w).

    Raises:
        InputError: another shape, or a grid finer than the values.
    """
    if values.ndim != 3 or not values.size:
        raise InputError(f"expected values (n, H, W), got shape {values.shape}")
    if min(grid) < 1 or grid[0] > values.shape[1] or grid[1] > values.shape[2]:
        raise InputError(f"expected a grid no finer than the {values.shape[1:]} values, got {tuple(grid)}")
    cells = [cv2.resize(one, (grid[1], grid[0]), interpolation=cv2.INTER_AREA) for one in np.ascontiguousarray(values)]
    return np.stack(cells)

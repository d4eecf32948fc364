"""Occlusion: what a score loses when one patch is taken away. Slow, but cause and effect instead of an estimate."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from explain.attribution import Array
from explain.evidence.scorer import run_forwards
from explain.model import TunedModel
from explain.passes import Passes


def occlusion_maps(
    model: TunedModel, images: Tensor, labels: Array, regions: Array, passes: Passes, *,
    done: Callable[[int], None] = lambda count: None,
) -> Array:  # fmt: skip
    """What the target's logit loses when a patch is taken away, (n, h, w) float32; NaN where no patch was.

    A patch is replaced by its picture's mean colour.

    Source: Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2.

    Args:
        model: any trained model.
        images: (n, 3, H, W) in model space.
        labels: (n,) targets.
        regions: bool (n, h, w), the patches that are taken away one at a time.
        passes: memory budget.
        done: called with the number of pictures that are done.
    """
    replica, patch = model.replica(), images.shape[-1] // regions.shape[-1]
    found = np.full(regions.shape, np.nan, dtype=np.float32)
    for number, (image, region) in enumerate(zip(images, regions, strict=True)):
        spots, colour = np.argwhere(region), image.mean(dim=(1, 2))[:, None, None]

        def make(rows: slice, image: Tensor = image, spots: Array = spots, colour: Tensor = colour) -> Any:
            batch = image.repeat(rows.stop - rows.start, 1, 1, 1)
            for one, index in zip(batch, range(rows.start, rows.stop), strict=True):
                if index:  # the first is the picture itself
                    row, column = spots[index - 1] * patch
                    one[:, row : row + patch, column : column + patch] = colour
            return batch

        scores = run_forwards(replica, len(spots) + 1, make, passes)[:, labels[number]]
        found[number][region] = scores[0] - scores[1:]  # argwhere and a mask both go row by row
        done(number + 1)
    return found

"""Occlusion: what a score loses when a region is taken away. Slow, but cause and effect instead of an estimate."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from explain.attribution import Array
from explain.evidence.scorer import on_pixels, run_forwards
from explain.model import TunedModel
from explain.passes import Passes


def occlusion_losses(
    model: TunedModel, images: Tensor, labels: Array, regions: Array, passes: Passes, *,
    done: Callable[[int], None] = lambda count: None,
) -> Array:  # fmt: skip
    """What the target's logit loses when all patches of a region are taken away at once, (n, k) float32.

    A patch is replaced by its picture's mean colour.

    Source: Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2.

    Args:
        model: any trained model.
        images: (n, 3, H, W) in model space.
        labels: (n,) targets.
        regions: bool (n, k, h, w), k regions of each picture on the patch grid, each taken away by itself.
        passes: memory budget.
        done: called with the number of pictures that are done.
    """
    replica = model.replica()
    found = np.empty(regions.shape[:2], dtype=np.float32)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        gone = torch.from_numpy(on_pixels(regions[number], images))[:, None]
        batch = torch.cat([image[None], torch.where(gone, image.mean(dim=(1, 2))[:, None, None], image)])
        scores = run_forwards(replica, len(batch), batch.__getitem__, passes)[:, label]
        found[number] = scores[0] - scores[1:]
        done(number + 1)
    return found

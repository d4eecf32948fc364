"""Forwards of many perturbed images, made chunk by chunk so that memory does not grow with their number."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from explain.attribution import Array
from explain.model import TunedModel
from explain.passes import LARGEST_CHUNK, Passes

PEAK_PICTURES = 16
"""What making and scoring one image holds at its peak, in images: some four to make it, the rest a block's widest
tokens."""


def run_forwards(model: TunedModel, count: int, make: Callable[[slice], Tensor], passes: Passes) -> Array:
    """Logits (count, K), float32, of images that `make` builds on demand.

    Args:
        model: a replica, which computes only what the head reads.
        count: images in all.
        make: a slice of 0..count -> images (m, 3, H, W) in model space; may be asked for the same ones again.
        passes: memory budget, and whether to stop.
    """
    found = np.empty((count, len(model.class_names)), dtype=np.float32)
    if not count:
        return found

    def work(rows: slice) -> None:
        with torch.inference_mode(), passes.measuring("forward", rows.stop - rows.start):
            found[rows] = model(make(rows).to(model.device, model.dtype)).float().cpu().numpy()

    with torch.inference_mode():
        one = make(slice(0, 1)).nbytes  # without gradients nothing is kept, so `measuring` sees nothing
    fitting = passes.budget(model.device) // (PEAK_PICTURES * one)
    passes.run(work, count, model.device, "forward", min(max(1, fitting), LARGEST_CHUNK.get(model.device.type, 64)))
    return found


def probabilities(logits: Array, labels: npt.ArrayLike) -> Array:
    """Softmax probability (count,) of the class `labels` (count,) in logits (count, K), in float64."""
    shifted = logits.astype(np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    share = shifted / shifted.sum(axis=1, keepdims=True)
    return np.asarray(np.take_along_axis(share, np.asarray(labels, dtype=np.intp)[:, None], axis=1)[:, 0])


def on_pixels(patches: Array, images: Tensor) -> Array:
    """Values of patches (..., h, w) for every pixel of images (n, 3, H, W): (..., H, W)."""
    (height, width), (rows, columns) = images.shape[-2:], patches.shape[-2:]
    down, across = np.arange(height) * rows // height, np.arange(width) * columns // width
    return np.asarray(patches[..., down[:, None], across])

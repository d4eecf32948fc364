"""Drift: how much a map moves when the picture changes in ways that change nothing for a person."""

import io
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from explain.attribution import Array
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.scorer import probabilities
from explain.evidence.subject import Subject
from explain.metrics.agreement import pearson

BRIGHTER = 1.2
"""Factor on pixels 0-1, clipped at white."""

BLUR_SIGMA_PX = 1.0

JPEG_QUALITY = 50

DISTURBANCES = ("brightness", "blur", "shift", "jpeg")
LABELS = {"brightness": "20 % brighter", "blur": "blur of 1 pixel", "shift": "shift by one patch", "jpeg": "JPEG at 50"}


@MEASURES.register("drift")
class Drift(Measure):
    """Pearson correlation of the map with that of the disturbed picture, and the change of the target's probability.

    A map may move because the model's answer does, so the two belong together. A constant map never moves: read drift
    beside a faithfulness score. The shifted map is moved back and compared where the two overlap; position embeddings
    alone make a vision transformer answer a little differently there.
    """

    label: ClassVar[str] = "Harmless changes of the picture"
    source: ClassVar[str] = "Hendrycks and Dietterich 2019, arXiv 1903.12261, for the changes"
    metrics: ClassVar[dict[str, Metric]] = {
        **{f"drift_{name}": Metric(f"map similarity, {label}", "higher", 0.0) for name, label in LABELS.items()},
        **{f"score_change_{name}": Metric(f"change of probability, {label}") for name, label in LABELS.items()},
    }
    images: ClassVar[int | None] = 16
    every_seed: ClassVar[bool] = False
    controls: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        columns = subject.grid[1]
        before = _target_probability(subject, subject.images)
        for name in DISTURBANCES:
            images = disturbed(subject, name)
            for image, change in zip(subject.ids, _target_probability(subject, images) - before, strict=True):
                yield row(image, None, f"score_change_{name}", float(change))
            moved = int(name == "shift")
            if columns == moved:  # nothing is left to compare
                yield from (Row(image, method, f"drift_{name}", None, "no_overlap")
                            for method in subject.methods for image in subject.ids)  # fmt: skip
                continue
            for method, maps in subject.explain(images).items():
                original = subject.maps[method][:, :, : columns - moved]
                yield from _rows(subject, method, f"drift_{name}", original, maps[:, :, moved:])


def disturbed(subject: Subject, name: str) -> Tensor:
    """The subject's images, disturbed in pixel space, in model space again; `name` is one of `DISTURBANCES`."""
    transform = subject.model.transform
    patch_px = subject.images.shape[-1] // subject.grid[1]
    return transform.normalise(change_pixels(transform.denormalise(subject.images), name, patch_px))


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


def _target_probability(subject: Subject, images: Tensor) -> Array:
    """Probability of each image's true class, (n,)."""
    return probabilities(subject.logits(len(images), lambda rows: images[rows]), subject.labels)


def _rows(subject: Subject, method: str, metric: str, original: Array, maps: Array) -> Iterator[Row]:
    for name, value, before in zip(subject.ids, pearson(original, maps), original, strict=True):
        missing = "flat_map" if np.ptp(before) == 0 else "blank_map"
        yield row(name, method, metric, float(value), None if np.isfinite(value) else missing)

"""Drift: how much a map moves when the picture changes in ways that change nothing for a person."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from torch import Tensor

from explain.attribution import Array
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.changes import DISTURBANCES, change_pixels
from explain.evidence.scorer import probabilities
from explain.evidence.subject import Subject
from explain.metrics.agreement import pearson

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


def _target_probability(subject: Subject, images: Tensor) -> Array:
    """Probability of each image's true class, (n,)."""
    return probabilities(subject.logits(len(images), lambda rows: images[rows]), subject.labels)


def _rows(subject: Subject, method: str, metric: str, original: Array, maps: Array) -> Iterator[Row]:
    for name, value, before in zip(subject.ids, pearson(original, maps), original, strict=True):
        missing = "flat_map" if np.ptp(before) == 0 else "blank_map"
        yield row(name, method, metric, float(value), None if np.isfinite(value) else missing)

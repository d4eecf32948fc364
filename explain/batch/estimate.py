"""Estimate: how large an archive will be and how long it will take, before it is begun."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from explain.archive.job import Job, MapFacts
from explain.archive.manifest import Entry
from explain.archive.store import Store
from explain.attribution import Attribution
from explain.batch.isolated import IsolatedDecoder
from explain.batch.numbers import table_schema
from explain.engine import PROVENANCE

TRIAL_IMAGES = 4
LOOKED_AT = 64
"""Images that are looked at to find some for the trial."""

COMPRESSED = {("grid", "fp16"): 1.03, ("pixels", "fp16"): 0.94, ("pixels", "int8"): 0.76}
"""Bytes on disk over bytes of values: Integrated Gradients of photographs; maps on a grid do not shrink."""


def trial_images(entries: Sequence[Entry], root: Path | None) -> list[Image.Image]:
    """A few images that can be decoded; a picture of noise where the first ones cannot.

    A process of its own decodes them: no shard is begun yet, so nothing would tell the next start which file broke it.
    """
    found: list[Image.Image] = []
    with IsolatedDecoder(root) as decode:
        for row, entry in enumerate(entries[:LOOKED_AT]):
            image = decode(entry, row).image
            if image is not None:
                found.append(image)
            if len(found) == TRIAL_IMAGES:
                break
    return found or [noise()]


def noise() -> Image.Image:
    """A picture of noise: what any model can explain."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def map_facts(model: str, maps: Mapping[str, Attribution]) -> list[MapFacts]:
    """What each method gives for a model, seen on a few images."""
    return [
        MapFacts(
            model=model, method=method, shape=(found.values.shape[1], found.values.shape[2]),
            on_grid=found.values.shape[1:] != found.image_size,
            numbers=tuple(sorted(name for name, values in found.extras.items() if values.ndim == 1)),
            notes={name: value for name, value in sorted(found.provenance.items()) if name not in PROVENANCE},
        )
        for method, found in maps.items()
    ]  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What is to come.

    Args:
        images: that are left.
        bytes: on the disk, for these.
        seconds: for these, at the speed of the trial or of the shards so far; None where that is not known.
        free_bytes: on the disk; None where that is not known.
    """

    images: int
    bytes: int
    seconds: float | None
    free_bytes: int | None

    @classmethod
    def of(cls, job: Job, store: Store, images: int, seconds_per_image: float | None) -> "Estimate":
        """For the images that are left of a job."""
        seconds = None if seconds_per_image is None else images * seconds_per_image
        return cls(images, round(images * bytes_per_image(job)), seconds, store.free_bytes())

    @property
    def fits(self) -> bool:
        """Whether there is room for it."""
        return self.free_bytes is None or self.bytes < self.free_bytes

    def __str__(self) -> str:
        room = "" if self.free_bytes is None else f" ({_size(self.free_bytes)} free)"
        text = f"{self.images:,} images: about {_size(self.bytes)}{room}"
        if not self.seconds:
            return text
        return f"{text}, about {_time(self.seconds)} at {self.images / self.seconds:.3g} images/s"


def bytes_per_image(job: Job) -> float:
    """Bytes on the disk that one image will take, about."""
    total = 0.0
    for column in job.columns:
        values = column.shape[0] * column.shape[1] * (1 if column.form == "int8" else 2)
        share = 1.0
        if column.part == "pixels" and job.sampled is not None:
            share = min(1.0, job.sampled[0] / job.manifest.count)
        total += share * (values * COMPRESSED[column.part, column.form] + 8)
    logits = sum(4 * len(model.class_names) for model in job.models)
    return total + logits + 4 * len(table_schema(job)) + 60


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"

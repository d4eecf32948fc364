"""Images in memory, and what an epoch shows of them.

What an arm sees is a pure function of (seed, epoch): the order of the images and which of them are flipped. Several
processes share every batch between them, so the order does not depend on how many there are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from explain.backbone import InputTransform
from explain.data.base import Sample
from explain.data.decode import decode
from explain.errors import IntegrityError
from explain.files import sha256_file, sha256_json

Progress = Callable[[str, int, int], None]
"""Called with (what is running, images done, images in all)."""

FLIPS = ((False, False), (True, False), (False, True), (True, True))
"""Every way an image may be shown: (left to right, top to bottom)."""


def quiet(what: str, done: int, total: int) -> None:
    """A Progress that says nothing."""


@dataclass(frozen=True)
class Images:
    """Images decoded and resized once: ids, uint8 pixels (n, 3, H, W) and labels (n,)."""

    ids: tuple[str, ...]
    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int) -> "Images":
        """The first `count` of them."""
        return Images(self.ids[:count], self.pixels[:count], self.labels[:count])


@dataclass
class ImageStore:
    """The images of a comparison, decoded once and kept as uint8 for all arms, trials and seeds.

    Args:
        progress: told as images are read.
    """

    progress: Progress = quiet
    _pixels: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def take(self, samples: Iterable[Sample], transform: InputTransform, what: str) -> Images:
        """The images of some samples, at a model's input size.

        Raises:
            IntegrityError: a file changed since the data set was read.
        """
        wanted = tuple(samples)
        key = (transform.size, transform.interpolation, *(sample.sha256 for sample in wanted))
        if key not in self._pixels:
            pixels = torch.empty((len(wanted), 3, *transform.size), dtype=torch.uint8)
            for row, sample in enumerate(wanted):
                if not sample.path.is_file() or sha256_file(sample.path) != sample.sha256:
                    raise IntegrityError(f"{sample.path} is missing or changed since the data set was read; "
                                         "restore it, or train into a new folder")  # fmt: skip
                pixels[row] = transform.pixels(decode(sample.path).image)
                self.progress(what, row + 1, len(wanted))
            self._pixels[key] = pixels
        labels = torch.tensor([sample.label for sample in wanted], dtype=torch.long)
        return Images(tuple(sample.id for sample in wanted), self._pixels[key], labels)


@dataclass(frozen=True)
class EpochPlan:
    """What one epoch shows: the order of the images (n,), and per image whether it is flipped, bool (n, 2)."""

    order: Tensor
    flips: Tensor

    @classmethod
    def draw(cls, seed: int, epoch: int, count: int, flip: bool) -> "EpochPlan":
        """The plan of an epoch; equal arguments give equal plans on every machine."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=generator)
        flips = torch.rand((count, 2), generator=generator) < 0.5
        return cls(order, flips & flip)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Indices of the images of each step, in order; the last step may be smaller."""
        return iter(self.order.split(size))


def order_hash(ids: tuple[str, ...], seed: int, epochs: int, flip: bool) -> str:
    """SHA-256 over every image id, order and flip that a training will show."""
    plans = [EpochPlan.draw(seed, epoch, len(ids), flip) for epoch in range(epochs)]
    return sha256_json([list(ids), [[plan.order.tolist(), plan.flips.int().tolist()] for plan in plans]])


class Source(Protocol):
    """Where a network's inputs come from: pixels, or what a frozen stem made of them."""

    def rows(self, indices: Tensor, flips: Tensor) -> Tensor:
        """Inputs (b, …) of the images at indices (b,), flipped as bool (b, 2) says, on the device."""


@dataclass(frozen=True)
class PixelSource:
    """Images as a model takes them, flipped and normalised batch by batch."""

    images: Images
    transform: InputTransform
    device: torch.device

    def rows(self, indices: Tensor, flips: Tensor) -> Tensor:
        """(b, 3, H, W) in model space; see `Source`."""
        return self.transform.normalise(flipped(self.images.pixels[indices], flips).to(self.device))


def flipped(pixels: Tensor, flips: Tensor) -> Tensor:
    """Pixels (b, 3, H, W), each flipped left to right and top to bottom as bool (b, 2) says."""
    for side, chosen in zip((-1, -2), flips.unbind(1), strict=True):
        if chosen.any():
            pixels = torch.where(chosen[:, None, None, None], pixels.flip(side), pixels)
    return pixels

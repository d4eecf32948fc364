"""Leaks: held-out images that the model was trained on, as the same file or as another copy of the same picture.

Copies that were saved again, resized or recompressed have other bytes. They are found in two steps: a perceptual
hash proposes pairs, and the correlation of the two pictures at 32x32 pixels confirms them. The hash alone would
not do where all pictures are alike: it calls 222,000 of the 600,000,000 pairs of training and test images of
Fashion-MNIST alike at a distance of 6 bits or less.

Source: the hash is the median-thresholded DCT hash described by Zauner 2010, "Implementation and Benchmarking of
Perceptual Image Hash Functions", §3.2.1.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from explain.data.base import Dataset, Progress, Sample
from explain.data.decode import decode
from explain.data.split import Split
from explain.record import Record

SIDE_PX = 32
HASH_SIDE = 8
LARGEST_DISTANCE = 6
"""Bits of 64 that may differ."""

LEAST_CORRELATION = 0.995
"""Of the two grey pictures at 32x32 pixels."""

LEAST_CONTRAST = 2.0
"""Standard deviation in grey levels below which a picture is of one colour: it has no perceptual hash."""

_ROWS, _PAIRS = 256, 2048

Thumbnails = npt.NDArray[np.uint8]


class Leak(Record):
    """One held-out image and the training image it is a copy of.

    Args:
        train: id of the training image.
        held_out: id of the other one.
        part: the part that one is in.
        kind: "same bytes", or "same picture" in another file.
        distance: bits of 64 in which the perceptual hashes differ; 0 for the same bytes.
        other_label: whether the two are filed under different classes.
    """

    train: str
    held_out: str
    part: Literal["val", "test"]
    kind: Literal["same bytes", "same picture"]
    distance: int
    other_label: bool


class Leaks(Record):
    """Every leak found, sorted by part, held-out image and training image.

    Args:
        pairs: the leaks.
        val_images, test_images: how many images were looked at.
        unhashed: held-out images of one colour, of which only the bytes were compared.
    """

    pairs: tuple[Leak, ...]
    val_images: int
    test_images: int
    unhashed: int

    @property
    def sentence(self) -> str:
        """What a reader has to know, in one plain sentence."""
        clauses = []
        for part, words, count in (("test", "test", self.test_images), ("val", "validation", self.val_images)):
            found = [pair for pair in self.pairs if pair.part == part]
            if found:
                clauses.append(f"{len({pair.held_out for pair in found})} of {count:,} {words} images")
        if not clauses:
            return "No validation or test image is also among the training images."
        same = {pair.held_out for pair in self.pairs if pair.kind == "same bytes"}
        alike = {pair.held_out for pair in self.pairs} - same
        confused = {pair.held_out for pair in self.pairs if pair.other_label}
        kinds = [f"{len(ids)} {words}" for ids, words in
                 ((same, "with the same bytes"), (alike, "as another file of the same picture")) if ids]  # fmt: skip
        labels = f"; {len(confused)} under another label" if confused else ""
        return f"{' and '.join(clauses)} also among the training images: {', '.join(kinds)}{labels}."


def find_leaks(data: Dataset, split: Split, progress: Progress | None = None) -> Leaks:
    """Compare every validation and test image with every training image.

    Measured: of 200 textile images, every copy saved as JPEG of quality 75 to 30, or at half or double size, was
    found, and no other image was taken for one. Of 500 images of 28x28 pixels (Fashion-MNIST), 96 % were found at
    JPEG quality 75, 94 % at double size, 71 % at quality 50, and none at half size, which keeps too little of them.
    Among the 969,000,000 pairs of that set's own parts, 35 are named: to the eye, the same garment each time. Those
    70,000 images take 25 s of processor time, most of it to decode them, and less than 1 GB.

    Args:
        data: the labelled images.
        split: their parts.
        progress: called with (done, total) while images are decoded.

    Raises:
        UnknownNameError: an id of the split that the data set does not hold.
        ImageRejected: a file changed since the data set was read.
    """
    train = data.select(split.train).samples
    held = [("val", sample) for sample in data.select(split.val).samples]
    held += [("test", sample) for sample in data.select(split.test).samples]
    found: dict[tuple[int, int], tuple[str, int]] = {}
    with_bytes: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(train):
        with_bytes[sample.sha256].append(index)
    same = [(row, column) for row, (_, sample) in enumerate(held) for column in with_bytes.get(sample.sha256, ())]
    thumbnails = _thumbnails([*train, *(sample for _, sample in held)], progress)
    for row, column, distance in _alike(thumbnails[len(train) :], thumbnails[: len(train)]):
        found[row, column] = ("same picture", distance)
    found |= dict.fromkeys(same, ("same bytes", 0))
    pairs = [
        Leak.model_validate({
            "train": train[column].id, "held_out": held[row][1].id, "part": held[row][0], "kind": kind,
            "distance": distance, "other_label": train[column].label != held[row][1].label,
        })
        for (row, column), (kind, distance) in found.items()
    ]  # fmt: skip
    return Leaks(
        pairs=tuple(sorted(pairs, key=lambda pair: (pair.part, pair.held_out, pair.train))),
        val_images=len(split.val), test_images=len(split.test),
        unhashed=int((~_has_contrast(thumbnails[len(train) :])).sum()),
    )  # fmt: skip


def perceptual_hashes(thumbnails: Thumbnails) -> npt.NDArray[np.bool_]:
    """64 bits per picture: which of its lowest 8x8 cosine frequencies lie above their median.

    Args:
        thumbnails: grey uint8 (n, 32, 32).

    Returns:
        bool (n, 64). The first bit, the mean brightness, takes part in the hash but not in the median.
    """
    low = np.empty((len(thumbnails), HASH_SIDE * HASH_SIDE), dtype=np.float32)
    for row, thumbnail in zip(low, thumbnails, strict=True):
        row[:] = cv2.dct(thumbnail.astype(np.float32))[:HASH_SIDE, :HASH_SIDE].ravel()
    return np.asarray(low > np.median(low[:, 1:], axis=1, keepdims=True))


def _thumbnails(samples: list[Sample], progress: Progress | None) -> Thumbnails:
    """Every picture in grey at 32x32 pixels, (n, 32, 32)."""
    thumbnails = np.empty((len(samples), SIDE_PX, SIDE_PX), dtype=np.uint8)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "thumbnail") as pool:
        for done, thumbnail in enumerate(pool.map(_thumbnail, samples)):
            thumbnails[done] = thumbnail
            if progress is not None:
                progress(done + 1, len(samples))
    return thumbnails


def _thumbnail(sample: Sample) -> Thumbnails:
    grey = np.asarray(decode(sample.path).image.convert("L"))
    return np.asarray(cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _has_contrast(thumbnails: Thumbnails) -> npt.NDArray[np.bool_]:
    flat = thumbnails.reshape(len(thumbnails), SIDE_PX * SIDE_PX)
    return np.array([picture.std() >= LEAST_CONTRAST for picture in flat], dtype=bool)


def _alike(held: Thumbnails, train: Thumbnails) -> Iterator[tuple[int, int, int]]:
    """(held-out index, training index, distance) of every pair of pictures that are copies of each other."""
    rows, columns = np.flatnonzero(_has_contrast(held)), np.flatnonzero(_has_contrast(train))
    # With bits as -1 and 1, a scalar product counts agreements minus differences: one matrix product compares all.
    signs = np.where(perceptual_hashes(train[columns]), 1, -1).astype(np.float32).T
    for start in range(0, len(rows), _ROWS):
        chunk = rows[start : start + _ROWS]
        agreement = np.where(perceptual_hashes(held[chunk]), 1, -1).astype(np.float32) @ signs
        near, at = np.nonzero(agreement >= HASH_SIDE**2 - 2 * LARGEST_DISTANCE)
        distances = (HASH_SIDE**2 - agreement[near, at].astype(int)) // 2
        for begin in range(0, len(near), _PAIRS):
            block = slice(begin, begin + _PAIRS)
            row, column = chunk[near[block]], columns[at[block]]
            sure = _correlations(held[row], train[column]) >= LEAST_CORRELATION
            yield from zip(row[sure].tolist(), column[sure].tolist(), distances[block][sure].tolist(), strict=True)


def _correlations(first: Thumbnails, second: Thumbnails) -> npt.NDArray[np.float64]:
    """Pearson's correlation of each picture of one stack (n, 32, 32) with its counterpart in the other."""
    centred = []
    for stack in (first, second):
        values = stack.reshape(len(stack), SIDE_PX * SIDE_PX).astype(np.float64)
        centred.append(values - values.mean(axis=1, keepdims=True))
    a, b = centred
    return np.asarray((a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)))

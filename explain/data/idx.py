"""Idx: the files of MNIST and of every data set made to replace it, such as Fashion-MNIST.

A folder holds `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, the same for `t10k`, each with or without
.gz. The images are written once as PNG files into the user's cache, because every image of the toolkit has a file.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (the format);
Xiao et al. 2017, arXiv 1708.07747 (Fashion-MNIST).
"""

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from explain.data.base import FORMATS, Dataset, Progress, Sample
from explain.data.decode import MIN_SIDE_PX
from explain.data.names import printable
from explain.data.png import png_bytes
from explain.data.unpacked import source_hash, unpack_once
from explain.errors import DatasetError, IntegrityError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_LABELS = "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"
"""SHA-256 of Fashion-MNIST's training labels as bytes: known by content, its classes have names in any folder."""

_STEMS = {"train": "train", "test": "t10k"}
_MAGIC = {1: 0x0801, 3: 0x0803}  # unsigned bytes in one and in three dimensions
_LARGEST_BYTES = 2**32
_CHUNK = 512
_LAYOUT = "expected train-images-idx3-ubyte and train-labels-idx1-ubyte, the same for t10k, each with or without .gz"


@dataclass(frozen=True)
class _Part:
    """The two files of one part."""

    images: Path
    labels: Path


@FORMATS.register("idx")
class Idx:
    """A folder of idx files, or the name "fashion_mnist" where Debian's package is installed.

    Example:
        >>> load_data("fashion_mnist").counts()["Sneaker"]
        7000
    """

    name: ClassVar[str]
    label: ClassVar[str] = 'idx files of MNIST\'s kind (a folder, or the name "fashion_mnist")'

    def matches(self, location: str) -> bool:
        """True for the name "fashion_mnist", and for a folder with images of one part."""
        return location == "fashion_mnist" or any(_find(Path(location), stem, "images") for stem in _STEMS.values())

    def read(self, location: str, progress: Progress | None = None) -> Dataset:
        """Read the files; from the second time on, only compare the sizes and times of the unpacked images.

        Raises:
            DatasetError: a file is missing, of another kind, or does not fit the others.
            IntegrityError: a file is cut short or damaged.
        """
        named = location == "fashion_mnist" or Path(location).resolve() == FASHION_MNIST
        if named and not FASHION_MNIST.is_dir():
            raise DatasetError(
                f"Fashion-MNIST is not installed: {FASHION_MNIST} does not exist. On Debian and Ubuntu run "
                f"`apt install dataset-fashion-mnist`; elsewhere pass the folder that holds its files ({_LAYOUT})"
            )
        folder = FASHION_MNIST if named else Path(location).resolve()
        parts = _parts(folder)
        hashes = {part: [source_hash(files.images), source_hash(files.labels)] for part, files in parts.items()}
        name = "fashion_mnist" if named else printable(folder.name)
        key = {"format": "idx", "version": 1, "name": name, "folder": printable(folder), "files": hashes}
        return unpack_once("idx", key, lambda fresh: _unpack(fresh, folder, parts, name, progress))


def _find(folder: Path, stem: str, kind: str) -> Path | None:
    """The file of one part, unpacked or packed, under the published name or the one unpackers give it."""
    dims = {"images": "idx3", "labels": "idx1"}[kind]
    names = [f"{stem}-{kind}{mark}{dims}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _parts(folder: Path) -> dict[str, _Part]:
    parts: dict[str, _Part] = {}
    for part, stem in _STEMS.items():
        images, labels = _find(folder, stem, "images"), _find(folder, stem, "labels")
        if images and labels:
            parts[part] = _Part(images, labels)
        elif images or labels:
            lacking = "labels" if images else "images"
            raise DatasetError(f"{printable(folder)} has no {lacking} file of {stem!r}; {_LAYOUT}")
    if not parts:
        raise DatasetError(f"{printable(folder)} holds no idx files; {_LAYOUT}")
    return parts


def _unpack(fresh: Path, folder: Path, parts: dict[str, _Part], name: str, progress: Progress | None) -> Dataset:
    """Write every image into `fresh`."""
    read = {part: _read_part(files) for part, files in parts.items()}
    first = next(iter(read))
    values = sorted(set(read[first][1].tolist()))
    published = first == "train" and hashlib.sha256(read["train"][1].tobytes()).hexdigest() == FASHION_LABELS
    if folder == FASHION_MNIST and not published:
        raise IntegrityError(f"{FASHION_MNIST} does not hold the published labels; reinstall dataset-fashion-mnist")
    if len(values) < 2:
        raise DatasetError(f"{printable(parts[first].labels)} has one label only, {values}; at least two are needed")
    for part, (_, labels) in read.items():
        unknown = sorted(set(labels.tolist()) - set(values))
        if unknown:
            raise DatasetError(
                f"{printable(parts[part].labels)} has the labels {', '.join(map(str, unknown))}, which no training "
                f"image has (those have {values[0]} to {values[-1]}); are the files of one data set?"
            )
    total, samples = sum(len(labels) for _, labels in read.values()), []
    for sample in _written(fresh, read, values):
        samples.append(sample)
        if progress is not None:
            progress(len(samples), total)
    samples.sort(key=lambda sample: sample.id)
    ids = {part: tuple(sample.id for sample in samples if sample.id.startswith(f"{part}/")) for part in read}
    classes = FASHION_CLASSES if published else tuple(map(str, values))
    source = "Fashion-MNIST, Xiao et al. 2017, arXiv 1708.07747" if published else f"idx files in {printable(folder)}"
    licence = "MIT" if published else "not stated"
    return Dataset(name, fresh, classes, tuple(samples), (), source, licence, ids if len(ids) == 2 else {})


def _read_part(files: _Part) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(images (n, H, W), labels (n,)) of one part."""
    images, labels = _read(files.images, 3), _read(files.labels, 1)
    if len(images) != len(labels):
        raise DatasetError(f"{printable(files.images)} has {len(images):,} images, but {files.labels.name} has "
                           f"{len(labels):,} labels; are they of one data set?")  # fmt: skip
    if min(images.shape[1:]) < MIN_SIDE_PX:
        size = f"{images.shape[2]}x{images.shape[1]}"
        raise DatasetError(f"{printable(files.images)} has images of {size} pixels; each side needs {MIN_SIDE_PX}")
    return images, labels


def _read(path: Path, dims: int) -> npt.NDArray[np.uint8]:
    """The array of an idx file."""
    stream: Any
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            header = stream.read(4 * (1 + dims))
            magic, *shape = (int.from_bytes(header[at : at + 4], "big") for at in range(0, 4 * (1 + dims), 4))
            if len(header) < 4 or magic != _MAGIC[dims]:
                raise DatasetError(f"{printable(path)} does not begin like an idx file of unsigned bytes in {dims} "
                                   f"dimension(s): expected {_MAGIC[dims]:#010x}, found {magic:#010x}")  # fmt: skip
            size = math.prod(shape)
            if len(header) < 4 * (1 + dims) or not 0 < size <= _LARGEST_BYTES:
                raise DatasetError(f"the header of {printable(path)} announces {'x'.join(map(str, shape))} values; "
                                   f"expected 1 to {_LARGEST_BYTES:,}")  # fmt: skip
            content = stream.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IntegrityError(f"{printable(path)} is cut short or damaged ({error}); fetch it again") from None
    except OSError as error:
        raise DatasetError(f"{printable(path)} cannot be read: {error.strerror}") from None
    if len(content) != size:
        found = f"{len(content):,}" if len(content) < size else "more"
        raise IntegrityError(f"{printable(path)} announces {size:,} values and holds {found}; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _written(
    fresh: Path, read: dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]], values: list[int]
) -> Iterator[Sample]:
    """Write the images on a few threads; the samples in order."""
    index_of = {value: index for index, value in enumerate(values)}
    jobs = []
    for part, (images, labels) in read.items():
        (fresh / part).mkdir()
        digits = max(5, len(str(len(labels) - 1)))
        for start in range(0, len(labels), _CHUNK):
            indices = [index_of[value] for value in labels[start : start + _CHUNK].tolist()]
            jobs.append(partial(_write_chunk, fresh / part, start, digits, images[start : start + _CHUNK], indices))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "unpack") as pool:
        # Closing the iterator cancels what has not begun, so an interrupt does not wait for the whole set.
        with closing(_in_order(pool, jobs)) as chunks:
            for chunk in chunks:
                yield from chunk


def _in_order(pool: ThreadPoolExecutor, jobs: "list[partial[list[Sample]]]") -> Generator[list[Sample], None, None]:
    yield from pool.map(lambda job: job(), jobs)


def _write_chunk(
    folder: Path, start: int, digits: int, images: npt.NDArray[np.uint8], labels: list[int]
) -> list[Sample]:
    samples = []
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True), start=start):
        content, path = png_bytes(pixels), folder / f"{number:0{digits}}.png"
        with open(path, "wb", buffering=0) as stream:
            stream.write(content)
        digest = hashlib.sha256(content).hexdigest()
        samples.append(Sample(f"{folder.name}/{path.name}", path, label, digest))
    return samples

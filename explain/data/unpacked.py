"""Unpacked: a data set whose images come out of something else, as files in the user's cache.

The files appear whole or not at all, together with the result of checking them. A later load compares each file's
size and time with what they were; where one differs, everything is unpacked again.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from explain.data.base import Dataset, Rejected, Sample
from explain.data.names import printable
from explain.errors import DatasetError, IntegrityError
from explain.files import cache_folder, read_json, sha256_file, sha256_json, write_atomically

RECORD = "checked.json"
"""Beside the images: what is known of each, and its file's size and time."""


def unpack_once(name: str, key: Any, write: Callable[[Path], Dataset]) -> Dataset:
    """The data set that `write` makes, from the cache when it was made before.

    Args:
        name: begins the folder's name.
        key: JSON data that decides the content, such as the hashes of the files it comes from.
        write: fills an empty folder and returns the data set, whose paths all lie in that folder.
    """
    folder = cache_folder("datasets").resolve() / f"{name}-{sha256_json(key)[:16]}"
    kept = _kept(folder)
    return _make(folder, write) if kept is None else kept


def source_hash(path: Path) -> str:
    """SHA-256 of a file that a data set is unpacked from.

    Raises:
        DatasetError: the system does not let it be read.
    """
    try:
        return sha256_file(path)
    except OSError as error:
        raise DatasetError(f"{printable(path)} cannot be read: {error.strerror}") from None


def move_in(fresh: Path, folder: Path, old: Path) -> None:
    """Rename a filled folder to where it belongs; what was there goes to `old`.

    Another process that was faster has put the same files there.
    """
    if folder.exists():  # an earlier copy that was changed or cut short
        os.replace(folder, old)
    try:
        os.replace(fresh, folder)
    except OSError:
        if not folder.is_dir():
            raise


def _make(folder: Path, write: Callable[[Path], Dataset]) -> Dataset:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "fresh"
        fresh.mkdir()
        record = _record(write(fresh), fresh)
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        write_atomically(fresh / RECORD, lambda path: path.write_text(text, encoding="utf-8"))
        move_in(fresh, folder, Path(temporary) / "old")
    return _dataset(record, folder)


def _kept(folder: Path) -> Dataset | None:
    """The data set as it was unpacked earlier, when every file still has the size and time it had then."""
    try:
        record = read_json(folder / RECORD)
        if record["marks"] != _marks(record["samples"], folder):
            return None
        dataset = _dataset(record, folder)
        return dataset if dataset.fingerprint == record["fingerprint"] else None
    except (IntegrityError, DatasetError, OSError, LookupError, TypeError, ValueError):
        return None


def _record(dataset: Dataset, folder: Path) -> dict[str, Any]:
    """The data set as plain JSON data: one list for each thing known of a sample, which is quicker to read than rows.

    A sample's id is its path in the folder, as every format promises.
    """
    part_of = {name: part for part, ids in dataset.parts.items() for name in ids}
    samples: dict[str, list[Any]] = {
        "id": [sample.id for sample in dataset.samples],
        "label": [sample.label for sample in dataset.samples],
        "sha256": [sample.sha256 for sample in dataset.samples],
        "mask": [sample.mask and sample.mask.relative_to(folder).as_posix() for sample in dataset.samples],
        "flags": [" ".join(sample.flags) for sample in dataset.samples],
        "part": [part_of.get(sample.id) for sample in dataset.samples],
    }
    rejected = [[item.path.relative_to(folder).as_posix(), item.reason, item.detail] for item in dataset.rejected]
    return {
        "name": dataset.name, "source": dataset.source, "licence": dataset.licence,
        "class_names": list(dataset.class_names), "fingerprint": dataset.fingerprint, "rejected": rejected,
        "samples": samples, "marks": _marks(samples, folder),
    }  # fmt: skip


def _dataset(record: dict[str, Any], folder: Path) -> Dataset:
    """What `_record` was made of, with its files in `folder`."""
    columns = record["samples"]
    samples = tuple(
        Sample(name, folder / name, label, digest, mask and folder / mask, tuple(flags.split()))
        for name, label, digest, mask, flags in zip(
            *(columns[key] for key in ("id", "label", "sha256", "mask", "flags")), strict=True
        )
    )
    rejected = tuple(Rejected(folder / name, reason, detail) for name, reason, detail in record["rejected"])
    parts: dict[str, list[str]] = {}
    for name, part in zip(columns["id"], columns["part"], strict=True):
        if part is not None:
            parts.setdefault(part, []).append(name)
    return Dataset(
        record["name"], folder, tuple(record["class_names"]), samples, rejected, record["source"], record["licence"],
        {part: tuple(ids) for part, ids in parts.items()},
    )  # fmt: skip


def _marks(samples: dict[str, list[Any]], folder: Path) -> list[list[int]]:
    """Bytes, and times of the last change in ns, of every image and then of every mask."""
    names = [*samples["id"], *filter(None, samples["mask"])]
    stats = [os.stat(f"{folder}/{name}") for name in names]
    return [[status.st_size for status in stats], [status.st_mtime_ns for status in stats]]

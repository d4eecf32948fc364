"""Export: the maps of an archive for other programs, as one file per format.

A format is a frozen dataclass of its options that writes the images it is given, in the order of the archive. What it
writes is whole or absent: it fills a hidden file or folder, which gets its name when all is on the disk.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from explain.archive.archive import MapArchive
from explain.archive.explained import Explained, StoredMap
from explain.archive.manifest import Entry
from explain.attribution import Array
from explain.data.names import printable
from explain.errors import ExplainError, InputError, StorageError
from explain.files import flush_folder, write_atomically
from explain.registry import Registry
from explain.training.images import Progress, quiet

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one slash: a Path has lost the other

WRITING = "writing"


@dataclass(frozen=True)
class Part:
    """Images of one shard that is committed.

    Args:
        archive: where they are.
        shard: its number.
        rows: of the images in the manifest, ascending.
    """

    archive: MapArchive
    shard: int
    rows: Sequence[int]

    def images(self) -> Iterator[Explained]:
        """The images, one after the other."""
        return map(self.archive.at, self.rows)

    def lines(self) -> list[dict[str, Any]]:
        """Their lines of the archive's table, checked."""
        lines: list[dict[str, Any]] = self.archive.metrics_table(self.shard).take(self._inner()).to_pylist()
        return lines

    def entries(self) -> list[Entry]:
        """Their lines of the manifest."""
        entries = self.archive.manifest.shard(self.shard)
        return [entries[inner] for inner in self._inner()]

    def _inner(self) -> list[int]:
        first = self.archive.job.manifest.first_row(self.shard)
        return [row - first for row in self.rows]


@dataclass(frozen=True)
class Chosen:
    """The images of an archive that are written, in its order.

    Args:
        archive: where they are.
        parts: by shard.
    """

    archive: MapArchive
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, archive: MapArchive, ids: Sequence[str] | None) -> "Chosen":
        """The images with these ids; None for all that are computed.

        Raises:
            InputError: there is none.
            UnknownNameError: no such image, or its shard is not computed yet.
        """
        facts = archive.job.manifest
        rows: dict[int, Sequence[int]]
        if ids is None:
            firsts = {shard: facts.first_row(shard) for shard in archive.committed()}
            rows = {shard: range(first, first + facts.size(shard)) for shard, first in firsts.items()}
        else:
            found: dict[int, list[int]] = {}
            for row in sorted({archive[name].row for name in ids}):
                found.setdefault(row // facts.shard_size, []).append(row)
            rows = dict(found)
        if not rows:
            raise InputError(f"expected at least one image to write; {archive.store.url} has {len(archive):,}, and "
                             f"{len(archive.committed()):,} of its {facts.shards:,} shards are computed")  # fmt: skip
        return cls(archive, tuple(Part(archive, shard, each) for shard, each in rows.items()))

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    def shapes(self, grid: bool) -> dict[tuple[str, str], tuple[int, int]]:
        """(model, method) -> (h, w) of its maps: on the patch grid, or else in pixels where they are kept so."""
        columns = self.archive.job.columns  # pixels come after the grid
        return {(each.model, each.method): each.shape for each in columns if each.part == "grid" or not grid}


class Export:
    """One format; its dataclass fields are its options.

    `label` says what it is in words. `single` tells a format of one file from one that fills a folder.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    single: ClassVar[bool] = False

    def write(self, archive: MapArchive, out: Path, ids: Sequence[str] | None, progress: Progress) -> int:
        """Write images of an archive.

        Args:
            archive: where they are.
            out: file or folder to make; an empty folder may be there.
            ids: of the images; None for all that are computed.
            progress: told as maps are written.

        Returns:
            How many images were written.

        Raises:
            InputError: no image, `out` is there already, or it is a URL.
            UnknownNameError: no such image, or its shard is not computed yet.
            IntegrityError: a shard is damaged, which the message names; nothing is left behind.
            StorageError: the disk is full or broken; nothing is left behind.
        """
        out = Path(os.path.abspath(out))
        check_free(out, self.single)
        chosen = Chosen.of(archive, ids)
        place = write_atomically if self.single else fill_folder
        try:
            place(out, lambda path: self.fill(chosen, path, progress))
        except ExplainError:
            raise
        except OSError as error:
            raise StorageError(f"{printable(out)} cannot be written: {error.strerror or error}; nothing was left "
                               "behind. Make room or choose another disk, and export again") from error  # fmt: skip
        return len(chosen)

    def fill(self, chosen: Chosen, path: Path, progress: Progress) -> None:
        """Write the images into an empty folder, or as one file."""
        raise NotImplementedError


EXPORTS: Registry[Export] = Registry("export format", "explain.export")


def export(
    archive: MapArchive,
    out: str | Path,
    *,
    format: str,
    ids: Sequence[str] | None = None,
    progress: Progress = quiet,
    **options: Any,
) -> Path:
    """Write the maps of an archive in another format.

    Args:
        archive: what to write.
        out: file or folder to make; an empty folder may be there.
        format: registered name: "npz", "zarr", "png" or "coco".
        ids: of the images; None for all that are computed.
        progress: called with (what is running, maps done, maps in all).
        options: of the format.

    Returns:
        What was written.

    Raises:
        UnknownNameError: no such format or image.
        InputError: no such option, or `out` is there already.
        IntegrityError: a shard is damaged; nothing is left behind.
        StorageError: the disk is full or broken; nothing is left behind.
    """
    if _URL.match(str(out)):
        raise InputError(f"expected a file or folder to write, got {printable(str(out))!r}; write it to the disk, then "
                         "copy it there")  # fmt: skip
    EXPORTS.create(format, **options).write(archive, Path(out), ids, progress)
    return Path(out)


def check_free(out: Path, single: bool) -> None:
    """Refuse to write over anything.

    Raises:
        InputError: something is there, other than an empty folder for a format that fills one.
    """
    if os.path.lexists(out) and (single or not out.is_dir() or any(out.iterdir())):
        kind = "file" if single else "folder"
        raise InputError(f"{printable(out)} is there already; expected a new {kind}, so that nothing is overwritten")


def fill_folder(out: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write into a hidden folder, flush it to the disk, then give it its name.

    A folder that is there stays, for it may be a mounted disk: its files are moved in when all are written.
    """
    given = out.is_dir()
    home = out if given else out.parent
    home.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(dir=home, prefix=".export."))
    try:
        fill(hidden)
        _flush(hidden)
        if given:
            for path in sorted(hidden.iterdir()):
                path.rename(out / path.name)
            hidden.rmdir()
        else:
            hidden.chmod(0o755)
            hidden.rename(out)
        flush_folder(home)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            flush_folder(path)
        else:
            with open(path, "rb+") as stream:
                os.fsync(stream.fileno())
    flush_folder(folder)


# ---- what several formats say of an archive and its images


def about(archive: MapArchive) -> dict[str, Any]:
    """What was computed, as plain JSON: images, models, classes, methods with all options; not where these lie here."""
    job = archive.job
    here = job.data.root is not None and job.data.root in job.data.source
    data = {"name": job.data.name, "source": "" if here else job.data.source, "licence": job.data.licence}
    kept = {"job": job.sha256, "content": archive.content_sha256, "created": job.created, "versions": job.versions}
    return {"data": data} | job.config | kept


def columns_of(part: Part) -> dict[str, npt.NDArray[Any]]:
    """What an array of maps needs beside it, one value per image: row, id, status, and MODEL.target, -1 for none."""
    lines = part.lines()
    columns: dict[str, npt.NDArray[Any]] = {
        "row": np.array(part.rows, np.int64),
        "id": np.array([line["id"] for line in lines], np.str_),
        "status": np.array([line["status"] for line in lines], np.str_),
    }
    for model in part.archive.models:
        targets = (line[f"{model}_target"] for line in lines)
        columns[f"{model}.target"] = np.array([-1 if target is None else target for target in targets], np.int32)
    return columns


def maps_of(part: Part, model: str, method: str, shape: tuple[int, int]) -> Iterator[Array]:
    """One map per image, float32 of this shape; NaN where an image has none of it."""
    missing = np.full(shape, np.nan, np.float32)
    columns = [one.name for one in part.archive.job.columns if (one.model, one.method) == (model, method)]
    for row in part.rows:
        found = all_maps(part.archive.at(row, columns))
        values = [values for each in found for values in (each.values, each.on_grid)]
        yield next((each for each in values if each.shape == shape), missing)


def all_maps(image: Explained) -> list[StoredMap]:
    """Every map of an image; none of one that failed."""
    return [each for by_method in image.values() for each in by_method.values()]


def check_switches(**values: Any) -> None:
    """Raise InputError unless every option is true or false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f"expected {name} to be true or false, got {value!r}")

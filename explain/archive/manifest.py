"""Manifest: which images an archive is about, in which order, written once and read a shard at a time.

    manifest/000.parquet    images of shards 0 to 999; row group k holds those of shard k
    manifest/001.parquet    images of shards 1000 to 1999

Image r of the manifest is row r % shard_size of shard r // shard_size. Nothing here grows with the number of images but
the files, so a manifest may be longer than memory.
"""

import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from explain.archive.store import Store
from explain.data.names import from_printable, printable
from explain.errors import InputError, IntegrityError
from explain.files import sha256_json
from explain.record import Record

SHARDS_PER_PART = 1000

KEPT_TABLES = 128
"""Shards whose images are kept as they were read, about 100 kB each."""

MOST = 10**12
"""Images at most; a larger number is no number of images."""

SCHEMA = pa.schema([
    ("id", pa.string()), ("path", pa.string()), ("label", pa.int32()), ("sha256", pa.string()), ("mask", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One image of a manifest.

    Args:
        id: unique and printable name.
        path: the file.
        label: class index, or None where there is no label.
        sha256: of the file's bytes when it was listed; None where nobody looked.
        mask: file of the region that decides the label, when there is one.
    """

    id: str
    path: Path
    label: int | None = None
    sha256: str | None = None
    mask: Path | None = None


class ManifestFacts(Record):
    """What tells one manifest from another.

    Args:
        count: images.
        shard_size: images per shard.
        ids_sha256: over every id and label in order, so that the same images can be recognised.
        parts: SHA-256 of each file.
    """

    count: Annotated[int, Field(ge=1, le=MOST)]
    shard_size: Annotated[int, Field(ge=1, le=MOST)]
    ids_sha256: str
    parts: tuple[str, ...]

    @model_validator(mode="after")
    def _has_a_file_per_part(self) -> Self:
        expected = -(-self.shards // SHARDS_PER_PART)
        if len(self.parts) != expected:
            raise ValueError(f"expected {expected} files of {self.shards} shards, got {len(self.parts)}")
        return self

    @property
    def shards(self) -> int:
        """How many shards there are; the last may be smaller."""
        return -(-self.count // self.shard_size)

    def first_row(self, shard: int) -> int:
        """Row of the first image of a shard."""
        return shard * self.shard_size

    def size(self, shard: int) -> int:
        """Images of a shard."""
        return min(self.shard_size, self.count - self.first_row(shard))


class Manifest:
    """The images of an archive, to be read from several threads if need be.

    Args:
        store: where the archive lies.
        facts: what was recorded when the manifest was written.
    """

    def __init__(self, store: Store, facts: ManifestFacts) -> None:
        self.store = store
        self.facts = facts
        self._opened: tuple[int, pq.ParquetFile] | None = None
        self._last: tuple[int, list[Entry]] | None = None
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def write(cls, store: Store, entries: Iterable[Entry], shard_size: int) -> "Manifest":
        """Write the images down, a part at a time.

        Raises:
            InputError: there is none, or a shard size below 1.
        """
        if not 1 <= shard_size <= MOST:
            raise InputError(f"expected a shard_size from 1 to {MOST:,}, got {shard_size}")
        waiting, seen, hashes, count = iter(entries), hashlib.sha256(), [], 0
        while first := list(islice(waiting, shard_size)):
            sink = pa.BufferOutputStream()
            with pq.ParquetWriter(sink, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
                for shard in range(SHARDS_PER_PART):
                    rows = first if shard == 0 else list(islice(waiting, shard_size))
                    if not rows:
                        break
                    for row in rows:
                        seen.update(_identity(row))
                    count += len(rows)
                    writer.write_table(_table(rows), row_group_size=shard_size)
            data = sink.getvalue()
            hashes.append(hashlib.sha256(data).hexdigest())
            store.put(_part(len(hashes) - 1), data)
        if not count:
            raise InputError("no images: expected at least one; give image files, a folder with images or a data set")
        facts = ManifestFacts(count=count, shard_size=shard_size, ids_sha256=seen.hexdigest(), parts=tuple(hashes))
        return cls(store, facts)

    def shard(self, number: int) -> list[Entry]:
        """The images of one shard, in order.

        Raises:
            IntegrityError: the manifest is missing, damaged or another one.
        """
        last = self._last
        if last is None or last[0] != number:  # images are often asked for one by one
            self._last = last = number, _entries(self._read(number, SCHEMA.names))
        return last[1]

    def entry(self, row: int) -> Entry:
        """One image by its row; as quick when the rows asked for lie far apart.

        Raises:
            IntegrityError: as `shard` raises it.
        """
        number, inner = divmod(row, self.facts.shard_size)
        last = self._last
        if last is not None and last[0] == number:
            return last[1][inner]
        return _entries(self._table(number).slice(inner, 1))[0]

    def _table(self, number: int) -> pa.Table:
        """A shard's images as they were read; those asked for last are kept."""
        with self._lock:
            found = self._tables.pop(number, None)
        found = found if found is not None else self._read(number, SCHEMA.names)
        with self._lock:
            self._tables[number] = found
            while len(self._tables) > KEPT_TABLES:
                self._tables.popitem(last=False)
        return found

    def ids(self) -> Iterator[tuple[int, Sequence[str]]]:
        """(row of the first, ids) of every shard."""
        for shard in range(self.facts.shards):
            yield self.facts.first_row(shard), self._read(shard, ["id"])["id"].to_pylist()

    def repeated_id(self) -> str | None:
        """An id that two images have, which no archive can hold; takes 8 bytes per image."""
        every = (_short(name) for _, names in self.ids() for name in names)
        short = np.sort(np.fromiter(every, np.uint64, self.facts.count))
        suspects = set(short[1:][short[1:] == short[:-1]].tolist())
        seen: set[str] = set()
        for name in (name for _, names in self.ids() for name in names) if suspects else ():
            if name in seen:
                return name
            if _short(name) in suspects:
                seen.add(name)
        return None

    def problems(self) -> list[str]:
        """Files that are not the ones that were written."""
        return [
            f"{_part(part)} is {'missing' if data is None else 'changed'}"
            for part, expected in enumerate(self.facts.parts)
            for data in [self.store.read(_part(part)) if self.store.exists(_part(part)) else None]
            if data is None or hashlib.sha256(data).hexdigest() != expected
        ]

    def _read(self, shard: int, columns: Sequence[str]) -> pa.Table:
        part, group = divmod(shard, SHARDS_PER_PART)
        try:
            with self._lock:
                if self._opened is None or self._opened[0] != part:
                    self._opened = part, _opened(self.store, part)
                table = self._opened[1].read_row_group(group, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise IntegrityError(f"{self.store.name(_part(part))} cannot be read ({error}); the list of images is "
                                 "damaged, so the archive has to be made again") from None  # fmt: skip
        known = table.schema == pa.schema([SCHEMA.field(name) for name in columns])
        if not known or any(table[name].null_count for name in {"id", "path"} & set(columns)):
            raise IntegrityError(f"{self.store.name(_part(part))} is no list of images")
        if len(table) != self.facts.size(shard):
            raise IntegrityError(f"{self.store.name(_part(part))}: expected {self.facts.size(shard)} images in shard "
                                 f"{shard}, got {len(table)}")  # fmt: skip
        return table


def same_images(entries: Iterable[Entry], facts: ManifestFacts) -> bool:
    """Whether these images have the ids and labels of a manifest, in its order; their content is checked when read."""
    seen, count = hashlib.sha256(), 0
    for entry in entries:
        seen.update(_identity(entry))
        count += 1
    return count == facts.count and seen.hexdigest() == facts.ids_sha256


def slice_sha256(entries: Sequence[Entry]) -> str:
    """SHA-256 over everything that is known of the images of a shard."""
    return sha256_json([_plain(entry) for entry in entries])


def _part(number: int) -> str:
    return f"manifest/{number:03d}.parquet"


def _opened(store: Store, part: int) -> pq.ParquetFile:
    """A part, whose file is closed when nobody holds it any more."""
    stream = store.stream(_part(part))
    try:
        opened = pq.ParquetFile(stream, page_checksum_verification=True)
    except BaseException:
        stream.close()
        raise
    weakref.finalize(opened, stream.close)
    return opened


def _short(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _identity(entry: Entry) -> bytes:
    return f"{entry.id}\0{entry.label}\n".encode()


def _plain(entry: Entry) -> dict[str, str | int | None]:
    mask = None if entry.mask is None else printable(entry.mask)
    return {"id": entry.id, "path": printable(entry.path), "label": entry.label, "sha256": entry.sha256, "mask": mask}


def _table(entries: Sequence[Entry]) -> pa.Table:
    return pa.Table.from_pylist([_plain(entry) for entry in entries], SCHEMA)


def _entries(table: pa.Table) -> list[Entry]:
    return [
        Entry(row["id"], Path(from_printable(row["path"])), row["label"], row["sha256"],
              None if row["mask"] is None else Path(from_printable(row["mask"])))
        for row in table.to_pylist()
    ]  # fmt: skip

"""MapArchive: the maps and numbers of a whole data set on disk, read back one image at a time.

    archive = MapArchive("maps/textile")
    archive["local/textile_0001.jpg"]["vpt"]["grad_cam"].values      float32 (h, w)
    archive.table.filter("not vpt_correct").order("vpt_confidence")  a DuckDB relation, one row per image
    for image in archive: ...                                        in the order of the manifest

What a receipt vouches for is there; nothing else is. A map that comes out is the one that was put in: every byte on the
way is checked, and damage is an `IntegrityError`, never a picture.
"""

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from explain.archive.explained import Explained
from explain.archive.index import Index
from explain.archive.job import FINISHED, KEY, Finished, Job
from explain.archive.manifest import Entry, Manifest
from explain.archive.maps_file import MapsFile
from explain.archive.paths import MAPS, METRICS, RECEIPTS, key, shard_of
from explain.archive.receipt import Receipt
from explain.archive.store import Store
from explain.archive.tables import open_tables, parse_table, read_tables
from explain.data.names import printable
from explain.errors import InputError, IntegrityError, StorageError, UnknownNameError
from explain.files import cache_folder, sha256_json

OPEN_FILES = 64
"""Map files kept open; each holds its footer, about 100 kB."""

EVENTS = "events.jsonl"


class MapArchive:
    """Maps and numbers of many images; a mapping from image id to `Explained`.

    Safe to read from several threads.

    Args:
        location: its folder, or the URL of a bucket and prefix such as "s3://bucket/maps".

    Raises:
        IntegrityError: there is no archive, or its description is damaged.
    """

    def __init__(self, location: str | Path | Store) -> None:
        self.store = location if isinstance(location, Store) else Store.open(location)
        if not self.store.exists(KEY):
            raise IntegrityError(f"{self.store.url} holds no archive of maps (no {KEY}); explain attribute makes one")
        self.job = Job.from_bytes(self.store.read(KEY), self.store.name(KEY))
        self.job.check(self.store.name(KEY))
        self.manifest = Manifest(self.store, self.job.manifest)
        self._files: OrderedDict[int, MapsFile] = OrderedDict()
        self._last_table: tuple[int, pa.Table] | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, location: str | Path | Store) -> "MapArchive":
        """The archive at a location; see the class."""
        return cls(location)

    def __repr__(self) -> str:
        names = ", ".join(self.models)
        return f"MapArchive({self.store.url!r}: {len(self)} images, models {names}, methods {', '.join(self.methods)})"

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(facts.name for facts in self.job.models)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        return self.job.method_names

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that targets and predictions count: the first model's."""
        return self.job.models[0].class_names

    # ---- images

    def __len__(self) -> int:
        """Images in all, also those that are not computed yet."""
        return self.job.manifest.count

    def entry(self, row: int) -> Entry:
        """What the manifest says of an image, by its row."""
        return self.manifest.entry(row)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._index.row_of(name) is not None

    def __getitem__(self, name: str) -> Explained:
        """One image by its id.

        Raises:
            UnknownNameError: no such image, or its shard is not computed yet.
            IntegrityError: its shard is damaged.
        """
        found = self.at(self.row_of(name))
        if found.id != name:
            raise IntegrityError(f"{self.store.url}: the index leads from {name!r} to {found.id!r}; delete "
                                 "index.sqlite, and it is made again")  # fmt: skip
        return found

    def row_of(self, name: str) -> int:
        """Row of an image in the manifest, by its id.

        Raises:
            UnknownNameError: no such image.
        """
        row = self._index.row_of(name)
        if row is None:
            raise UnknownNameError(f"no image {name!r} in {self.store.url}; its ids are like {next(self.ids())!r}")
        return row

    def at(self, row: int, columns: Sequence[str] | None = None) -> Explained:
        """One image by its row in the manifest; raises as the index by id does.

        Args:
            row: of the image.
            columns: names of those columns of the job whose maps are decoded; None for all.
        """
        if not 0 <= row < len(self):
            raise UnknownNameError(f"expected a row from 0 to {len(self) - 1}, got {row}")
        shard, inner = divmod(row, self.job.manifest.shard_size)
        return Explained(self, row, self._maps_of(shard).row(inner, columns))

    def __iter__(self) -> Iterator[Explained]:
        """The images of every committed shard, in the order of the manifest."""
        for shard in self.committed():
            for inner in range(self.job.manifest.size(shard)):
                yield self.at(self.job.manifest.first_row(shard) + inner)

    def ids(self) -> Iterator[str]:
        """Every image's id, in the order of the manifest."""
        return (name for _, names in self.manifest.ids() for name in names)

    def _maps_of(self, shard: int) -> MapsFile:
        with self._lock:
            found = self._files.pop(shard, None)
            if found is None:
                found = self._open_maps(shard)
            self._files[shard] = found
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
            return found

    def _open_maps(self, shard: int) -> MapsFile:
        receipt = self.receipt(shard)
        name = key(MAPS, shard)
        found = MapsFile.open(self.store.stream(name), receipt.maps, self.store.name(name))
        if found.count != receipt.count or found.columns != self.job.columns:
            raise IntegrityError(f"{self.store.name(name)} holds other maps than the job says; explain archive verify")
        return found

    # ---- shards

    def receipt(self, shard: int) -> Receipt:
        """What vouches for a shard.

        Raises:
            UnknownNameError: the shard is not committed.
            IntegrityError: the receipt is damaged, or belongs to another shard or job.
        """
        name = key(RECEIPTS, shard)
        try:  # most often it is there, and looking first would be one more request to a bucket
            data = self.store.read(name)
        except IntegrityError:
            if self.store.exists(name):
                raise
            raise UnknownNameError(f"shard {shard} of {self.store.url} is not computed yet; run the same "
                                   "`explain attribute` again to continue") from None  # fmt: skip
        receipt = Receipt.from_bytes(data, self.store.name(name))
        expected = (shard, self.job.manifest.first_row(shard), self.job.manifest.size(shard), self.job.sha256)
        found = (receipt.shard, receipt.first_row, receipt.count, receipt.job)
        if found != expected:
            raise IntegrityError(f"{self.store.name(name)} is the receipt of another shard or job: expected (shard, "
                                 f"first row, images, job) {expected}, got {found}")  # fmt: skip
        return receipt

    def committed(self) -> list[int]:
        """Numbers of the shards that have a receipt."""
        found = (shard_of(name) for name in self.store.list(RECEIPTS))
        return sorted(shard for shard in found if shard is not None and shard < self.job.manifest.shards)

    def pending(self) -> Iterator[int]:
        """Numbers of the shards that have none."""
        there = set(self.committed())
        return (shard for shard in range(self.job.manifest.shards) if shard not in there)

    def receipts(self) -> Iterator[Receipt]:
        """The receipts of the committed shards, in order."""
        return map(self.receipt, self.committed())

    @property
    def finished(self) -> Finished | None:
        """What came out, when every shard is committed.

        Raises:
            IntegrityError: it is damaged, or another job's.
        """
        if not self.store.exists(FINISHED):
            return None
        found = Finished.from_bytes(self.store.read(FINISHED), self.store.name(FINISHED))
        if found.job != self.job.sha256:
            raise IntegrityError(f"{self.store.name(FINISHED)} is another job's; explain archive verify")
        return found

    @property
    def content_sha256(self) -> str:
        """SHA-256 over what the receipts vouch for; equal for two runs of one job that are equally far."""
        return sha256_json([receipt.content for receipt in self.receipts()])

    # ---- numbers

    @cached_property
    def table(self) -> duckdb.DuckDBPyRelation:
        """One row per image of the committed shards, to filter, sort and join; see `explain.batch.numbers`.

        Its files are compared with what vouches for them before they are read. Read again from a new MapArchive when
        shards were added.

        Raises:
            InputError: no shard is computed yet.
            IntegrityError: a file is damaged.
        """
        # the connection must live as long as the relation, and one relation serves one thread at a time
        self._connection = duckdb.connect()
        self._connection.register("images", self._dataset)
        return self._connection.table("images")

    @cached_property
    def _dataset(self) -> ds.Dataset:
        files = self._table_files()
        if not files:
            raise InputError(f"no shard of {self.store.url} is computed yet; run the same `explain attribute` again")
        return open_tables(self.store, files)

    def _table_files(self) -> dict[str, str]:
        """The files of the table and their SHA-256: the joined ones of a finished archive, else one per shard."""
        finished = self.finished
        if finished is not None and all(map(self.store.exists, finished.tables)):
            return finished.tables
        return {key(METRICS, receipt.shard): receipt.metrics.sha256 for receipt in self.receipts()}

    def to_arrow(self) -> pa.Table:
        """The table of numbers in memory, as Arrow."""
        return read_tables(self._dataset, self.store)

    def to_pandas(self) -> Any:
        """The table of numbers in memory, as a pandas DataFrame."""
        return self.to_arrow().to_pandas()

    def to_torch(self, model: str, method: str) -> Any:
        """The maps of one model and method as a torch Dataset; see `explain.archive.torch_dataset`."""
        from explain.archive.torch_dataset import TorchMaps

        return TorchMaps(self, model, method)

    def metrics_of(self, row: int) -> dict[str, Any]:
        """The numbers of one image, by its row in the manifest."""
        shard, inner = divmod(row, self.job.manifest.shard_size)
        with self._lock:
            if self._last_table is None or self._last_table[0] != shard:  # images are often asked for one by one
                self._last_table = shard, self.metrics_table(shard)
            table = self._last_table[1]
        found: dict[str, Any] = table.slice(inner, 1).to_pylist()[0]
        return found

    def metrics_table(self, shard: int) -> pa.Table:
        """The numbers of one shard, checked whole.

        Raises:
            UnknownNameError: it is not computed yet.
            IntegrityError: it is damaged.
        """
        name, receipt = key(METRICS, shard), self.receipt(shard)
        what, data = self.store.name(name), self.store.read(name)
        receipt.metrics.check(data, what)
        return parse_table(data, receipt.count, what)

    # ---- index, events

    @cached_property
    def _index(self) -> Index:
        facts = self.job.manifest
        path = _in_cache(self.store.url) if self.store.folder is None else self.store.folder / "index.sqlite"
        return Index.open(path, facts.ids_sha256, self.manifest.ids)

    def note(self, event: str, **facts: Any) -> None:
        """Add a line to the log of events, where the archive is a folder."""
        if self.store.folder is None:
            return
        line = json.dumps({"event": event} | facts, allow_nan=False) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # an archive has no links
        with suppress(OSError):  # a full disk is told by the next file, which matters more
            with open(os.open(self.store.folder / EVENTS, flags, 0o644), "w", encoding="utf-8") as stream:
                stream.write(line)


def _in_cache(url: str) -> Path:
    """Where the index of a bucket is kept.

    Raises:
        StorageError: there is no place for it.
    """
    try:
        return cache_folder("archives") / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.sqlite"
    except (OSError, RuntimeError) as error:  # no home
        raise StorageError(f"the index of {printable(url)} has no place in the user's cache ({error}); set "
                           "EXPLAIN_CACHE to a folder that can be written") from None  # fmt: skip

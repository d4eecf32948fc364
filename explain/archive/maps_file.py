"""Maps file: the maps of one shard as Parquet, from which one row is read by itself and checked in full.

Rows lie in groups of eight. The checksums of Parquet's pages leave the headers of pages and the footer uncovered, so
the footer holds a SHA-256 of every group, and the receipt one of the footer: bytes are compared before they are parsed,
and what comes out is what was put in.

    id                     string
    vpt.target             int32: the class that the maps of "vpt" explain
    vpt.logits             K float32, little-endian
    vpt.grad_cam.grid      a map as `explain.archive.quantise` encodes it; null where there is none
    vpt.grad_cam.grid.scale
"""

import hashlib
import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from explain.archive.parquet_bytes import MAGIC, HashedSink, Stretch, read_footer, read_range
from explain.archive.quantise import Array, Form, decode, encode, size
from explain.archive.receipt import StoredFile
from explain.errors import InputError, IntegrityError, StorageError

ROW_GROUP = 8
"""Rows per group: with fewer the footer takes longer to read, with more the group does."""

_KEY = b"explain.maps"
_WHAT_PARSING_RAISES = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError)


@dataclass(frozen=True)
class Column:
    """One kind of map.

    Args:
        model: its name in the archive.
        method: registered name of the method.
        part: "grid" for maps on the patch grid, "pixels" for maps as large as the input.
        form: "fp16" or "int8".
        shape: (h, w).

    Raises:
        InputError: a name with a dot, an unknown part or form, an empty shape.
    """

    model: str
    method: str
    part: Literal["grid", "pixels"]
    form: Form
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if not all(name and "." not in name for name in (self.model, self.method)):
            raise InputError(f"expected model and method names without a dot, got {self.model!r} and {self.method!r}")
        if self.part not in ("grid", "pixels"):
            raise InputError(f"expected the part 'grid' or 'pixels', got {self.part!r}")
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise InputError(f"expected the shape (h, w) of a map, got {self.shape}")
        size(self.form)

    @property
    def name(self) -> str:
        """Such as "vpt.integrated_gradients.pixels"."""
        return f"{self.model}.{self.method}.{self.part}"

    @property
    def bytes(self) -> int:
        """Bytes of a map before compression."""
        return self.shape[0] * self.shape[1] * size(self.form)


@dataclass(frozen=True)
class Row:
    """What is kept of one image.

    Args:
        id: its name in the archive.
        maps: name of a column -> float32 (h, w); a missing one is null.
        logits: model -> float32 (K,); a missing one is null.
        targets: model -> the class that its maps explain; a missing one is null.
    """

    id: str
    maps: Mapping[str, Array]
    logits: Mapping[str, Array]
    targets: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """A maps file in memory.

    Args:
        data: all its bytes.
        footer_sha256: over its footer, for the receipt.
    """

    data: pa.Buffer
    footer_sha256: str


class MapsWriter:
    """Collects the rows of a shard, encoding each at once: equal rows give equal bytes.

    Args:
        columns: kinds of maps, in the order in which they are kept.
        classes: model -> number of its logits.
        row_group: rows per group.

    Raises:
        InputError: no rows per group, a column twice, or of a model that `classes` does not have.
    """

    def __init__(self, columns: Sequence[Column], classes: Mapping[str, int], row_group: int = ROW_GROUP) -> None:
        self._columns = {column.name: column for column in columns}
        self._classes = dict(classes)
        if row_group < 1 or len(self._columns) != len(columns) or {one.model for one in columns} - set(classes):
            raise InputError(f"expected at least one row per group, got {row_group}, and columns that differ, of the "
                             f"models {sorted(classes)}, got {[one.name for one in columns]}")  # fmt: skip
        self._row_group = row_group
        self._schema = _schema(columns, classes)
        self._sink = HashedSink()
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"), self._schema, compression="zstd", compression_level=3,
            use_dictionary=False, write_statistics=False, store_schema=False, write_page_checksum=True,
        )  # fmt: skip
        self._waiting: list[dict[str, Any]] = []
        self._groups: list[tuple[int, str]] = []
        self._count = 0

    def add(self, row: Row) -> None:
        """Take the next image of the shard.

        Raises:
            InputError: a map or logits of another column, model, shape or type, or that are not finite.
        """
        strange = (row.logits.keys() | row.targets.keys()) - self._classes.keys()
        strange |= row.maps.keys() - self._columns.keys()
        if strange:
            raise InputError(f"image {row.id!r}: nothing is kept of {', '.join(sorted(strange))}; expected of "
                             f"{', '.join([*self._classes, *self._columns])}")  # fmt: skip
        cells: dict[str, Any] = {"id": row.id}
        for model, count in self._classes.items():
            cells[f"{model}.target"] = row.targets.get(model)
            cells[f"{model}.logits"] = _logits(row, model, count)
        for name, column in self._columns.items():
            cells[name], cells[f"{name}.scale"] = _map(row, column)
        self._waiting.append(cells)
        self._count += 1
        if len(self._waiting) == self._row_group:
            self._write_group()

    def finish(self) -> Encoded:
        """The whole file; after it no row can be added."""
        if self._waiting:
            self._write_group()
        facts = {
            "columns": [asdict(column) for column in self._columns.values()], "classes": self._classes,
            "row_group": self._row_group, "count": self._count, "groups": self._groups,
        }  # fmt: skip
        self._writer.add_key_value_metadata({_KEY: json.dumps(facts, sort_keys=True, separators=(",", ":"))})
        self._sink.start_part()
        self._writer.close()
        return Encoded(self._sink.data(), self._sink.part_sha256())

    def _write_group(self) -> None:
        columns = [pa.array([cells[kind.name] for cells in self._waiting], kind.type) for kind in self._schema]
        if self._groups:
            self._sink.start_part()
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=self._row_group)
        self._groups.append((self._sink.tell(), self._sink.part_sha256()))
        self._waiting = []


class MapsFile:
    """A maps file opened for reading single rows, from several threads if need be.

    It holds the stream, and closes it when nobody holds the file any more.
    """

    def __init__(self, stream: BinaryIO, size: int, footer: bytes, what: str) -> None:
        """Called by `open`, with a footer that is the receipt's."""
        self._stream, self._what = stream, what
        self._lock = threading.Lock()
        self._group: tuple[int, tuple[str, ...], pa.Table] | None = None
        try:
            self._metadata = pq.read_metadata(pa.BufferReader(MAGIC + footer))
            facts = json.loads(self._metadata.metadata[_KEY])
            self.columns = tuple(Column(**one | {"shape": tuple(one["shape"])}) for one in facts["columns"])
            self.count, self._row_group = int(facts["count"]), int(facts["row_group"])
            self._groups: list[tuple[int, str]] = [(int(end), str(digest)) for end, digest in facts["groups"]]
            self._classes = {str(model): int(count) for model, count in facts["classes"].items()}
        except (*_WHAT_PARSING_RAISES, AttributeError, RecursionError) as error:
            self._refuse(f"its footer is not that of a maps file ({error})")
        if not self._is_consistent(size):
            self._refuse("its footer contradicts itself")
        weakref.finalize(self, stream.close)

    @classmethod
    def open(cls, stream: BinaryIO, stored: StoredFile, what: str) -> "MapsFile":
        """Read and check the footer.

        Args:
            stream: the file; closed when it is refused.
            stored: what its receipt says of it.
            what: the file's name for messages.

        Raises:
            IntegrityError: it is not the file of the receipt.
            StorageError: it cannot be read.
        """
        try:
            return cls(stream, stored.bytes, read_footer(stream, stored, what), what)
        except BaseException:
            stream.close()
            raise

    def row(self, index: int, names: Sequence[str] | None = None) -> Row:
        """One image.

        Args:
            index: of the row in the file.
            names: of the columns that are wanted; None for all.

        Raises:
            InputError: no such row or column.
            IntegrityError: the rows around it are damaged.
            StorageError: they cannot be read.
        """
        if not 0 <= index < self.count:
            raise InputError(f"{self._what} has rows 0 to {self.count - 1}, got {index}")
        known = {column.name: column for column in self.columns}
        wanted = tuple(known) if names is None else tuple(dict.fromkeys(names))
        if not set(wanted) <= set(known):
            raise InputError(f"{self._what} has no columns {sorted(set(wanted) - set(known))}; it has {sorted(known)}")
        group, inner = divmod(index, self._row_group)
        try:
            table = self._table(group, wanted)
            cells = {name: table.column(name)[inner].as_py() for name in table.column_names}
            targets = {model: cells[f"{model}.target"] for model in self._classes}
            return Row(cells["id"], _maps(cells, [known[name] for name in wanted]), _all_logits(cells, self._classes),
                       {model: target for model, target in targets.items() if target is not None})  # fmt: skip
        except _WHAT_PARSING_RAISES as error:
            if isinstance(error, StorageError):
                raise
            self._refuse(f"row {index} cannot be decoded ({error})")

    def _is_consistent(self, size: int) -> bool:
        """Whether the groups are as many as the rows need, and lie in the file one after the other."""
        groups = -(-self.count // self._row_group) if self._row_group > 0 else -1
        ends = [0, *(end for end, _ in self._groups), size]
        found = self._metadata.num_rows, self._metadata.num_row_groups, len(self._groups)
        return found == (self.count, groups, groups) and ends == sorted(ends)

    def _table(self, group: int, names: tuple[str, ...]) -> pa.Table:
        """A group's rows, checked; the last one is kept, for rows are often read one after the other."""
        with self._lock:
            if self._group is None or self._group[:2] != (group, names):
                start = self._groups[group - 1][0] if group else 0
                end, digest = self._groups[group]
                data = read_range(self._stream, start, end, self._what)
                if hashlib.sha256(data).hexdigest() != digest:
                    self._refuse(f"rows {group * self._row_group} and following are not as they were written")
                source = pq.ParquetFile(Stretch(data, start, end), metadata=self._metadata, pre_buffer=False,
                                        page_checksum_verification=True)  # fmt: skip
                always = ["id", *(f"{model}.{part}" for model in self._classes for part in ("target", "logits"))]
                wanted = [*always, *names, *(f"{name}.scale" for name in names)]
                self._group = group, names, source.read_row_group(group, columns=wanted, use_threads=False)
            return self._group[2]

    def _refuse(self, why: str) -> NoReturn:
        raise IntegrityError(f"{self._what} is damaged: {why}")


def _schema(columns: Sequence[Column], classes: Mapping[str, int]) -> pa.Schema:
    kinds = [pa.field("id", pa.string(), nullable=False)]
    for model, count in classes.items():
        kinds += [pa.field(f"{model}.target", pa.int32()), pa.field(f"{model}.logits", pa.binary(4 * count))]
    for column in columns:
        kinds += [pa.field(column.name, pa.binary(column.bytes)), pa.field(f"{column.name}.scale", pa.float32())]
    return pa.schema(kinds)


def _logits(row: Row, model: str, count: int) -> bytes | None:
    values = row.logits.get(model)
    if values is None:
        return None
    if values.dtype != np.float32 or values.shape != (count,):
        found = f"{values.dtype} {values.shape}"
        raise InputError(f"image {row.id!r}: expected {count} float32 logits of {model}, got {found}")
    return values.astype("<f4").tobytes()


def _map(row: Row, column: Column) -> tuple[bytes | None, float | None]:
    values = row.maps.get(column.name)
    if values is None:
        return None, None
    if values.shape != column.shape:
        raise InputError(f"image {row.id!r}: expected a map {column.shape} of {column.name}, got {values.shape}")
    return encode(values, column.form)


def _maps(cells: Mapping[str, Any], columns: Sequence[Column]) -> dict[str, Array]:
    return {
        column.name: decode(cells[column.name], cells[f"{column.name}.scale"], column.shape, column.form)
        for column in columns
        if cells[column.name] is not None
    }


def _all_logits(cells: Mapping[str, Any], classes: Mapping[str, int]) -> dict[str, Array]:
    found = {model: cells[f"{model}.logits"] for model in classes}
    return {model: np.frombuffer(data, "<f4").astype(np.float32) for model, data in found.items() if data is not None}

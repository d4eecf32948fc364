import gc
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explain.archive.maps_file import Column, Encoded, MapsFile, MapsWriter, Row
from explain.archive.quantise import decode, encode
from explain.archive.receipt import StoredFile
from explain.errors import InputError, IntegrityError, StorageError

COLUMNS = (
    Column("vpt", "grad_cam", "grid", "fp16", (2, 3)),
    Column("vpt", "ig", "pixels", "int8", (6, 5)),
    Column("ft", "grad_cam", "grid", "fp16", (2, 3)),
)
CLASSES = {"vpt": 3, "ft": 2}


def rows(count: int) -> list[Row]:
    """Rows of seeded noise; every fifth image failed, every third has no map in pixels."""
    draw = np.random.default_rng(0)
    found = []
    for index in range(count):
        maps = {column.name: draw.standard_normal(column.shape).astype(np.float32) for column in COLUMNS}
        logits = {model: draw.standard_normal(classes).astype(np.float32) for model, classes in CLASSES.items()}
        if index % 3 == 2:
            del maps["vpt.ig.pixels"]
        failed = index % 5 == 4
        found.append(Row(f"画像/{index}.png", *({}, {}, {}) if failed else (maps, logits, {"vpt": index, "ft": 1})))
    return found


def written(given: Sequence[Row]) -> Encoded:
    writer = MapsWriter(COLUMNS, CLASSES)
    for row in given:
        writer.add(row)
    return writer.finish()


def opened(data: bytes, stored: StoredFile) -> MapsFile:
    return MapsFile.open(io.BytesIO(data), stored, "maps/000/000000.parquet")


def stored_of(encoded: Encoded) -> StoredFile:
    return StoredFile.of(encoded.data, encoded.footer_sha256)


def file_of(given: Sequence[Row]) -> MapsFile:
    encoded = written(given)
    return opened(bytes(encoded.data), stored_of(encoded))


def same(one: Row, other: Row) -> bool:
    """Whether two rows are equal bit by bit."""
    return (one.id, one.targets) == (other.id, other.targets) and all(
        a.keys() == b.keys() and all((a[name].dtype, a[name].shape, a[name].tobytes()) ==
                                     (b[name].dtype, b[name].shape, b[name].tobytes()) for name in a)
        for a, b in ((one.maps, other.maps), (one.logits, other.logits))
    )  # fmt: skip


def kept(row: Row) -> Row:
    """A row as the file keeps it."""
    columns = {column.name: column for column in COLUMNS}
    return Row(row.id, {name: decode(*encode(values, columns[name].form), columns[name].shape, columns[name].form)
                        for name, values in row.maps.items()}, row.logits, row.targets)  # fmt: skip


def test_rows_come_back_as_they_were_encoded() -> None:
    given = rows(20)
    file = file_of(given)
    assert (file.count, file.columns) == (20, COLUMNS)
    for index in (19, 0, 7, 8, 4, 16):
        assert same(file.row(index), kept(given[index]))


def test_a_map_that_was_not_kept_is_missing_and_a_failed_image_has_none() -> None:
    file = file_of(rows(5))
    assert set(file.row(2).maps) == {"vpt.grad_cam.grid", "ft.grad_cam.grid"}
    failed = file.row(4)
    assert (failed.id, failed.maps, failed.logits, failed.targets) == ("画像/4.png", {}, {}, {})


def test_only_the_wanted_columns_are_given() -> None:
    file = file_of(rows(3))
    assert list(file.row(1, ["ft.grad_cam.grid"]).maps) == ["ft.grad_cam.grid"]
    assert set(file.row(1).maps) == {column.name for column in COLUMNS}
    assert file.row(1, []).logits["ft"].shape == (2,)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 20])
def test_groups_have_eight_rows_and_the_last_the_rest(count: int) -> None:
    encoded = written(rows(count))
    metadata = pq.read_metadata(pa.BufferReader(encoded.data))
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sizes == [8] * (count // 8) + ([count % 8] if count % 8 else [])
    assert opened(bytes(encoded.data), stored_of(encoded)).count == count


def test_equal_rows_give_equal_bytes_and_others_do_not() -> None:
    one, again, other = written(rows(9)), written(rows(9)), written(rows(9)[::-1])
    assert (bytes(one.data), one.footer_sha256) == (bytes(again.data), again.footer_sha256)
    assert bytes(one.data) != bytes(other.data)


def test_other_programs_read_the_columns(tmp_path: Path) -> None:
    given = rows(9)
    path = tmp_path / "maps.parquet"
    path.write_bytes(written(given).data)
    table = pq.read_table(path, page_checksum_verification=True)
    assert table.column_names == [
        "id", "vpt.target", "vpt.logits", "ft.target", "ft.logits", "vpt.grad_cam.grid", "vpt.grad_cam.grid.scale",
        "vpt.ig.pixels", "vpt.ig.pixels.scale", "ft.grad_cam.grid", "ft.grad_cam.grid.scale",
    ]  # fmt: skip
    found = duckdb.sql(f"""SELECT id, "vpt.target", "vpt.ig.pixels", "vpt.ig.pixels.scale" FROM '{path}' LIMIT 2""")
    name, target, data, scale = found.fetchall()[1]
    assert (name, target) == (given[1].id, 1)
    assert decode(data, scale, (6, 5), "int8").tobytes() == kept(given[1]).maps["vpt.ig.pixels"].tobytes()


def test_one_row_reads_the_footer_and_one_group() -> None:
    class Counted(io.BytesIO):
        reads: list[int]

        def read(self, count: int | None = -1) -> bytes:
            self.reads.append(count or 0)
            return super().read(count)

    encoded = written(rows(800))
    stream = Counted(bytes(encoded.data))
    stream.reads = []
    file = MapsFile.open(stream, stored_of(encoded), "maps")
    file.row(300)
    file.row(303)
    assert len(stream.reads) <= 3 and stream.reads[-1] < 6000


def test_the_stream_is_closed_when_nobody_holds_the_file() -> None:
    encoded = written(rows(1))
    stream = io.BytesIO(bytes(encoded.data))
    file = MapsFile.open(stream, stored_of(encoded), "maps")
    assert not stream.closed
    del file
    gc.collect()
    assert stream.closed


# ---- damage


def test_no_changed_byte_gives_another_map() -> None:
    columns = (Column("vpt", "ig", "grid", "fp16", (2, 2)), Column("vpt", "ig", "pixels", "int8", (3, 4)))
    writer, draw = MapsWriter(columns, {"vpt": 2}, row_group=4), np.random.default_rng(0)
    for index in range(10):
        maps = {column.name: draw.standard_normal(column.shape).astype(np.float32) for column in columns}
        writer.add(Row(f"{index}", maps, {"vpt": draw.standard_normal(2).astype(np.float32)}, {"vpt": index}))
    encoded = writer.finish()
    data, stored = bytes(encoded.data), stored_of(encoded)
    whole = opened(data, stored)
    expected = [whole.row(index) for index in range(10)]
    refused = 0
    for place in range(len(data)):
        for change in (0x01, 0xFF):
            changed = bytearray(data)
            changed[place] ^= change
            try:
                file = opened(bytes(changed), stored)
            except IntegrityError:
                refused += 1
                continue
            for index in range(10):
                try:
                    assert same(file.row(index), expected[index])
                except IntegrityError as error:
                    assert "is damaged" in str(error)
                    refused += 1
    assert refused > len(data)


@pytest.mark.parametrize("index", [0, 12, 19])
def test_a_changed_byte_is_found_in_the_group_of_its_row_and_in_no_other(index: int) -> None:
    encoded = written(rows(20))
    data = bytearray(encoded.data)
    metadata = pq.read_metadata(pa.BufferReader(encoded.data))
    data[metadata.row_group(index // 8).column(6).data_page_offset + 3] ^= 1
    file = opened(bytes(data), stored_of(encoded))
    for other in range(20):
        if other // 8 == index // 8:
            with pytest.raises(IntegrityError, match="not as they were written"):
                file.row(other)
        else:
            assert file.row(other).id == f"画像/{other}.png"


def test_a_file_cut_short_anywhere_is_refused() -> None:
    encoded = written(rows(9))
    data, stored = bytes(encoded.data), stored_of(encoded)
    for length in range(0, len(data), 7):
        stream = io.BytesIO(data[:length])
        with pytest.raises(IntegrityError, match="is damaged: expected .* bytes"):
            MapsFile.open(stream, stored, "maps")
        assert stream.closed


def test_the_file_of_another_receipt_is_refused() -> None:
    one, other = written(rows(9)), written([*rows(8), Row("another", {}, {})])
    stored = stored_of(one)
    with pytest.raises(IntegrityError, match="is damaged"):
        opened(bytes(other.data), stored)
    same_size = stored.model_copy(update={"bytes": len(bytes(other.data))})
    with pytest.raises(IntegrityError, match="footer is not the one in its receipt"):
        opened(bytes(other.data), same_size)
    with pytest.raises(IntegrityError, match="footer is not the one in its receipt"):
        opened(bytes(one.data), StoredFile.of(one.data))


@pytest.mark.parametrize(
    "facts",
    [None, "{", "[]", "{}", '{"columns": 3}',
     json.dumps({"columns": [], "classes": {}, "row_group": 8, "count": 5, "groups": []}),
     json.dumps({"columns": [{"model": "a.b"}], "classes": {}, "row_group": 8, "count": 1, "groups": [[9, ""]]}),
     json.dumps({"columns": [], "classes": {"vpt": 1}, "row_group": 8, "count": 1, "groups": [[50, "0"]]}),
     json.dumps({"columns": [], "classes": {}, "row_group": 0, "count": 1, "groups": [[50, "0"]]}),
     json.dumps({"columns": [], "classes": {}, "row_group": 8, "count": 1, "groups": [[10**18, "0"]]}),
     json.dumps({"columns": [], "classes": {}, "row_group": 8, "count": 1, "groups": [[-5, "0"]]})],
)  # fmt: skip
def test_a_footer_that_its_receipt_vouches_for_is_still_not_believed(facts: str | None) -> None:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, pa.schema([("id", pa.string())]), store_schema=False) as writer:
        writer.write_table(pa.table({"id": ["a"]}))
        if facts is not None:
            writer.add_key_value_metadata({"explain.maps": facts})
    data = bytes(sink.getvalue())
    length = int.from_bytes(data[-8:-4], "little") + 8
    stored = StoredFile.of(data, hashlib.sha256(data[-length:]).hexdigest())
    with pytest.raises(IntegrityError, match="is damaged"):
        opened(data, stored).row(0)


def test_a_disk_that_cannot_be_read_is_not_called_damage() -> None:
    class Broken(io.BytesIO):
        broken = False

        def read(self, count: int | None = -1) -> bytes:
            if self.broken:
                raise OSError(5, "Input/output error")
            return super().read(count)

    encoded = written(rows(9))
    stream = Broken(bytes(encoded.data))
    file = MapsFile.open(stream, stored_of(encoded), "maps")
    stream.broken = True
    with pytest.raises(StorageError, match="maps cannot be read: Input/output error"):
        file.row(0)
    stream.broken = False
    assert file.row(0).id == "画像/0.png"


# ---- what is refused


def test_rows_and_columns_that_are_not_there_are_refused() -> None:
    file = file_of(rows(3))
    for index in (-1, 3):
        with pytest.raises(InputError, match="has rows 0 to 2"):
            file.row(index)
    with pytest.raises(InputError, match="no columns .*nosuch.* it has .*vpt.ig.pixels"):
        file.row(0, ["nosuch"])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Row("a", {"vpt.ig.grid": np.zeros((2, 3), np.float32)}, {}), "nothing is kept of vpt.ig.grid"),
        (Row("a", {"vpt.grad_cam.grid": np.zeros((3, 2), np.float32)}, {}), r"expected a map \(2, 3\)"),
        (Row("a", {"vpt.grad_cam.grid": np.zeros((2, 3))}, {}), "float32 array"),
        (Row("a", {"vpt.grad_cam.grid": np.full((2, 3), np.nan, np.float32)}, {}), "finite"),
        (Row("a", {}, {"lora": np.zeros(3, np.float32)}), "nothing is kept of lora"),
        (Row("a", {}, {}, {"lora": 1}), "nothing is kept of lora"),
        (Row("a", {}, {"vpt": np.zeros(2, np.float32)}), "expected 3 float32 logits of vpt"),
        (Row("a", {}, {"vpt": np.zeros(3)}), "expected 3 float32 logits of vpt"),
    ],
)
def test_what_no_column_is_for_is_refused_and_leaves_no_row(row: Row, text: str) -> None:
    writer = MapsWriter(COLUMNS, CLASSES)
    with pytest.raises(InputError, match=text):
        writer.add(row)
    encoded = writer.finish()
    assert opened(bytes(encoded.data), stored_of(encoded)).count == 0


@pytest.mark.parametrize(
    "change",
    [{"model": "a.b"}, {"method": ""}, {"part": "patches"}, {"form": "int4"}, {"shape": (0, 3)}, {"shape": (3,)}],
)
def test_a_column_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    facts = {"model": "vpt", "method": "ig", "part": "grid", "form": "fp16", "shape": (2, 3)}
    Column(**facts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected"):
        Column(**facts | change)  # type: ignore[arg-type]


def test_a_column_twice_or_of_no_model_is_refused() -> None:
    twice = [COLUMNS[0], COLUMNS[0]]
    for columns, classes, per_group in ((twice, CLASSES, 8), (COLUMNS, {"vpt": 3}, 8), (COLUMNS, CLASSES, 0)):
        with pytest.raises(InputError, match="columns that differ"):
            MapsWriter(columns, classes, per_group)

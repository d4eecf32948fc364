import errno
import os
import random
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain import files
from explain.archive.index import Index
from explain.errors import InputError, IntegrityError, StorageError

MANIFEST = "a" * 64
NAMES = [f"folder/画像 {number:04d}.jpg" for number in range(3000)]


class Ids:
    """Ids in batches, counting how often they were asked for."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self.names, self.asked = names, 0

    def __call__(self) -> Iterator[tuple[int, Sequence[str]]]:
        self.asked += 1
        for first in range(0, len(self.names), 1024):
            yield first, self.names[first : first + 1024]


def opened(path: Path, ids: Ids | None = None, manifest: str = MANIFEST) -> Index:
    return Index.open(path, manifest, ids or Ids())


@pytest.fixture()
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an index is to be; the user's cache lies beside."""
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive" / "index.sqlite"


def test_every_id_has_its_row_and_others_have_none(path: Path) -> None:
    index = opened(path)
    assert [index.row_of(name) for name in (NAMES[0], NAMES[1024], NAMES[-1])] == [0, 1024, 2999]
    for stranger in ("", "nosuch", NAMES[0].upper(), NAMES[0] + " ", "x' OR '1'='1", "%", "\ud800", NAMES[0] + "\0"):
        assert index.row_of(stranger) is None
    assert [found.name for found in path.parent.iterdir()] == ["index.sqlite"]


def test_ids_come_in_the_order_of_the_manifest(path: Path) -> None:
    index = opened(path)
    assert index.ids(1020, 10) == NAMES[1020:1030]
    assert index.ids(2995, 100) == NAMES[2995:]
    assert index.ids(0, 10**30) == NAMES
    assert index.ids(10**30, 5) == index.ids(3000) == index.ids(5, 0) == []
    with pytest.raises(InputError, match="at least 0, got -1"):
        index.ids(-1)


@settings(max_examples=15, deadline=None)
@given(names=st.lists(st.text(max_size=20), unique=True, max_size=30))
def test_ids_may_be_any_text(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    index = opened(tmp_path_factory.mktemp("any") / "index.sqlite", Ids(names))
    assert [index.row_of(name) for name in names] == list(range(len(names)))
    assert index.ids() == names


def test_texts_that_look_alike_are_different_ids(path: Path) -> None:
    names = ["é", "e\u0301", "E\u0301", "a", "A", "ａ", "a\0", "a\0b", " a", "a ", "", "1", "01"]
    assert [opened(path, Ids(names)).row_of(name) for name in names] == list(range(len(names)))


def test_an_index_that_is_there_is_not_made_again(path: Path) -> None:
    opened(path)
    ids = Ids()
    assert opened(path, ids).row_of(NAMES[7]) == 7
    assert ids.asked == 0


def test_a_stranger_is_looked_for_in_the_manifest_once(path: Path) -> None:
    opened(path)
    ids = Ids()
    index = opened(path, ids)
    assert [index.row_of("nosuch"), index.row_of("another")] == [None, None]
    assert ids.asked == 1


def test_the_index_of_another_manifest_is_made_again(path: Path) -> None:
    opened(path, Ids(["x", "y"]), "b" * 64)
    assert opened(path).row_of(NAMES[2]) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4096, random.Random(0).randbytes(50_000), b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 999],
)
def test_what_is_no_index_is_made_again(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert opened(path).row_of(NAMES[-1]) == 2999
    opened(path)
    index = opened(path)
    path.write_bytes(content)  # also while it is in use
    assert index.row_of(NAMES[-1]) == 2999


@pytest.mark.parametrize(
    "sql",
    ["DROP TABLE ids", "DROP INDEX by_id", "DELETE FROM about", "CREATE TABLE more (x)", "UPDATE about SET count = 7",
     "INSERT INTO about SELECT * FROM about", "ALTER TABLE ids ADD COLUMN more",
     "DROP TABLE ids; CREATE VIEW ids AS SELECT 1 AS row, 'x' AS id",
     "CREATE TRIGGER harm AFTER INSERT ON ids BEGIN DELETE FROM ids; END"],
)  # fmt: skip
def test_an_index_of_another_layout_is_made_again(path: Path, sql: str) -> None:
    opened(path)
    with sqlite3.connect(path) as table:
        table.executescript(sql)
    table.close()
    index = opened(path)
    assert (index.row_of(NAMES[-1]), index.ids(2999)) == (2999, NAMES[2999:])


@pytest.mark.parametrize(
    "sql",
    ["UPDATE ids SET id = 'other' WHERE row = 2000", "DELETE FROM ids WHERE row = 2000",
     "DELETE FROM ids WHERE row >= 2000", "UPDATE ids SET row = -1 WHERE row = 2000",
     "INSERT INTO ids VALUES (3000, 'more')", "UPDATE ids SET id = id || '!' WHERE row = 2999"],
)  # fmt: skip
def test_an_index_of_other_content_is_made_again_before_it_says_no(path: Path, sql: str) -> None:
    opened(path)
    with sqlite3.connect(path) as table:
        table.execute(sql)
    table.close()
    index = opened(path)
    assert index.row_of("nosuch") is None
    assert (index.row_of(NAMES[2000]), index.row_of(NAMES[2999]), index.row_of("more")) == (2000, 2999, None)


def test_a_file_cut_short_is_made_again(path: Path) -> None:
    opened(path)
    whole = path.read_bytes()
    for length in (1, 100, 4096, 5000, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        path.write_bytes(whole[:length])
        index = opened(path)
        assert [index.row_of(NAMES[row]) for row in (0, 1500, 2999)] == [0, 1500, 2999]


def test_changed_bytes_never_give_another_answer(path: Path) -> None:
    names, draw = NAMES[:200], random.Random(0)
    opened(path, Ids(names))
    whole = path.read_bytes()
    rebuilt = 0
    for _ in range(200):
        changed = bytearray(whole)
        place = draw.randrange(len(whole))
        for offset in range(draw.choice((1, 1, 30))):
            changed[(place + offset) % len(whole)] = draw.randrange(256)
        path.write_bytes(changed)
        ids = Ids(names)
        index = opened(path, ids)
        for row in draw.sample(range(200), 5):
            assert index.row_of(names[row]) == row
        assert index.ids(50, 200) == names[50:]
        assert index.row_of("nosuch") is None
        rebuilt += ids.asked > 1
    assert rebuilt > 10


def test_a_row_that_the_table_gives_to_another_id_is_not_believed(path: Path) -> None:
    names = NAMES[:200]
    opened(path, Ids(names))
    whole = path.read_bytes()
    rebuilt = 0
    for row in range(0, 200, 2):
        one, other = names[row].encode(), names[row + 1].encode()
        changed = bytearray(whole)
        for text, place in ((one, whole.rfind(other)), (other, whole.rfind(one))):  # in the index, behind the table
            changed[place : place + len(text)] = text
        path.write_bytes(changed)
        ids = Ids(names)
        assert opened(path, ids).row_of(names[row + 1]) == row + 1
        rebuilt += ids.asked > 0
    assert rebuilt > 50


def test_an_id_twice_is_refused(path: Path) -> None:
    with pytest.raises(IntegrityError, match="the image 'b' twice"):
        opened(path, Ids(["a", "b", "c", "b"]))
    assert list(path.parent.iterdir()) == []


def test_in_a_read_only_archive_the_index_goes_into_the_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.write_atomically
    archive = path.parent

    def refuse(to: Path, write: object) -> None:
        if to.parent == archive:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(to, write)  # type: ignore[arg-type]

    monkeypatch.setattr("explain.archive.index.write_atomically", refuse)
    index = opened(path)
    assert index.row_of(NAMES[5]) == 5
    assert index.path.is_relative_to(os.environ["EXPLAIN_CACHE"]) and not path.exists()
    ids = Ids()
    again = opened(path, ids)
    assert (again.path, again.row_of(NAMES[6]), ids.asked) == (index.path, 6, 0)
    index.path.write_bytes(b"damaged")
    assert opened(path, ids).row_of(NAMES[7]) == 7


def test_where_nothing_can_be_written_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="neither as .* nor in the cache .* set EXPLAIN_CACHE"):
        opened(tmp_path / "file" / "index.sqlite")


def test_a_manifest_that_cannot_be_read_is_not_blamed_on_the_index(path: Path) -> None:
    def broken() -> Iterator[tuple[int, Sequence[str]]]:
        raise StorageError("the manifest cannot be read")
        yield

    with pytest.raises(StorageError, match="^the manifest cannot be read$"):
        Index.open(path, MANIFEST, broken)


def test_an_index_is_asked_from_any_thread(path: Path) -> None:
    index = opened(path)
    found: list[int | None] = []
    threads = [threading.Thread(target=lambda: found.append(index.row_of(NAMES[9]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [9] * 4


def test_a_hundred_thousand_ids_take_no_time_worth_mentioning(path: Path) -> None:
    """Bounds ten times what was measured, so that a busy machine passes and a lookup that reads everything does not."""
    spent = []
    names = [f"folder/{number:08d}.jpg" for number in range(100_000)]
    began = time.perf_counter()
    opened(path, Ids(names))
    assert time.perf_counter() - began < 1
    for number in range(0, 100_000, 1000):
        began = time.perf_counter()
        assert opened(path, Ids([])).row_of(names[number]) == number
        spent.append(time.perf_counter() - began)
    assert statistics.median(spent) < 0.001

"""Index: the row of an image by its id, in an SQLite file that can be made again from the manifest at any time.

The manifest is the truth. A hit is checked in a second place of the file, the first miss against the whole manifest,
and what is damaged, of another manifest or of another layout is made again. Each question opens the file for itself,
which takes a fraction of a millisecond, so an index can be asked from any thread and nothing has to be closed.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from explain.errors import InputError, IntegrityError, StorageError
from explain.files import cache_folder, write_atomically

T = TypeVar("T")

Batches = Callable[[], Iterator[tuple[int, Sequence[str]]]]
"""Every id in order: (row of the first, ids) of one batch after the other."""

_TABLES = ("CREATE TABLE about (manifest TEXT NOT NULL, count INTEGER NOT NULL, seal TEXT NOT NULL)",
           "CREATE TABLE ids (row INTEGER PRIMARY KEY, id TEXT NOT NULL)")  # fmt: skip
_BY_ID = "CREATE UNIQUE INDEX by_id ON ids (id)"
_ROW = ("SELECT row, (SELECT id FROM ids NOT INDEXED WHERE row = a.row), (SELECT count FROM about) "
        "FROM ids AS a INDEXED BY by_id WHERE id = ?")  # fmt: skip
_IDS = ("SELECT row, id, (SELECT row FROM ids INDEXED BY by_id WHERE id = a.id) FROM ids AS a NOT INDEXED "
        "WHERE row >= ? AND row < ? ORDER BY row")  # fmt: skip


class _DamagedError(ValueError):
    """The file is not what was written."""


class Index:
    """Rows by id; `Index.open` makes the file where it is missing.

    Args:
        path: the SQLite file.
        manifest_sha256: what tells the manifest from others.
        ids: its ids.
    """

    def __init__(self, path: Path, manifest_sha256: str, ids: Batches) -> None:
        self.path = path
        self._manifest, self._ids = manifest_sha256, ids
        self._is_checked = False

    @classmethod
    def open(cls, path: Path, manifest_sha256: str, ids: Batches) -> "Index":
        """The index at `path`, or, where nothing can be written there, in the user's cache.

        Args:
            path: the SQLite file, most often in the archive's folder.
            manifest_sha256: what tells the manifest from others.
            ids: its ids in order, in batches.

        Raises:
            IntegrityError: the manifest has an id twice.
            StorageError: the index is missing and can be written in neither place.
        """
        index = cls(path, manifest_sha256, ids)
        if not path.is_file():  # one that is there is looked at with each question
            index._make()
        return index

    def row_of(self, name: str) -> int | None:
        """Row of an image in the manifest, None when there is no such id."""
        try:
            name.encode()
        except UnicodeEncodeError:  # half a character, which no manifest can hold
            return None
        row = self._ask(lambda table: _row_of(table, name))
        if row is None and not self._is_checked:
            if not self._ask(self._is_whole):
                self._make()
            self._is_checked = True
            row = self._ask(lambda table: _row_of(table, name))
        return row

    def ids(self, offset: int = 0, limit: int = 100) -> list[str]:
        """Some ids in the order of the manifest.

        Args:
            offset: row of the first.
            limit: how many at most.

        Raises:
            InputError: a negative number.
        """
        if offset < 0 or limit < 0:
            raise InputError(f"expected an offset and a limit of at least 0, got {offset} and {limit}")
        return self._ask(lambda table: _some_ids(table, offset, limit))

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """An answer; when the file is damaged, from a new one."""
        try:
            return self._answer(question)
        except (sqlite3.DatabaseError, _DamagedError):
            self._make()
        try:
            return self._answer(question)
        except (sqlite3.DatabaseError, _DamagedError) as error:
            raise IntegrityError(f"{self.path} is damaged as soon as it is written ({error}); check the disk") from None

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        with closing(_opened(self.path)) as table:
            if _count(table, self._manifest) is None:
                raise _DamagedError("it is of another manifest")
            return question(table)

    def _is_whole(self, table: sqlite3.Connection) -> bool:
        """Whether it has the ids of the manifest and no others."""
        count = 0
        for first, names in self._ids():
            if first != count or _some_ids(table, first, len(names)) != list(names):
                return False
            count += len(names)
        return count == _count(table, self._manifest)

    def _fits(self, path: Path) -> bool:
        try:
            with closing(_opened(path)) as table:
                return _count(table, self._manifest) is not None
        except sqlite3.DatabaseError:
            return False

    def _make(self) -> None:
        """Write the file, at its path or else in the cache, where it may be already."""
        try:
            self._write(self.path)
        except StorageError:  # from reading the manifest
            raise
        except (OSError, sqlite3.OperationalError) as first:
            try:
                kept = cache_folder("archives") / f"{self._manifest[:32]}.sqlite"
                if kept == self.path or not self._fits(kept):
                    self._write(kept)
            except (OSError, RuntimeError, sqlite3.OperationalError) as second:  # RuntimeError: there is no home
                raise StorageError(f"the index of images can be written neither as {self.path} ({first}) nor in the "
                                   f"cache ({second}); set EXPLAIN_CACHE to a folder that can be written") from None
            self.path = kept

    def _write(self, path: Path) -> None:
        write_atomically(path, lambda temporary: _fill(temporary, self._manifest, self._ids))
        self._is_checked = True


def _opened(path: Path) -> sqlite3.Connection:
    """The file, for reading only and without a lock."""
    if not path.is_file():  # a pipe would wait for ever
        raise sqlite3.OperationalError(f"{path} is no file")
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _count(table: sqlite3.Connection, manifest_sha256: str) -> int | None:
    """Ids in the file, None unless it has our tables and is of this manifest."""
    layout = table.execute("SELECT sql FROM sqlite_schema ORDER BY rowid").fetchall()
    if layout != [(sql,) for sql in (*_TABLES, _BY_ID)]:
        return None
    about = table.execute("SELECT manifest, count, seal FROM about").fetchall()
    if len(about) != 1 or about[0] != _about(manifest_sha256, about[0][1]):
        return None
    return int(about[0][1])


def _about(manifest_sha256: str, count: int) -> tuple[str, int, str]:
    return manifest_sha256, count, hashlib.sha256(f"{manifest_sha256} {count}".encode()).hexdigest()


def _row_of(table: sqlite3.Connection, name: str) -> int | None:
    found = table.execute(_ROW, (name,)).fetchone()
    if found is None:
        return None
    row, again, count = found
    if again != name or not 0 <= row < count:
        raise _DamagedError(f"row {row} has another id")
    return int(row)


def _some_ids(table: sqlite3.Connection, offset: int, limit: int) -> list[str]:
    (count,) = table.execute("SELECT count FROM about").fetchone()
    end = min(count, offset + limit)
    if offset >= end:
        return []
    found = table.execute(_IDS, (offset, end)).fetchall()
    if [(row, again) for row, _, again in found] != [(row, row) for row in range(offset, end)]:
        raise _DamagedError(f"rows {offset} to {end - 1} contradict themselves")
    return [name for _, name, _ in found]


def _fill(path: Path, manifest_sha256: str, ids: Batches) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as table:
        table.execute("PRAGMA journal_mode = OFF")  # the file counts once it is renamed, so nothing is rolled back
        table.execute("PRAGMA synchronous = OFF")
        table.execute("BEGIN")
        for sql in _TABLES:
            table.execute(sql)
        count = 0
        for first, names in ids():
            table.executemany("INSERT INTO ids VALUES (?, ?)", enumerate(names, first))
            count += len(names)
        table.execute("INSERT INTO about VALUES (?, ?, ?)", _about(manifest_sha256, count))
        try:
            table.execute(_BY_ID)
        except sqlite3.IntegrityError:
            twice = table.execute("SELECT id FROM ids GROUP BY id HAVING count(*) > 1 LIMIT 1").fetchone()
            raise IntegrityError(f"the manifest has the image {twice[0]!r} twice; ids must differ") from None
        table.execute("COMMIT")

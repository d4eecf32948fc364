"""Index: one row per image in DuckDB, to filter, sort and page through; as quick at 1,000,000 images as at 100.

Its columns are those of an archive's table (`explain.batch.numbers`) and

    place       0 to count - 1, in the order of the data set: what a row is called here
    part        "train", "val" or "test" where the split is known, else null
    gap         how far apart the two compared models' confidences are, 0-1
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from explain.errors import UnknownNameError

Rows = npt.NDArray[np.int64]

ALL = "all"
"""No filter."""

OUTCOMES = (ALL, "only_first", "only_second", "both_wrong", "both_right", "disagree", "failed")
"""What came of an image, by the two compared models; "failed" images have no maps."""

KEPT_QUERIES = 16
MEMORY = "1GB"


@dataclass(frozen=True)
class Query:
    """Which images, in which order.

    Args:
        outcome: of `OUTCOMES`.
        label: true class; None for all.
        answered: (model, class) that it must have given; None for any.
        part: "train", "val", "test"; "" for all.
        confidence: (model, low, high) that its confidence must lie in, 0-1; None for any.
        contains: text in the id, whatever its case.
        among: ids that alone are meant; None for all.
        without: ids that are not meant.
        sort: column; "" for the order of the data set.
        descending: largest first. An image without the number always comes last.
    """

    outcome: str = ALL
    label: int | None = None
    answered: tuple[str, int] | None = None
    part: str = ""
    confidence: tuple[str, float, float] | None = None
    contains: str = ""
    among: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    sort: str = ""
    descending: bool = False


class Index:
    """The images; safe to use from all threads.

    Args:
        tables: Arrow tables with at least "id" and "label", in order; an image of a later one that an earlier one has
            is left out.
        compared: the two models whose answers `OUTCOMES` are about.
        parts: id -> part.
    """

    def __init__(self, tables: Sequence[pa.Table], compared: tuple[str, str], parts: Mapping[str, str]) -> None:
        self.compared = compared
        self._connection = duckdb.connect(config={"threads": 2, "memory_limit": MEMORY})
        self._found: OrderedDict[Query, Rows] = OrderedDict()
        self._lock = threading.Lock()
        self._create(tables, parts)

    def _create(self, tables: Sequence[pa.Table], parts: Mapping[str, str]) -> None:
        run = self._connection
        for number, table in enumerate(tables):
            run.register(f"part{number}", table)
            known = "".join(f" AND id NOT IN (SELECT id FROM part{earlier})" for earlier in range(number))
            those = f"SELECT * FROM part{number} WHERE true{known}"
            before = "FROM all_images UNION ALL BY NAME " if number else ""
            run.execute(f"CREATE OR REPLACE TABLE all_images AS {before}{those}")
        for number in range(len(tables)):
            run.unregister(f"part{number}")
        run.register("parts", pa.table({"name": list(parts), "part": list(parts.values())},
                                       schema=pa.schema([("name", pa.string()), ("part", pa.string())])))  # fmt: skip
        columns = {name for name, *_ in run.execute("DESCRIBE all_images").fetchall()}
        first, second = (f"{model}_confidence" for model in self.compared)
        gap = f'abs("{first}" - "{second}")' if {first, second} <= columns else "NULL::FLOAT"
        run.execute(
            f"CREATE TABLE images AS SELECT row_number() OVER () - 1 AS place, all_images.*, parts.part, {gap} AS gap "
            "FROM all_images LEFT JOIN parts ON id = name ORDER BY place"
        )
        run.execute("DROP TABLE all_images")
        run.unregister("parts")

    @cached_property
    def columns(self) -> dict[str, str]:
        """Name of every column -> its type in SQL."""
        return {name: kind for name, kind, *_ in self._run("DESCRIBE images").fetchall()}

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """Columns that one may want to sort by: measured numbers, not counts of classes and pixels."""
        return tuple(name for name, kind in self.columns.items() if kind in ("FLOAT", "DOUBLE"))

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Parts of the data set that images here belong to, where that is known."""
        return tuple(part for part in self.counts("part") if part is not None)

    @cached_property
    def count(self) -> int:
        """Images in all."""
        return int(self._run("SELECT count(*) FROM images").fetchone()[0])

    def find(self, query: Query = Query()) -> Rows:
        """Places of the images that a query means, in its order, int64 (n,)."""
        with self._lock:
            if query in self._found:
                self._found.move_to_end(query)
                return self._found[query]
        where, values = self._where(query)
        rows = self._run(f"SELECT place FROM images {where} ORDER BY {self._order(query)}", values).fetchnumpy()
        found = np.ma.filled(rows["place"]).astype(np.int64)
        with self._lock:
            self._found[query] = found
            while len(self._found) > KEPT_QUERIES:
                self._found.popitem(last=False)
        return found

    def fetch(self, rows: Sequence[int] | Rows, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """What is known of some images, in the order of `rows`.

        Args:
            rows: their places.
            columns: names; None for all.
        """
        wanted = [int(row) for row in rows]
        names = ", ".join(map(self._quoted, columns)) if columns is not None else "*"
        result = self._run(f"SELECT place, {names} FROM images WHERE place IN (SELECT unnest(?::BIGINT[]))", [wanted])
        heads = [name for name, *_ in result.description]
        found = {row[0]: dict(zip(heads, row, strict=True)) for row in result.fetchall()}
        return [found[row] for row in wanted]

    def row_of(self, name: str) -> int | None:
        """Place of an image by its id; None when it is not here."""
        found = self._run("SELECT place FROM images WHERE id = ?", [name]).fetchone()
        return None if found is None else int(found[0])

    def place_of(self, query: Query, row: int | None) -> int | None:
        """Where a row is among those of a query, from 0; None when it is not among them."""
        at = np.flatnonzero(self.find(query) == row) if row is not None else ()
        return int(at[0]) if len(at) else None

    def counts(self, column: str, query: Query = Query()) -> dict[Any, int]:
        """How many of a query's images have each value of a column."""
        where, values = self._where(query)
        name = self._quoted(column)
        rows = self._run(f"SELECT {name}, count(*) FROM images {where} GROUP BY 1 ORDER BY 1", values).fetchall()
        return {value: int(count) for value, count in rows}

    def size(self, query: Query) -> int:
        """How many images a query means."""
        where, values = self._where(query)
        return int(self._run(f"SELECT count(*) FROM images {where}", values).fetchone()[0])

    def outcomes(self, query: Query = Query()) -> dict[str, int]:
        """How many of a query's images, were they of any outcome, have each of `OUTCOMES` that can be told here."""
        where, values = self._where(replace(query, outcome=ALL))
        told = [outcome for outcome in OUTCOMES if self.tells(outcome)]
        counted = ", ".join(f"count(*) FILTER (WHERE {self._outcome(outcome)})" for outcome in told)
        (counts,) = self._run(f"SELECT {counted} FROM images {where}", values).fetchall()
        return dict(zip(told, counts, strict=True))

    def tells(self, outcome: str) -> bool:
        """Whether an outcome can be told here: images without labels are neither right nor wrong."""
        if outcome in (ALL, "failed"):
            return True
        kind = "prediction" if outcome == "disagree" else "correct"
        first, second = self.compared
        return first != second and {f"{first}_{kind}", f"{second}_{kind}"} <= self.columns.keys()

    def values(self, column: str, query: Query = Query()) -> npt.NDArray[np.float64]:
        """The numbers of a column over a query's images, those that are there, float64 (n,)."""
        where, values = self._where(query)
        rows = self._run(f"SELECT {self._quoted(column)} AS x FROM images {where}", values).fetchnumpy()["x"]
        return np.asarray(np.ma.compressed(rows) if np.ma.isMaskedArray(rows) else rows, dtype=np.float64)

    def _run(self, sql: str, values: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        return self._connection.cursor().execute(sql, values)  # a cursor per call: one serves one thread at a time

    def _quoted(self, column: str) -> str:
        if column not in self.columns:
            raise UnknownNameError(f"the index has no column {column!r}; it has {', '.join(self.columns)}")
        return '"' + column.replace('"', '""') + '"'

    def _order(self, query: Query) -> str:
        if not query.sort:
            return "place DESC" if query.descending else "place"
        return f"{self._quoted(query.sort)} {'DESC' if query.descending else 'ASC'} NULLS LAST, place"

    def _where(self, query: Query) -> tuple[str, list[Any]]:
        """The condition of a query in SQL, and its values."""
        parts: list[str] = []
        values: list[Any] = []
        if query.outcome != ALL:
            parts.append(self._outcome(query.outcome))
        if query.label is not None:
            parts.append("label = ?")
            values.append(query.label)
        if query.answered is not None:
            parts.append(f"{self._quoted(f'{query.answered[0]}_prediction')} = ?")
            values.append(query.answered[1])
        if query.part:
            parts.append("part = ?")
            values.append(query.part)
        if query.confidence is not None:
            model, low, high = query.confidence
            parts.append(f"{self._quoted(f'{model}_confidence')} BETWEEN ? AND ?")
            values += [low, high]
        if query.contains:
            parts.append("contains(lower(id), ?)")
            values.append(query.contains.lower())
        if query.among is not None:
            parts.append("id IN (SELECT unnest(?::VARCHAR[]))")
            values.append(list(query.among))
        if query.without:
            parts.append("id NOT IN (SELECT unnest(?::VARCHAR[]))")
            values.append(list(query.without))
        return (f"WHERE {' AND '.join(parts)}" if parts else ""), values

    def _outcome(self, outcome: str) -> str:
        if outcome == ALL:
            return "true"
        if outcome == "failed":
            return "status <> 'ok'" if "status" in self.columns else "false"
        if outcome not in OUTCOMES:
            raise UnknownNameError(f"no outcome {outcome!r}; known: {', '.join(OUTCOMES)}")
        if outcome == "disagree":
            first, second = (self._quoted(f"{model}_prediction") for model in self.compared)
            return f"{first} <> {second}"
        first, second = (self._quoted(f"{model}_correct") for model in self.compared)
        return {
            "both_right": f"{first} AND {second}", "both_wrong": f"NOT {first} AND NOT {second}",
            "only_first": f"{first} AND NOT {second}", "only_second": f"{second} AND NOT {first}",
        }[outcome]  # fmt: skip

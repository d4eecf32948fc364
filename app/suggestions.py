"""Suggestions: the few images that tell most about two models, each found by a number, and where more of them are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.index import Query
from app.opening import Opened

MOST = 5


@dataclass(frozen=True)
class Suggestion:
    """One image, and the query whose first image it is.

    Args:
        kind: "both_wrong", "gap", "only_first", "only_second", "unlike" or "unsure".
        query: the gallery's filters and order.
        row: what the index knows of the image.
        count: images that the query means.
    """

    kind: str
    query: Query
    row: dict[str, Any]
    count: int


def likeness_column(opened: Opened, method: str) -> str | None:
    """The index's column of how alike the two compared models' maps are; None where they were not compared."""
    first, second = opened.compared
    names = (f"agreement_{method}_{first}_{second}", f"agreement_{method}_{second}_{first}")
    return next((name for name in names if name in opened.index.columns), None)


def compared_methods(opened: Opened) -> list[str]:
    """Methods by which the two compared models' maps were held against each other."""
    methods = opened.archive.methods if opened.archive is not None else ()
    return [method for method in methods if likeness_column(opened, method) is not None]


def suggest(opened: Opened, part: str, method: str | None) -> list[Suggestion]:
    """One image of every kind that there is, each image once, `MOST` at most.

    Args:
        opened: what the viewer was started on.
        part: only images of this part of the split; "" for all.
        method: whose maps are held against each other; None where none were.
    """
    found: dict[str, Suggestion] = {}
    for kind, query in _queries(opened, part, method):
        rows = opened.index.find(query)
        row = opened.index.fetch(rows[:1])[0] if len(rows) else {}
        if row.get(query.sort) is not None and row["id"] not in found and len(found) < MOST:
            found[row["id"]] = Suggestion(kind, query, row, len(rows))
    return list(found.values())


def _queries(opened: Opened, part: str, method: str | None) -> Iterator[tuple[str, Query]]:
    first, second = opened.compared
    if first == second or not {f"{first}_confidence", f"{second}_confidence"} <= set(opened.index.columns):
        return
    yield "both_wrong", Query("both_wrong", part=part, sort=f"{first}_confidence", descending=True)
    yield "gap", Query("disagree", part=part, sort="gap", descending=True)
    yield "only_first", Query("only_first", part=part, sort=f"{first}_confidence", descending=True)
    yield "only_second", Query("only_second", part=part, sort=f"{second}_confidence", descending=True)
    column = likeness_column(opened, method) if method is not None else None
    if column is not None:
        yield "unlike", Query("both_right", part=part, sort=column)
    yield "unsure", Query(part=part, sort=f"{first}_confidence")

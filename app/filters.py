"""Filters: which images a page steps through. One choice for all pages, so that what was found in the gallery is what
the keys go through on the others."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from app import state
from app.index import ALL, OUTCOMES, Query
from app.opening import Opened
from explain.data.base import PARTS
from explain.reviews import VERDICTS

OUTCOME, CLASS, PART, CONTAINS, TAG, VERDICT = "outcome", "class", "part", "find", "tag", "verdict"
BY, ANSWER, LOW, HIGH = "by", "answer", "low", "high"
SORT, DESCENDING, PAGE = "sort", "down", "page"

EVERY_CLASS = "*"
"""No filter; a class may well be called "all"."""

UNREVIEWED = "none"
"""A verdict that nobody gave: the images without a review."""

FILTERS = {
    "outcome": ((OUTCOME,), ("outcome",)), "class": ((CLASS,), ("label",)), "find": ((CONTAINS,), ("contains",)),
    "part": ((PART,), ("part",)), "answer": ((ANSWER,), ("answered",)), "confidence": ((LOW, HIGH), ("confidence",)),
    "review": ((TAG, VERDICT), ("among", "without")),
}  # fmt: skip
"""Name of a filter -> its keys in the link, and the parts of a query that it makes."""

FILTER_KEYS = tuple(key for keys, _ in FILTERS.values() for key in keys)
KEYS = (*FILTER_KEYS, BY, SORT, DESCENDING)


def chosen(opened: Opened) -> Query:
    """The query that the link and the session say; every part of it is linked on the page that asks."""
    outcome = state.choose(OUTCOME, outcomes(opened), ALL)
    part = state.choose(PART, ("", *PARTS), "")
    contains = state.choose_text(CONTAINS)
    model = state.choose(BY, answering(opened), opened.compared[0])
    answer, label = _class(opened, ANSWER), _class(opened, CLASS)
    low, high = sorted(state.choose_number(key, 0, 100, plain) for key, plain in ((LOW, 0), (HIGH, 100)))
    tag, verdict = state.choose_text(TAG), state.choose(VERDICT, (*VERDICTS, UNREVIEWED), "")
    among, without = reviewed(opened, tag, verdict)
    return Query(
        outcome=outcome, label=label, part=part, contains=contains, among=among, without=without,
        answered=None if answer is None else (model, answer),
        confidence=None if (low, high) == (0, 100) else (model, low / 100, high / 100),
        sort=state.choose(SORT, sortable(opened), ""), descending=state.choose_flag(DESCENDING),
    )  # fmt: skip


def _class(opened: Opened, key: str) -> int | None:
    name = state.choose(key, (EVERY_CLASS, *opened.class_names), EVERY_CLASS)
    return None if name == EVERY_CLASS else opened.class_names.index(name)


def outcomes(opened: Opened) -> list[str]:
    """Outcomes that can be told of the images here."""
    return [outcome for outcome in OUTCOMES if opened.index.tells(outcome)]


def answering(opened: Opened) -> list[str]:
    """Models whose answers are recorded."""
    return [model for model in opened.models if f"{model}_prediction" in opened.index.columns]


def sortable(opened: Opened) -> list[str]:
    """Columns to sort by, "" for the order of the data set; what one asks for most comes first."""
    numbers = [name for name in opened.index.numeric if name != "gap"]
    agreements = [name for name in numbers if name.startswith("agreement_")]
    confidences = [name for name in numbers if name.endswith("_confidence")]
    rest = [name for name in numbers if name not in {*agreements, *confidences}]
    return ["", "id", *agreements, "gap", *confidences, *rest]


def reviewed(opened: Opened, tag: str, verdict: str) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Ids of the images that alone are meant, None for all, and of those that are not, by what a person said of them.

    Args:
        opened: whose reviews.
        tag: that the review has; "" for any.
        verdict: that it gives; "" for any, `UNREVIEWED` for images without a review.
    """
    if not tag and not verdict:
        return None, ()
    found = opened.reviews.by_sample() if opened.reviews else {}
    if verdict == UNREVIEWED:
        return (() if tag else None), tuple(found)
    return tuple(name for name, review in found.items()
                 if (not tag or tag in review.tags) and (not verdict or review.verdict == verdict)), ()  # fmt: skip


def active(query: Query) -> list[str]:
    """Names of the filters that leave something out."""
    return [name for name in FILTERS if relaxed(query, name) != query]


def relaxed(query: Query, name: str) -> Query:
    """A query without one of its filters."""
    plain: dict[str, Any] = {part: getattr(Query(), part) for part in FILTERS[name][1]}
    return replace(query, **plain)


def reset(names: Sequence[str] = tuple(FILTERS)) -> None:
    """Drop some filters, in a callback."""
    for key in (key for name in names for key in FILTERS[name][0]):
        st.session_state.pop(key, None)


def linked() -> dict[str, Any]:
    """The filters and the order as a link to another page takes them along, without what is as it would be anyway."""
    plain = {OUTCOME: ALL, CLASS: EVERY_CLASS, ANSWER: EVERY_CLASS, LOW: 0, HIGH: 100, DESCENDING: False}
    session = st.session_state
    found = {key: session[key] for key in KEYS if key in session and session[key] != plain.get(key, "")}
    if not found.keys() & {ANSWER, LOW, HIGH}:
        found.pop(BY, None)
    return found

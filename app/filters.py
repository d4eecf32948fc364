"""Filters: which images a page steps through. One choice for all pages, so that what was found in the gallery is what
the keys go through on the others."""

from app import state
from app.index import ALL, OUTCOMES, Query
from app.opening import Opened
from explain.data.base import PARTS
from explain.reviews import VERDICTS

OUTCOME, CLASS, PART, CONTAINS, TAG, VERDICT = "outcome", "class", "part", "find", "tag", "verdict"
SORT, DESCENDING = "sort", "down"
KEYS = (OUTCOME, CLASS, PART, CONTAINS, TAG, VERDICT, SORT, DESCENDING)

EVERY_CLASS = "*"
"""No filter; a class may well be called "all"."""


def chosen(opened: Opened) -> Query:
    """The query that the link and the session say; every part of it is linked on the page that asks."""
    names = (EVERY_CLASS, *opened.class_names)
    outcome = state.choose(OUTCOME, OUTCOMES, ALL)
    class_name = state.choose(CLASS, names, EVERY_CLASS)
    part = state.choose(PART, ("", *PARTS), "")
    contains = state.choose_text(CONTAINS)
    tag, verdict = state.choose_text(TAG), state.choose(VERDICT, VERDICTS, "")
    sort = state.choose(SORT, ("", "id", *opened.index.numeric), "")
    descending = state.choose_flag(DESCENDING)
    return Query(
        outcome=outcome, label=None if class_name == EVERY_CLASS else opened.class_names.index(class_name), part=part,
        contains=contains, among=reviewed(opened, tag, verdict), sort=sort, descending=descending,
    )  # fmt: skip


def reviewed(opened: Opened, tag: str, verdict: str) -> tuple[str, ...] | None:
    """Ids of the images that a person gave a tag and a verdict; None where neither is asked for."""
    if not tag and not verdict:
        return None
    found = opened.reviews.by_sample() if opened.reviews else {}
    return tuple(name for name, review in found.items()
                 if (not tag or tag in review.tags) and (not verdict or review.verdict == verdict))  # fmt: skip

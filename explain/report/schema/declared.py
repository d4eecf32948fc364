"""Schema of what people have to say, because no program can know it."""

from typing import Literal

from explain.record import Record


class Stated(Record):
    """One point that somebody has to state: its key, its title in words, and what was said; None where nothing was."""

    name: str
    title: str
    text: str | None


class Stamp(Record):
    """A signature box of the cover: whose, and on which day; empty where it is signed by hand."""

    role: Literal["prepared", "checked", "approved"]
    name: str
    date: str


class Control(Record):
    """What a controlled document says of itself; empty text where nobody said it.

    Args:
        valid_until: day on which the decision expires, ISO 8601.
    """

    product: str
    line: str
    revision: str
    owner: str
    valid_until: str
    stamps: tuple[Stamp, ...]


class Revision(Record):
    """One line of the document's history."""

    revision: str
    date: str
    who: str
    what: str


class Term(Record):
    """A term of the report, the same in the other language, and what it means."""

    term: str
    other: str
    meaning: str

"""Schema of the crosswalk: which points of a rule or standard the report speaks to."""

from typing import Literal

from explain.record import Record


class CrosswalkRow(Record):
    """A point of a framework.

    Args:
        clause: as the framework numbers it.
        asks: what it asks for, in our words.
        sections: keys of the sections of this report that speak to it.
        state: "covered" where all of them have data, "partly" where some do, "missing" where none does.
    """

    clause: str
    asks: str
    sections: tuple[str, ...]
    state: Literal["covered", "partly", "missing"]
    state_label: str


class Framework(Record):
    """A rule, framework or standard; `caveat` is what must be known before the table is used, "" for nothing."""

    name: str
    edition: str
    caveat: str
    rows: tuple[CrosswalkRow, ...]


class Crosswalk(Record):
    """The self-assessment; `statement` says that it is one."""

    statement: str
    frameworks: tuple[Framework, ...]

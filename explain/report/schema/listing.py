"""Schema of a page that lists things: what changed between two reports, or the reports of many runs."""

from explain.record import Record


class ListingTable(Record):
    """A table: its heading, names of the columns, their relative widths, and rows of text."""

    title: str
    heads: tuple[str, ...]
    widths: tuple[float, ...]
    rows: tuple[tuple[str, ...], ...]


class Listing(Record):
    """A titled page of tables; `created` is an ISO 8601 time, so that the same listing gives the same file."""

    lang: str
    created: str
    title: str
    lead: str
    tables: tuple[ListingTable, ...]

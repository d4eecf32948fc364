"""Schema of what it takes to make the report again."""

from explain.record import Record
from explain.report.schema.words import Named


class Attachment(Record):
    """A file inside the PDF that follows from the evidence."""

    file: str
    sha256: str
    bytes: int
    description: str


class Reproducing(Record):
    """How to make the runs and this file again.

    Args:
        commands: in order, for a terminal.
        environment: what decides the bytes: engine, fonts with their SHA-256.
        determinism: how far the same command gives the same numbers, in words.
        attachments: the files inside the PDF except `evidence.json`, which cannot hold its own hash.
    """

    commands: tuple[str, ...]
    environment: tuple[Named, ...]
    determinism: str
    attachments: tuple[Attachment, ...]

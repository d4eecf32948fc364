"""Schema of what it takes to make the report again."""

from explain.record import Record
from explain.report.schema.words import Named


class Attachment(Record):
    """A file inside the PDF that follows from the evidence."""

    file: str
    sha256: str
    bytes: int
    description: str


class TrainedWith(Record):
    """The software that trained some of the arms.

    Args:
        arms: their labels.
        code_sha256: of this package's modules.
        commit: of the checkout that they lay in, ending in "-dirty" where they differed from it; None where installed.
        packages_sha256: of `packages.txt` in the run's folder, which lists what was installed.
    """

    arms: tuple[str, ...]
    code_sha256: str
    commit: str | None
    packages_sha256: str


class Reproducing(Record):
    """How to make the runs and this file again.

    Args:
        commands: in order, for a terminal.
        environment: what decides the bytes: engine, fonts with their SHA-256.
        software: what trained the arms; without those whose runs do not say.
        determinism: how far the same command gives the same numbers, in words.
        attachments: the files inside the PDF except `evidence.json`, which cannot hold its own hash.
    """

    commands: tuple[str, ...]
    environment: tuple[Named, ...]
    software: tuple[TrainedWith, ...]
    determinism: str
    attachments: tuple[Attachment, ...]

"""Schema of the images."""

from explain.record import Record


class ClassCount(Record):
    """Images of one class per split."""

    name: str
    train: int
    val: int
    test: int
    unused: int
    total: int


class RejectedFile(Record):
    """A file that could not be used."""

    file: str
    reason: str
    detail: str


class Data(Record):
    """The images: where from, how many, which hash."""

    name: str
    source: str
    licence: str
    fingerprint: str
    split_hash: str
    class_names: tuple[str, ...]
    counts: tuple[ClassCount, ...]
    rejected: tuple[RejectedFile, ...]

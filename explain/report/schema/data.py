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


class LeakRow(Record):
    """A held-out image and the training image that it is a copy of."""

    part: str
    held_out: str
    train: str
    kind: str


class Leaks(Record):
    """Held-out images that are copies of training images; `rows` are the first ones, `more` the number left out."""

    val_images: int
    test_images: int
    val_leaked: int
    test_leaked: int
    sentence: str
    rows: tuple[LeakRow, ...]
    more: int


class Data(Record):
    """The images: where from, how many, which hash.

    Args:
        leaks: copies of training images among the others; None where nobody looked.
        capture: how they were taken, as stated; "" where nobody said.
        known_gaps: what they do not cover, as stated.
        total: counts of all classes together.
    """

    name: str
    source: str
    licence: str
    fingerprint: str
    split_hash: str
    class_names: tuple[str, ...]
    counts: tuple[ClassCount, ...]
    total: ClassCount
    rejected: tuple[RejectedFile, ...]
    leaks: Leaks | None
    capture: str
    known_gaps: tuple[str, ...]

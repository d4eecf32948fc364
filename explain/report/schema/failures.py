"""Schema of the failure cases."""

from explain.record import Record
from explain.report.schema.panels import Answer


class Failure(Record):
    """A test image that the decided arm answers wrong.

    Args:
        answers: of every compared arm.
        panel: number of its panel, from 1; None where it is not among the panels.
        background: method -> share 0-1 of the map outside the region that decides the label; empty without a region.
        verdict: the reviewer's, in words; "" where nobody looked.
        cause, note: the reviewer's words.
        stale: the review was of other weights or another file than those reported on.
    """

    id: str
    truth: str
    answers: tuple[Answer, ...]
    panel: int | None
    background: dict[str, float]
    verdict: str
    cause: str
    note: str
    who: str
    when: str
    stale: bool


class Confused(Record):
    """How often one class was taken for another."""

    truth: str
    answer: str
    count: int


class Failures(Record):
    """All wrong answers of the decided arm; `rows` are the most confident ones, `more` the number left out."""

    arm: str
    arm_label: str
    tested: int
    wrong: int
    reviewed: int
    confused: tuple[Confused, ...]
    rows: tuple[Failure, ...]
    more: int

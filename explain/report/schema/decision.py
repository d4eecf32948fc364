"""Schema of the decision: criteria, what was measured for each, and what follows."""

from typing import Literal

from explain.record import Record

Status = Literal["pass", "fail", "not_evaluated"]
Outcome = Literal["approve", "conditional", "reject", "not_evaluated"]


class Judged(Record):
    """One criterion and what was measured.

    Args:
        line: the criterion as it was declared, such as "recall of local defect >= 95 %".
        label: the same in the report's language.
        percent: whether the limit was given in percent; the numbers here are plain.
        required: a required criterion that is not met means "reject", any other "conditional".
        why: the declared reason, "" for none.
        value, low, high: what was measured, with its 95 % interval; an interval without width for what has none.
        bound: the end of the interval that counts: the lower one where more is better.
        images: images that the number rests on; None for what does not rest on images.
        status: "not_evaluated" counts as not met.
        note: what a reader should know, such as the command that measures it; "" for nothing.
    """

    line: str
    label: str
    metric: str
    comparison: Literal[">=", "<=", ">", "<"]
    limit: float
    percent: bool
    required: bool
    why: str
    value: float | None
    low: float | None
    high: float | None
    bound: float | None
    images: int | None
    status: Status
    status_label: str
    note: str


class Override(Record):
    """A person's decision instead of the computed one."""

    decision: Outcome
    decision_label: str
    name: str
    reason: str
    date: str


class Decision(Record):
    """What follows from the criteria for one arm.

    Args:
        arm, arm_label: the model that is decided on.
        declared: "before" the training, "after" it, or "none".
        declared_by, declared_on: as the file of the criteria says.
        sha256: of the file of the criteria; "" without one.
        criteria_text: that file, whole.
        computed: from the criteria alone.
        final: the override's decision where there is one, else the computed one.
        sentences: how it came about, in words.
        conditions: what has to be done or kept for the decision to hold.
    """

    arm: str
    arm_label: str
    declared: Literal["before", "after", "none"]
    declared_by: str
    declared_on: str
    sha256: str
    criteria_text: str
    judged: tuple[Judged, ...]
    computed: Outcome
    computed_label: str
    override: Override | None
    final: Outcome
    final_label: str
    sentences: tuple[str, ...]
    conditions: tuple[str, ...]

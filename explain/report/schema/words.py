"""Named values: the small records that several parts of the evidence share."""

from explain.record import Record


class Named(Record):
    """A name and its value as text."""

    name: str
    value: str


class PerArm(Record):
    """A name, each arm's value as text, and whether they agree."""

    name: str
    values: dict[str, str]
    equal: bool

"""Schema of the difference between the arms' settings."""

from explain.report.schema.words import PerArm


class ConfigRow(PerArm):
    """A setting, each arm's value, and whether the arms may differ in it; `why` says what allows or forbids it."""

    allowed: bool
    why: str

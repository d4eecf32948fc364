"""Criteria: what a model must fulfil, declared in a YAML file before it is trained."""

from explain.record import Record


class Criteria(Record):
    """The declared criteria.

    Args:
        model: arm that is decided on.
        good_classes: classes that are no defect, which miss and overkill rates need.
    """

    model: str = "vpt"
    good_classes: tuple[str, ...] = ()


class Declaration(Record):
    """Criteria with the text and the SHA-256 of the file that they were read from."""

    criteria: Criteria
    text: str
    sha256: str

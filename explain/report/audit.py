"""Audit: what people state of a model's use, of the document and of the decision, in a YAML file of theirs."""

from explain.record import Record


class Audit(Record):
    """Everything that people state; an empty one states nothing."""

"""Schema of what was measured of the maps."""

from explain.evidence.summary import Cell, Estimate, ModelFacts
from explain.record import Record


class Head(Record):
    """A column: what it measures, which direction is better, what chance gives, in words."""

    label: str
    note: str


class Line(Record):
    """One method of one model: a number per column, None where it was not measured.

    Args:
        note: what to know about the method: a control, or class-agnostic.
        missing: why some images have no number, in words; empty when all have one.
    """

    model: str
    model_label: str
    label: str
    note: str
    values: tuple[Estimate | None, ...]
    missing: str


class Table(Record):
    """Numbers of methods and controls under one question."""

    name: str
    title: str
    lead: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]


class ContrastLine(Record):
    """A difference of two arms; `p` is corrected unless `primary`, `named` when the verdict names an arm."""

    label: str
    metric: str
    primary: bool
    difference: Estimate
    p: float | None
    detectable: float | None
    verdict: str
    named: bool


class AgreementLine(Record):
    """Likeness of two arms' maps beside its ceilings and its floor; `reproducible` False where there is no verdict."""

    label: str
    metric: str
    first: str
    second: str
    between: Estimate
    ceilings: tuple[Estimate | None, Estimate | None]
    floor: Estimate
    ratio: float | None
    state: str
    reproducible: bool


class ReasonsLine(Record):
    """Counts: same answer with alike and with unlike maps, different answer likewise."""

    label: str
    threshold: float | None
    counts: tuple[int, int, int, int]


class Curve(Record):
    """One model over the blocks, counted from 1: (block, mean) in order."""

    model: str
    label: str
    dash: str
    points: tuple[tuple[int, float], ...]


class Panel(Record):
    """A small figure: a metric over the blocks, and its description."""

    label: str
    curves: tuple[Curve, ...]
    alt: str


class Measured(Record):
    """An evaluation as the page prints it.

    Args:
        paragraphs: what was measured, in sentences.
        cells: every number of the headline images, also those that no table prints.
        contrasts: the declared one first, then those that name an arm; `contrasts_more` are only in the evidence.
        contrasts_named: how many name an arm, in words.
        agreement_lead: how to read the agreement, with the least ceiling.
    """

    paragraphs: tuple[str, ...]
    cells: tuple[Cell, ...]
    models: tuple[ModelFacts, ...]
    labels: dict[str, str]
    tables: tuple[Table, ...]
    contrasts: tuple[ContrastLine, ...]
    contrasts_more: int
    contrasts_named: str
    agreements: tuple[AgreementLine, ...]
    agreement_lead: str
    reasons: tuple[ReasonsLine, ...]
    panels: tuple[Panel, ...]


class TrustLine(Record):
    """One method under the planted cues, by its registered name; a gate is a line of its own, with no method."""

    arm: str
    method: str
    arm_label: str
    label: str
    control: bool
    share_a: float | None
    share_b: float | None
    difference: float | None
    low: float | None
    high: float | None
    images: int
    status: str
    status_label: str


class Dissociation(Record):
    """The planted-cue test as the page prints it: gates first."""

    facts: str
    lines: tuple[TrustLine, ...]

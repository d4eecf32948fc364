"""Schema of the methods' settings and of the panels."""

from typing import Annotated, Literal

from pydantic import Field

from explain.record import Record
from explain.report.schema.words import PerArm

Scope = Literal["map", "sample", "dataset"]


class MethodSettings(Record):
    """How one method was run and is drawn."""

    name: str
    label: str
    source: str
    signed: bool
    class_specific: bool
    picture: str
    resolution: tuple[int, int]
    pooled: bool
    options: tuple[PerArm, ...]


class Picture(Record):
    """A picture of the report: its file name, hash and description."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,150}\.jpg$")]
    sha256: str
    alt: str


class Answer(Record):
    """A model's answer for one image."""

    arm: str
    label: str
    name: str
    probability: float
    right: bool


class Measure(Record):
    """A number that travels with a map."""

    name: str
    value: float


class Map(Record):
    """One map: its raw range, the scale of its picture and what was measured with it."""

    arm: str
    method: str
    target: str
    raw_low: float
    raw_high: float
    scale_low: float
    scale_high: float
    blank: bool
    measures: tuple[Measure, ...]
    picture: Picture


class PanelSample(Record):
    """One image with both models' maps."""

    id: str
    rule: str
    truth: str
    input: Picture
    answers: tuple[Answer, ...]
    maps: tuple[Map, ...]


class RuleCount(Record):
    """How many images a rule matched, and how many are shown."""

    rule: str
    matched: int
    shown: int


class PanelSection(Record):
    """The panels and how they were chosen and drawn."""

    seed: int
    per_rule: int
    scope: Scope
    clip_percentile: float
    opacity: float
    grid: tuple[int, int]
    rules: tuple[RuleCount, ...]
    samples: tuple[PanelSample, ...]

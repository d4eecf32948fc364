"""Evidence: everything a report prints, in one record with a schema.

The PDF is a pure function of this record and the pictures it names. Numbers are raw here and rounded by the page;
statements are finished sentences in the report's language, so that what is claimed is part of the evidence. Nothing
here or below needs a model: a report is read, checked and built again without torch.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from explain.backbone_card import BackboneCard
from explain.files import sha256_json
from explain.record import Record
from explain.report.schema.answers import PairedResult
from explain.report.schema.config import ConfigRow
from explain.report.schema.crosswalk import Crosswalk
from explain.report.schema.data import Data
from explain.report.schema.decision import Decision
from explain.report.schema.declared import Control, Revision, Stated, Term
from explain.report.schema.failures import Failures
from explain.report.schema.measured import Dissociation, Measured
from explain.report.schema.models import Arm, MatchedRow
from explain.report.schema.panels import MethodSettings, PanelSection, Picture
from explain.report.schema.rates import ArmDifference, Disturbed, Rates, Slice
from explain.report.schema.reproducing import Reproducing
from explain.report.schema.seeds import Seeds
from explain.report.schema.words import Named

FORMAT: Literal[5] = 5

SECTIONS = ("control", "decision", "scope", "models", "matched", "data", "performance", "settings", "panels",
            "faithfulness", "agreement", "failures", "robustness", "limitations", "operation", "reproducing",
            "crosswalk", "signoff")  # fmt: skip
"""Keys of the sections, in the order in which they are numbered."""

COMMANDS = {"faithfulness": "explain evaluate RUN", "agreement": "explain evaluate RUN",
            "robustness": "explain evaluate RUN", "decision": "explain declare", "intended_use": "explain declare",
            "operation": "explain declare", "failure_review": "explain view RUN",
            "planted": "explain planted RUN"}  # fmt: skip
"""What makes the parts of an audit that are missing."""

Length = Literal["full", "brief"]


class Evidence(Record):
    """Everything the report prints.

    Args:
        length: "full", or "brief" for two pages.
        id: first 12 digits of the SHA-256 of everything else.
        created: time of the newest run, so that the same runs give the same report.
        statements: what is claimed on the first page, in words.
        scope, operation: what people have to state of the use and of its supervision.
        matched: the fields that must agree; `is_matched` when all do but those set apart on purpose.
        config: the settings in which the arms differ, and those in which they must not.
        arms: every trained model, "vpt" and "ft" first.
        same_budget: every arm had as many trials and training steps as the next.
        difference: of VPT and FT, with its tests; `differences` of every two arms, both ways.
        seeds: what the other seeds of the same study say; None for a pair on its own.
        good_classes: classes that are no defect, as declared; empty where nobody said.
        measured: what was measured of the maps; None where nothing was.
        dissociation: the planted-cue test; None where none was made.
        disturbed: the answers on changed test images; empty where they were not measured.
        bars: pictures of the colour scales, by `MethodSettings.picture`.
        not_evaluated: parts of an audit without data.
        colours: of every model that the page names, as #rrggbb.
        files: SHA-256 of what the report rests on.
    """

    format: Literal[5] = FORMAT
    lang: str
    length: Length = "full"
    id: str = ""
    created: str
    title: str
    statements: tuple[str, ...]
    control: Control
    decision: Decision
    scope: tuple[Stated, ...]
    backbone: BackboneCard
    image_size: int
    matched: tuple[MatchedRow, ...]
    is_matched: bool
    config: tuple[ConfigRow, ...]
    arms: tuple[Arm, ...]
    same_budget: bool
    resamples: int
    resample_seed: int
    difference: PairedResult
    differences: tuple[ArmDifference, ...]
    seeds: Seeds | None
    good_classes: tuple[str, ...]
    rates: tuple[Rates, ...]
    slices: tuple[Slice, ...]
    data: Data
    methods: tuple[MethodSettings, ...]
    panels: PanelSection
    bars: dict[str, Picture]
    measured: Measured | None
    dissociation: Dissociation | None
    failures: Failures
    disturbed: tuple[Disturbed, ...]
    reading: tuple[str, ...]
    limitations: tuple[str, ...]
    operation: tuple[Stated, ...]
    reproducing: Reproducing
    crosswalk: Crosswalk
    history: tuple[Revision, ...]
    glossary: tuple[Term, ...]
    not_evaluated: tuple[str, ...]
    versions: dict[str, str]
    colours: dict[str, str]
    files: tuple[Named, ...]

    @property
    def created_at(self) -> datetime:
        """`created` as a time with a zone; UTC where none was recorded."""
        moment = datetime.fromisoformat(self.created)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @property
    def pictures(self) -> Iterator[Picture]:
        """Every picture of the report."""
        for sample in self.panels.samples:
            yield sample.input
            yield from (entry.picture for entry in sample.maps)
        yield from self.bars.values()


def evidence_id(evidence: Evidence) -> str:
    """The id that a record's content gives it."""
    return sha256_json(evidence.model_dump(mode="json", exclude={"id"}))[:12]


def with_id(evidence: Evidence) -> Evidence:
    """The record with the id of its content."""
    return evidence.model_copy(update={"id": evidence_id(evidence)})

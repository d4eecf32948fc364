"""Everything that a report can hold, on a pair of seeded random numbers: criteria, statements, reviews, numbers."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pypdf
from fake_evidence import write_fake_evidence
from fake_pair import make_fake_pair

from explain.criteria import Declaration, parse_criteria
from explain.evidence.disturbed import FILE, DisturbedAnswers, choose_ids
from explain.evidence.found import EVIDENCE
from explain.evidence.measures.drift import DISTURBANCES
from explain.files import write_json
from explain.report.audit import Audit
from explain.report.content import gather
from explain.report.panels import Panels, draw_pictures
from explain.report.pdf import render_pdf
from explain.report.schema.evidence import Evidence, Length, with_id
from explain.reviews import Review, Reviews
from explain.training.pair import MatchedPair

WHY = "a missed defect reaches the customer, and the line has no second inspection behind it"
LINES = (
    "accuracy >= 50 %", "balanced accuracy >= 45 %", "recall of local defect >= 30 %", "miss rate <= 40 %",
    "overkill rate <= 60 %", "auroc >= 0.6", "ece <= 0.3", "test images >= 20", "unmatched fields <= 0",
    "reviewed failures >= 100 %", "accuracy over ft >= -60 %", "accuracy under blur >= 20 %",
    "planted test of integrated_gradients > 0", "gain of integrated_gradients >= 0.2",
    "relevance mass of grad_cam >= 0.5",
)  # fmt: skip
"""15 criteria: most of them are met, some are not, the last one was not evaluated."""

AUDIT = Audit.model_validate({
    "product": "Woven cloth W-12", "line": "Line 3", "revision": "B", "owner": "Quality, 2nd factory",
    "valid_until": "2027-05-31",
    "prepared": {"name": "A. Sato", "date": "2026-05-08"}, "checked": {"name": "B. Suzuki", "date": "2026-05-09"},
    "approved": {"name": "C. Tanaka", "date": "2026-05-10"},
    "intended_use": {"task": "sorting of rolls", "users": "inspectors", "out_of_scope": "printed cloth",
                     "miss": "a claim", "overkill": "a second look"},
    "capture": "ring light, 250 pixels", "known_gaps": ["no images at night"],
    "operation": {"decides": "the shift leader", "override": "on any doubt", "drift": "overkill above 10 %",
                  "reaudit": "after a new camera"},
    "conditions": ["a person looks at every rejected roll"],
    "history": [{"revision": "A", "date": "2026-04-01", "who": "A. Sato", "what": "first issue"}],
})  # fmt: skip
"""Every field is stated."""


def criteria_yaml(lines: tuple[str, ...] = LINES, why: str = WHY) -> bytes:
    """A criteria file in which every criterion has a reason."""
    head = "model: vpt\ngood_classes: [nominal]\ndeclared_by: A. Sato\ndeclared_on: 2026-05-01\ncriteria:\n"
    return (head + "".join(f"  - criterion: {line}\n    why: {why}\n" for line in lines)).encode()


@dataclass(frozen=True)
class FakeReport:
    """A pair with everything that was measured and said of it."""

    pair: MatchedPair
    panels: Panels
    pictures: dict[str, bytes]
    declaration: Declaration

    def evidence(self, lang: str = "en", length: Length = "full", **other: Any) -> Evidence:
        """What is printed; `other` goes to `gather`."""
        values: dict[str, Any] = {"declaration": self.declaration, "before": True, "audit": AUDIT,
                                  "pictures": self.pictures, **other}  # fmt: skip
        return gather(self.pair, self.panels, lang, length=length, **values)


def make_fake_report(folder: Path) -> FakeReport:
    """Write a pair with an evaluation, a planted-cue test, answers on changed images and two reviews."""
    pair = make_fake_pair(folder)
    write_fake_evidence(pair.path, pair)
    _disturb(pair)
    reviews, ids = Reviews(pair.path), pair.vpt.predictions.ids
    wrong = [name for name, right in zip(ids, pair.vpt.predictions.correct, strict=True) if not right]
    for name, sha256 in ((wrong[0], pair.data.by_id[wrong[0]].sha256), (wrong[1], "00" * 32)):
        reviews.add(Review(
            sample=name, sha256=sha256, models={"vpt": pair.vpt.manifest.identity}, verdict="wrong_place",
            note=f"the map lies on the edge of {name}", tags=("glare", "edge"), who="D. Kato",
            when="2026-05-08T09:00:00+00:00",
        ))  # fmt: skip
    panels = Panels.load(pair.path)
    return FakeReport(pair, panels, draw_pictures(panels), parse_criteria(criteria_yaml(), "criteria.yaml"))


def _disturb(pair: MatchedPair) -> None:
    rng, ids = np.random.default_rng(3), choose_ids(pair, 20, 0)
    def answers(share: float) -> dict[str, tuple[bool, ...]]:
        return {arm: tuple((rng.random(len(ids)) < share).tolist()) for arm in pair.runs}

    found = DisturbedAnswers(
        seed=0, ids=ids, weights={arm: run.manifest.weights_sha256 for arm, run in pair.runs.items()},
        unchanged=answers(0.8), changed={name: answers(0.6) for name in DISTURBANCES},
    )  # fmt: skip
    write_json(pair.path / EVIDENCE / FILE, found.model_dump(mode="json"))


def with_arms(evidence: Evidence, labels: list[str]) -> Evidence:
    """The record with further arms, which do as the last one does."""
    record = evidence.model_dump(mode="json")
    last = record["arms"][-1]["name"]
    for name, label in ((f"arm{number}", label) for number, label in enumerate(labels)):
        record["arms"].append(record["arms"][-1] | {"name": name, "label": label})
        record["rates"].append(record["rates"][-1] | {"arm": name})
        for row in (*record["slices"], *record["disturbed"]):
            for key in ("accuracies", "changes"):
                if last in row.get(key, {}):
                    row[key][name] = row[key][last]
        for row in (*record["config"], *record["matched"]):
            row["values"][name] = row["values"][last]
        record["colours"][name] = record["colours"][last]
    return with_id(Evidence.model_validate(record))


def read_pdf(evidence: Evidence, pictures: Mapping[str, bytes]) -> pypdf.PdfReader:
    """The PDF of a record, opened."""
    return pypdf.PdfReader(io.BytesIO(render_pdf(evidence, pictures)))


def words_of(*texts: str) -> str:
    """Text without any white space, because a page breaks lines where it likes."""
    return re.sub(r"\s+", "", "".join(texts))


def text_of_pages(reader: pypdf.PdfReader, pages: slice = slice(None)) -> list[str]:
    """The text of every page or of some, without white space."""
    return [words_of(page.extract_text()) for page in reader.pages[pages]]

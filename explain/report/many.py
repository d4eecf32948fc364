"""Many: the reports on several runs in one folder, with an index page; a run that fails does not stop the others."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explain.errors import ExplainError
from explain.files import write_atomically, write_json
from explain.i18n import translate
from explain.record import Record
from explain.report.parts.answers import percent
from explain.report.pdf import render_listing, render_pdf
from explain.report.schema.evidence import Evidence
from explain.report.schema.listing import Listing, ListingTable
from explain.report.write import collect

INDEX, INDEX_JSON = "index.pdf", "index.json"


class Written(Record):
    """A report of the folder, as `index.json` lists it; accuracies are 0-1 with their 95 % interval."""

    run: str
    file: str
    sha256: str
    document: str
    created: str
    decision: str
    criteria_met: int
    criteria: int
    accuracies: dict[str, tuple[float, float, float]]


class Failed(Record):
    """A run without a report, and why."""

    run: str
    why: str


@dataclass(frozen=True)
class Reports:
    """What `write_reports` made.

    Args:
        folder: with the reports, index.pdf and index.json.
        written, failed: in the order of the runs.
    """

    folder: Path
    written: tuple[Written, ...]
    failed: tuple[Failed, ...]


def write_reports(
    runs: Sequence[str | Path], folder: str | Path, langs: Sequence[str] = ("en",), **options: Any
) -> Reports:
    """Write the report on every run, and an index of them.

    Args:
        runs: folders of pairs or studies.
        folder: for the reports; made when missing. Files of the same name are replaced.
        langs: "en", "ja" or both; the index is in the first.
        options: as in `write_report`.

    Raises:
        StorageError: a file cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written: list[Written] = []
    failed: list[Failed] = []
    names: set[str] = set()
    for run in runs:
        try:
            name = _free_name(Path(run), names)
            for lang in langs:
                evidence, pictures = collect(run, lang, **options)
                file = f"{name}.{lang}.pdf" if len(langs) > 1 else f"{name}.pdf"
                written.append(_write(target / file, run, evidence, render_pdf(evidence, pictures)))
        except ExplainError as error:
            failed.append(Failed(run=str(run), why=str(error)))
    found = Reports(target, tuple(written), tuple(failed))
    write_json(target / INDEX_JSON, {"reports": [one.model_dump(mode="json") for one in written],
                                     "failed": [one.model_dump(mode="json") for one in failed]})  # fmt: skip
    if written:
        content = render_listing(_listing(found, langs[0]))
        write_atomically(target / INDEX, lambda temporary: temporary.write_bytes(content))
    return found


def _free_name(run: Path, names: set[str]) -> str:
    """A file name after the run's folder that no other run has."""
    plain = re.sub(r"[^\w.-]+", "_", run.resolve().name) or "run"
    name, number = plain, 2
    while name in names | {"index"}:
        name, number = f"{plain}-{number}", number + 1
    names.add(name)
    return name


def _write(file: Path, run: str | Path, evidence: Evidence, content: bytes) -> Written:
    write_atomically(file, lambda temporary: temporary.write_bytes(content))
    judged = evidence.decision.judged
    return Written(
        run=str(run), file=file.name, sha256=hashlib.sha256(content).hexdigest(), document=evidence.id,
        created=evidence.created, decision=evidence.decision.final_label,
        criteria_met=sum(one.status == "pass" for one in judged), criteria=len(judged),
        accuracies={arm.name: (arm.accuracy, arm.low, arm.high) for arm in evidence.arms},
    )  # fmt: skip


def _listing(found: Reports, lang: str) -> Listing:
    t = translate(lang)

    def accuracy(one: Written, arm: str) -> str:
        value, low, high = one.accuracies[arm]
        return f"{percent(value)} ({t('term.range', low=percent(low), high=percent(high))})"

    rows = tuple(
        (one.run, one.decision, f"{one.criteria_met} / {one.criteria}", accuracy(one, "vpt"), accuracy(one, "ft"),
         one.document, one.file, f"{one.sha256[:32]} {one.sha256[32:]}")
        for one in found.written
    )  # fmt: skip
    heads = ("run", "decision", "criteria", "vpt", "ft", "document", "file", "sha256")
    tables = [ListingTable(title=t("report.index.reports"), heads=tuple(t(f"report.index.{head}") for head in heads),
                           widths=(1.2, 0.9, 0.7, 1.2, 1.2, 0.9, 1.1, 1.9), rows=rows)]  # fmt: skip
    if found.failed:
        tables.append(ListingTable(
            title=t("report.index.failed"), heads=(t("report.index.run"), t("report.index.why")), widths=(1, 3),
            rows=tuple((one.run, one.why) for one in found.failed),
        ))  # fmt: skip
    return Listing(lang=lang, created=max(one.created for one in found.written), title=t("report.index.title"),
                   lead=t("report.index.lead", count=len(found.written)), tables=tuple(tables))  # fmt: skip

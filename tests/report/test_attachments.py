"""The files inside the PDF: every number with its interval, harmless for a spreadsheet, the same every time."""

import csv
import hashlib
import io
from typing import Any

import pytest
from fake_report import FakeReport, make_fake_report, read_pdf

from explain.criteria import parse_criteria
from explain.report.attachments import attachments_of
from explain.report.content import gather
from explain.report.panels import Panels
from explain.report.schema.evidence import Evidence, with_id
from explain.training.pair import MatchedPair


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    return make_fake_report(tmp_path_factory.mktemp("attached") / "pair")


@pytest.fixture(scope="module")
def evidence(report: FakeReport) -> Evidence:
    return report.evidence()


def rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


def changed(evidence: Evidence, **parts: Any) -> Evidence:
    return with_id(Evidence.model_validate(evidence.model_dump(mode="json") | parts))


def test_metrics_hold_every_number_with_its_interval_to_the_last_digit(evidence: Evidence) -> None:
    heading, *rows = rows_of(attachments_of(evidence)["metrics.csv"])
    assert heading == ["section", "model", "method", "metric", "value", "low", "high", "images"]
    found = {tuple(row[:4]): [float(cell) if cell else None for cell in row[4:]] for row in rows}
    assert len(found) == len(rows)  # no number is there twice under one name
    expected: dict[tuple[str, ...], list[float | None]] = {}
    for arm in evidence.arms:
        own = ("performance", arm.name, "")
        expected[(*own, "accuracy")] = [arm.accuracy, arm.low, arm.high, arm.count]
        expected[(*own, "cross_entropy")] = [arm.loss, None, None, arm.count]
        expected[(*own, "ece")] = [arm.calibration.error, arm.calibration.low, arm.calibration.high, arm.count]
        for one in arm.recalls:
            expected[(*own, f"recall of {one.name}")] = [one.recall, one.low, one.high, one.count]
    for rates in evidence.rates:
        for name, rate in (("balanced", rates.balanced), ("miss", rates.miss), ("overkill", rates.overkill),
                           ("auroc", rates.auroc)):  # fmt: skip
            assert rate is not None
            expected["performance", rates.arm, "", name] = [rate.value, rate.low, rate.high, rate.count]
    for two in evidence.differences:
        expected["performance", f"{two.first}-{two.second}", "", "accuracy"] = [two.mean, two.low, two.high, None]
    for part in evidence.slices:
        for name, rate in part.accuracies.items():
            expected["performance", name, "", f"accuracy, {part.by}: {part.part}"] = [
                rate.value, rate.low, rate.high, rate.count,
            ]  # fmt: skip
    assert evidence.measured is not None and evidence.dissociation is not None and evidence.disturbed
    for cell in evidence.measured.cells:
        it = cell.estimate
        expected["evaluation", cell.model, cell.method or "", cell.metric] = [it.mean, it.low, it.high, it.images]
    for line in evidence.dissociation.lines:
        metric = "planted test" if line.method else "planted test, gate"
        expected["planted", line.arm, line.method, metric] = [line.difference, line.low, line.high, line.images]
    for change in evidence.disturbed:
        for name, rate in change.accuracies.items():
            expected["robustness", name, "", f"accuracy, {change.name}"] = [rate.value, rate.low, rate.high, rate.count]
    assert found == expected


def test_what_was_not_measured_is_an_empty_cell_or_no_row(fake_pair: MatchedPair, fake_panels: Panels) -> None:
    rows = rows_of(attachments_of(gather(fake_pair, fake_panels))["metrics.csv"])[1:]
    assert {row[0] for row in rows} == {"performance"}
    assert not {"miss", "overkill"} & {row[3] for row in rows}
    assert all(row[5] == row[6] == "" for row in rows if row[3] == "cross_entropy")
    assert not [cell for row in rows for cell in row if cell in ("None", "nan", "inf")]


def test_the_settings_are_there_with_the_reason_why_they_may_differ(evidence: Evidence) -> None:
    heading, *rows = rows_of(attachments_of(evidence)["config_difference.csv"])
    assert heading == ["setting", "vpt", "ft", "linear", "may differ", "why"]
    assert len(rows) == len(evidence.config) > 5
    for row, it in zip(rows, evidence.config, strict=True):
        assert row == [it.name, *(it.values[arm] for arm in ("vpt", "ft", "linear")), "yes" if it.allowed else "no",
                       it.why]  # fmt: skip


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_finds_no_formula(evidence: Evidence, begin: str) -> None:
    hostile = begin + 'HYPERLINK("http://x","y")'
    config = [row.model_dump(mode="json") for row in evidence.config]
    config[0] |= {"name": hostile, "why": hostile, "values": dict.fromkeys(config[0]["values"], hostile)}
    arms = [arm.model_dump(mode="json") for arm in evidence.arms]
    arms[0]["name"] = hostile
    files = attachments_of(changed(evidence, config=config, arms=arms))
    cells = [cell for name in ("metrics.csv", "config_difference.csv") for row in rows_of(files[name]) for cell in row]
    risky = [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
    assert all(isinstance(float(cell), float) for cell in risky)  # negative numbers stay numbers, nothing else is left
    assert cells.count("'" + hostile) >= 5 and hostile not in cells


def test_commas_quotes_and_line_breaks_stay_in_their_cell(evidence: Evidence) -> None:
    name = 'a, "b"\nc; 傷'
    config = [evidence.config[0].model_dump(mode="json") | {"name": name}]
    _, row = rows_of(attachments_of(changed(evidence, config=config))["config_difference.csv"])
    assert row[0] == name and len(row) == 6


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_same_evidence_gives_the_same_bytes(report: FakeReport, lang: str) -> None:
    evidence = report.evidence(lang)
    files = attachments_of(evidence)
    again = Evidence.model_validate_json(evidence.model_dump_json())
    assert attachments_of(again) == files
    emptied = again.reproducing.model_copy(update={"attachments": (), "commands": ()})
    assert attachments_of(again.model_copy(update={"reproducing": emptied, "id": ""})) == files
    for name, content in files.items():
        assert content.endswith(b"\n") and b"\r" not in content, name
        assert content.decode("utf-8").encode() == content and not content.startswith(b"\xef\xbb\xbf"), name


@pytest.mark.parametrize("text", [
    "good_classes: [nominal]\ncriteria: [accuracy >= 50 %]\n",
    "# 判定基準 \u2013 2026\r\ncriteria:\r\n  - accuracy >= 50 %   # 正解率\r\n",
    "criteria: [accuracy >= 50 %]",
])  # fmt: skip
def test_the_declared_file_is_there_byte_for_byte(report: FakeReport, text: str) -> None:
    evidence = report.evidence(declaration=parse_criteria(text.encode(), "x"))
    content = attachments_of(evidence)["criteria.yaml"]
    assert content == text.encode() and hashlib.sha256(content).hexdigest() == evidence.decision.sha256


def test_without_criteria_there_is_no_file_of_them(report: FakeReport) -> None:
    files = attachments_of(report.evidence(declaration=None, before=False))
    assert list(files) == ["metrics.csv", "config_difference.csv", "SHA256SUMS"]


def test_the_list_of_hashes_is_one_that_sha256sum_checks(evidence: Evidence) -> None:
    files = attachments_of(evidence)
    lines = files["SHA256SUMS"].decode().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == sorted(files.keys() - {"SHA256SUMS"})
    for line in lines:
        digest, name = line.split("  ", 1)
        assert digest == hashlib.sha256(files[name]).hexdigest()


@pytest.mark.parametrize("length", ["full", "brief"])
def test_every_attachment_is_in_the_file_with_what_it_is(report: FakeReport, length: Any) -> None:
    evidence = report.evidence("en", length)
    reader, expected = read_pdf(evidence, report.pictures), attachments_of(evidence)
    assert {name: content for name, (content,) in reader.attachments.items() if name != "evidence.json"} == expected
    (content,) = reader.attachments["evidence.json"]
    assert Evidence.model_validate_json(content) == evidence
    said = {}
    for it in reader.trailer["/Root"]["/AF"]:
        file = it.get_object()
        kind = file["/EF"]["/F"].get_object()["/Subtype"]
        said[str(file["/UF"])] = (file["/AFRelationship"], kind, str(file["/Desc"]))
    assert said.pop("evidence.json")[:2] == ("/Data", "/application/json")
    assert said == {it.file: ("/Supplement", "/text/csv" if it.file.endswith(".csv") else "/text/plain", it.description)
                    for it in evidence.reproducing.attachments}  # fmt: skip
    assert len(said) == 4 and all(description for _, _, description in said.values())

"""An independent checker of PDF/UA finds no error in a report, in either language and length."""

from pathlib import Path

import pytest
from fake_report import FakeReport, make_fake_report

from explain.report.content import gather
from explain.report.panels import Panels, draw_pictures
from explain.report.pdf import render_pdf
from explain.report.schema.evidence import Evidence, Length
from explain.training.pair import MatchedPair

outloud = pytest.importorskip("outloud")

LANGUAGES = ("en", "ja")
LENGTHS = ("full", "brief")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    return make_fake_report(tmp_path_factory.mktemp("accessible") / "pair")


def errors(evidence: Evidence, pictures: dict[str, bytes], folder: Path) -> list[str]:
    """What the checker calls an error, in its words."""
    path = folder / "report.pdf"
    path.write_bytes(render_pdf(evidence, pictures))
    result = outloud.check(str(path))
    assert result.error is None and result.stats["tagged"] and result.stats["elements"] > 100
    crashed = [run.rule for run in result.runs if run.status == "crashed"]
    assert crashed == []
    return [f"{found.rule} p.{found.page}: {found.message} ({found.evidence})"
            for found in result.findings if found.severity == "error"]  # fmt: skip


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_report_with_everything_has_no_error(
    report: FakeReport, lang: str, length: Length, tmp_path: Path
) -> None:
    assert errors(report.evidence(lang, length), report.pictures, tmp_path) == []


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_report_on_what_was_not_evaluated_has_no_error(
    fake_pair: MatchedPair, fake_panels: Panels, lang: str, length: Length, tmp_path: Path
) -> None:
    pictures = draw_pictures(fake_panels)
    assert errors(gather(fake_pair, fake_panels, lang, length=length, pictures=pictures), pictures, tmp_path) == []


def test_the_checker_finds_a_page_without_tags(report: FakeReport, tmp_path: Path) -> None:
    pikepdf = pytest.importorskip("pikepdf")
    path = tmp_path / "bare.pdf"
    path.write_bytes(render_pdf(report.evidence("en", "brief"), report.pictures))
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        del pdf.Root["/StructTreeRoot"]
        pdf.save(path)
    assert outloud.check(str(path)).errors > 0

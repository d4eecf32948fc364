"""The page "Report": made in the worker, shown page by page, handed out with its hash."""

import hashlib
import shutil
import time
from pathlib import Path

import pytest
from small_archive import explain_all, small_models
from squares import draw_pictures
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

from app import making
from app.making import Choice, Made
from app.views.report import verify_command
from app.worker import Ticket
from explain.errors import Cancelled
from explain.report.write import write_report
from explain.reviews import Reviews, write_review
from explain.training.pair import MatchedPair, load_pair

PATIENCE_S = 120


@pytest.fixture
def folder(fake_pair: MatchedPair, tmp_path: Path) -> Path:
    """A copy of the pair to write into."""
    return Path(shutil.copytree(fake_pair.path, tmp_path / "pair"))


def make(page: AppTest) -> AppTest:
    """Ask for the report and wait until the page shows it."""
    page.button(key="make_report").click().run()
    until = time.monotonic() + PATIENCE_S
    while not page.get("download_button"):
        assert not page.exception and not page.error, texts(page)
        assert time.monotonic() < until, "the report was not made in time"
        time.sleep(0.2)
        page.run()
    return page


def test_nothing_is_made_unasked_and_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    page = start(monkeypatch, folder, "report")
    assert not page.exception and not page.error and not page.get("download_button")
    shown = texts(page)
    assert f"explain evaluate {folder}" in shown and f"explain planted {folder}" in shown
    assert not (folder / "report.pdf").exists()


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_report_is_the_one_that_the_command_writes(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, lang: str
) -> None:
    page = make(start(monkeypatch, folder, "report", lang=lang))
    expected = hashlib.sha256(write_report(folder, tmp_path / "again.pdf", lang).read_bytes()).hexdigest()
    assert expected in [code.value for code in page.code]
    assert len(page.get("image")) > 5
    page.button(key="keep_report").click().run()
    assert not page.exception
    assert hashlib.sha256((folder / "report.pdf").read_bytes()).hexdigest() == expected


def test_another_report_in_the_folder_is_never_written_over(tmp_path: Path) -> None:
    made = Made(b"new", hashlib.sha256(b"new").hexdigest(), ())
    (tmp_path / "report.pdf").write_bytes(b"signed")
    kept = making.keep(made, tmp_path)
    assert kept.name == f"report-{made.sha256[:8]}.pdf" and kept.read_bytes() == b"new"
    assert (tmp_path / "report.pdf").read_bytes() == b"signed"
    (tmp_path / "report.pdf").write_bytes(b"new")
    assert making.keep(made, tmp_path).name == "report.pdf"


def test_making_stops_when_nobody_wants_it(fake_pair: MatchedPair) -> None:
    ticket = Ticket()
    ticket.stopped.set()
    with pytest.raises(Cancelled):
        making.work_of(fake_pair, Choice(), "a report").run(ticket)


def test_every_choice_and_whatever_people_said_is_part_of_what_a_report_is(folder: Path) -> None:
    pair = load_pair(folder)
    choices = [Choice(lang, brief, per_rule, scope) for lang in ("en", "ja") for brief in (False, True)
               for per_rule in (1, 2) for scope in ("map", "sample")]  # fmt: skip
    assert len({making.key_of(pair, choice) for choice in choices}) == 16
    before = making.key_of(pair, Choice())
    write_review(Reviews(folder), pair.test.samples[0].id, sha256=None, models={}, verdict="unclear")
    assert making.key_of(pair, Choice()) != before


def test_the_command_that_verifies_names_file_and_run() -> None:
    assert verify_command("runs/a b", Path("runs/a b/report.pdf")) == (
        "explain verify 'runs/a b/report.pdf' --run 'runs/a b'"
    )


def test_an_archive_alone_has_no_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    explain_all(small_models(), draw_pictures(tmp_path / "pictures", per_class=2), tmp_path / "maps")
    page = start(monkeypatch, tmp_path / "maps", "report")
    assert not page.exception and not page.error and [code.value for code in page.code] == ["explain view RUN"]

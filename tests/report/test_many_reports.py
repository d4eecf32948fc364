"""Reports on several runs: one file each, an index, and a run that fails does not stop the others."""

import hashlib
from pathlib import Path

import pypdf
import pytest
from fake_pair import make_fake_pair

from explain.files import read_json
from explain.report.many import write_reports
from explain.report.verify import verify_report


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two pairs in folders of the same name."""
    root = tmp_path_factory.mktemp("many")
    return [make_fake_pair(root / side / "cloth", per_class=15, seed=seed).path for seed, side in enumerate("ab")]


def test_every_run_gets_its_report_and_a_line_of_the_index(runs: list[Path], tmp_path: Path) -> None:
    found = write_reports([*runs, tmp_path / "nothing"], tmp_path / "out", brief=True)
    assert [one.file for one in found.written] == ["cloth.pdf", "cloth-2.pdf"]
    assert [(one.run, "/nothing" in one.why) for one in found.failed] == [(str(tmp_path / "nothing"), True)]
    index = read_json(tmp_path / "out" / "index.json")
    text = "".join(page.extract_text() for page in pypdf.PdfReader(tmp_path / "out" / "index.pdf").pages)
    text = "".join(text.split())
    for one in index["reports"]:
        content = (tmp_path / "out" / one["file"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(content).hexdigest()
        assert verify_report(tmp_path / "out" / one["file"]).document == one["document"]
        for word in (one["document"], one["file"], one["sha256"], f"{100 * one['accuracies']['vpt'][0]:.1f}"):
            assert word in text, word
    assert "Notmade" in text and "/nothing" in text


def test_two_languages_give_two_files_each(runs: list[Path], tmp_path: Path) -> None:
    found = write_reports(runs[:1], tmp_path, ("ja", "en"), brief=True)
    assert [one.file for one in found.written] == ["cloth.ja.pdf", "cloth.en.pdf"] and found.failed == ()
    assert "監査レポート一覧" in pypdf.PdfReader(tmp_path / "index.pdf").pages[0].extract_text()


def test_nothing_but_failures_has_no_index_page(tmp_path: Path) -> None:
    found = write_reports([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert len(found.failed) == 2 and found.written == ()
    assert (tmp_path / "out" / "index.json").is_file() and not (tmp_path / "out" / "index.pdf").exists()

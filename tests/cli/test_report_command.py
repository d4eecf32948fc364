"""`explain report` and `explain verify` as a user meets them: files, words and exit codes."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_report import AUDIT, criteria_yaml

from explain import cli
from explain.training.pair import MatchedPair


def explain(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `explain …` in this process; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["explain", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def run(fake_pair: MatchedPair, tmp_path: Path) -> Path:
    """A copy of a pair to write into."""
    return Path(shutil.copytree(fake_pair.path, tmp_path / "pair"))


def test_a_report_is_verified_against_itself_and_its_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    (run / "audit.yaml").write_text(json.dumps(AUDIT.model_dump(mode="json", exclude_none=True)))
    (tmp_path / "criteria.yaml").write_bytes(criteria_yaml(("accuracy >= 10 %", "gain of grad_cam >= 0")))
    out = tmp_path / "audit.pdf"
    late = ("--criteria", tmp_path / "criteria.yaml")
    assert explain(monkeypatch, "report", run, "--out", out, "--lang", "both", "--brief", *late) == 0
    files = [tmp_path / "audit.en.pdf", tmp_path / "audit.ja.pdf"]
    assert all(file.read_bytes().startswith(b"%PDF-") for file in files) and not out.exists()
    shown = capsys.readouterr().out
    assert f"explain verify {files[0]}" in shown.replace("\n", "")
    assert explain(monkeypatch, "verify", *files, "--run", run) == 0
    assert capsys.readouterr().out.count("verified  /") == 2


def test_a_changed_byte_leaves_with_5_and_says_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit.pdf"
    assert explain(monkeypatch, "report", run, "--out", out, "--brief") == 0
    content = bytearray(out.read_bytes())
    content[len(content) // 2] ^= 1
    out.write_bytes(content)
    capsys.readouterr()
    assert explain(monkeypatch, "verify", out) == 5
    assert "DIFFERS" in capsys.readouterr().out
    assert explain(monkeypatch, "verify", out, "--json") == 5
    (result,) = json.loads(capsys.readouterr().out)
    assert result["passed"] is False and any(step["findings"] for step in result["steps"])


def test_a_run_that_changed_since_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit.pdf"
    assert explain(monkeypatch, "report", run, "--out", out, "--brief") == 0
    (run / "audit.yaml").write_text("owner: somebody else\n")
    assert explain(monkeypatch, "verify", out) == 0
    assert explain(monkeypatch, "verify", out, "--run", run) == 5
    assert "control.owner" in capsys.readouterr().out
    (run / "audit.yaml").unlink()
    (run / "vpt" / "history.jsonl").write_text("{}\n")
    assert explain(monkeypatch, "verify", out, "--run", run) == 5
    assert "history.jsonl" in capsys.readouterr().out.replace("\n", "")


def test_many_runs_make_a_folder_and_a_failing_one_leaves_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reports"
    assert explain(monkeypatch, "report", run, tmp_path / "gone", "--out", folder, "--brief") == 3
    assert (folder / "index.pdf").is_file() and (folder / "pair.pdf").is_file()
    assert "left out" in capsys.readouterr().out


def test_two_audits_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    old, new, page = (tmp_path / name for name in ("old.pdf", "new.pdf", "page.pdf"))
    assert explain(monkeypatch, "report", run, "--out", old, "--brief") == 0
    (run / "audit.yaml").write_text("owner: A. Sato\n")
    assert explain(monkeypatch, "report", run, "--out", new, "--brief") == 0
    capsys.readouterr()
    assert explain(monkeypatch, "report", "--compare", old, new, "--out", page) == 0
    assert "A. Sato" in capsys.readouterr().out and page.read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify", "/nowhere.pdf"], 2, "cannot read /nowhere.pdf"),
        (["report", "--compare", "one.pdf"], 2, "expected two reports"),
        (["report", "RUN", "--scale", "all"], 2, "expected --scale map, sample, dataset"),
        (["report", "RUN", "--lang", "fr"], 2, "unknown language 'fr'"),
        (["report", "RUN", "--criteria", "/nowhere.yaml"], 2, "cannot read the criteria"),
        (["report", "RUN", "--sign", "key.p12"], 2, "EXPLAIN_SIGN_PASSPHRASE"),
    ],
)
def test_what_cannot_be_done_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path, arguments: list[str], code: int,
    words: str,
) -> None:  # fmt: skip
    monkeypatch.delenv("EXPLAIN_SIGN_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert explain(monkeypatch, *[run if word == "RUN" else word for word in arguments]) == code
    assert words in capsys.readouterr().err.replace("\n", " ")


def test_verifying_needs_no_torch(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert explain(monkeypatch, "report", run, "--out", tmp_path / "audit.pdf", "--brief") == 0
    program = ("import sys; from explain.report.verify import verify_report; "
               "print(verify_report(sys.argv[1]).passed, 'torch' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "audit.pdf")], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout.split() == ["True", "False"]

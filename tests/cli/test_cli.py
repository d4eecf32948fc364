"""The command line as a user meets it: output, files and exit codes."""

import shutil
from pathlib import Path

import pytest
from squares import TINY_RECIPE, draw_pictures

from explain import cli
from explain.training.pair import MatchedPair


def explain(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `explain …` in this process; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["explain", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


FIELDS = TINY_RECIPE.model_dump(mode="json", exclude={"seed"}, exclude_none=True)
SETTINGS = [f"--set={name}={value}" for name, value in FIELDS.items()]


def test_train_makes_a_pair_and_prints_its_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = draw_pictures(tmp_path / "squares")
    (data / "left" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    code = explain(monkeypatch, "train", data, "--out", tmp_path / "pair", *SETTINGS)
    shown = capsys.readouterr().out
    assert code == 3  # finished, one image left out
    assert "broken.png" in shown and "linear probe" in shown
    pair = MatchedPair.load(tmp_path / "pair")
    assert pair.vpt.recipe == TINY_RECIPE
    assert f"{pair.ft.manifest.trained_parameters:,}" in shown


def test_report_writes_a_pdf(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, tmp_path: Path
) -> None:  # fmt: skip
    pair = shutil.copytree(tiny_pair.path, tmp_path / "pair")
    assert explain(monkeypatch, "report", pair) == 0
    assert (pair / "report.pdf").read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "/nowhere"], 2, "Does the path exist?"),
        (["train", "/nowhere", "--bogus"], 2, "No such option"),
        (["nosuch"], 2, "No such command"),
        (["report", "/nowhere"], 5, "not a finished pair"),
        (["view", "/nowhere"], 2, "there is no folder"),
        (["attribute", "/nowhere", "x.png"], 5, "no finished run"),
        (["backbones", "fetch", "resnet18"], 2, "not a vision transformer"),
        (["train", "/nowhere", "--set", "epochs"], 2, "--set field=value"),
    ],
)
def test_a_failure_is_one_line_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert explain(monkeypatch, *arguments) == code
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told


def test_an_interruption_says_how_to_continue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("explain.data.base.load_data", interrupted)
    assert explain(monkeypatch, "train", "anything") == 4
    assert "same command again" in capsys.readouterr().err


def test_help_names_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("demo", "train", "attribute", "report", "view", "backbones", "doctor"))

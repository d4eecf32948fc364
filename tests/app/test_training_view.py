"""The page "Training": curves, trials, seeds, costs and calibration of every arm."""

from pathlib import Path

import pytest
from fake_pair import make_fake_pair
from small_archive import explain_all, small_models
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

from explain.data.base import Dataset
from explain.training.pair import MatchedPair

SECTIONS = {"curves": 1, "search": 1, "seeds": 0, "cost": 1, "calibration": 2}


def show(monkeypatch: pytest.MonkeyPatch, run: Path, section: str, lang: str = "en") -> AppTest:
    page = start(monkeypatch, run, "training", lang=lang)
    page.session_state["training"] = section
    return page.run()


def figures(page: AppTest) -> int:
    return len(page.get("plotly_chart"))


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("section", SECTIONS)
def test_every_part_is_there(monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair, section: str, lang: str) -> None:
    page = show(monkeypatch, fake_pair.path, section, lang)
    assert not page.exception and not page.error and not page.warning and figures(page) == SECTIONS[section]


def test_curves_say_which_arm_overfitted_and_can_be_taken_away(
    monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair
) -> None:
    page = show(monkeypatch, fake_pair.path, "curves")
    assert "**FT**: The test loss turned at epoch 5" in texts(page)
    assert "**VPT**: The test loss did not turn" in texts(page)
    page.button_group(key="arms").set_value(["vpt"]).run()
    spec = page.get("plotly_chart")[0].proto.spec
    assert "VPT, Test" in spec and "FT, Test" not in spec
    page.button_group(key="arms").set_value([]).run()
    assert figures(page) == 0 and len(page.info) == 1 and not page.exception


def test_the_table_of_trials_marks_one_per_arm(monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair) -> None:
    table = show(monkeypatch, fake_pair.path, "search").dataframe[0].value
    assert len(table) == sum(len(run.manifest.trials) for run in fake_pair)
    chosen = table[table["Chosen"] == "✓"]
    assert dict(zip(chosen["Arm"], chosen["Learning rate"], strict=True)) == {
        "VPT": fake_pair.vpt.manifest.chosen.learning_rate, "FT": fake_pair.ft.manifest.chosen.learning_rate,
        "Linear probe": fake_pair.runs["linear"].manifest.chosen.learning_rate,
    }  # fmt: skip


def test_one_seed_names_the_command_and_several_are_compared(
    monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair, tmp_path: Path
) -> None:
    alone = show(monkeypatch, fake_pair.path, "seeds")
    assert "explain train DATA --seeds 5" in alone.code[0].value and figures(alone) == 0
    pairs = [make_fake_pair(tmp_path / "study" / f"seed{seed}", seed=seed, per_class=12) for seed in (0, 1)]
    page = show(monkeypatch, pairs[0].path, "seeds")
    assert not page.exception and not page.error and figures(page) == 1
    assert [code.value for code in page.code] == [f"explain view {pairs[1].path}"]
    shown = page.table[0].value
    for seed, pair in enumerate(pairs):
        assert shown[f"Seed {seed}"].iloc[0] == f"{100 * pair.vpt.manifest.test.accuracy:.1f}"


def test_costs_are_those_of_the_runs(monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair) -> None:
    table = show(monkeypatch, fake_pair.path, "cost").table[0].value.astype(str)
    rows = {row[0]: list(row[1:]) for row in table.values.tolist()}
    manifests = [run.manifest for run in fake_pair]
    assert rows["Trained parameters"] == [f"{one.trained_parameters:,}" for one in manifests]
    assert rows["Steps in all"] == [f"{one.steps + sum(trial.steps for trial in one.trials):,}" for one in manifests]


def test_on_an_archive_without_its_pair_the_page_says_what_to_open(
    monkeypatch: pytest.MonkeyPatch, pictures: Dataset, tmp_path: Path
) -> None:
    explain_all(small_models(), pictures, tmp_path / "maps")
    page = start(monkeypatch, tmp_path / "maps", "training")
    assert not page.exception and not page.error and figures(page) == 0
    assert [code.value for code in page.code] == ["explain view RUN"]

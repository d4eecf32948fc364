"""The page "Evidence": verdicts first, every part with what it can tell, and the curves of one image."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_evidence import fake_planted, fake_summary, write_fake_evidence
from small_archive import explain_all, small_models
from streamlit.testing.v1 import AppTest
from viewer_app import finish, start, texts

from app import curves
from app.verdicts import agreement_verdicts, cascade_verdicts, chance_verdicts, control_verdicts, planted_verdicts
from app.worker import Ticket
from explain.data.base import Dataset
from explain.engine import load_images
from explain.errors import Cancelled
from explain.evidence.measures.removal import Removal
from explain.evidence.subject import Subject
from explain.files import read_json, write_json
from explain.i18n import translate
from explain.metrics.faithfulness import patch_order
from explain.training.pair import MatchedPair

CAN_TELL = {"en": "cannot tell", "ja": "分かりません"}
FIGURES = {"faithfulness": 1, "sanity": 2, "location": 1, "agreement": 2, "answers": 0}


@pytest.fixture(scope="module")
def measured(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained pair with evidence beside it."""
    folder = tmp_path_factory.mktemp("viewed") / "pair"
    shutil.copytree(tiny_pair.path, folder)
    write_fake_evidence(folder, tiny_pair)
    return folder


def show(monkeypatch: pytest.MonkeyPatch, run: Path, section: str, *, lang: str = "en", **choices: str) -> AppTest:
    """A part of the page, with choices made on it."""
    page = start(monkeypatch, run, "evidence", lang=lang)
    for key, value in {"evidence": section, **choices}.items():
        page.session_state[key] = value
    return page.run()


def tables(test: AppTest) -> str:
    """All cells of all tables, row by row."""
    return "\n".join(" | ".join(map(str, row)) for table in test.table for row in table.value.values.tolist())


def figures(test: AppTest) -> int:
    return len(test.get("plotly_chart"))


@pytest.mark.parametrize("section, words", [("faithfulness", ["evaluate"]), ("sanity", ["planted", "evaluate"])])
def test_without_evidence_a_part_names_its_commands(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, section: str, words: list[str]
) -> None:
    page = show(monkeypatch, tiny_pair.path, section)
    assert not page.exception and not page.error and figures(page) == 0
    assert [code.value for code in page.code] == [f"explain {word} {tiny_pair.path}" for word in words]


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("section", FIGURES)
def test_a_part_says_what_it_came_to_and_what_it_can_tell(
    monkeypatch: pytest.MonkeyPatch, measured: Path, section: str, lang: str
) -> None:
    page = show(monkeypatch, measured, section, lang=lang)
    assert not page.exception and not page.error and not page.info and figures(page) == FIGURES[section]
    assert page.markdown[0].value.strip("#* ") == "squares"  # and nothing of the file's own text above it
    assert texts(page).count(CAN_TELL[lang]) == FIGURES[section]
    verdicts = [part.value for part in page.markdown if part.value.startswith("- ")]
    assert bool(verdicts) == (section != "answers")


def test_failures_of_the_planted_test_come_first(monkeypatch: pytest.MonkeyPatch, measured: Path) -> None:
    page = show(monkeypatch, measured, "sanity")
    first = next(part.value for part in page.markdown if part.value.startswith("- "))
    assert first.splitlines()[0].startswith("- :red[:material/cancel: **FAILED**] GradCAM on FT: the map does not")
    assert "\u22120.08 (\u22120.13 – \u22120.03)" in first.splitlines()[0]
    assert "**FAILED**" in tables(page) and "NOT TESTED" in tables(page)


def test_verdicts_name_exactly_what_the_intervals_show(tiny_pair: MatchedPair) -> None:
    t, summary = translate("en"), fake_summary(tiny_pair)
    above, not_above = chance_verdicts(summary, "gain", t)
    cells = {(cell.model, cell.method): cell.estimate for cell in summary.cells if cell.metric == "gain"}
    weak = {key for key, value in cells.items() if value.low is not None and value.low <= 0}
    assert ("linear", "grad_cam") in weak and ("vpt", "grad_cam") not in weak  # else this says nothing
    assert not_above.startswith("**Not shown") and "Grad\\-CAM on Linear probe" in not_above
    assert "Grad\\-CAM on VPT, FT" in above and "random" not in above
    vpt = control_verdicts(summary, "gain", t)[0]
    assert "Sobel edges" in vpt and "Grad\\-CAM" not in vpt and "Attention rollout" in vpt
    assert chance_verdicts(summary, "gini", t) == [] == control_verdicts(summary, "gini", t)


def test_a_map_that_survives_shuffled_weights_is_told(tiny_pair: MatchedPair) -> None:
    t, summary = translate("en"), fake_summary(tiny_pair)
    cells = [
        cell.model_copy(update={"estimate": cell.estimate.model_copy(update={"mean": 0.7, "low": 0.6, "high": 0.8})})
        if (cell.model, cell.method, cell.metric) == ("ft", "grad_cam", "cascade_signed/all") else cell
        for cell in summary.cells
    ]  # fmt: skip
    left, gone = cascade_verdicts(summary.model_copy(update={"cells": tuple(cells)}), t)
    assert left.endswith("Grad\\-CAM on FT.") and "Grad\\-CAM on VPT, Linear probe" in gone
    assert len(cascade_verdicts(summary, t)) == 1


def test_agreement_stands_beside_its_ceilings_where_there_are_several_seeds(tiny_pair: MatchedPair) -> None:
    t = translate("en")
    several, alone = (agreement_verdicts(fake_summary(tiny_pair, seeds), "pearson", t) for seeds in ((0, 1, 2), (0,)))
    assert "0.66 (0.61 – 0.71); two seeds of one arm 0.70, 0.70; maps of two" in several[1]
    assert several[1].endswith("**reproducible**") and several[0].endswith("**not reproducible here**")
    assert "two seeds" not in alone[1] and alone[1].endswith("**one seed: no ceiling**")


def test_names_of_arms_cannot_write_markdown(tiny_pair: MatchedPair) -> None:
    planted = fake_planted(tiny_pair)
    trusts = tuple(row.model_copy(update={"arm": "*a*<b>"}) for row in planted.trusts)
    lines = planted_verdicts(planted.model_copy(update={"trusts": trusts}), translate("en"))
    assert all("\\*a\\*\\<b\\>" in line for line in lines)


def test_numbers_have_their_intervals_and_another_metric_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, measured: Path, tiny_pair: MatchedPair
) -> None:
    page = start(monkeypatch, measured, "evidence")
    cell = fake_summary(tiny_pair).cell("vpt", "integrated_gradients", "gain")
    assert cell is not None
    one = cell.estimate
    assert f"{one.mean:.2f} ({one.low:.2f} – {one.high:.2f})" in tables(page)
    before = page.get("plotly_chart")[0].proto.spec
    page.selectbox(key="metric").set_value("insertion").run()
    assert not page.exception and page.get("plotly_chart")[0].proto.spec != before
    assert page.query_params["metric"] in ("insertion", ["insertion"])


def test_a_tiny_p_value_is_not_nought(monkeypatch: pytest.MonkeyPatch, measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sure"
    shutil.copytree(measured, folder)
    record = read_json(folder / "evidence" / "summary.json")
    record["contrasts"][0]["p"] = 0.0004
    write_json(folder / "evidence" / "summary.json", record)
    shown = start(monkeypatch, folder, "evidence")
    assert "< 0.001" in tables(shown) and "p < 0.001" in texts(shown) and "0.000" not in tables(shown)


def test_evidence_on_other_weights_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, measured: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(measured, folder)
    record = read_json(folder / "evidence" / "summary.json")
    for model in record["models"]:
        model["weights_sha256"] = "0" * 64
    write_json(folder / "evidence" / "summary.json", record)
    page = start(monkeypatch, folder, "evidence")
    assert not page.exception and len(page.error) == 1 and "explain evaluate" in texts(page) and figures(page) == 0


# ---- one image


def test_curves_are_those_of_the_measure(tiny_pair: MatchedPair) -> None:
    model, sample = tiny_pair.vpt.model, tiny_pair.test.samples[0]
    image, label = load_images([sample], model.transform), np.array([sample.label])
    grid = model.grid_for(image)
    maps = np.random.default_rng(3).random((1, *grid)).astype(np.float32)
    subject = Subject("vpt", 0, model, (sample.id,), image, label, np.zeros((1, 64, 64), bool), {"some": maps}, {})
    rows = {one.metric: one.value for one in Removal()(subject) if one.method in ("some", None)}
    random = subject.rng("reference of removal", sample.id).permutation(maps[0].size)
    orders = np.stack([patch_order(maps[0], np.random.default_rng(0)), random])
    found = curves.removal_curves(model, image, orders, sample.label, Ticket())
    assert found.deletion.shape == found.insertion.shape == (2, len(found.shares)) and found.shares[-1] == 1
    expected = [[rows["deletion"], rows["random_deletion"]], [rows["insertion"], rows["random_insertion"]]]
    np.testing.assert_allclose([found.deletion_areas, found.insertion_areas], expected, atol=1e-5)
    np.testing.assert_allclose(found.deletion[:, 0], found.insertion[:, -1])  # both ends are the whole image
    assert abs(found.deletion[0, 0] - rows["score_full"]) < 1e-5


def test_curves_stop_when_nobody_wants_them(tiny_pair: MatchedPair) -> None:
    model, ticket = tiny_pair.vpt.model, Ticket()
    image = load_images([tiny_pair.test.samples[0]], model.transform)
    ticket.stopped.set()
    with pytest.raises(Cancelled):
        curves.removal_curves(model, image, np.arange(16)[None], 0, ticket)


def test_one_image_has_curves_of_both_models_beside_random_orders(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    page = show(monkeypatch, tiny_pair.path, "one_image", curve="attention_rollout")
    page = finish(page)
    assert not page.exception and not page.error and not page.warning and figures(page) == 1
    assert len(page.table[0].value) == 2 and "10 random orders" in texts(page) and "0 – 9" in texts(page)
    assert "VPT: the order of this map is better than" in texts(page)
    page.selectbox(key="curve").set_value("grad_cam").run()
    assert figures(finish(page)) == 1


def test_on_an_archive_without_its_pair_the_page_says_what_to_open(
    monkeypatch: pytest.MonkeyPatch, pictures: Dataset, tmp_path: Path
) -> None:
    explain_all(small_models(), pictures, tmp_path / "maps")
    page = start(monkeypatch, tmp_path / "maps", "evidence")
    assert not page.exception and not page.error and figures(page) == 0
    assert [code.value for code in page.code] == ["explain view RUN"]

"""The page "Overview": the verdict in words, the numbers behind it, and the ways into the images."""

import shutil
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
from small_archive import explain_all, small_models
from squares import draw_pictures
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

from app.answers import Answers, Rate
from app.headline import points
from app.index import Query
from app.views.overview import link_of
from explain.files import read_json, write_json
from explain.metrics.classification import confusion
from explain.training.pair import MatchedPair


def figures(test: AppTest) -> int:
    return len(test.get("plotly_chart"))


def links(test: AppTest) -> list[str]:
    return [str(link.proto.query_string) for link in test.get("page_link")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The maps of two tiny models for 24 images that have labels."""
    folder = tmp_path_factory.mktemp("overview")
    explain_all(small_models(), draw_pictures(folder / "pictures"), folder / "maps")
    return folder / "maps"


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_pair_without_maps_has_verdict_rates_and_mistakes(
    monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair, lang: str
) -> None:
    page = start(monkeypatch, fake_pair.path, "overview", lang=lang)
    assert not page.exception and not page.error and figures(page) == 2
    shown = texts(page)
    sentence = {"en": "FT is more accurate than VPT, by", "ja": "FT の正解率は VPT より"}[lang]
    assert f"## {sentence}" in shown
    assert [code.value for code in page.code] == [f"explain attribute {fake_pair.path} --out {fake_pair.path}/maps"]


def test_the_verdict_is_computed_from_the_answers(monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair) -> None:
    page = start(monkeypatch, fake_pair.path, "overview")
    vpt, ft = fake_pair.vpt.predictions.correct, fake_pair.ft.predictions.correct
    shown = texts(page)
    gap = 100 * (ft.mean() - vpt.mean())
    assert f"by {gap:.1f} percentage points" in shown
    assert f"VPT alone is right on {(vpt & ~ft).sum()} images, FT alone on {(ft & ~vpt).sum()}" in shown
    labels = [link.proto.label for link in page.get("page_link")]
    assert any(label.startswith(f"**{(vpt & ft).sum()}** ·") for label in labels)
    assert any(label.startswith(f"**{(~vpt & ~ft).sum()}** ·") for label in labels)


def test_no_difference_shown_is_a_verdict(monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair, tmp_path) -> None:
    folder = tmp_path / "even"
    shutil.copytree(fake_pair.path, folder)
    shutil.copyfile(folder / "vpt" / "predictions.parquet", folder / "ft" / "predictions.parquet")
    manifests = {arm: read_json(folder / arm / "manifest.json") for arm in ("vpt", "ft")}
    name = "predictions.parquet"
    manifests["ft"]["files"][name] = manifests["vpt"]["files"][name]
    write_json(folder / "ft" / "manifest.json", manifests["ft"])
    shown = texts(start(monkeypatch, folder, "overview"))
    assert "## No difference in accuracy is shown between VPT and FT" in shown and "no proof" in shown


def test_an_archive_alone_is_counted_from_its_table(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    page = start(monkeypatch, archive, "overview")
    assert not page.exception and not page.error and figures(page) == 3
    shown = texts(page)
    assert "24 images of the archive" in shown and "Matched training" not in shown
    page.selectbox(key="alike").set_value("attention_rollout").run()
    assert not page.exception and page.query_params["alike"] == "attention_rollout"
    assert any("sort=agreement_attention_rollout_vpt_ft" in link for link in links(page))


def test_images_without_labels_have_no_accuracy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pictures = [path for path in sorted(draw_pictures(tmp_path / "pictures").rglob("*.png"))][:8]
    explain_all(small_models(), pictures, tmp_path / "maps")
    page = start(monkeypatch, tmp_path / "maps", "overview")
    assert not page.exception and not page.error and figures(page) == 1
    assert "give the same answer on" in texts(page) and "None of the 8 images has a label" in texts(page)


def test_suggestions_lead_to_their_images(monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair) -> None:
    page = start(monkeypatch, fake_pair.path, "overview")
    ways = [link for link in links(page) if "sample=" in link]
    assert 3 <= len(ways) <= 5 and len(set(ways)) == len(ways)
    vpt, ft = fake_pair.vpt.predictions, fake_pair.ft.predictions
    wrong = ~vpt.correct & ~ft.correct
    surest = vpt.ids[int(np.argmax(np.where(wrong, vpt.probabilities.max(axis=1), -1)))]
    assert any(surest.replace("/", "%2F").replace(" ", "+") in link and "outcome=both_wrong" in link for link in ways)


def test_a_mistake_leads_to_the_images_of_the_model_that_makes_it(
    monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair
) -> None:
    names = fake_pair.vpt.manifest.class_names
    tables = [confusion(run.predictions.labels, run.predictions.classes, len(names)) for run in fake_pair]
    truth, answer = divmod(int(np.argmax((tables[0] + tables[1]) * ~np.eye(len(names), dtype=bool))), len(names))
    most = "vpt" if tables[0][truth, answer] >= tables[1][truth, answer] else "ft"
    expected = {"class": names[truth], "answer": names[answer], "by": most, "part": "test"}
    page = start(monkeypatch, fake_pair.path, "overview")
    assert expected in [dict(parse_qsl(link)) for link in links(page)]


def test_a_link_says_only_what_is_asked_for() -> None:
    assert link_of(Query()) == {}
    assert link_of(Query("both_wrong", part="test", sort="gap", descending=True), sample="a") == {
        "outcome": "both_wrong", "part": "test", "sort": "gap", "down": "1", "sample": "a"}  # fmt: skip


def test_answers_count_outcomes_and_their_difference() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    classes = {"a": np.array([0, 1, 1, 1, 0]), "b": np.array([0, 0, 0, 0, 0])}
    rates = {"a": Rate(0.6, 0.2, 0.9), "b": Rate(0.4, 0.1, 0.8)}
    found = Answers(labels, classes, rates, "")
    assert found.outcomes("a", "b") == {"both_right": 1, "only_first": 2, "only_second": 1, "both_wrong": 1}
    assert found.difference("a", "b").mean == pytest.approx(0.2) and found.difference("a", "b").tie
    assert found.test("a", "b")[:2] == (2, 1)
    assert points(-0.0525) == "\u22125.2"

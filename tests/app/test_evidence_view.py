"""The page "Evidence", and what the planted-cue test adds to "Compare"."""

import shutil
from pathlib import Path

import pytest
from fake_evidence import fake_planted, fake_summary, write_fake_evidence
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

from explain.files import read_json, write_json
from explain.training.pair import MatchedPair


@pytest.fixture(scope="module")
def measured(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained pair with evidence beside it."""
    folder = tmp_path_factory.mktemp("viewed") / "pair"
    shutil.copytree(tiny_pair.path, folder)
    write_fake_evidence(folder, tiny_pair)
    return folder


def tables(test: AppTest) -> str:
    """All cells of all tables, row by row."""
    return "\n".join(" | ".join(map(str, row)) for table in test.table for row in table.value.values.tolist())


def figures(test: AppTest) -> int:
    return len(test.get("plotly_chart"))


def test_without_evidence_the_page_names_the_commands(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    page = start(monkeypatch, tiny_pair.path, "evidence")
    assert not page.exception and not page.error and figures(page) == 0
    expected = [f"explain {word} {tiny_pair.path}" for word in ("evaluate", "planted")]
    assert [code.value for code in page.code] == expected


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_figure_is_there_with_what_it_can_tell(
    monkeypatch: pytest.MonkeyPatch, measured: Path, lang: str
) -> None:
    page = start(monkeypatch, measured, "evidence", lang=lang)
    assert not page.exception and not page.error and not page.info and figures(page) == 6
    assert page.markdown[0].value.startswith("#### squares")  # and nothing of the file's own text above it
    cannot = {"en": "cannot tell", "ja": "分かりません"}[lang]
    assert texts(page).count(cannot) == 6
    shown = tables(page)
    words = {"en": ("**FAILED**", "no difference shown", "not reproducible here"),
             "ja": ("**不合格**", "差は示されない", "ここでは再現性なし")}[lang]  # fmt: skip
    assert [word for word in words if word not in shown] == []


def test_numbers_have_their_intervals_and_another_metric_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, measured: Path, tiny_pair: MatchedPair
) -> None:
    page = start(monkeypatch, measured, "evidence")
    cell = fake_summary(tiny_pair).cell("vpt", "integrated_gradients", "gain")
    assert cell is not None
    one = cell.estimate
    assert f"{one.mean:.2f} ({one.low:.2f} – {one.high:.2f})" in tables(page)
    before = page.get("plotly_chart")[0].proto.spec
    page.selectbox(key="evidence_metric").set_value("pixel_auroc").run()
    assert not page.exception and page.get("plotly_chart")[0].proto.spec != before


def test_evidence_on_other_weights_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, measured: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(measured, folder)
    file = folder / "evidence" / "summary.json"
    record = read_json(file)
    for model in record["models"]:
        model["weights_sha256"] = "0" * 64
    write_json(file, record)
    page = start(monkeypatch, folder, "evidence")
    assert not page.exception and len(page.error) == 1 and "explain evaluate" in texts(page) and figures(page) == 0


def test_compare_marks_what_failed_and_what_was_not_tested(monkeypatch: pytest.MonkeyPatch, measured: Path) -> None:
    page = start(monkeypatch, measured)
    shown = texts(page)
    assert not page.exception and not page.warning
    assert shown.count(":red-badge[:material/cancel: **FAILED**]") == 1 and "**PASSED**" not in shown
    assert "did not tell which cue FT uses: difference \u22120.08 (\u22120.13 to \u22120.03)" in shown
    assert "NOT TESTED" not in shown and "class-agnostic" in shown
    page.toggle(key="reference").set_value(True).run()
    assert texts(page).count(":gray-badge[:material/help: **NOT TESTED**]") == 3


def test_compare_says_why_a_planted_test_is_not_used_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, measured: Path, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(measured, folder)
    record = fake_planted(tiny_pair).model_dump(mode="json") | {"backbone_sha256": "0" * 64}
    write_json(folder / "planted" / "planted.json", record)
    page = start(monkeypatch, folder)
    assert not page.exception and not page.error and "another backbone" in page.warning[0].value.replace("\\", "")
    assert "FAILED" not in texts(page)

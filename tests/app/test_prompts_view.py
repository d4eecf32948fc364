"""The page "Prompts": what the store holds, read only."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

from explain.errors import UnknownNameError
from explain.files import read_json, write_json
from explain.i18n import translate
from explain.prompts.acceptance import set_criteria
from explain.prompts.compare import BlockCosine
from explain.prompts.store import PromptStore
from explain.render.prompts_plots import cosines_figure
from explain.training.pair import MatchedPair

SAID = {"owner": "quality [line]", "purpose": "weaving *defects*", "who": "aiko"}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, tmp_path: Path) -> PromptStore:
    """A name with two versions, a tag, an alias and criteria, where the viewer looks."""
    found = PromptStore(tmp_path / "prompts")
    found.add(tiny_pair.vpt, name="line-3", metrics={"minutes": 2.5}, **SAID)
    found.add(tiny_pair.runs["linear"], name="line-3", **SAID)
    found.tag("line-3@v1", "audit-2026", who="ken")
    found.alias("line-3@v2", "staging", who="ken")
    set_criteria(found, "line-3", ["accuracy >= 0", "completeness gap <= 2 %"], who="ken")
    monkeypatch.setenv("EXPLAIN_PROMPTS", str(found.path))
    return found


def figures(test: AppTest) -> int:
    return len(test.get("plotly_chart"))


def test_without_a_store_the_page_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXPLAIN_PROMPTS", str(tmp_path / "nowhere"))
    page = start(monkeypatch, tiny_pair.path, "prompts")
    assert not page.exception and not page.error and not (tmp_path / "nowhere").exists()
    assert page.code[0].value.startswith(f"explain prompts add {tiny_pair.path}/vpt --name ")


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_versions_criteria_comparison_and_log_are_there(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, store: PromptStore, lang: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    page = start(monkeypatch, tiny_pair.path, "prompts", lang=lang)
    assert not page.exception and not page.error and not page.warning
    shown = texts(page)
    expected = ["**v1**", "**v2**", ":gray-badge[audit-2026]", ":green-badge[staging]", "minutes 2.5",
                "quality [line]", "weaving *defects*", "aiko", "completeness gap <= 2 %",
                store.get("line-3").version.id[:10]]  # fmt: skip
    assert [text for text in expected if text not in shown] == []
    assert {"en": "not measured", "ja": "未測定"}[lang] in shown
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before


def test_two_versions_are_compared_as_the_command_compares_them(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, store: PromptStore
) -> None:
    page = start(monkeypatch, tiny_pair.path, "prompts")
    a, b = (store.get(f"line-3@v{number}").predictions().classes for number in (1, 2))
    shown = texts(page)
    assert f"{100 * (a == b).mean():.1f} % of {len(a)} common test images" in shown
    assert "tuning" in shown and "at least one of the two has no prompts" in shown and figures(page) == 0
    page.selectbox(key="version_b").set_value("v1").run()
    assert not page.exception and "The same version is chosen twice." in texts(page)
    assert page.query_params["version_b"] == "v1"


def test_an_altered_log_is_told(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, store: PromptStore) -> None:
    file = store.path / "names" / "line-3.json"
    record = read_json(file)
    record["log"][0]["who"] = "somebody else"
    write_json(file, record)
    page = start(monkeypatch, tiny_pair.path, "prompts")
    assert not page.exception and "does not follow from the line before it" in texts(page)


def test_a_changed_card_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, store: PromptStore
) -> None:
    card = store.get("line-3@v1").folder / "card.json"
    write_json(card, read_json(card) | {"owner": "somebody else"})
    page = start(monkeypatch, tiny_pair.path, "prompts")
    assert not page.exception and len(page.error) == 1 and "changed since it was registered" in texts(page)


def test_cosines_are_drawn_by_block_with_and_without_an_order() -> None:
    t = translate("en")
    both = cosines_figure([BlockCosine(0, 0.5, 0.7), BlockCosine(1, -0.4, 0.2)], t)
    assert [list(trace.y) for trace in both.data] == [[0.5, -0.4], [0.7, 0.2]] and list(both.data[0].x) == [1, 2]
    assert both.layout.yaxis.range[0] < -0.4
    assert len(cosines_figure([BlockCosine(3, None, 0.9)], t).data) == 1


def test_a_missing_name_of_a_link_is_put_back(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, store: PromptStore
) -> None:
    with pytest.raises(UnknownNameError):
        store.history("line-9")
    page = start(monkeypatch, tiny_pair.path, "prompts")
    page.query_params["prompt"] = "line-9"
    page.run()
    assert not page.exception and len(page.warning) == 1 and page.session_state["prompt"] == "line-3"

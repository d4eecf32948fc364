"""The page "Help": every method, key and word is there, in both languages."""

from pathlib import Path

import pytest
from small_archive import METHODS as KEPT
from small_archive import explain_all, small_models
from squares import draw_pictures
from viewer_app import start, texts

from app.views.help import SECTIONS
from explain.i18n import LANGUAGES, translate
from explain.methods.base import METHODS
from explain.training.pair import MatchedPair


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_reached_by_a_link(
    monkeypatch: pytest.MonkeyPatch, fake_pair: MatchedPair, section: str, lang: str
) -> None:
    page = start(monkeypatch, fake_pair.path, "help", lang=lang)
    page.query_params["help"] = section
    page.run()
    assert not page.exception and not page.error and not page.warning
    assert page.session_state["help"] == section and len(texts(page)) > 400


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_method_says_what_it_shows_and_what_it_cannot(lang: str) -> None:
    t = translate(lang)
    missing = [name for name in METHODS for kind in ("shows", "misses") if f"viewer.help.method.{name}.{kind}" not in t]
    assert missing == []
    assert t.section("viewer.help.word.").keys() == t.section("viewer.help.meaning.").keys()


def test_methods_have_pictures_of_what_the_archive_keeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    explain_all(small_models(), draw_pictures(tmp_path / "pictures", per_class=3), tmp_path / "maps")
    page = start(monkeypatch, tmp_path / "maps", "help")
    page.query_params["help"] = "methods"
    page.run()
    assert not page.exception and not page.error
    shown = texts(page)
    assert len(page.get("image")) == 2 * len(KEPT)
    assert "VPT is on the left, FT on the right" in shown
    assert [METHODS[name].label for name in METHODS if METHODS[name].label not in shown] == []

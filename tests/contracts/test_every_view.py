"""Every page of the viewer runs on a trained pair, in every language, and says its place and its title."""

import pytest
from viewer_app import MAIN, start

from explain.i18n import LANGUAGES, translate
from explain.training.pair import MatchedPair

VIEWS = sorted(path.stem for path in (MAIN.parent / "views").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("view", VIEWS)
def test_a_page_runs_without_an_exception(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, view: str, lang: str
) -> None:
    test = start(monkeypatch, tiny_pair.path, view, lang=lang)
    assert not test.exception and not test.error
    assert len(test.main) > 0


@pytest.mark.parametrize("view", VIEWS)
def test_a_page_tells_a_missing_run_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path, view: str) -> None:
    test = start(monkeypatch, tmp_path / "nothing", view)
    assert not test.exception and len(test.error) == 1


@pytest.mark.parametrize("view", VIEWS)
def test_a_page_has_a_title_in_every_language(view: str) -> None:
    assert all(f"viewer.{view}.title" in translate(lang) for lang in LANGUAGES)

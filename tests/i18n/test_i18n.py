"""Both languages say the same things."""

import json
import re
from importlib.resources import files

import pytest

from explain.errors import InputError, UnknownNameError
from explain.i18n import LANGUAGES, placeholders, translate
from explain.training.pair import MATCHED_FIELDS

FILES = {
    lang: {file.name: json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=list)
           for file in files("explain.i18n").joinpath(lang).iterdir()}
    for lang in LANGUAGES
}  # fmt: skip
CATALOGUES = {lang: {key: text for pairs in found.values() for key, text in pairs} for lang, found in FILES.items()}


def test_every_language_has_the_same_keys() -> None:
    assert CATALOGUES["en"].keys() == CATALOGUES["ja"].keys()


@pytest.mark.parametrize("key", CATALOGUES["en"])
def test_every_language_has_the_same_placeholders(key: str) -> None:
    assert placeholders(CATALOGUES["en"][key]) == placeholders(CATALOGUES["ja"][key])


def test_every_language_has_the_same_files() -> None:
    assert FILES["en"].keys() == FILES["ja"].keys()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_key_is_in_one_file_once_the_one_named_by_its_longest_beginning(lang: str) -> None:
    stems = sorted((name.removesuffix(".json") for name in FILES[lang]), key=len, reverse=True)
    for name, pairs in FILES[lang].items():
        keys = [key for key, _ in pairs]
        assert len(keys) == len(set(keys)), name
        homes = {key: next(stem for stem in stems if key.startswith(f"{stem}.")) for key in keys}
        assert not {key: home for key, home in homes.items() if f"{home}.json" != name}


def test_keys_are_lower_case_words() -> None:
    assert not [key for key in CATALOGUES["en"] if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)+", key)]


def test_no_text_is_empty() -> None:
    assert not [(lang, key) for lang in LANGUAGES for key, text in CATALOGUES[lang].items() if not text.strip()]


def test_every_matched_field_has_a_name_in_both_languages() -> None:
    keys = {f"term.matched.{re.sub('[^a-z]+', '_', words.lower())}" for words in MATCHED_FIELDS.values()}
    assert keys <= CATALOGUES["ja"].keys()


def test_placeholders_are_filled_by_name() -> None:
    assert translate("en")("report.page", page=2, pages=9) == "Page 2 of 9"
    assert translate("ja")("report.page", page=2, pages=9) == "2 / 9 ページ"


def test_values_are_not_read_as_placeholders() -> None:
    assert "{pages}" in translate("en")("report.page", page="{pages}", pages=9)


def test_unknown_language_and_key_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="en, ja"):
        translate("de")
    with pytest.raises(UnknownNameError, match="no.such"):
        translate("en")("no.such")
    assert "no.such" not in translate("en")


def test_missing_and_surplus_values_are_errors() -> None:
    for values in ({"page": 1}, {"page": 1, "pages": 2, "more": 3}):
        with pytest.raises(InputError, match="report.page"):
            translate("en")("report.page", **values)

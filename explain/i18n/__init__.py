"""One catalogue of words, in English and Japanese, for the viewer and the report.

Every file of a language maps flat keys ("report.section.data") to text with named placeholders ("{count}"), the same
keys in both languages. A file is named by what its keys begin with: `viewer.gallery.json` holds the texts of the page
"gallery", so that a new page brings its own. Keys begin with the room that uses them; "term." is shared.
"""

import json
import string
from functools import lru_cache
from importlib.resources import files

from explain.errors import InputError, UnknownNameError

LANGUAGES = ("en", "ja")


class Translator:
    """Text of one language: `t("report.page", page=2, pages=9)`.

    Args:
        lang: "en" or "ja".
        texts: key -> text with named placeholders.
    """

    def __init__(self, lang: str, texts: dict[str, str]) -> None:
        self.lang = lang
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key with its placeholders filled.

        Raises:
            UnknownNameError: no such key.
            InputError: a placeholder has no value, or a value has no placeholder.
        """
        if key not in self._texts:
            raise UnknownNameError(f"the catalogue has no text {key!r}; add it to every language in explain/i18n")
        text = self._texts[key]
        expected = placeholders(text)
        if expected != set(values):
            raise InputError(f"text {key!r} takes the values {sorted(expected)}, got {sorted(values)}")
        return text.format(**values)

    def __contains__(self, key: object) -> bool:
        return key in self._texts

    def section(self, prefix: str) -> dict[str, str]:
        """All texts under a prefix such as "report.", unfilled, by the rest of their key."""
        return {key.removeprefix(prefix): text for key, text in self._texts.items() if key.startswith(prefix)}


def placeholders(text: str) -> set[str]:
    """Names of the placeholders in a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@lru_cache(maxsize=len(LANGUAGES))
def translate(lang: str) -> Translator:
    """The translator of a language.

    Raises:
        UnknownNameError: a language without a catalogue.
    """
    if lang not in LANGUAGES:
        raise UnknownNameError(f"unknown language {lang!r}; known: {', '.join(LANGUAGES)}")
    texts: dict[str, str] = {}
    for file in files(__name__).joinpath(lang).iterdir():
        texts |= json.loads(file.read_text(encoding="utf-8"))
    return Translator(lang, texts)

"""What the viewer remembers of one browser: the session's choices, and the link in the address bar.

A choice made with `choose…` is linked: it lives in the session under its key, and in the address while a page asks for
it. An address that is not what was last written there comes from somebody who opened a link: it wins over the session,
as does every address that the browser's Back and Forward buttons lead to. Linked values are language-neutral, which is
why widgets are not bound to the address directly: streamlit would write their translated labels there.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from explain.data.names import printable
from explain.i18n import LANGUAGES, Translator, translate

SAMPLE, TARGET, LANG, METHOD_NAMES, MODEL_NAMES = "sample", "target", "lang", "methods", "models"
"""Keys that several pages share."""

WHO = "_who"
"""Name of the person who is signed in, where people have to."""

LOOK = "look"
"""What the panel writes into the address by itself: how maps are drawn."""

_KEPT, _PUBLISHED, _ASKED, _LINKED, _NOTES = "_kept", "_published", "_asked", "_linked", "_notes"
_UNREAD = "_unread"

UNDERWAY_S = 5.0
"""A browser may still speak from the address before for so long: a click is on its way while the next one is made."""

NOTED = 80
"""Characters of a value that are shown where it could not be had."""


def begin() -> None:
    """Take over an opened link, and keep the values of widgets that this page does not draw."""
    session = st.session_state
    session[_NOTES], session[_LINKED] = session.pop(_UNREAD, []), {}
    asked = {key: value for key, value in st.query_params.items() if key != LOOK}
    session[_ASKED] = asked if went_through_history() or (asked and not _wrote(asked)) else None
    for key in session.setdefault(_KEPT, set()):
        if key in session:
            # streamlit forgets a widget's value when its page or its options change, but not one set by hand
            session[key] = session[key]


def went_through_history() -> bool:
    """Whether this run was asked for by the browser's Back or Forward button."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def _wrote(asked: dict[str, str]) -> bool:
    """Whether an address was written here: it is the last one, or one that was just replaced on this page."""
    written = st.session_state.setdefault(_PUBLISHED, deque(maxlen=30))
    page, now = _page(), time.monotonic()
    return any(address == asked and (number == 0 or (place == page and now - at < UNDERWAY_S))
               for number, (at, place, address) in enumerate(written))  # fmt: skip


def _page() -> str:
    context = get_script_run_ctx()
    return context.page_script_hash if context is not None else ""


def publish_link() -> None:
    """Write the choices that this page asked for to the address, without those that are as they would be anyway."""
    linked: dict[str, Any] = st.session_state[_LINKED]
    wanted = {key: _text(st.session_state[key]) for key, plain in linked.items() if st.session_state[key] != plain}
    look = {key: value for key, value in st.query_params.items() if key == LOOK}
    if wanted | look != st.query_params.to_dict():
        st.query_params.from_dict(wanted | look)  # at once: every change is a step in the browser's history
    written = st.session_state.setdefault(_PUBLISHED, deque(maxlen=30))
    if written:
        written[0] = (time.monotonic(), *written[0][1:])  # until now it stood there
    if not written or written[0][1:] != (_page(), wanted):
        written.appendleft((time.monotonic(), _page(), wanted))


def choose(key: str, options: Sequence[str], default: str) -> str:
    """The session's value of a choice, put back to the default where it is not among the options.

    A value that cannot be had is noted for the reader, see `notes`. Draw the widget with the same key and without a
    default of its own.
    """
    return str(_choose(key, default, lambda value: value if value in options else None))


def choose_many(key: str, options: Sequence[str], default: Sequence[str], most: int | None = None) -> list[str]:
    """As `choose`, for several values in an order, up to `most` of them; those that cannot be had are left out."""

    def known(values: list[str]) -> list[str] | None:
        found = [value for value in dict.fromkeys(values) if value in options][:most]
        lost = [value for value in dict.fromkeys(values) if value not in found]
        if lost and found:
            _note(key, ",".join(lost))
        return found if found or not values else None

    return list(_choose(key, list(default), known, lambda text: text.split(",") if text else []))


def choose_number(key: str, low: float, high: float, default: float) -> Any:
    """As `choose`, for a number from low to high: an int where the default is one, else a float."""

    def read(text: str) -> float | None:
        try:
            return type(default)(text)
        except ValueError:
            return None

    return _choose(key, default, lambda value: value if low <= value <= high else None, read)


def choose_flag(key: str, default: bool = False) -> bool:
    """As `choose`, for yes or no."""
    return bool(_choose(key, default, lambda value: value, {"1": True, "0": False}.get))


def choose_text(key: str, default: str = "", longest: int = 200) -> str:
    """As `choose`, for any text on one line; what is longer is cut."""
    return str(_choose(key, default, lambda text: " ".join(text.split())[:longest]))


def _choose(
    key: str, default: Any, known: Callable[[Any], Any], read: Callable[[str], Any] = str, *, sticky: bool = False
) -> Any:
    """The settled value; `read` and `known` give None for what cannot be had, `sticky` is kept by links without it."""
    session = st.session_state
    if key in session[_LINKED]:  # asked for before in this run
        return session[key]
    session[_KEPT].add(key)
    session[_LINKED][key] = default
    asked = (session[_ASKED] or {}).get(key)
    if asked is not None:
        value = read(asked)
    elif session[_ASKED] is None or sticky:
        value = session.get(key, default)
    else:
        value = default
    settled = None if value is None else known(value)
    if settled is None:
        _note(key, asked if asked is not None else _text(value))
        settled = default
    session[key] = settled
    return settled


def _note(key: str, value: str) -> None:
    """Remember what could not be had, for `notes`."""
    text = printable(value[: NOTED + 1])
    st.session_state[_NOTES].append((key, text if len(text) <= NOTED else text[: NOTED - 1] + "…"))


def _text(value: Any) -> str:
    """A value as it is written in an address."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return f"{value:.10g}"
    return ",".join(value) if isinstance(value, list | tuple) else str(value)


def notes() -> list[tuple[str, str]]:
    """(key, value) of the choices that had to be put back in this run of the page."""
    return list(st.session_state[_NOTES])


def run_again() -> None:
    """Run the page again because something is there now, not because the reader did something: notes stay."""
    st.session_state[_UNREAD] = notes()
    st.rerun()


def link(page: str, **values: Any) -> str:
    """The relative address of a page with these choices, and the language where it is not the browser's."""
    lang = st.session_state.get(LANG, default_language())
    given = {key: _text(value) for key, value in values.items()} | ({} if lang == default_language() else {LANG: lang})
    return f"{page}?{urlencode(given)}" if given else page


def go(page: str, **values: Any) -> None:
    """Leave for another page, with these choices made."""
    for key, value in values.items():
        st.session_state[_KEPT].add(key)
        st.session_state[key] = value
    st.switch_page(f"views/{page}.py")


def default_language() -> str:
    """The browser's language where there is a catalogue for it, else English."""
    language = (st.context.locale or "").split("-")[0].lower()
    return language if language in LANGUAGES else "en"


def translator() -> Translator:
    """Texts in the language chosen."""
    chosen = _choose(LANG, default_language(), lambda value: value if value in LANGUAGES else None, sticky=True)
    return translate(chosen)

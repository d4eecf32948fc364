"""Entry point: page settings, language, who may come in, menu of pages. Run by streamlit, the run behind `--`."""

from importlib import import_module
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image
from streamlit.navigation.page import StreamlitPage

from app import access, state, widgets
from app.trouble import guard
from explain.errors import ExplainError
from explain.i18n import Translator
from explain.render.heatmap import Scale, colour

VIEWS = Path(__file__).parent / "views"


def view_names() -> list[str]:
    """Names of the pages in menu order: every file of the folder, so that a new page is one new file."""
    names = [file.stem for file in VIEWS.glob("*.py") if not file.stem.startswith("_")]
    return sorted(names, key=lambda name: (import_module(f"app.views.{name}").ORDER, name))


def _page(name: str, t: Translator, *, default: bool) -> StreamlitPage:
    icon = import_module(f"app.views.{name}").ICON
    # the first page has the empty path: a link to the viewer's root keeps its parameters
    return st.Page(VIEWS / f"{name}.py", title=t(f"viewer.{name}.title"), icon=icon, default=default,
                   url_path=None if default else name)  # fmt: skip


def _draw_tab_icon() -> Image.Image:
    """A small heatmap for the browser's tab."""
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    return Image.fromarray(colour(np.exp(-3 * ((rows + 0.3) ** 2 + (columns - 0.2) ** 2)), Scale(0, 1)))


def main() -> None:
    """Draw the chosen page; errors that a user can act on are shown in words, others by an id that the log has."""
    # streamlit fetches icons and emoji of a browser tab from another machine; a picture of our own stays here
    st.set_page_config("explain", _draw_tab_icon(), layout="wide", initial_sidebar_state="collapsed")
    state.begin()
    t = state.translator()
    with guard(t):
        try:
            pages = [_page(name, t, default=number == 0) for number, name in enumerate(view_names())]
            # before anybody is asked to sign in: otherwise the address would lose its page and its choices
            page = st.navigation(pages, position="top" if access.is_inside() else "hidden")
            st.session_state[state.WHO] = access.admit(t)
            st.html(widgets.STYLE)
            page.run()
        except ExplainError as error:
            widgets.show_error(t, error)
    state.publish_link()


main()

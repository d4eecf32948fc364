"""Entry point: page settings, language, menu of pages. Run by streamlit, the run's folder behind `--`."""

from importlib import import_module
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import state, widgets
from app.picture import draw_tab_icon
from explain.errors import ExplainError
from explain.i18n import Translator

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


def main() -> None:
    """Draw the chosen page; errors that a user can act on are shown in words, others are bugs and stay."""
    # streamlit fetches icons and emoji of a browser tab from another machine; a picture of our own stays here
    st.set_page_config("explain", draw_tab_icon(), layout="wide", initial_sidebar_state="expanded")
    state.begin()
    t = state.translator()
    pages = [_page(name, t, default=number == 0) for number, name in enumerate(view_names())]
    page = st.navigation(pages, position="top")
    try:
        page.run()
    except ExplainError as error:
        widgets.show_error(t, error)
    widgets.choose_language(t)
    state.publish_link()


main()

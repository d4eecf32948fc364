"""The panel on a page."""

from functools import cache
from pathlib import Path

import streamlit as st
from streamlit.components.v2.bidi_component.state import ComponentResult
from streamlit.components.v2.types import ComponentRenderer

from app.panel.payload import Panel
from explain.i18n import Translator

FOLDER = Path(__file__).parent
SCRIPTS = ("values", "look", "maps", "paint", "layout", "controls", "gestures", "sheet", "panel")
"""Joined in this order into the one script that a component takes."""

TEXTS = "viewer.panel."


def panel_texts(t: Translator) -> dict[str, str]:
    """The panel's labels in one language, by name; placeholders are filled in the browser."""
    return t.section(TEXTS) | {"lang": t.lang}


def show_panel(panel: Panel, key: str = "panel") -> ComponentResult:
    """Draw a panel; with the same key the reader's zoom and look stay when the panel changes."""
    return _component()(data=panel.encode(), key=key)


@cache
def _component() -> ComponentRenderer:
    # nothing of a user's ever goes into these texts: names travel in the data and are set as text
    script = "\n".join((FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return st.components.v2.component("saliency_panel", js=script, css=(FOLDER / "panel.css").read_text("utf-8"))

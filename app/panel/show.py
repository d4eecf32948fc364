"""The panel on a page."""

from functools import cache
from pathlib import Path

from streamlit.components.v2.bidi_component.state import ComponentResult
from streamlit.components.v2.types import ComponentRenderer

from app.block import component
from app.panel.payload import Panel
from explain.i18n import Translator

FOLDER = Path(__file__).parent
SCRIPTS = ("values", "look", "maps", "paint", "layout", "controls", "gestures", "sheet", "panel")

TEXTS = "viewer.panel."


def panel_texts(t: Translator) -> dict[str, str]:
    """The panel's labels in one language, by name; placeholders are filled in the browser."""
    return t.section(TEXTS) | {"lang": t.lang}


def show_panel(panel: Panel, key: str = "panel") -> ComponentResult:
    """Draw a panel; with the same key the reader's zoom and look stay when the panel changes."""
    return _component()(data=panel.encode(), key=key)


@cache
def _component() -> ComponentRenderer:
    return component("saliency_panel", FOLDER, SCRIPTS, "panel")

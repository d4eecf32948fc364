"""The attention grid on a page."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

from app.attention_grid.sheet import Sheet
from app.block import component

FOLDER = Path(__file__).parent
SCRIPTS = ("values", "paint", "grid", "large", "start")


def show_sheet(
    sheet: Sheet, key: str, *, on_cell: Callable[[int, int], None] | None = None,
    on_query: Callable[[int, int], None] | None = None,
) -> None:  # fmt: skip
    """Draw a sheet.

    Args:
        sheet: what to draw.
        key: of the component; what is focused stays when the sheet changes.
        on_cell: called before the page runs again with row and column of the small map that was chosen, from 0.
        on_query: the same for row and column of the patch that was chosen as query.
    """

    def calling(name: str, function: Callable[[int, int], None] | None) -> Callable[[], None]:
        def call() -> None:
            place = _place(st.session_state[key].get(name))
            if function is not None and place is not None:
                function(*place)

        return call

    _component()(data=sheet.encode(), key=key, on_cell_change=calling("cell", on_cell),
                 on_query_change=calling("query", on_query))  # fmt: skip


def _place(value: object) -> tuple[int, int] | None:
    """Row and column that the browser sent; it may send anything."""
    if not isinstance(value, list) or len(value) != 2 or not all(type(part) is int and part >= 0 for part in value):
        return None
    return value[0], value[1]


@cache
def _component() -> ComponentRenderer:
    return component("attention_grid", FOLDER, SCRIPTS, "grid")

"""Inspect: one image, the maps of the models side by side for the same class, method by method."""

import streamlit as st

from app import opening, state, widgets

ORDER = 30
ICON = ":material/compare:"


def show() -> None:
    """Draw the page."""
    t = state.translator()
    with st.spinner(t("viewer.opening")):
        opened = opening.open_location()
    widgets.show_header(t, opened)
    image = widgets.choose_image(t, opened)
    widgets.show_notes(t)
    if image is None:
        return


if __name__ == "__main__":
    show()

"""Exhibits: what pages of measurements are made of: sections, figures, tables, and numbers as text."""

from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

from app import state
from explain.evidence.summary import Estimate
from explain.i18n import Translator


def choose_section(t: Translator, page: str, names: Sequence[str]) -> str:
    """Which of a page's sections is shown; the choice is linked under the page's name.

    Args:
        t: words; "viewer.<page>.section" names the choice, "viewer.<page>.section.<name>" each section.
        page: name of the page.
        names: of its sections, the first one is shown first.
    """
    chosen = state.choose(page, names, names[0])
    st.segmented_control(
        t(f"viewer.{page}.section"), names, key=page, required=True, label_visibility="collapsed", wrap=True,
        format_func=lambda name: t(f"viewer.{page}.section.{name}"),
    )  # fmt: skip
    return chosen


def show_figure(figure: go.Figure | None, key: str, alt: str) -> None:
    """A figure over the whole width, without the toolbar that covers small ones; nothing where there is none.

    Args:
        figure: drawn in the theme's colours of text and ground.
        key: tells it from the other figures of its page.
        alt: what it shows, for readers who do not see it.
    """
    if figure is not None:
        config = {"displayModeBar": False}
        st.plotly_chart(figure, width="stretch", key=f"figure_{key}", config=config, alt=alt)


def show_lines(lines: Sequence[str]) -> None:
    """What it came to, line by line, before the figures."""
    if lines:
        st.markdown("\n".join(f"- {line}" for line in lines))


def show_rows(rows: Sequence[dict[str, str]]) -> None:
    """A table from rows with the same columns; nothing for no rows."""
    if rows:
        st.table({column: [row[column] for row in rows] for column in rows[0]}, border="horizontal")


def number(value: float | None) -> str:
    """Two digits behind the point where they say something; a dash where there is no number."""
    if value is None:
        return "–"
    size, value = abs(value), value + 0.0  # no minus before nought
    shown = f"{value:.0f}" if size >= 100 else f"{value:.2f}" if size >= 0.01 or size == 0 else f"{value:.2g}"
    return shown.replace("-", "\u2212")


def p_value(p: float | None) -> str:
    """A p-value with three digits; one that would be printed as nought says that it is smaller."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(t: Translator, mean: float | None, low: float | None, high: float | None) -> str:
    """A mean with the ends of its interval."""
    if mean is None:
        return t("term.verdict.not_measured")
    return number(mean) + ("" if low is None or high is None else f" ({number(low)} – {number(high)})")


def estimate(t: Translator, value: Estimate | None) -> str:
    """An estimate in words."""
    return "–" if value is None else interval(t, value.mean, value.low, value.high)

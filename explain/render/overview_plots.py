"""Figures of the first page: how accurate the models are, what they mistake for what, how alike their maps are."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from explain.i18n import Translator
from explain.render import arm_colour
from explain.render.plots import arm_label

ROW_PX, CELL_PX = 58, 62
"""Height of a model's row, and of a class's row."""
WRITTEN_CLASSES = 12
"""With more classes than this the counts are told by pointing at a cell only."""
BINS = np.linspace(-1, 1, 41)
LINE, LIGHT_INK, DARK_INK = "#8A949E", "#1C2430", "#E6EAF0"
"""Of help lines, and of text on a light and on a dark ground."""
MAPS_COLOUR = "#8E3FB0"
"""Of numbers about two models' maps at once, as in the figures of an evaluation."""

Interval = tuple[float, float, float]
"""A share with the ends of its interval, 0-1."""


def rates_figure(rates: Mapping[str, Interval], t: Translator) -> go.Figure:
    """Accuracy of every model in percent, a point with its 95 % interval, the first on top.

    The axis ends near the intervals: models that differ by a few points must not look alike.
    """
    figure = go.Figure()
    for model, (share, low, high) in rates.items():
        value, below, above = (f"{100 * number:.1f}" for number in (share, low, high))
        label, colour = escape(arm_label(model, t)), arm_colour(model)
        figure.add_trace(go.Scatter(
            x=[100 * share], y=[label], name=label, mode="markers+text", text=[f"{value} %"], cliponaxis=False,
            textposition="top center", textfont={"size": 14}, marker={"size": 12, "color": colour},
            error_x={"array": [100 * (high - share)], "arrayminus": [100 * (share - low)], "color": colour,
                     "thickness": 2.5, "width": 6},
            hovertemplate=t("plot.hover", arm=label, value=value, low=below, high=above) + "<extra></extra>",
        ))  # fmt: skip
    start = max(0, 10 * int(min((low for _, low, _ in rates.values()), default=0) * 10 - 0.2))
    figure.update_layout(
        showlegend=False, height=70 + ROW_PX * len(rates), margin={"l": 10, "r": 20, "t": 16, "b": 10},
        xaxis={"title": t("plot.overview.accuracy"), "range": [start, 101], "zeroline": False},
        yaxis={"autorange": "reversed", "automargin": True, "showgrid": False},
    )  # fmt: skip
    return figure


def confusion_figure(
    counts: Mapping[str, npt.NDArray[np.int64]], class_names: Sequence[str], t: Translator, *, dark: bool = False
) -> go.Figure:
    """What each model answered for the images of every class; a cell's colour is its share of the class.

    Args:
        counts: model -> (K, K) images, row the true class, column the answer.
        class_names: K names.
        t: texts.
        dark: it is shown on a dark ground.
    """
    figure = make_subplots(cols=len(counts), shared_yaxes=True, horizontal_spacing=0.05,
                           column_titles=[escape(arm_label(model, t)) for model in counts])  # fmt: skip
    names = [escape(name) for name in class_names]
    for column, table in enumerate(counts.values(), start=1):
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        size = len(names)
        diagonal = np.eye(size, dtype=bool)
        for kind, those in (("right", diagonal), ("wrong", ~diagonal)):
            figure.add_trace(_cells(np.where(those, shares, np.nan), table, names, kind, t), row=1, col=column)
        if size <= WRITTEN_CLASSES:
            figure.add_trace(_counts(table, names, DARK_INK if dark else LIGHT_INK), row=1, col=column)
    figure.update_xaxes(title=t("plot.overview.answer"), showgrid=False, zeroline=False, tickangle=0, automargin=True)
    figure.update_yaxes(autorange="reversed", showgrid=False, zeroline=False, automargin=True)
    figure.update_yaxes(title=t("term.truth"), row=1, col=1)
    figure.update_layout(height=int(min(640, 130 + max(3, len(names)) * CELL_PX)),
                         margin={"l": 10, "r": 10, "t": 36, "b": 10})  # fmt: skip
    return figure


def _cells(
    shares: npt.NDArray[np.float64], table: npt.NDArray[np.int64], names: Sequence[str], kind: str, t: Translator
) -> go.Heatmap:
    """The right or the wrong answers of one model."""
    colour = (0, 114, 178) if kind == "right" else (179, 38, 30)
    shades = [[end, "rgba({}, {}, {}, {})".format(*colour, alpha)] for end, alpha in ((0.0, 0.0), (1.0, 0.6))]
    known = np.isfinite(shares)
    hover = [[t("plot.overview.cell", truth=names[row], answer=names[column], images=int(table[row, column]),
                share=f"{100 * shares[row, column]:.1f}") if known[row, column] else "" for column in range(len(names))]
             for row in range(len(names))]  # fmt: skip
    return go.Heatmap(
        z=shares, x=names, y=names, zmin=0, zmax=1, colorscale=shades, showscale=False, xgap=2, ygap=2,
        customdata=hover, hovertemplate="%{customdata}<extra></extra>", hoverongaps=False,
    )  # fmt: skip


def _counts(table: npt.NDArray[np.int64], names: Sequence[str], ink: str) -> go.Scatter:
    """The number in every cell; a heatmap's own text would take its shades for opaque."""
    rows, columns = np.indices(table.shape).reshape(2, -1)
    return go.Scatter(
        x=[names[column] for column in columns], y=[names[row] for row in rows], mode="text", hoverinfo="skip",
        text=[f"{images:,}" for images in table.ravel()], textfont={"size": 15, "color": ink}, showlegend=False,
    )  # fmt: skip


def alikeness_figure(values: npt.NDArray[np.float64], t: Translator) -> go.Figure:
    """How many images have maps that are so alike, with a line at the median.

    Args:
        values: (n,) correlations of two models' maps, -1 to 1, n at least 1.
        t: texts.
    """
    counts, edges = np.histogram(np.clip(values, -1, 1), BINS)
    hover = [t("plot.overview.bar", low=_signed(low), high=_signed(high), images=int(count))
             for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)]  # fmt: skip
    figure = go.Figure(go.Bar(
        x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges) * 0.92, marker={"color": MAPS_COLOUR},
        customdata=hover, hovertemplate="%{customdata}<extra></extra>",
    ))  # fmt: skip
    middle = float(np.median(values))
    figure.add_vline(x=middle, line={"color": LINE, "dash": "dash", "width": 1.5})
    figure.add_annotation(x=middle, y=1, yref="paper", yanchor="bottom", showarrow=False,
                          text=t("plot.overview.median", value=_signed(middle)))  # fmt: skip
    figure.update_layout(
        height=260, margin={"l": 10, "r": 20, "t": 30, "b": 10}, bargap=0,
        xaxis={"title": t("plot.overview.alikeness"), "range": [-1.02, 1.02], "dtick": 0.5, "zeroline": False},
        yaxis={"title": t("plot.overview.images"), "rangemode": "tozero"},
    )  # fmt: skip
    return figure


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\u2212")

"""Figures of deletion and insertion: what becomes of a score while patches go, or come back, in the order of a map."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from explain.attribution import Array
from explain.i18n import Translator, translate
from explain.render import arm_colour
from explain.render.plots import INK, arm_label

BAND = 0.16
"""Opacity of the band of random orders."""


class RemovalCurves(NamedTuple):
    """One model: probability of the target (0-1) along the map's order, and along random orders.

    `shares` (points,) of the patches are gone or back; the others are (points,), and (orders, points) of random orders.
    """

    arm: str
    shares: Array
    deletion: Array
    insertion: Array
    random_deletion: Array
    random_insertion: Array


def removal_figure(models: Sequence[RemovalCurves], chance: float, lang: str = "en") -> go.Figure:
    """Deletion and insertion side by side: the map's order solid, random orders dashed in a band from least to most.

    Args:
        models: one or two are told apart at a glance.
        chance: probability of a class for a model that knows nothing, 0-1; a dotted line.
        lang: "en" or "ja".
    """
    t = translate(lang)
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=[
        t("plot.faithfulness.deletion"), t("plot.faithfulness.insertion"),
    ])  # fmt: skip
    for column, kind in enumerate(("deletion", "insertion"), start=1):
        for model in models:
            mine, random = getattr(model, kind), getattr(model, f"random_{kind}")
            for trace in (*_band(model, random, t), _curve(model, mine, t)):
                trace.showlegend = trace.showlegend is not False and column == 1
                figure.add_trace(trace, row=1, col=column)
    figure.add_hline(y=100 * chance, line={"color": INK, "dash": "dot", "width": 1.5})
    figure.add_annotation(x=100, y=100 * chance, xanchor="right", yanchor="bottom", text=t("plot.chance"),
                          showarrow=False, font={"color": INK, "size": 11}, row=1, col=1)  # fmt: skip
    figure.update_xaxes(title=t("plot.faithfulness.removed"), range=[0, 100], col=1)
    figure.update_xaxes(title=t("plot.faithfulness.returned"), range=[0, 100], col=2)
    figure.update_yaxes(range=[0, 102])
    figure.update_yaxes(title=t("plot.faithfulness.probability"), col=1)
    figure.update_layout(height=400, margin={"l": 10, "r": 10, "t": 40, "b": 10}, hovermode="x unified",
                         legend={"orientation": "h", "y": -0.22})  # fmt: skip
    return figure


def _curve(model: RemovalCurves, scores: Array, t: Translator) -> go.Scatter:
    label = arm_label(model.arm, t)
    return go.Scatter(
        x=100 * model.shares, y=100 * scores, mode="lines+markers", name=t("plot.faithfulness.map", arm=label),
        legendgroup=model.arm, line={"color": arm_colour(model.arm), "width": 2.5}, marker={"size": 6},
        hovertemplate="%{y:.1f}",
    )  # fmt: skip


def _band(model: RemovalCurves, scores: Array, t: Translator) -> tuple[go.Scatter, go.Scatter]:
    """The span of the random orders as one closed area, and their mean."""
    label, colour, shares = arm_label(model.arm, t), arm_colour(model.arm), 100 * model.shares
    edge = 100 * np.concatenate([scores.max(axis=0), scores.min(axis=0)[::-1]])
    area = go.Scatter(
        x=np.concatenate([shares, shares[::-1]]), y=edge, fill="toself", mode="none", hoverinfo="skip",
        showlegend=False, fillcolor=_faint(colour), legendgroup=f"{model.arm} random",
    )  # fmt: skip
    mean = go.Scatter(
        x=shares, y=100 * scores.mean(axis=0), mode="lines", hovertemplate="%{y:.1f}",
        name=t("plot.faithfulness.random", arm=label, count=len(scores)), legendgroup=f"{model.arm} random",
        line={"color": colour, "width": 1.5, "dash": "dash"},
    )  # fmt: skip
    return area, mean


def _faint(colour: str) -> str:
    """A colour #rrggbb as it is in a band."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {BAND})"

"""Figures of the prompt store: how alike the prompts of two versions are, block by block."""

from collections.abc import Sequence

import plotly.graph_objects as go

from explain.i18n import Translator
from explain.prompts.compare import BlockCosine

MATCHED_COLOUR, ORDER_COLOUR = "#0072B2", "#8A949E"


def cosines_figure(cosines: Sequence[BlockCosine], t: Translator) -> go.Figure:
    """Mean cosine of the prompts of every block that both versions prompt.

    Args:
        cosines: block by block, at least one.
        t: texts.
    """
    blocks, matched = [row.block + 1 for row in cosines], [row.matched for row in cosines]
    in_order = [row.in_order for row in cosines]
    known = [value for value in in_order if value is not None]
    figure = go.Figure()
    if known:
        figure.add_trace(_line(blocks, in_order, t("plot.prompts.in_order"), ORDER_COLOUR, "dot"))
    figure.add_trace(_line(blocks, matched, t("plot.prompts.matched"), MATCHED_COLOUR, "solid"))
    figure.add_hline(y=0, line={"color": ORDER_COLOUR, "width": 1})
    figure.update_layout(
        height=300, margin={"l": 10, "r": 20, "t": 30, "b": 10}, hovermode="x unified",
        xaxis={"title": t("plot.block"), "dtick": 1, "zeroline": False, "range": [blocks[0] - 0.5, blocks[-1] + 0.5]},
        yaxis={"title": t("plot.prompts.cosine"), "range": [min(-0.1, *known, *matched) - 0.05, 1.05]},
        legend={"orientation": "h", "y": 1.15, "x": 0},
    )  # fmt: skip
    return figure


def _line(blocks: Sequence[int], values: Sequence[float | None], name: str, colour: str, dash: str) -> go.Scatter:
    return go.Scatter(x=blocks, y=values, name=name, mode="lines+markers", line={"color": colour, "dash": dash},
                      marker={"size": 9, "color": colour}, hovertemplate="%{y:.3f}")  # fmt: skip

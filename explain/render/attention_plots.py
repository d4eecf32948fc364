"""Figures of attention: which kinds of tokens a query looks at, block by block, beside uniform attention."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb
from plotly.subplots import make_subplots

from explain.i18n import Translator, translate
from explain.render import arm_colour
from explain.render.plots import INK, arm_label

KINDS = ("cls", "registers", "prompts", "patches")
"""Kinds of tokens, in the order of `TokenShares`."""


@dataclass(frozen=True)
class TokenShares:
    """What the kinds of tokens get of a query's attention.

    Args:
        heads: (L, heads, 4), each head's four shares sum to 1.
        uniform: the same under uniform attention, (L, 4): how many of the tokens are of the kind.
    """

    heads: npt.NDArray[np.float32]
    uniform: npt.NDArray[np.float32]


def token_shares_figure(models: Mapping[str, TokenShares], lang: str = "en") -> go.Figure:
    """Shares in percent over the blocks, a panel per kind of token: mean over heads, range, uniform attention.

    Args:
        models: arm -> its shares, drawn in the arm's colour.
        lang: "en" or "ja".
    """
    t = translate(lang)
    kinds = [number for number in range(len(KINDS)) if any(part.uniform[:, number].any() for part in models.values())]
    names = [t(f"plot.attention.{KINDS[number]}") for number in kinds]
    figure = make_subplots(rows=1, cols=len(kinds), subplot_titles=names, horizontal_spacing=0.06)
    for column, kind in enumerate(kinds, start=1):
        for arm, part in models.items():
            if part.uniform[:, kind].any():
                for trace in _traces(arm, 100 * part.heads[:, :, kind], 100 * part.uniform[:, kind], t):
                    figure.add_trace(trace, row=1, col=column)
    for arm in models:
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", name=arm_label(arm, t),
                                    line={"color": arm_colour(arm), "width": 2.5}))  # fmt: skip
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", name=t("plot.attention.uniform"),
                                line={"color": INK, "width": 1.5, "dash": "dash"}))  # fmt: skip
    blocks = max(len(part.heads) for part in models.values())
    figure.update_xaxes(title=t("plot.block"), range=[0.6, blocks + 0.4], dtick=1 if blocks <= 12 else 4, tick0=1)
    figure.update_yaxes(range=[-2, 102], dtick=20, zeroline=False)
    figure.update_yaxes(title=t("plot.attention.share"), row=1, col=1)
    figure.update_layout(height=330, margin={"l": 10, "r": 10, "t": 34, "b": 10},
                         legend={"orientation": "h", "y": -0.24, "x": 0})  # fmt: skip
    return figure


def _traces(
    arm: str, heads: npt.NDArray[np.float32], uniform: npt.NDArray[np.float32], t: Translator
) -> list[go.Scatter]:
    """The range over heads as a band, their mean, and uniform attention dashed; heads (L, heads), uniform (L,)."""
    x, colour, name = np.arange(1, len(heads) + 1), arm_colour(arm), arm_label(arm, t)
    low, mean, high = heads.min(axis=1), heads.mean(axis=1), heads.max(axis=1)
    words = [t("plot.attention.hover", arm=name, block=block, mean=f"{a:.1f}", low=f"{b:.1f}", high=f"{c:.1f}",
               uniform=f"{d:.1f}") for block, a, b, c, d in zip(x, mean, low, high, uniform, strict=True)]  # fmt: skip
    return [
        go.Scatter(x=np.concatenate((x, x[::-1])), y=np.concatenate((high, low[::-1])), fill="toself", mode="lines",
                   line={"width": 0}, fillcolor=f"rgba{(*hex_to_rgb(colour), 0.16)}", hoverinfo="skip",
                   showlegend=False),
        go.Scatter(x=x, y=uniform, mode="lines", line={"color": colour, "width": 1.5, "dash": "dash"},
                   hoverinfo="skip", showlegend=False),
        go.Scatter(x=x, y=mean, mode="lines+markers", line={"color": colour, "width": 2.5}, marker={"size": 6},
                   hovertext=words, hovertemplate="%{hovertext}<extra></extra>", showlegend=False),
    ]  # fmt: skip

"""Figures of models side by side: one measure over the blocks, what was trained in each, and the prompts."""

from collections.abc import Mapping, Sequence
from math import log10

import plotly.graph_objects as go

from explain.attribution import Array
from explain.evidence.summary import Block, Summary
from explain.i18n import Translator, translate
from explain.render.evidence_plots import block_dash, metric_label, model_colour, model_label
from explain.render.plots import arm_label

PAPER, BLUE, CELL_INK = "#F3F5F7", "#5FA3CF", "#1C2430"
"""Colours of a table's cells, from nothing to everything, and of the text on them; the same on a dark page."""

FAINTEST, DECADES = 0.2, 5
"""How strongly the least share that is not nought is coloured, and over how many powers of ten the colour runs."""

CELL_PX = 30


def block_figure(
    summary: Summary, metric: str, curves: Mapping[tuple[str, str], Sequence[Block]], lang: str = "en"
) -> go.Figure:  # fmt: skip
    """One measure over the blocks, counted from 1, every model with its intervals.

    Args:
        summary: of the evaluation.
        metric: of the panel.
        curves: (model, metric) -> blocks in order, as `block_panels` gives them for the panel.
        lang: "en" or "ja".
    """
    t = translate(lang)
    figure = go.Figure()
    for (model, own), blocks in curves.items():
        dash, colour = block_dash(model, own), model_colour(model)
        name = model_label(model, t) + (f", {t('plot.chance')}" if dash == "dot" else "")
        figure.add_trace(go.Scatter(
            x=[block.block + 1 for block in blocks], y=[block.estimate.mean for block in blocks], name=name,
            mode="lines" if dash == "dot" else "lines+markers", marker={"size": 7},
            line={"color": colour, "dash": dash, "width": 2.5}, hovertemplate="%{y:.3g}",
            error_y=_bars(blocks, colour),
        ))  # fmt: skip
    figure.update_layout(
        height=400, margin={"l": 10, "r": 10, "t": 20, "b": 10}, hovermode="x unified",
        xaxis={"title": t("plot.block"), "dtick": 1},
        yaxis={"title": metric_label(summary, metric, t), "rangemode": "tozero"},
        legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    return figure


def _bars(blocks: Sequence[Block], colour: str) -> dict[str, object]:
    """From each mean to the ends of its interval; nothing where it has none."""
    found = [one.estimate for one in blocks]
    up = [0.0 if one.high is None or one.mean is None else one.high - one.mean for one in found]
    down = [0.0 if one.low is None or one.mean is None else one.mean - one.low for one in found]
    return {"array": up, "arrayminus": down, "color": colour, "thickness": 1.2, "width": 3}


def trained_figure(models: Mapping[str, Mapping[str, tuple[int, int]]], lang: str = "en") -> go.Figure:
    """How many parameters each model trained in each place, as a table; the darker, the larger their share there.

    Args:
        models: arm -> place -> (trained, all); places are "embedding", blocks counted from 1, "head".
        lang: "en" or "ja".
    """
    t = translate(lang)
    places = list(next(iter(models.values())))
    counts = [list(model.values()) for model in models.values()]
    figure = go.Figure(go.Heatmap(
        z=[[_depth(trained, total) for trained, total in row] for row in counts], zmin=0, zmax=1, showscale=False,
        x=[t(f"plot.models.{place}") if place in ("embedding", "head") else place for place in places],
        y=[arm_label(arm, t) for arm in models], colorscale=[[0, PAPER], [1, BLUE]], xgap=2, ygap=2,
        text=[[_short(trained) for trained, _ in row] for row in counts], texttemplate="%{text}",
        textfont={"color": CELL_INK, "size": 12},
        customdata=[[t("plot.models.trained", trained=f"{trained:,}", total=f"{total:,}") for trained, total in row]
                    for row in counts],
        hovertemplate="%{y}, %{x}: %{customdata}<extra></extra>",
    ))  # fmt: skip
    figure.update_layout(
        height=110 + 44 * len(models), margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"type": "category", "title": t("plot.models.place"), "showgrid": False},
        yaxis={"autorange": "reversed", "showgrid": False, "automargin": True},
    )  # fmt: skip
    return figure


def _depth(trained: int, total: int) -> float:
    """0 for nothing, 1 for everything, in between by powers of ten: a prompt is a thousandth of its block."""
    return max(FAINTEST, 1 + log10(trained / total) / DECADES) if trained else 0.0


def _short(count: int) -> str:
    """A count with three digits at most."""
    if count >= 1_000_000:
        return f"{count / 1e6:.3g} M"
    return f"{count / 1e3:.3g} k" if count >= 10_000 else f"{count:,}"


def prompt_norms_figure(norms: Mapping[int, Array], lang: str = "en") -> go.Figure:
    """Norm of every prompt, a row per block.

    Args:
        norms: block, counted from 1 -> (P,).
        lang: "en" or "ja".
    """
    t = translate(lang)
    figure = go.Figure(go.Heatmap(
        z=[row.tolist() for row in norms.values()], y=[str(block) for block in norms],
        x=[str(number + 1) for number in range(max(map(len, norms.values())))], colorscale="Cividis", xgap=1, ygap=1,
        colorbar={"title": t("plot.models.norm")}, hovertemplate=t("plot.models.norm_hover") + "<extra></extra>",
    ))  # fmt: skip
    return _squares(figure, t("plot.models.prompt"), t("plot.block"), len(norms))


def prompt_cosines_figure(cosines: Array, lang: str = "en") -> go.Figure:
    """Cosine of every two prompts of one block, (P, P)."""
    t = translate(lang)
    names = [str(number + 1) for number in range(len(cosines))]
    figure = go.Figure(go.Heatmap(
        z=cosines.tolist(), x=names, y=names, zmin=-1, zmax=1, colorscale="RdBu_r", xgap=1, ygap=1,
        colorbar={"title": t("plot.models.cosine")}, hovertemplate=t("plot.models.cosine_hover") + "<extra></extra>",
    ))  # fmt: skip
    return _squares(figure, t("plot.models.prompt"), t("plot.models.prompt"), len(cosines))


def _squares(figure: go.Figure, across: str, down: str, rows: int) -> go.Figure:
    figure.update_layout(
        height=max(220, 110 + CELL_PX * rows), margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"type": "category", "title": across, "showgrid": False},
        yaxis={"type": "category", "title": down, "showgrid": False, "autorange": "reversed"},
    )  # fmt: skip
    return figure


def describe_curves(curves: Mapping[tuple[str, str], Sequence[Block]], t: Translator) -> str:
    """A figure over the blocks in words: every model's first and last value."""
    return " ".join(
        t("report.alt.blocks_value", model=model_label(model, t), first=f"{blocks[0].estimate.mean or 0:.3g}",
          last=f"{blocks[-1].estimate.mean or 0:.3g}")
        for (model, _), blocks in curves.items()
    )  # fmt: skip

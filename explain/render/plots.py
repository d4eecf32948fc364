"""Charts of a pair for the viewer, as plotly figures. Colours: `arm_colour`."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from explain.i18n import Translator, translate
from explain.metrics.calibration import BINS, reliability_curve
from explain.metrics.classification import per_class_recall
from explain.render import arm_colour
from explain.training.overfitting import judge_overfitting, watched_part
from explain.training.pair import MatchedPair
from explain.training.run import Epoch

INK, TURN = "#566472", "#a3211b"
PARTS = {"train": ("dot", "term.training"), "val": ("dash", "term.validation"), "test": ("solid", "term.test")}
"""Part of the data -> how its curve is dashed, and its word."""

Curve = list[tuple[int, float]]


def arm_label(arm: str, t: Translator) -> str:
    """An arm's name for readers: the catalogue's, or the arm's own when it has none."""
    return t(f"term.arm.{arm}") if f"term.arm.{arm}" in t else arm


def training_figure(pair: MatchedPair, lang: str = "en") -> go.Figure:
    """Loss and accuracy over the epochs, a column per arm on shared axes.

    Training is dotted, validation dashed, test solid; what was not watched has no curve. A vertical line marks the
    epoch where the watched loss turned (see `explain.training.overfitting`).
    """
    t = translate(lang)
    figure = make_subplots(
        rows=2, cols=len(pair.runs), shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.02,
        vertical_spacing=0.06, column_titles=[arm_label(arm, t) for arm in pair.runs],
    )  # fmt: skip
    for column, (arm, run) in enumerate(pair.runs.items(), start=1):
        for part in PARTS:
            for row, curve in enumerate(_curves(run.history, part), start=1):
                if curve:
                    figure.add_trace(_line(arm, part, curve, t), row=row, col=column)
        watched = watched_part(run.history, train_on_val=run.recipe.train_on_val)
        turn = judge_overfitting(run.history, part=watched).turning_epoch
        if turn is not None:
            figure.add_vline(x=turn, line={"color": TURN, "width": 1.5}, row="all", col=column)
            figure.add_annotation(x=turn, y=1, yref="y domain", text=t("plot.turn", epoch=turn), showarrow=False,
                                  xanchor="left", font={"color": TURN, "size": 11}, row=1, col=column)  # fmt: skip
    for part, (dash, words) in PARTS.items():  # a legend without colours: they are the arms'
        figure.add_trace(go.Scatter(x=[None], y=[None], name=t(words), mode="lines", legendgroup=part,
                                    line={"color": INK, "dash": dash, "width": 2}))  # fmt: skip
    figure.update_xaxes(title=t("term.epoch"), row=2)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title=t("plot.loss"), row=1, col=1)
    figure.update_yaxes(title=f"{t('term.accuracy')}, %", row=2, col=1)
    figure.update_layout(height=480, margin={"l": 10, "r": 10, "t": 40, "b": 10}, hovermode="x unified",
                         legend={"orientation": "h", "y": -0.15})  # fmt: skip
    return figure


def reliability_figure(pair: MatchedPair, lang: str = "en", *, bins: int = BINS) -> go.Figure:
    """Accuracy against confidence, a column per arm: points with 95 % intervals, their area the share of the images."""
    t = translate(lang)
    figure = make_subplots(
        cols=len(pair.runs), shared_yaxes=True, horizontal_spacing=0.03,
        column_titles=[arm_label(arm, t) for arm in pair.runs],
    )  # fmt: skip
    for column, (arm, run) in enumerate(pair.runs.items(), start=1):
        curve = reliability_curve(run.predictions.probabilities, run.predictions.labels, bins=bins)
        total = sum(row.images for row in curve)
        figure.add_trace(go.Scatter(x=[0, 100], y=[0, 100], mode="lines", hoverinfo="skip", showlegend=False,
                                    line={"color": INK, "dash": "dash", "width": 1}), row=1, col=column)  # fmt: skip
        figure.add_trace(go.Scatter(
            x=[100 * row.confidence for row in curve], y=[100 * row.accuracy for row in curve], mode="markers",
            name=arm_label(arm, t), showlegend=False, cliponaxis=False,
            marker={"color": arm_colour(arm), "size": [max(4.0, 30 * (row.images / total) ** 0.5) for row in curve]},
            error_y={"array": [100 * (row.high - row.accuracy) for row in curve],
                     "arrayminus": [100 * (row.accuracy - row.low) for row in curve],
                     "color": arm_colour(arm), "thickness": 1, "width": 0},
            text=[t("plot.reliability_hover", images=row.images, confidence=f"{100 * row.confidence:.1f}",
                    accuracy=f"{100 * row.accuracy:.1f}", low=f"{100 * row.low:.1f}", high=f"{100 * row.high:.1f}")
                  for row in curve],
            hovertemplate="%{text}<extra></extra>",
        ), row=1, col=column)  # fmt: skip
    figure.update_xaxes(title=t("plot.confidence"), range=[0, 101])
    figure.update_yaxes(range=[0, 101])
    figure.update_yaxes(title=f"{t('term.accuracy')}, %", row=1, col=1)
    figure.update_layout(height=340, margin={"l": 10, "r": 10, "t": 40, "b": 10})
    return figure


def recall_figure(pair: MatchedPair, lang: str = "en") -> go.Figure:
    """Recall of every class in percent, a bar per arm with its 95 % interval."""
    t = translate(lang)
    figure = go.Figure()
    for arm, run in pair.runs.items():
        rows = per_class_recall(run.predictions.labels, run.predictions.classes, run.manifest.class_names)
        figure.add_trace(go.Bar(
            x=[escape(row.name) for row in rows], y=[100 * row.recall for row in rows], name=arm_label(arm, t),
            marker={"color": arm_colour(arm)},
            error_y={"array": [100 * (row.high - row.recall) for row in rows],
                     "arrayminus": [100 * (row.recall - row.low) for row in rows], "thickness": 1, "width": 3},
        ))  # fmt: skip
    figure.update_layout(barmode="group", height=340, margin={"l": 10, "r": 10, "t": 20, "b": 10},
                         yaxis={"title": t("plot.recall"), "range": [0, 101]},
                         legend={"orientation": "h", "y": -0.2})  # fmt: skip
    return figure


def _curves(history: Sequence[Epoch], part: str) -> tuple[Curve, Curve]:
    """(epoch, loss) and (epoch, accuracy in percent) of a part, where it was watched."""
    losses = [(epoch.epoch, getattr(epoch, f"{part}_loss")) for epoch in history]
    accuracies = [(epoch.epoch, getattr(epoch, f"{part}_accuracy")) for epoch in history]
    return (
        [(epoch, loss) for epoch, loss in losses if loss is not None],
        [(epoch, 100 * accuracy) for epoch, accuracy in accuracies if accuracy is not None],
    )


def _line(arm: str, part: str, curve: Curve, t: Translator) -> go.Scatter:
    dash, words = PARTS[part]
    return go.Scatter(
        x=[epoch for epoch, _ in curve], y=[value for _, value in curve], mode="lines", showlegend=False,
        name=f"{arm_label(arm, t)}, {t(words)}", legendgroup=part,
        line={"color": arm_colour(arm), "dash": dash, "width": 2},
    )  # fmt: skip

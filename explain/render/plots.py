"""Charts of a pair for the viewer, as plotly figures. Colours: `arm_colour`."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from explain.i18n import Translator, translate
from explain.render import arm_colour
from explain.training.pair import MatchedPair


def arm_label(arm: str, t: Translator) -> str:
    """An arm's name for readers: the catalogue's, or the arm's own when it has none."""
    return t(f"term.arm.{arm}") if f"term.arm.{arm}" in t else arm


def accuracy_figure(pair: MatchedPair, lang: str = "en") -> go.Figure:
    """Test accuracy of every arm in percent, a point with its 95 % interval; the first arm on top."""
    t = translate(lang)
    figure = go.Figure()
    for arm, run in pair.runs.items():
        test, label = run.manifest.test, arm_label(arm, t)
        value, low, high = (f"{100 * number:.1f}" for number in (test.accuracy, test.low, test.high))
        figure.add_trace(go.Scatter(
            x=[100 * test.accuracy], y=[label], name=label, mode="markers+text", text=[f"{value} %"],
            textposition="top center", textfont={"size": 15, "color": arm_colour(arm)},
            marker={"size": 13, "color": arm_colour(arm)}, cliponaxis=False,
            error_x={"array": [100 * (test.high - test.accuracy)], "arrayminus": [100 * (test.accuracy - test.low)],
                     "color": arm_colour(arm), "thickness": 3, "width": 7},
            hovertemplate=t("plot.hover", arm=label, value=value, low=low, high=high) + "<extra></extra>",
        ))  # fmt: skip
    figure.update_layout(
        showlegend=False, height=90 + 70 * len(pair.runs), margin={"l": 10, "r": 20, "t": 20, "b": 10},
        xaxis={"title": t("plot.accuracy"), "range": [0, 104], "dtick": 20, "zeroline": False},
        yaxis={"autorange": "reversed", "automargin": True},
    )  # fmt: skip
    return figure


def training_figure(pair: MatchedPair, lang: str = "en") -> go.Figure:
    """Loss and accuracy over the epochs of every arm: training dashed, validation solid."""
    t = translate(lang)
    figure = make_subplots(cols=2, subplot_titles=(t("plot.loss"), f"{t('term.accuracy')}, %"), horizontal_spacing=0.1)
    for arm, run in pair.runs.items():
        epochs = [epoch.epoch for epoch in run.history]
        for part, dash in (("train", "dot"), ("val", "solid")):
            name = f"{arm_label(arm, t)}, {t('term.training' if part == 'train' else 'term.validation')}"
            curves = (
                [getattr(epoch, f"{part}_loss") for epoch in run.history],
                [100 * getattr(epoch, f"{part}_accuracy") for epoch in run.history],
            )
            for column, values in enumerate(curves, start=1):
                figure.add_trace(
                    go.Scatter(x=epochs, y=values, name=name, legendgroup=name, showlegend=column == 1, mode="lines",
                               line={"color": arm_colour(arm), "dash": dash, "width": 2}),
                    row=1, col=column,
                )  # fmt: skip
    figure.update_xaxes(title=t("term.epoch"))
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=360, margin={"l": 10, "r": 10, "t": 40, "b": 10}, hovermode="x unified",
                         legend={"orientation": "h", "y": -0.25})  # fmt: skip
    return figure

"""Figures of training: curves of all arms together, trials of the search, seeds, and what each arm cost."""

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from explain.i18n import Translator, translate
from explain.metrics.statistics import seed_interval
from explain.render import arm_colour
from explain.render.plots import PARTS, TURN, arm_label
from explain.training.overfitting import judge_overfitting, watched_part
from explain.training.pair import MatchedPair
from explain.training.run import Epoch, Run, RunManifest
from explain.training.trial import Trial

ROW_PX = 42
"""Height of an arm's row."""

COSTS: dict[str, Callable[[RunManifest], float | None]] = {
    "parameters": lambda manifest: manifest.trained_parameters,
    "seconds": lambda manifest: manifest.seconds_per_epoch,
    "memory": lambda manifest: manifest.peak_mib or None,
    "energy": lambda manifest: None if manifest.energy_j is None else manifest.energy_j / 1e3,
    "file": lambda manifest: manifest.weights_bytes / 1e6,
}
"""What an arm costs: trained parameters, seconds per epoch, peak memory in MiB, energy in kJ, weights file in MB."""

WIDE = 20.0
"""Largest over smallest value from which on an axis is logarithmic."""


def curves_figure(runs: Mapping[str, Run], parts: Sequence[str], lang: str = "en") -> go.Figure:
    """Loss and accuracy over the epochs, every arm in its colour: training dotted, validation dashed, test solid.

    A vertical line in an arm's colour marks the epoch where its watched loss turned.

    Args:
        runs: by arm.
        parts: of `PARTS`, those drawn; what was not watched has no curve.
        lang: "en" or "ja".
    """
    t = translate(lang)
    figure = make_subplots(cols=2, horizontal_spacing=0.07,
                           subplot_titles=[t("plot.loss"), f"{t('term.accuracy')}, %"])  # fmt: skip
    for arm, run in runs.items():
        for part in (part for part in PARTS if part in parts):
            for column, (measure, unit) in enumerate((("loss", 1), ("accuracy", 100)), start=1):
                points = _points(run.history, f"{part}_{measure}", unit)
                if points:
                    figure.add_trace(_line(arm, part, points, t, legend=column == 1), row=1, col=column)
    _mark_turns(figure, runs, t)
    figure.update_xaxes(title=t("term.epoch"), dtick=_whole_steps(runs))
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=430, margin={"l": 10, "r": 10, "t": 40, "b": 10}, hovermode="x unified",
                         legend={"orientation": "h", "y": -0.2})  # fmt: skip
    return figure


def _whole_steps(runs: Mapping[str, Run]) -> int:
    """Epochs between ticks; there is nothing between two epochs."""
    return max(1, round(max((len(run.history) for run in runs.values()), default=1) / 10))


def _points(history: Sequence[Epoch], name: str, unit: int) -> list[tuple[int, float]]:
    known = [(epoch.epoch, getattr(epoch, name)) for epoch in history]
    return [(epoch, unit * value) for epoch, value in known if value is not None]


def _line(arm: str, part: str, points: list[tuple[int, float]], t: Translator, *, legend: bool) -> go.Scatter:
    dash, words = PARTS[part]
    return go.Scatter(
        x=[epoch for epoch, _ in points], y=[value for _, value in points], mode="lines+markers", showlegend=legend,
        name=f"{arm_label(arm, t)}, {t(words)}", legendgroup=f"{arm} {part}", hovertemplate="%{y:.3g}",
        line={"color": arm_colour(arm), "dash": dash, "width": 2}, marker={"size": 4},
    )  # fmt: skip


def _mark_turns(figure: go.Figure, runs: Mapping[str, Run], t: Translator) -> None:
    for number, (arm, run) in enumerate(runs.items()):
        watched = watched_part(run.history, train_on_val=run.recipe.train_on_val)
        turn = judge_overfitting(run.history, part=watched).turning_epoch
        if turn is not None:
            figure.add_vline(x=turn, line={"color": arm_colour(arm), "width": 1.5, "dash": "longdash"}, col=1)
            figure.add_annotation(x=turn, y=1 - 0.07 * number, yref="y domain", xanchor="left", showarrow=False,
                                  text=f"{arm_label(arm, t)}, {t('plot.turn', epoch=turn)}",
                                  font={"color": TURN, "size": 11}, row=1, col=1)  # fmt: skip


def trials_figure(runs: Mapping[str, Run], lang: str = "en") -> go.Figure:
    """Validation accuracy of every trial over its learning rate; a ring marks the chosen one, a cross a diverged one.

    A line joins the best of the longest trials at each rate; shorter trials are small.
    """
    t = translate(lang)
    figure = go.Figure()
    for arm, run in runs.items():
        trials, chosen = run.manifest.trials, run.manifest.chosen
        longest = max(trial.epochs for trial in trials)
        best: dict[float, float] = {}
        for trial in (trial for trial in trials if trial.epochs == longest):
            best[trial.learning_rate] = max(trial.val_accuracy, best.get(trial.learning_rate, 0.0))
        label, colour = arm_label(arm, t), arm_colour(arm)
        rates = sorted(best)
        figure.add_trace(go.Scatter(x=rates, y=[100 * best[rate] for rate in rates], mode="lines", hoverinfo="skip",
                                    line={"color": colour, "width": 1.5}, legendgroup=arm,
                                    showlegend=False))  # fmt: skip
        figure.add_trace(_trials(trials, longest, label, colour, arm, t))
        figure.add_trace(go.Scatter(
            x=[chosen.learning_rate], y=[100 * chosen.val_accuracy], mode="markers", hoverinfo="skip", legendgroup=arm,
            showlegend=False, marker={"symbol": "circle-open", "size": 19, "color": colour, "line": {"width": 2.5}},
        ))  # fmt: skip
    figure.update_layout(
        height=380, margin={"l": 10, "r": 10, "t": 20, "b": 10}, legend={"orientation": "h", "y": -0.25},
        xaxis={"title": t("plot.training.rate"), "type": "log", "exponentformat": "power", "dtick": 1},
        yaxis={"title": t("plot.training.val_accuracy"), "range": [0, 103]},
    )  # fmt: skip
    return figure


def _trials(
    trials: Sequence[Trial], longest: int, label: str, colour: str, arm: str, t: Translator
) -> go.Scatter:  # fmt: skip
    return go.Scatter(
        x=[trial.learning_rate for trial in trials], y=[100 * trial.val_accuracy for trial in trials], mode="markers",
        name=label, legendgroup=arm,
        marker={"color": colour, "opacity": 1, "size": [10 if trial.epochs == longest else 6 for trial in trials],
                "symbol": ["circle" if trial.val_loss is not None else "x" for trial in trials]},
        text=[t("plot.training.trial", arm=label, rate=f"{trial.learning_rate:.3g}", epochs=trial.epochs,
                accuracy=f"{100 * trial.val_accuracy:.1f}") for trial in trials],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def seeds_figure(pairs: Sequence[MatchedPair], lang: str = "en") -> go.Figure:
    """Test accuracy of every arm over seeds: a small point per seed, the mean with its t interval above them.

    Args:
        pairs: one per seed, two or more.
        lang: "en" or "ja".
    """
    t = translate(lang)
    figure = go.Figure()
    arms = [arm for arm in pairs[0].runs if all(arm in pair.runs for pair in pairs)]
    for row, arm in enumerate(arms):
        values = [100 * pair.runs[arm].manifest.test.accuracy for pair in pairs]
        low, high = (100 * end for end in seed_interval([value / 100 for value in values]))
        mean, colour, label = sum(values) / len(values), arm_colour(arm), arm_label(arm, t)
        figure.add_trace(go.Scatter(
            x=values, y=[row + 0.22] * len(values), mode="markers", showlegend=False, cliponaxis=False,
            marker={"symbol": "circle-open", "size": 8, "color": colour},
            text=[t("plot.training.seed", seed=pair.vpt.manifest.seed) for pair in pairs],
            hovertemplate=f"{label}, %{{text}}: %{{x:.1f}} %<extra></extra>",
        ))  # fmt: skip
        figure.add_trace(go.Scatter(
            x=[mean], y=[row - 0.1], mode="markers+text", showlegend=False, cliponaxis=False, text=[f"{mean:.1f} %"],
            textposition="top center", textfont={"color": colour, "size": 14}, marker={"size": 12, "color": colour},
            error_x={"array": [high - mean], "arrayminus": [mean - low], "color": colour, "thickness": 2.5, "width": 6},
            hovertemplate=f"{label}: {mean:.1f} % ({low:.1f} – {high:.1f})<extra></extra>",
        ))  # fmt: skip
    figure.update_layout(
        height=100 + 80 * len(arms), margin={"l": 10, "r": 20, "t": 20, "b": 10},
        xaxis={"title": t("plot.accuracy"), "range": [0, 104], "dtick": 20, "zeroline": False},
        yaxis={"range": [len(arms) - 0.4, -0.6], "tickvals": list(range(len(arms))), "zeroline": False,
               "ticktext": [arm_label(arm, t) for arm in arms], "automargin": True},
    )  # fmt: skip
    return figure


def cost_figure(runs: Mapping[str, Run], lang: str = "en") -> go.Figure:
    """What every arm cost, a column of bars per kind of cost that was recorded of all arms.

    An axis is logarithmic, and says so, where the values differ by more than a factor of `WIDE`.
    """
    t = translate(lang)
    values = {name: [cost(run.manifest) for run in runs.values()] for name, cost in COSTS.items()}
    known = {name: [float(value) for value in row if value is not None]
             for name, row in values.items() if None not in row}  # fmt: skip
    figure = make_subplots(cols=len(known), shared_yaxes=True, horizontal_spacing=0.03,
                           subplot_titles=[t(f"plot.training.cost.{name}") for name in known])  # fmt: skip
    for column, row in enumerate(known.values(), start=1):
        figure.add_trace(go.Bar(
            x=row, y=[arm_label(arm, t) for arm in runs], orientation="h", showlegend=False,
            marker={"color": [arm_colour(arm) for arm in runs]}, text=[_shown(value) for value in row],
            textposition="auto", cliponaxis=False, hovertemplate="%{y}: %{text}<extra></extra>",
        ), row=1, col=column)  # fmt: skip
        if min(row) > 0 and max(row) / min(row) > WIDE:
            figure.update_xaxes(type="log", title=t("plot.training.log"), exponentformat="power", dtick=1, col=column)
        else:
            figure.update_xaxes(rangemode="tozero", nticks=4, col=column)
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_annotations(font={"size": 13})
    figure.update_layout(height=110 + ROW_PX * len(runs), margin={"l": 10, "r": 10, "t": 40, "b": 10}, bargap=0.35)
    return figure


def _shown(value: float) -> str:
    """A value with three digits, thousands parted."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

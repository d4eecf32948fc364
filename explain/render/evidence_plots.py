"""Figures of an evaluation, as plotly figures: what was measured of the maps, an interval on every point.

A figure is None where nothing was measured that it could show.
"""

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from explain.evidence.planted import PlantedResult, Trust
from explain.evidence.summary import Agreement, Block, Estimate, Reasons, Summary
from explain.i18n import Translator, translate
from explain.methods.base import METHODS
from explain.render import arm_colour
from explain.render.plots import INK, TURN, arm_label

FLOOR, PASS, BETWEEN = "#8A949E", "#1A7F4B", "#8E3FB0"
STATUS_COLOURS = {"PASSED": PASS, "FAILED": TURN, "NOT TESTED": FLOOR}
DROPPED, ROW_PX, COLUMNS = 0.22, 46, 3
"""Distance of two arms within a method's row, height of a row, small figures beside each other."""
TOP_PX, BOTTOM_PX, LEGEND_PX = 30, 90, 52
"""Room above and below the rows of a figure, and from the rows down to the legend."""

PANELS = ("backbone_cka", "feature_drift", "feature_cosine", "weight_drift", "attention_distance", "attention_entropy",
          "patch_entropy", "cls_to_patch", "prompt_mass", "register_mass")  # fmt: skip
"""Metrics of the blocks in the order of the small figures; others follow."""
SHARED_PANEL = {"prompt_chance": "prompt_mass", "cka": "backbone_cka"}
"""Metrics that are drawn into the panel of another one."""
CASCADES = {"cascade_signed": "solid", "cascade_absolute": "dot"}


def metric_label(summary: Summary, metric: str, t: Translator) -> str:
    """A metric's name for readers: the catalogue's, or what its measure calls it."""
    family = metric.split("/")[0]
    if f"term.metric.{family}" in t:
        return t(f"term.metric.{family}")
    return summary.metrics[family][0] if family in summary.metrics else family


def method_label(summary: Summary, method: str, t: Translator) -> str:
    """A method's or a control's name for readers."""
    own = f"term.control.{method}"
    return t(own) if method in summary.controls and own in t else summary.methods.get(method, method)


def class_agnostic(method: str) -> bool:
    """True for a registered method whose map is the same for every class."""
    return method in METHODS and not METHODS[method].class_specific


def models_of(summary: Summary) -> tuple[str, ...]:
    """The compared arms, and the reference behind them where there is one."""
    return (*summary.arms, *([summary.reference] if summary.reference else []))


def gain_figure(summary: Summary, lang: str = "en", *, metric: str = "gain") -> go.Figure | None:
    """One metric of every method and control, arms side by side, with a line at chance."""
    t = translate(lang)
    methods = [name for name in summary.methods if any(summary.cell(arm, name, metric) for arm in models_of(summary))]
    if not methods:
        return None
    figure, models = go.Figure(), models_of(summary)
    for number, arm in enumerate(models):
        places, estimates = [], []
        for row, method in enumerate(methods):
            cell = summary.cell(arm, method, metric)
            if cell is not None and cell.estimate.mean is not None:
                places.append(row + _offset(number, len(models)))
                estimates.append(cell.estimate)
        figure.add_trace(_points(estimates, places, arm_label(arm, t), arm_colour(arm), t))
    chance = summary.metrics[metric][2] if metric in summary.metrics else None
    if chance is not None:
        figure.add_vline(x=chance, line={"color": INK, "dash": "dash", "width": 1.5})
        figure.add_annotation(x=chance, y=1, yref="paper", yanchor="bottom", text=t("plot.chance"), showarrow=False)
    labels = [_row_label(summary, method, t) for method in methods]
    return _rows(figure, labels, metric_label(summary, metric, t))


def agreement_figure(summary: Summary, lang: str = "en", *, metric: str | None = None) -> go.Figure | None:
    """How alike the maps of the first two arms are, beside the ceilings of both and the floor, method by method."""
    t = translate(lang)
    known = [row for row in summary.agreements if (row.first, row.second) == summary.arms[:2]]
    chosen = metric or next((row.metric for row in known), None)
    rows = [row for row in known if row.metric == chosen and row.between.mean is not None]
    if chosen is None or not rows:
        return None
    figure = go.Figure()
    for name, colour, symbol, estimates in _agreement_parts(rows, t):
        places = [row - 0.26 + 0.17 * symbol for row, one in enumerate(estimates) if one and one.mean is not None]
        measured = [one for one in estimates if one and one.mean is not None]
        if measured:
            trace = _points(measured, places, name, colour, t)
            trace.marker.symbol = ("circle", "diamond-open", "diamond-open", "line-ns-open")[symbol]
            figure.add_trace(trace)
    figure.add_vline(x=0, line={"color": INK, "dash": "dash", "width": 1})
    labels = [_row_label(summary, row.method, t, "" if row.state == "reproducible" else state_label(row.state, t))
              for row in rows]  # fmt: skip
    return _rows(figure, labels, metric_label(summary, chosen, t))


def _agreement_parts(
    rows: Sequence[Agreement], t: Translator
) -> Iterable[tuple[str, str, int, list[Estimate | None]]]:  # fmt: skip
    first, second = (arm_label(arm, t) for arm in (rows[0].first, rows[0].second))
    yield t("plot.between", first=first, second=second), BETWEEN, 0, [row.between for row in rows]
    yield (t("plot.ceiling", arm=first), arm_colour(rows[0].first), 1, [row.first_ceiling for row in rows])
    yield (t("plot.ceiling", arm=second), arm_colour(rows[0].second), 2, [row.second_ceiling for row in rows])
    yield t("plot.floor"), FLOOR, 3, [row.floor for row in rows]


def state_label(state: str, t: Translator) -> str:
    """An agreement's state in words."""
    return t(f"term.state.{state.replace(' ', '_')}")


def blocks_figure(summary: Summary, lang: str = "en") -> go.Figure | None:
    """Small figures over the blocks, one per metric: every arm, and what compares two arms."""
    t = translate(lang)
    panels = block_panels(summary)
    if not panels:
        return None
    height = -(-len(panels) // COLUMNS)
    figure = make_subplots(
        rows=height, cols=min(COLUMNS, len(panels)), vertical_spacing=0.28 / height, horizontal_spacing=0.07,
        subplot_titles=[metric_label(summary, metric, t) for metric in panels],
    )  # fmt: skip
    named: set[str] = set()
    for number, curves in enumerate(panels.values()):
        for (model, metric), blocks in curves.items():
            dash = block_dash(model, metric)
            name = model_label(model, t) + (f", {t('plot.chance')}" if dash == "dot" else "")
            figure.add_trace(go.Scatter(
                x=[block.block + 1 for block in blocks], y=[block.estimate.mean for block in blocks], name=name,
                mode="lines" if dash == "dot" else "lines+markers", legendgroup=name, showlegend=name not in named,
                line={"color": model_colour(model), "dash": dash, "width": 2}, marker={"size": 5},
                error_y=_error([block.estimate for block in blocks], model_colour(model)),
            ), row=number // COLUMNS + 1, col=number % COLUMNS + 1)  # fmt: skip
            named.add(name)
    figure.update_xaxes(dtick=max(1, round(max(block.block + 1 for block in summary.blocks) / 6)))
    figure.update_xaxes(title=t("plot.block"), row=height)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=70 + 230 * height, margin={"l": 10, "r": 10, "t": 40, "b": 10},
                         legend={"orientation": "h", "y": -0.28 / height})  # fmt: skip
    return figure


def block_panels(summary: Summary) -> dict[str, dict[tuple[str, str], list[Block]]]:
    """Metric -> (model, metric) -> its blocks in order: what each small figure shows.

    Two models are compared only where both are compared arms: the reference has nothing to be compared for.
    """
    panels: dict[str, dict[tuple[str, str], list[Block]]] = {}
    for block in sorted(summary.blocks, key=lambda block: block.block):
        compared = "~" not in block.model or set(block.model.split("~")) <= set(summary.arms)
        if compared and block.estimate.mean is not None:
            panel = SHARED_PANEL.get(block.metric, block.metric)
            panels.setdefault(panel, {}).setdefault((block.model, block.metric), []).append(block)
    models = [*models_of(summary), *dict.fromkeys(block.model for block in summary.blocks)]
    names = sorted(panels, key=lambda name: PANELS.index(name) if name in PANELS else len(PANELS))
    return {name: dict(sorted(panels[name].items(), key=lambda one: models.index(one[0][0]))) for name in names}


def model_label(model: str, t: Translator) -> str:
    """An arm's name, those of the two arms of "vpt~ft", or that "vpt~vpt" compares two seeds."""
    first, _, second = model.partition("~")
    if first == second:
        return t("plot.ceiling", arm=arm_label(first, t))
    return "\u2013".join(arm_label(arm, t) for arm in (first, second) if arm)


def model_colour(model: str) -> str:
    """An arm's colour; one of its own for what compares two arms."""
    arms = set(model.split("~"))
    return arm_colour(arms.pop()) if len(arms) == 1 else BETWEEN


def block_dash(model: str, metric: str) -> str:
    """How a curve over the blocks is dashed: dots for chance, dashes for two seeds of one arm."""
    arms = model.split("~")
    return "dot" if metric == "prompt_chance" else "dash" if len(set(arms)) < len(arms) else "solid"


def cascade_figure(summary: Summary, lang: str = "en") -> go.Figure | None:
    """How alike maps stay while the model's weights are shuffled from the head downwards: a column per method."""
    t = translate(lang)
    found = cascades_of(summary)
    methods = [method for method in summary.methods if any(key[1] == method for key in found)]
    if not methods:
        return None
    figure = make_subplots(
        cols=len(methods), shared_yaxes=True, horizontal_spacing=0.03,
        column_titles=[method_label(summary, method, t) for method in methods],
    )  # fmt: skip
    for (arm, method, metric), stages in found.items():
        first = method == methods[0]
        figure.add_trace(go.Scatter(
            x=[stage_label(stage, t) for stage, _ in stages], y=[one.mean for _, one in stages],
            name=f"{arm_label(arm, t)}, {metric_label(summary, metric, t)}", mode="lines+markers",
            legendgroup=arm + metric, showlegend=first, marker={"size": 6},
            line={"color": arm_colour(arm), "dash": CASCADES[metric], "width": 2},
            error_y=_error([one for _, one in stages], arm_colour(arm)),
        ), row=1, col=methods.index(method) + 1)  # fmt: skip
    figure.add_hline(y=0, line={"color": INK, "dash": "dash", "width": 1})
    figure.update_yaxes(range=[-1.05, 1.05])
    figure.update_yaxes(title=t("plot.cascade"), row=1, col=1)
    figure.update_layout(height=380, margin={"l": 10, "r": 10, "t": 40, "b": 10},
                         legend={"orientation": "h", "y": -0.3})  # fmt: skip
    return figure


def cascades_of(summary: Summary) -> dict[tuple[str, str, str], list[tuple[str, Estimate]]]:
    """(arm, method, metric) -> (stage, similarity) from the head down to everything."""
    found: dict[tuple[str, str, str], list[tuple[str, Estimate]]] = {}
    for cell in summary.cells:
        metric, _, stage = cell.metric.partition("/")
        if metric in CASCADES and stage and cell.method is not None and cell.estimate.mean is not None:
            found.setdefault((cell.model, cell.method, metric), []).append((stage, cell.estimate))
    return {key: sorted(stages, key=lambda one: _depth(one[0])) for key, stages in found.items()}


def _depth(stage: str) -> float:
    block = stage.rpartition(".")[2]
    return -float(block) if block.isdigit() else {"head": float("-inf")}.get(stage, 1.0)


def stage_label(stage: str, t: Translator) -> str:
    """A stage of the cascade in words; blocks are counted from 1."""
    block = stage.rpartition(".")[2]
    if block.isdigit():
        return t("plot.stage.block", block=int(block) + 1)
    return t(f"plot.stage.{stage}") if f"plot.stage.{stage}" in t else stage


def reasons_figure(summary: Summary, lang: str = "en") -> go.Figure | None:
    """Same or different answer against alike or unlike maps: a table of images per method, coloured by share."""
    t = translate(lang)
    rows = [row for row in summary.reasons if row.threshold is not None]
    if not rows:
        return None
    figure = make_subplots(
        cols=len(rows), shared_yaxes=True, horizontal_spacing=0.04,
        column_titles=[method_label(summary, row.method, t) for row in rows],
    )  # fmt: skip
    for column, row in enumerate(rows, start=1):
        counts = reasons_table(row)
        total = max(1, sum(map(sum, counts)))
        figure.add_trace(go.Heatmap(
            z=[[count / total for count in line] for line in counts], zmin=0, zmax=1, showscale=False,
            x=[t("term.reasons.alike"), t("term.reasons.unlike")], y=[t("term.reasons.same"),
            t("term.reasons.different")], colorscale=[[0, "#F3F5F7"], [1, "#7FB2D6"]], xgap=3, ygap=3,
            text=[[f"<b>{count}</b><br>{100 * count / total:.0f} %" for count in line] for line in counts],
            texttemplate="%{text}", textfont={"color": "#1C2430"}, hoverinfo="skip",
        ), row=1, col=column)  # fmt: skip
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(height=260, margin={"l": 10, "r": 10, "t": 40, "b": 10})
    return figure


def reasons_table(row: Reasons) -> tuple[tuple[int, int], tuple[int, int]]:
    """Images by (same, different) answer and (alike, unlike) maps."""
    return (row.same_alike, row.same_unlike), (row.different_alike, row.different_unlike)


def dissociation_figure(planted: PlantedResult, lang: str = "en") -> go.Figure | None:
    """Share of a map on cue A in the model trained on A and in the one trained on B, and what that says."""
    t = translate(lang)
    labels = planted_labels(planted, t)
    methods, arms = list(dict.fromkeys(row.method for row in planted.trusts)), planted.arms
    if not methods:
        return None
    figure = go.Figure()
    for number, arm in enumerate(arms):
        for trust in (row for row in planted.trusts if row.arm == arm):
            y = methods.index(trust.method) + 0.75 * (number - (len(arms) - 1) / 2) / len(arms)
            first = trust.method == methods[0]
            _add_dumbbell(figure, trust, y, arm_label(arm, t), t, legend=first,
                          control=trust.method in planted.controls)  # fmt: skip
    figure.update_xaxes(range=[-0.02, 1.4], tickvals=[0, 0.25, 0.5, 0.75, 1])
    return _rows(figure, [labels[method] for method in methods], t("plot.dissociation"),
                 wide=0.5 * len(arms))  # fmt: skip


def planted_labels(planted: PlantedResult, t: Translator) -> dict[str, str]:
    """Names of the test's methods and controls for readers."""
    labels = {name: METHODS[name].label if name in METHODS else name for name in planted.methods}
    for name in planted.controls:
        labels[name] = t(f"term.control.{name}") if f"term.control.{name}" in t else name
    return labels


def _add_dumbbell(
    figure: go.Figure, trust: Trust, y: float, arm: str, t: Translator, *, legend: bool, control: bool
) -> None:  # fmt: skip
    if trust.share_a is not None and trust.share_b is not None:
        figure.add_trace(go.Scatter(
            x=[trust.share_b, trust.share_a], y=[y, y], mode="lines+markers", name=arm, legendgroup=trust.arm,
            showlegend=legend, line={"color": arm_colour(trust.arm), "width": 3},
            marker={"symbol": ["circle-open", "circle"], "size": 12, "color": arm_colour(trust.arm)},
            hovertemplate=f"{arm}: %{{x:.2f}}<extra></extra>",
        ))  # fmt: skip
    colour = FLOOR if control else STATUS_COLOURS[trust.status]
    said = t(status_key(trust.status)) + (f", {t('term.control')}" if control else "")
    figure.add_annotation(x=1.04, y=y, xanchor="left", text=f"<b>{arm} {said}</b>", showarrow=False,
                          font={"color": colour, "size": 12})  # fmt: skip


def status_key(status: str) -> str:
    """The catalogue's key of a planted-cue verdict."""
    return f"term.status.{status.lower().replace(' ', '_')}"


def _offset(number: int, count: int) -> float:
    return DROPPED * (number - (count - 1) / 2)


def _row_label(summary: Summary, method: str, t: Translator, note: str = "") -> str:
    if method in summary.controls:
        note = t("term.control")
    elif class_agnostic(method):
        note = f"{note}, {t('term.class_agnostic')}" if note else t("term.class_agnostic")
    name = method_label(summary, method, t)
    return f"{name}<br><span style='font-size:.8em'>{note}</span>" if note else name


def _points(
    estimates: Sequence[Estimate], places: Sequence[float], name: str, colour: str, t: Translator
) -> go.Scatter:  # fmt: skip
    hovers = [t("plot.evidence_hover", name=name, value=_shown(one.mean), low=_shown(one.low), high=_shown(one.high),
                images=one.images) for one in estimates]  # fmt: skip
    return go.Scatter(
        x=[one.mean for one in estimates], y=list(places), name=name, mode="markers",
        marker={"size": 10, "color": colour, "line": {"width": 2, "color": colour}}, text=hovers,
        hovertemplate="%{text}<extra></extra>", error_x=_error(estimates, colour),
    )  # fmt: skip


def _shown(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.3g}"


def _error(estimates: Sequence[Estimate], colour: str) -> dict[str, object]:
    """Error bars from each mean to the ends of its interval; none where there is no interval."""
    up = [(one.high or 0) - (one.mean or 0) if one.high is not None else 0 for one in estimates]
    down = [(one.mean or 0) - (one.low or 0) if one.low is not None else 0 for one in estimates]
    return {"array": up, "arrayminus": down, "color": colour, "thickness": 1.5, "width": 4}


def _rows(figure: go.Figure, labels: Sequence[str], title: str, *, wide: float = 1.0) -> go.Figure:
    """Lay a figure out with one labelled row per method, the first on top."""
    drawn = round(wide * ROW_PX * len(labels))
    figure.update_layout(
        height=drawn + TOP_PX + BOTTOM_PX, margin={"l": 10, "r": 20, "t": TOP_PX, "b": BOTTOM_PX},
        xaxis={"title": title, "zeroline": False},
        yaxis={"range": [len(labels) - 0.45, -0.55], "tickvals": list(range(len(labels))), "ticktext": list(labels),
               "automargin": True, "zeroline": False},
        legend={"orientation": "h", "y": -LEGEND_PX / drawn, "yanchor": "top"},
    )  # fmt: skip
    return figure

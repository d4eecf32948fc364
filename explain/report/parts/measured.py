"""What was measured of the maps, for the evidence: tables with an interval on every number, and verdicts in words."""

from collections.abc import Iterable, Sequence

from explain.evidence.planted import PlantedResult, Trust
from explain.evidence.summary import LEAST_CEILING, Agreement, Block, Contrast, Estimate, Summary
from explain.i18n import Translator
from explain.render.evidence_plots import (
    CASCADES,
    block_dash,
    block_panels,
    cascades_of,
    class_agnostic,
    method_label,
    metric_label,
    model_label,
    models_of,
    planted_labels,
    reasons_table,
    stage_label,
    state_label,
    status_key,
)
from explain.render.plots import arm_label
from explain.report.schema.measured import (
    AgreementLine,
    ContrastLine,
    Curve,
    Dissociation,
    Head,
    Line,
    Measured,
    Panel,
    ReasonsLine,
    Table,
    TrustLine,
)

FAITHFULNESS = ("gain", "insertion", "deletion", "road_combined", "infidelity", "completeness_gap")
ROBUSTNESS = ("drift_brightness", "drift_blur", "drift_shift", "drift_jpeg", "max_sensitivity")
DESCRIPTION = ("pixel_auroc", "relevance_mass", "relevance_rank", "pointing_game", "equal_area_iou", "grid_game",
               "defect_change_inside", "gini", "entropy", "effective_area")  # fmt: skip
UNPRINTED = ("road_morf", "road_lerf", "score_difference", "ig_nodes", "area_share", *CASCADES)
"""Metrics of maps without a column of their own here; the attached evidence has them."""

MOST_COLUMNS, MOST_CONTRASTS = 6, 24


def measured_of(summary: Summary, t: Translator) -> Measured:
    """An evaluation in words and tables."""
    contrasts, left = _contrasts(summary, t)
    named = sum(row.named for row in summary.contrasts)
    models = {model: model_label(model, t) for model in [*models_of(summary), *(fact.model for fact in summary.models)]}
    return Measured(
        paragraphs=_paragraphs(summary, t), cells=summary.cells, models=summary.models, labels=models,
        tables=tables_of(summary, t),
        contrasts=contrasts, contrasts_more=left,
        contrasts_named=t("report.evidence.contrasts.named", named=named, count=len(summary.contrasts)),
        agreements=tuple(_agreement(row, summary, t) for row in summary.agreements if _is_printed(row, summary)),
        agreement_lead=t("report.evidence.agreement.lead", least=LEAST_CEILING),
        reasons=tuple(
            ReasonsLine(label=method_label(summary, row.method, t), threshold=row.threshold,
                        counts=(*reasons_table(row)[0], *reasons_table(row)[1]))
            for row in summary.reasons if row.threshold is not None
        ),
        panels=tuple(_panel(metric, curves, summary, t) for metric, curves in block_panels(summary).items()),
    )  # fmt: skip


def _paragraphs(summary: Summary, t: Translator) -> tuple[str, ...]:
    images, (method, metric) = summary.images, summary.primary
    several = len(summary.seeds) > 1
    draws = {"resamples": f"{summary.resamples:,}", "seed": summary.resample_seed}
    return (
        t("report.evidence.images", tested=images.tested, right=images.right, dropped=images.tested - images.right,
          headline=images.headline),
        t("report.evidence.seeds", count=len(summary.seeds), **draws) if several
        else t("report.evidence.one_seed", **draws),
        t("report.evidence.primary", rows=summary.grid[0], columns=summary.grid[1],
          metric=metric_label(summary, metric, t), method=method_label(summary, method, t)),
    )  # fmt: skip


def tables_of(summary: Summary, t: Translator) -> tuple[Table, ...]:
    """Every table of methods and controls that has a number, faithfulness first."""
    metrics = dict.fromkeys(cell.metric for cell in summary.cells if cell.method is not None)
    known = (*FAITHFULNESS, *ROBUSTNESS, *DESCRIPTION, *UNPRINTED)
    other = tuple(metric for metric in metrics if metric.split("/")[0] not in known)
    groups = {"faithfulness": FAITHFULNESS, "robustness": ROBUSTNESS, "description": DESCRIPTION, "other": other}
    found = []
    for name, wanted in groups.items():
        columns = [metric for metric in wanted if metric in metrics]
        for start in range(0, len(columns), MOST_COLUMNS):
            part = columns[start : start + MOST_COLUMNS]
            words = {"count": summary.images.with_mask} if name == "description" else {}
            found.append(Table(
                name=name, title=t(f"report.evidence.{name}.title"),
                lead=t(f"report.evidence.{name}.lead", **words) if start == 0 else "",
                heads=tuple(_head(summary, metric, t) for metric in part), lines=tuple(_lines(summary, part, t)),
            ))  # fmt: skip
    cascade = _cascade_table(summary, t)
    return (*found[:1], *([cascade] if cascade else []), *found[1:])


def _head(summary: Summary, metric: str, t: Translator) -> Head:
    _, better, chance = summary.metrics.get(metric.split("/")[0], ("", "neither", None))
    notes = [t(f"term.better.{better}")] if better != "neither" else []
    notes += [t("report.evidence.chance", value=f"{chance:g}")] if chance is not None else []
    return Head(label=metric_label(summary, metric, t), note=", ".join(notes))


def _lines(summary: Summary, metrics: Sequence[str], t: Translator) -> Iterable[Line]:
    for method in summary.methods:
        for model in models_of(summary):
            cells = [summary.cell(model, method, metric) for metric in metrics]
            if any(cell is not None for cell in cells):
                values = [None if cell is None else cell.estimate for cell in cells]
                yield _line(summary, model, method, values, method_note(summary, method, t), t)


def _line(
    summary: Summary, model: str, method: str, values: Sequence[Estimate | None], note: str, t: Translator
) -> Line:  # fmt: skip
    flags: dict[str, int] = {}
    for value in values:
        for flag, count in (value.missing if value else {}).items():
            flags[flag] = max(count, flags.get(flag, 0))
    reasons = ", ".join(f"{_flag(flag, t)} {count}" for flag, count in flags.items())
    return Line(
        model=model, model_label=model_label(model, t), label=method_label(summary, method, t), note=note,
        values=tuple(values), missing=t("report.evidence.missing", reasons=reasons) if reasons else "",
    )  # fmt: skip


def _flag(flag: str, t: Translator) -> str:
    return t(f"term.flag.{flag}") if f"term.flag.{flag}" in t else flag.replace("_", " ")


def method_note(summary: Summary, method: str, t: Translator) -> str:
    """What a reader must know of a row: that no model made it, or that it is the same for every class."""
    if method in summary.controls:
        return t("term.control")
    return t("term.class_agnostic") if class_agnostic(method) else ""


def _cascade_table(summary: Summary, t: Translator) -> Table | None:
    found = cascades_of(summary)
    stages = list(dict.fromkeys(stage for line in found.values() for stage, _ in line))
    if not stages:
        return None
    lines = []
    methods, models = list(summary.methods), models_of(summary)
    order = sorted(found, key=lambda key: (methods.index(key[1]), list(CASCADES).index(key[2]), models.index(key[0])))
    for model, method, metric in order:
        line = found[model, method, metric]
        known, agnostic = dict(line), class_agnostic(method)
        note = t(f"term.metric.{metric}") + (f", {t('term.class_agnostic')}" if agnostic else "")
        lines.append(_line(summary, model, method, [known.get(stage) for stage in stages], note, t))
    return Table(name="cascade", title=t("report.evidence.cascade.title"), lead=t("report.evidence.cascade.lead"),
                 heads=tuple(Head(label=stage_label(stage, t), note="") for stage in stages),
                 lines=tuple(lines))  # fmt: skip


def _contrasts(summary: Summary, t: Translator) -> tuple[tuple[ContrastLine, ...], int]:
    """The declared comparison, then those that name an arm, then the rest; and how many are left out."""

    def order(row: Contrast) -> tuple[bool, bool, bool]:
        return not row.primary, not row.named, row.method in summary.controls

    rows = sorted(summary.contrasts, key=order)
    several = len(summary.arms) > 2
    lines = []
    for row in rows[:MOST_CONTRASTS]:
        method = method_label(summary, row.method, t)
        pair = f" ({arm_label(row.first, t)} \u2212 {arm_label(row.second, t)})" if several else ""
        lines.append(ContrastLine(
            label=method + pair, metric=metric_label(summary, row.metric, t), primary=row.primary,
            difference=row.difference, p=row.told_p, detectable=row.detectable,
            verdict=verdict_label(row, t), named=row.named,
        ))  # fmt: skip
    return tuple(lines), len(rows) - len(lines)


def verdict_label(row: Contrast, t: Translator) -> str:
    """A comparison's verdict in words."""
    if row.named:
        return t("term.verdict.larger", arm=arm_label(row.verdict, t))
    key = row.verdict.replace(" ", "_")
    return t(f"term.verdict.{key}") if f"term.verdict.{key}" in t else state_label(row.verdict, t)


def _is_printed(row: Agreement, summary: Summary) -> bool:
    """Every metric of two compared arms; of the reference and another, the primary metric only."""
    return row.between.mean is not None and ({row.first, row.second} <= set(summary.arms) or row.metric == "pearson")


def _agreement(row: Agreement, summary: Summary, t: Translator) -> AgreementLine:
    return AgreementLine(
        label=method_label(summary, row.method, t), metric=metric_label(summary, row.metric, t),
        first=arm_label(row.first, t), second=arm_label(row.second, t), between=row.between,
        ceilings=(row.first_ceiling, row.second_ceiling), floor=row.floor, ratio=row.ratio,
        state=state_label(row.state, t), reproducible=row.state == "reproducible",
    )  # fmt: skip


def _panel(metric: str, curves: dict[tuple[str, str], list[Block]], summary: Summary, t: Translator) -> Panel:
    label, found = metric_label(summary, metric, t), []
    for (model, own), blocks in curves.items():
        chance = f", {t('plot.chance')}" if own == "prompt_chance" else ""
        points = tuple((block.block + 1, block.estimate.mean) for block in blocks if block.estimate.mean is not None)
        found.append(Curve(model=model, label=model_label(model, t) + chance, dash=block_dash(model, own),
                           points=points))  # fmt: skip
    values = " ".join(t("report.alt.blocks_value", model=curve.label, first=f"{curve.points[0][1]:.3g}",
                        last=f"{curve.points[-1][1]:.3g}") for curve in found)  # fmt: skip
    return Panel(label=label, curves=tuple(found), alt=t("report.alt.blocks", metric=label, values=values))


def dissociation_of(planted: PlantedResult, t: Translator) -> Dissociation:
    """The planted-cue test in words and a table, the gates first."""
    labels = planted_labels(planted, t)
    lines = [
        TrustLine(
            arm=gate.arm, method="", arm_label=arm_label(gate.arm, t), label=t("report.evidence.dissociation.gate"),
            control=False,
            status="GATE PASSED" if gate.passed else "GATE FAILED",
            status_label=t(f"report.evidence.gate.{'passed' if gate.passed else 'failed'}"),
            **gate.model_dump(include={"share_a", "share_b", "difference", "low", "high", "images"}),
        )
        for gate in planted.gates
    ]  # fmt: skip
    order = [*planted.methods, *planted.controls]
    trusts = sorted(planted.trusts, key=lambda row: (order.index(row.method), planted.arms.index(row.arm)))
    facts = t("report.evidence.planted_facts", train=planted.train_images, test=planted.test_images,
              size=planted.image_size, data=planted.data)  # fmt: skip
    return Dissociation(facts=facts, lines=(*lines, *(_trust(row, planted, labels, t) for row in trusts)))


def _trust(row: Trust, planted: PlantedResult, labels: dict[str, str], t: Translator) -> TrustLine:
    return TrustLine(
        arm=row.arm, method=row.method, arm_label=arm_label(row.arm, t), label=labels.get(row.method, row.method),
        control=row.method in planted.controls, status=row.status, status_label=t(status_key(row.status)),
        **row.model_dump(include={"share_a", "share_b", "difference", "low", "high", "images"}),
    )  # fmt: skip

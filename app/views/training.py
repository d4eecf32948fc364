"""Training: how every arm was searched and trained, what it cost, and how far its probabilities can be trusted."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from app import exhibits, state, widgets
from app.opening import Opened
from app.words import literal
from explain.i18n import Translator, translate
from explain.render.plots import PARTS, arm_label, recall_figure, reliability_figure
from explain.render.training_plots import cost_figure, curves_figure, seeds_figure, trials_figure
from explain.report.parts.answers import calibration_of, percent
from explain.report.parts.seeds import seeds_of, sibling_pairs
from explain.report.parts.training import same_budget, training_of
from explain.report.schema.answers import Calibration
from explain.report.schema.seeds import Seeds
from explain.report.schema.training import Training
from explain.training.pair import MatchedPair
from explain.training.run import Run

ORDER = 60
ICON = ":material/timeline:"

SECTIONS = ("curves", "search", "seeds", "cost", "calibration")
ARMS, WHICH = "arms", "parts"  # of the link
FEW = 15  # trials that are shown without scrolling


def show() -> None:
    """Draw the page."""
    page = widgets.open_pair_page()
    if page is None:
        return
    t, opened, pair = page
    section = exhibits.choose_section(t, "training", SECTIONS)
    draw = {"curves": show_curves, "search": show_search, "seeds": show_seeds, "cost": show_cost,
            "calibration": show_calibration}[section]  # fmt: skip
    draw(t, opened, pair)


def choose_arms(t: Translator, opened: Opened, pair: MatchedPair) -> dict[str, Run]:
    """The runs that are drawn, all of them unless somebody takes some away."""
    chosen = state.choose_many(ARMS, list(pair.runs), list(pair.runs))
    st.pills(t("viewer.training.arms"), list(pair.runs), key=ARMS, selection_mode="multi",
             format_func=lambda arm: opened.label_of(arm, t))  # fmt: skip
    return {arm: run for arm, run in pair.runs.items() if arm in chosen}


def show_curves(t: Translator, opened: Opened, pair: MatchedPair) -> None:
    """What the curves say, arm by arm, then the curves."""
    st.subheader(t("report.section.training"))
    exhibits.show_lines([f"**{literal(arm_label(arm, t))}**: {training_of(run, t).sentence}"
                         for arm, run in pair.runs.items()])  # fmt: skip
    left, right = st.columns([3, 2])
    with left:
        runs = choose_arms(t, opened, pair)
    state.choose_many(WHICH, list(PARTS), list(PARTS))
    parts = right.pills(t("viewer.training.parts"), list(PARTS), key=WHICH, selection_mode="multi",
                        format_func=lambda part: t(PARTS[part][1]))  # fmt: skip
    widgets.show_notes(t)
    if not runs or not parts:
        st.info(t("viewer.training.choose"))
        return
    exhibits.show_figure(curves_figure(runs, parts, t.lang), "curves", t("viewer.training.curves"))
    st.caption(t("viewer.training.curves"))
    st.caption(t("viewer.training.curves_cannot"))
    with st.expander(t("viewer.training.numbers")):
        exhibits.show_rows([gaps_row(arm, training_of(run, t), t) for arm, run in runs.items()])
        st.caption(t("report.training.gap_lead"))


def gaps_row(arm: str, training: Training, t: Translator) -> dict[str, str]:
    """How far training and watched images lie apart at the end."""
    turn = training.turning_epoch
    unwatched = t("report.training.unknown")
    return {
        t("report.models.arm"): literal(arm_label(arm, t)),
        t("report.training.train_accuracy"): percent(training.epochs[-1].train_accuracy),
        t("report.training.accuracy_gap"):
            unwatched if training.accuracy_gap is None else percent(training.accuracy_gap),
        t("report.training.loss_gap"): exhibits.number(training.loss_gap),
        t("report.training.turning"): t("report.training.never") if turn is None else str(turn),
        t("report.training.gradient"): exhibits.number(training.gradient_norm),
        t("report.training.gradient_max"): exhibits.number(training.gradient_norm_max),
    }  # fmt: skip


def show_search(t: Translator, opened: Opened, pair: MatchedPair) -> None:
    """Every trial of every arm: a figure over the learning rate, and a table that can be sorted."""
    st.subheader(t("report.trials.title"))
    trainings = {arm: training_of(run, t) for arm, run in pair.runs.items()}
    equal = same_budget(list(trainings.values()))
    st.markdown(t("report.budget.equal" if equal else "report.budget.unequal"))
    runs = choose_arms(t, opened, pair)
    widgets.show_notes(t)
    if not runs:
        st.info(t("viewer.training.choose"))
        return
    exhibits.show_figure(trials_figure(runs, t.lang), "trials", t("viewer.training.trials"))
    st.caption(t("viewer.training.trials"))
    columns = trial_columns({arm: trainings[arm] for arm in runs}, t)
    heads = list(columns)
    st.dataframe(
        columns, hide_index=True, key="trials", height="content" if len(columns[heads[0]]) <= FEW else "auto",
        alt=t("report.trials.lead"),
        column_config={heads[1]: st.column_config.NumberColumn(format="scientific"),
                       heads[2]: st.column_config.NumberColumn(format="scientific"),
                       heads[6]: st.column_config.NumberColumn(format="%.1f"),
                       heads[7]: st.column_config.NumberColumn(format="%.3f"),
                       heads[8]: st.column_config.NumberColumn(format="%.1f")},
    )  # fmt: skip
    st.caption(t("report.trials.lead"))


def trial_columns(trainings: dict[str, Training], t: Translator) -> dict[str, list[object]]:
    """The table of trials by column; a diverged one has no loss."""
    rows = [(arm, trial) for arm, training in trainings.items() for trial in training.trials]
    trials = [trial for _, trial in rows]
    options = [", ".join(f"{name} {value}" for name, value in trial.options.items()) for trial in trials]
    return {
        t("report.models.arm"): [arm_label(arm, t) for arm, _ in rows],
        t("report.trials.rate"): [trial.learning_rate for trial in trials],
        t("report.trials.decay"): [trial.weight_decay for trial in trials],
        t("report.trials.options"): [text or t("report.models.none") for text in options],
        t("report.trials.epochs"): [trial.epochs for trial in trials],
        t("report.trials.steps"): [trial.steps for trial in trials],
        t("report.trials.accuracy"): [100 * trial.val_accuracy for trial in trials],
        t("report.trials.loss"): [trial.val_loss for trial in trials],
        t("report.trials.seconds"): [trial.seconds for trial in trials],
        t("report.trials.chosen"): ["✓" if trial.chosen else "" for trial in trials],
    }


def show_seeds(t: Translator, opened: Opened, pair: MatchedPair) -> None:
    """What other seeds gave, and how to open them."""
    pairs = _siblings(pair, _stamp_of(pair.path))
    seeds = seeds_of(pairs, {arm: arm_label(arm, t) for arm in pair.runs}, t)
    if seeds is None:
        st.subheader(t("viewer.training.one_seed_title"))
        text = t("viewer.training.one_seed", seed=pair.vpt.manifest.seed)
        widgets.show_command(t, text, "explain train DATA --seeds 5 --out STUDY")
        return
    st.subheader(t("report.seeds.title", count=len(seeds.seeds)))
    both = [] if seeds.both_low is None or seeds.both_high is None else [
        t("report.seeds.both", low=percent(seeds.both_low), high=percent(seeds.both_high))
    ]  # fmt: skip
    exhibits.show_lines([seeds.statement, *both])
    exhibits.show_figure(seeds_figure(pairs, t.lang), "seeds", seeds.statement)
    st.caption(t("viewer.training.seeds"))
    exhibits.show_rows(seed_rows(seeds, t))
    st.markdown(t("viewer.training.other_seeds", seed=pair.vpt.manifest.seed))
    st.code("\n".join(f"explain view {one.path}" for one in pairs if one.path != pair.path), language=None)


def seed_rows(seeds: Seeds, t: Translator) -> list[dict[str, str]]:
    """Accuracy of every seed, an arm per row, and the difference of the two arms."""
    difference = f"{t('term.arm.vpt')} \u2212 {t('term.arm.ft')}"
    lines = [(arm.label, arm.accuracies, arm.mean, arm.low, arm.high) for arm in seeds.arms]
    lines.append((difference, seeds.per_seed, seeds.mean, seeds.low, seeds.high))
    return [
        {t("report.models.arm"): literal(label)}
        | {f"{t('report.seeds.seed')} {seed}": percent(value) for seed, value in zip(seeds.seeds, values, strict=True)}
        | {f"{t('report.seeds.mean')} (%)": f"**{percent(mean)}**",
           t("term.interval"): f"{percent(low)} – {percent(high)}"}
        for label, values, mean, low, high in lines
    ]  # fmt: skip


def _stamp_of(path: Path) -> tuple[tuple[str, int], ...]:
    """Changes when a seed of the study is trained again, or another one is added."""
    files = sorted(path.resolve().parent.glob("seed*/*/manifest.json"))
    return (str(path), 0), *((str(file), file.stat().st_mtime_ns) for file in files)


@st.cache_resource(max_entries=2, show_spinner=False)
def _siblings(_pair: MatchedPair, stamp: tuple[tuple[str, int], ...]) -> list[MatchedPair]:
    return sibling_pairs(_pair)


def show_cost(t: Translator, opened: Opened, pair: MatchedPair) -> None:
    """What every arm cost, as bars and as numbers."""
    st.subheader(t("viewer.training.cost"))
    widgets.show_notes(t)
    exhibits.show_figure(cost_figure(pair.runs, t.lang), "cost", t("viewer.training.cost_reading"))
    manifest = pair.vpt.manifest
    st.caption(f"{t('viewer.training.cost_reading')} "
               + t("viewer.training.machine", device=literal(manifest.device), precision=manifest.precision,
                   processes=manifest.processes))  # fmt: skip
    columns = {arm_label(arm, t): cost_column(run, training_of(run, t), t) for arm, run in pair.runs.items()}
    names = list(next(iter(columns.values())))
    exhibits.show_rows([{t("viewer.training.cost"): name} | {literal(arm): column[name]
                        for arm, column in columns.items()} for name in names])  # fmt: skip


def cost_column(run: Run, training: Training, t: Translator) -> dict[str, str]:
    """The costs of one arm, in the order of the table."""
    manifest = run.manifest
    energy = training.energy_j
    return {
        t("report.models.trained"): f"{manifest.trained_parameters:,}",
        t("report.models.total"): f"{manifest.total_parameters:,}",
        t("report.models.share"): f"{100 * manifest.trained_parameters / manifest.total_parameters:.3g} %",
        t("report.models.size"): exhibits.number(manifest.weights_bytes / 1e6),
        t("report.budget.trials"): str(len(training.trials)),
        t("report.budget.trial_steps"): f"{training.trial_steps:,}",
        t("report.budget.steps"): f"{training.steps:,}",
        t("report.budget.total"): f"{training.trial_steps + training.steps:,}",
        t("report.models.speed"): exhibits.number(manifest.seconds_per_epoch),
        t("report.training.search_seconds"): exhibits.number(training.search_seconds),
        t("report.training.seconds"): exhibits.number(training.seconds),
        t("report.training.memory"): f"{training.peak_mib:,.0f}",
        t("report.training.energy"): t("report.training.unknown") if energy is None else f"{energy / 1e3:.2f}",
    }


def show_calibration(t: Translator, opened: Opened, pair: MatchedPair) -> None:
    """How far a probability can be taken at its word, and recall class by class."""
    st.subheader(t("report.calibration.title"))
    found = {arm: _calibration(run, run.manifest.identity, t.lang) for arm, run in pair.runs.items()}
    exhibits.show_lines([f"**{literal(arm_label(arm, t))}**: {one.sentence}" for arm, one in found.items()])
    exhibits.show_figure(reliability_figure(pair, t.lang), "reliability", t("report.calibration.axes"))
    st.caption(t("report.calibration.axes"))
    with st.expander(t("viewer.training.numbers")):
        st.markdown(t("report.calibration.lead"))
        exhibits.show_rows(calibration_rows(found, t))
    st.subheader(t("report.performance.recall"))
    st.caption(t("report.performance.recall_lead"))
    exhibits.show_figure(recall_figure(pair, t.lang), "recall", t("report.performance.recall_lead"))


def calibration_rows(found: dict[str, Calibration], t: Translator) -> Sequence[dict[str, str]]:
    """Calibration errors, an arm per row."""
    return [
        {
            t("report.models.arm"): literal(arm_label(arm, t)),
            t("report.calibration.confidence"): percent(one.confidence),
            t("report.calibration.error"): f"{percent(one.error)} ({percent(one.low)} – {percent(one.high)})",
            t("report.calibration.floor"): percent(one.floor),
            t("report.calibration.adaptive"): percent(one.adaptive),
        }
        for arm, one in found.items()
    ]


@st.cache_data(max_entries=32, show_spinner=False)
def _calibration(_run: Run, key: str, lang: str) -> Calibration:
    return calibration_of(_run.predictions, translate(lang))


if __name__ == "__main__":
    show()

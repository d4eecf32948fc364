"""Evidence: what was measured of the maps, question by question, and what each figure can and cannot tell."""

import streamlit as st

from app import exhibits, image_evidence, state, verdicts, widgets
from app.exhibits import estimate, interval, number, p_value
from app.measured import evidence_of, planted_of
from app.opening import Opened
from app.words import literal, percent
from explain.evidence.planted import PlantedResult
from explain.evidence.summary import Summary
from explain.i18n import Translator
from explain.render import evidence_plots as plots
from explain.report.parts.measured import DESCRIPTION, ROBUSTNESS, dissociation_of, measured_of
from explain.report.schema.measured import Measured, Table

ORDER = 50
ICON = ":material/fact_check:"

SECTIONS = ("faithfulness", "one_image", "sanity", "location", "agreement", "answers")
METRIC, PLACE, LIKENESS = "metric", "place", "likeness"  # of the link
MASKED = tuple(name for name in DESCRIPTION if name not in ("gini", "entropy", "effective_area"))


def show() -> None:
    """Draw the page."""
    page = widgets.open_pair_page()
    if page is None:
        return
    t, opened, pair = page
    section = exhibits.choose_section(t, "evidence", SECTIONS)
    if section == "one_image":
        image_evidence.show(t, opened)
        return
    widgets.show_notes(t)
    summary = evidence_of(pair)
    if section == "sanity":
        show_sanity(t, opened, summary, planted_of(pair))
    elif summary is None:
        show_nothing(t, opened)
    else:
        measured = measured_of(summary, t)
        st.caption("  \n".join(measured.paragraphs))
        draw = {"faithfulness": show_faithfulness, "location": show_location, "agreement": show_agreement,
                "answers": show_answers}[section]  # fmt: skip
        draw(t, opened, summary, measured)


def show_nothing(t: Translator, opened: Opened) -> None:
    """Say that nothing was measured, and by which command it is."""
    widgets.show_command(t, t("viewer.evidence.none"), f"explain evaluate {opened.folder}")


def show_faithfulness(t: Translator, opened: Opened, summary: Summary, measured: Measured) -> None:
    """One metric of every method and control, beside chance; the differences of two arms; all numbers in tables."""
    st.subheader(t("report.evidence.faithfulness.title"))
    exhibits.show_lines(verdicts.declared_verdict(measured, t))
    cells = dict.fromkeys(cell.metric for cell in summary.cells if cell.method is not None)
    metrics = [name for name in cells if "/" not in name and name not in (*DESCRIPTION, *ROBUSTNESS)]
    if metrics:
        show_measure(t, summary, METRIC, metrics, t("viewer.evidence.gain"))
    st.caption(t("viewer.evidence.areas_only"))
    show_tables(t, measured, "faithfulness", "other")
    show_contrasts(t, measured)


def show_sanity(t: Translator, opened: Opened, summary: Summary | None, planted: PlantedResult | None) -> None:
    """The planted-cue test, the cascade of shuffled weights, and small changes of the image."""
    st.subheader(t("report.evidence.dissociation.title"))
    if planted is None:
        widgets.show_command(t, t("viewer.evidence.no_planted"), f"explain planted {opened.folder}")
    else:
        show_planted(t, planted)
    st.subheader(t("report.evidence.cascade.title"))
    cascade = plots.cascade_figure(summary, t.lang) if summary is not None else None
    if summary is None or cascade is None:
        show_nothing(t, opened)
        return
    measured = measured_of(summary, t)
    exhibits.show_lines(verdicts.cascade_verdicts(summary, t))
    exhibits.show_figure(cascade, "cascade", t("viewer.evidence.cascade"))
    st.caption(t("viewer.evidence.cascade"))
    show_tables(t, measured, "cascade")
    for table in (table for table in measured.tables if table.name == "robustness"):
        st.subheader(table.title)
        st.caption(table.lead)
        show_table(t, table)


def show_planted(t: Translator, planted: PlantedResult) -> None:
    """The planted-cue test, in words and colours; behind it, its numbers."""
    exhibits.show_lines(verdicts.planted_verdicts(planted, t))
    exhibits.show_figure(plots.dissociation_figure(planted, t.lang), "planted", t("viewer.evidence.dissociation"))
    st.caption(t("viewer.evidence.dissociation"))
    part = dissociation_of(planted, t)
    colours = {"PASSED": "green", "GATE PASSED": "green", "FAILED": "red"}
    with st.expander(t("viewer.evidence.numbers")):
        st.markdown(t("report.evidence.dissociation.lead"))
        st.caption(literal(part.facts))
        exhibits.show_rows([
            {
                t("report.evidence.method"): literal(line.label) + (f" ({t('term.control')})" * line.control),
                t("report.evidence.model"): literal(line.arm_label),
                t("report.evidence.dissociation.under_a"): number(line.share_a),
                t("report.evidence.dissociation.under_b"): number(line.share_b),
                t("report.evidence.dissociation.difference"): interval(t, line.difference, line.low, line.high),
                t("report.evidence.images_column"): str(line.images),
                t("report.evidence.dissociation.status"):
                    f":{'gray' if line.control else colours.get(line.status, 'gray')}[**{line.status_label}**]",
            }
            for line in part.lines
        ])  # fmt: skip


def show_location(t: Translator, opened: Opened, summary: Summary, measured: Measured) -> None:
    """Where the maps lie beside the region that decides the label, and how they are shaped."""
    st.subheader(t("report.evidence.description.title"))
    st.caption(t("report.evidence.description.lead", count=summary.images.with_mask))
    known = {cell.metric for cell in summary.cells if cell.method is not None and cell.estimate.mean is not None}
    metrics = [name for name in DESCRIPTION if name in known]
    if not known & set(MASKED):
        st.info(t("viewer.evidence.no_masks"), icon=":material/crop_free:")
        st.code(f"explain evaluate {opened.folder} DATA", language=None)
    if not metrics:
        return
    show_measure(t, summary, PLACE, metrics, t("viewer.evidence.location"))
    show_tables(t, measured, "description")


def show_agreement(t: Translator, opened: Opened, summary: Summary, measured: Measured) -> None:
    """Likeness of the arms' maps beside ceilings and floor; equal answers with unlike maps."""
    st.subheader(t("report.evidence.agreement.title"))
    metrics = list(dict.fromkeys(row.metric for row in summary.agreements if row.between.mean is not None))
    if not metrics:
        show_nothing(t, opened)
        return
    metric = state.choose(LIKENESS, metrics, metrics[0])
    exhibits.show_lines(verdicts.agreement_verdicts(summary, metric, t))
    choose_metric(t, summary, LIKENESS, metrics)
    figure = plots.agreement_figure(summary, t.lang, metric=metric)
    exhibits.show_figure(figure, "agreement", t("viewer.evidence.agreement"))
    st.caption(t("viewer.evidence.agreement"))
    show_agreements(t, measured)
    reasons = plots.reasons_figure(summary, t.lang)
    if reasons is not None:
        st.subheader(t("report.evidence.reasons.title"))
        exhibits.show_figure(reasons, "reasons", t("viewer.evidence.reasons"))
        st.caption(t("viewer.evidence.reasons"))


def show_agreements(t: Translator, measured: Measured) -> None:
    """The numbers of the likeness, behind the figure."""
    with st.expander(t("viewer.evidence.numbers")):
        st.markdown(measured.agreement_lead)
        exhibits.show_rows([
            {
                t("report.evidence.method"): literal(line.label),
                t("report.evidence.metric"): line.metric,
                t("report.evidence.agreement.between", first="A", second="B"): f"{line.first} – {line.second}: "
                                                                               + estimate(t, line.between),
                t("report.evidence.agreement.ceiling", arm="A"): estimate(t, line.ceilings[0]),
                t("report.evidence.agreement.ceiling", arm="B"): estimate(t, line.ceilings[1]),
                t("report.evidence.agreement.floor"): estimate(t, line.floor),
                t("report.evidence.agreement.ratio"): number(line.ratio),
                t("report.evidence.agreement.state"): line.state if line.reproducible else f"**{line.state}**",
            }
            for line in measured.agreements
        ])  # fmt: skip


def show_contrasts(t: Translator, measured: Measured) -> None:
    """Differences of two arms with their verdicts."""
    if not measured.contrasts:
        return
    st.subheader(t("report.evidence.contrasts.title"))
    st.caption(f"{t('report.evidence.contrasts.lead')} {measured.contrasts_named}")
    exhibits.show_rows([
        {
            t("report.evidence.contrasts.comparison"): literal(f"{row.label}, {row.metric}")
            + (f" :blue-badge[{t('report.evidence.contrasts.primary')}]" if row.primary else ""),
            t("report.evidence.contrasts.difference"): estimate(t, row.difference),
            t("report.evidence.contrasts.p"): p_value(row.p),
            t("report.evidence.contrasts.detectable"): number(row.detectable),
            t("report.evidence.images_column"): str(row.difference.images),
            t("report.evidence.contrasts.verdict"): f"**{row.verdict}**" if row.named else row.verdict,
        }
        for row in measured.contrasts
    ])  # fmt: skip
    if measured.contrasts_more:
        st.caption(t("viewer.evidence.more", count=measured.contrasts_more))


def show_answers(t: Translator, opened: Opened, summary: Summary, measured: Measured) -> None:
    """Accuracy, confidence and calibration of every model that was explained."""
    st.subheader(t("report.evidence.answers.title"))
    st.caption(t("report.evidence.answers.lead"))
    exhibits.show_rows([
        {
            t("report.evidence.model"): literal(measured.labels[fact.model]),
            t("report.evidence.seed"): str(fact.seed),
            t("term.accuracy"): f"{percent(fact.accuracy)} ({percent(fact.accuracy_low)} – "
                                f"{percent(fact.accuracy_high)})",
            t("report.calibration.confidence"): f"{100 * fact.confidence:.1f}",
            t("report.calibration.error"): f"{100 * fact.calibration_error:.1f}",
        }
        for fact in measured.models
    ])  # fmt: skip


def show_measure(t: Translator, summary: Summary, key: str, metrics: list[str], tells: str) -> None:
    """One measure of every method and control: what it came to, its figure, and what that can tell."""
    metric = state.choose(key, metrics, "gain" if "gain" in metrics else metrics[0])
    choose_metric(t, summary, key, metrics)
    exhibits.show_lines(verdicts.chance_verdicts(summary, metric, t) + verdicts.control_verdicts(summary, metric, t))
    exhibits.show_figure(plots.gain_figure(summary, t.lang, metric=metric), key, tells)
    st.caption(tells)


def choose_metric(t: Translator, summary: Summary, key: str, metrics: list[str]) -> None:
    """A linked choice among measures."""
    st.selectbox(t("viewer.evidence.metric"), metrics, key=key, width=420,
                 format_func=lambda name: plots.metric_label(summary, name, t))  # fmt: skip


def show_tables(t: Translator, measured: Measured, *names: str) -> None:
    """All numbers of some groups of measures, behind a line that opens them."""
    with st.expander(t("viewer.evidence.numbers")):
        for table in (table for table in measured.tables if table.name in names):
            if table.lead:
                st.markdown(f"**{table.title}**  \n{table.lead}")
            show_table(t, table)


def show_table(t: Translator, table: Table) -> None:
    """A table of methods and controls."""
    exhibits.show_rows([
        {
            t("report.evidence.method"): literal(line.label) + (f" ({line.note})" if line.note else ""),
            t("report.evidence.model"): literal(line.model_label)
            + (f" ({literal(line.missing)})" if line.missing else ""),
            **{head.label + (f" ({head.note})" if head.note else ""): estimate(t, value)
               for head, value in zip(table.heads, line.values, strict=True)},
        }
        for line in table.lines
    ])  # fmt: skip


if __name__ == "__main__":
    show()

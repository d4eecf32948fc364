"""Evidence: what was measured of the maps, figure by figure, and what each figure can and cannot tell."""

from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

from app import opening, state, widgets
from app.words import percent
from explain.evidence.found import find_evidence, find_planted
from explain.evidence.planted import PlantedResult
from explain.evidence.summary import Estimate, Summary
from explain.i18n import Translator
from explain.render import evidence_plots as plots
from explain.report.evidence_part import Measured, Table, dissociation_of, measured_of

ORDER = 20
ICON = ":material/fact_check:"

METRIC, LIKENESS = "evidence_metric", "evidence_likeness"  # session keys; streamlit would print a docstring here


def show() -> None:
    """Draw the page."""
    t = state.translator()
    with st.spinner(t("viewer.opening")):
        opened = opening.open_location()
    widgets.show_header(t, opened)
    widgets.show_notes(t)
    if opened.pair is None:
        widgets.show_command(t, t("viewer.no_pair"), "explain view RUN")
        return
    folder = opened.pair.path
    summary, planted = find_evidence(opened.pair), find_planted(opened.pair)
    measured = measured_of(summary, t) if summary else None
    if summary is None or measured is None:
        widgets.show_command(t, t("viewer.evidence.none"), f"explain evaluate {folder}")
    else:
        for paragraph in measured.paragraphs:
            st.markdown(paragraph)
        show_gain(t, summary, measured)
    if planted is None:
        widgets.show_command(t, t("viewer.evidence.no_planted"), f"explain planted {folder}")
    else:
        show_dissociation(t, planted)
    if summary is not None and measured is not None:
        show_agreement(t, summary, measured)
        show_reasons(t, summary)
        show_contrasts(t, measured)
        show_inside(t, summary, measured)
        show_models(t, measured)


def show_gain(t: Translator, summary: Summary, measured: Measured) -> None:
    """One metric of every method and control, beside chance; behind it, all of them in tables."""
    st.subheader(t("report.evidence.faithfulness.title"))
    cells = dict.fromkeys(cell.metric for cell in summary.cells if cell.method is not None)
    metrics = [metric for metric in cells if "/" not in metric]
    if metrics:
        first = metrics.index("gain") if "gain" in metrics else 0
        metric = st.selectbox(t("viewer.evidence.metric"), metrics, first, key=METRIC,
                              format_func=lambda name: plots.metric_label(summary, name, t))  # fmt: skip
        show_figure(plots.gain_figure(summary, t.lang, metric=metric), "gain")
    st.caption(t("viewer.evidence.gain"))
    with st.expander(t("viewer.evidence.numbers")):
        for table in measured.tables:
            if table.name != "cascade":
                show_table(t, table)


def show_dissociation(t: Translator, planted: PlantedResult) -> None:
    """The planted-cue test, in words and colours; behind it, its numbers."""
    st.subheader(t("report.evidence.dissociation.title"))
    show_figure(plots.dissociation_figure(planted, t.lang), "dissociation")
    st.caption(t("viewer.evidence.dissociation"))
    part = dissociation_of(planted, t)
    colours = {"PASSED": "green", "GATE PASSED": "green", "FAILED": "red"}
    rows = [
        {
            t("report.evidence.method"): widgets.literal(line.label) + (f" ({t('term.control')})" * line.control),
            t("report.evidence.model"): widgets.literal(line.arm_label),
            t("report.evidence.dissociation.under_a"): number(line.share_a),
            t("report.evidence.dissociation.under_b"): number(line.share_b),
            t("report.evidence.dissociation.difference"): interval(t, line.difference, line.low, line.high),
            t("report.evidence.images_column"): str(line.images),
            t("report.evidence.dissociation.status"):
                f":{'gray' if line.control else colours.get(line.status, 'gray')}[**{line.status_label}**]",
        }
        for line in part.lines
    ]  # fmt: skip
    with st.expander(t("viewer.evidence.numbers")):
        st.markdown(t("report.evidence.dissociation.lead"))
        st.caption(widgets.literal(part.facts))
        show_rows(rows)


def show_agreement(t: Translator, summary: Summary, measured: Measured) -> None:
    """Likeness of the arms' maps beside ceilings and floor."""
    metrics = list(dict.fromkeys(row.metric for row in summary.agreements if row.between.mean is not None))
    if not metrics:
        return
    st.subheader(t("report.evidence.agreement.title"))
    metric = st.selectbox(t("viewer.evidence.metric"), metrics, key=LIKENESS,
                          format_func=lambda name: plots.metric_label(summary, name, t))  # fmt: skip
    show_figure(plots.agreement_figure(summary, t.lang, metric=metric), "agreement")
    st.caption(t("viewer.evidence.agreement"))
    rows = [
        {
            t("report.evidence.method"): widgets.literal(line.label),
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
    ]  # fmt: skip
    with st.expander(t("viewer.evidence.numbers")):
        st.markdown(measured.agreement_lead)
        show_rows(rows)


def show_reasons(t: Translator, summary: Summary) -> None:
    """Same answer, same reason: a table of images per method."""
    figure = plots.reasons_figure(summary, t.lang)
    if figure is not None:
        st.subheader(t("report.evidence.reasons.title"))
        show_figure(figure, "reasons")
        st.caption(t("viewer.evidence.reasons"))


def show_contrasts(t: Translator, measured: Measured) -> None:
    """Differences of two arms with their verdicts."""
    if not measured.contrasts:
        return
    st.subheader(t("report.evidence.contrasts.title"))
    st.caption(f"{t('report.evidence.contrasts.lead')} {measured.contrasts_named}")
    show_rows([
        {
            t("report.evidence.contrasts.comparison"): widgets.literal(f"{row.label}, {row.metric}")
            + (f" :blue-badge[{t('report.evidence.contrasts.primary')}]" if row.primary else ""),
            t("report.evidence.contrasts.difference"): estimate(t, row.difference),
            t("report.evidence.contrasts.p"): "–" if row.p is None else f"{row.p:.3f}",
            t("report.evidence.contrasts.detectable"): number(row.detectable),
            t("report.evidence.images_column"): str(row.difference.images),
            t("report.evidence.contrasts.verdict"): f"**{row.verdict}**" if row.named else row.verdict,
        }
        for row in measured.contrasts
    ])  # fmt: skip
    if measured.contrasts_more:
        st.caption(t("viewer.evidence.more", count=measured.contrasts_more))


def show_inside(t: Translator, summary: Summary, measured: Measured) -> None:
    """What tuning changed block by block, and what is left of the maps when weights are shuffled."""
    blocks, cascade = plots.blocks_figure(summary, t.lang), plots.cascade_figure(summary, t.lang)
    if blocks is not None:
        st.subheader(t("report.evidence.blocks.title"))
        show_figure(blocks, "blocks")
        st.caption(t("viewer.evidence.blocks"))
    if cascade is not None:
        st.subheader(t("report.evidence.cascade.title"))
        show_figure(cascade, "cascade")
        st.caption(t("viewer.evidence.cascade"))
        with st.expander(t("viewer.evidence.numbers")):
            for table in measured.tables:
                if table.name == "cascade":
                    show_table(t, table)


def show_models(t: Translator, measured: Measured) -> None:
    """Accuracy, confidence and calibration of every model that was explained."""
    st.subheader(t("report.evidence.answers.title"))
    show_rows([
        {
            t("report.evidence.model"): widgets.literal(measured.labels[fact.model]),
            t("report.evidence.seed"): str(fact.seed),
            t("term.accuracy"): f"{percent(fact.accuracy)} ({percent(fact.accuracy_low)} – "
                                f"{percent(fact.accuracy_high)})",
            t("report.calibration.confidence"): f"{100 * fact.confidence:.1f}",
            t("report.calibration.error"): f"{100 * fact.calibration_error:.1f}",
        }
        for fact in measured.models
    ])  # fmt: skip


def show_figure(figure: go.Figure | None, key: str) -> None:
    """A figure over the whole width, without the toolbar that covers small ones."""
    if figure is not None:
        st.plotly_chart(figure, width="stretch", key=f"figure_{key}", config={"displayModeBar": False})


def show_table(t: Translator, table: Table) -> None:
    """A table of methods and controls."""
    if table.lead:
        st.markdown(f"**{table.title}**  \n{table.lead}")
    show_rows([
        {
            t("report.evidence.method"): widgets.literal(line.label) + (f" ({line.note})" if line.note else ""),
            t("report.evidence.model"): widgets.literal(line.model_label)
            + (f" ({widgets.literal(line.missing)})" if line.missing else ""),
            **{head.label + (f" ({head.note})" if head.note else ""): estimate(t, value)
               for head, value in zip(table.heads, line.values, strict=True)},
        }
        for line in table.lines
    ])  # fmt: skip


def show_rows(rows: Sequence[dict[str, str]]) -> None:
    """A table from rows with the same columns."""
    st.table({column: [row[column] for row in rows] for column in rows[0]}, border="horizontal")


def number(value: float | None) -> str:
    """Two digits behind the point where they say something; a dash where there is no number."""
    if value is None:
        return "–"
    size = abs(value)
    shown = f"{value:.0f}" if size >= 100 else f"{value:.2f}" if size >= 0.01 or size == 0 else f"{value:.2g}"
    return shown.replace("-", "\u2212")


def interval(t: Translator, mean: float | None, low: float | None, high: float | None) -> str:
    """A mean with the ends of its interval."""
    if mean is None:
        return t("term.verdict.not_measured")
    return number(mean) + ("" if low is None or high is None else f" ({number(low)} – {number(high)})")


def estimate(t: Translator, value: Estimate | None) -> str:
    """An estimate in words."""
    return "–" if value is None else interval(t, value.mean, value.low, value.high)


if __name__ == "__main__":
    show()

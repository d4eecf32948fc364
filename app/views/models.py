"""Models: what tuning changed inside them, block by block, what was trained where, and the prompts."""

from math import pi, sqrt

import streamlit as st

from app import exhibits, state, tuned_weights, widgets
from app.exhibits import number
from app.measured import evidence_of
from app.opening import Opened
from app.tuned_weights import TunedWeights
from app.words import literal
from explain.errors import ExplainError
from explain.evidence.summary import Block, Summary
from explain.i18n import Translator
from explain.render import evidence_plots as plots
from explain.render.models_plots import (
    block_figure,
    describe_curves,
    prompt_cosines_figure,
    prompt_norms_figure,
    trained_figure,
)
from explain.training.pair import MatchedPair

ORDER = 70
ICON = ":material/stacks:"

SECTIONS = ("blocks", "trained", "prompts")
MEASURE, PROMPTED, BLOCK = "inside", "prompted", "block"  # of the link


def show() -> None:
    """Draw the page."""
    page = widgets.open_pair_page()
    if page is None:
        return
    t, opened, pair = page
    section = exhibits.choose_section(t, "models", SECTIONS)
    draw = {"blocks": show_blocks, "trained": show_trained, "prompts": show_prompts}[section]
    draw(t, opened, pair)


def show_blocks(t: Translator, opened: Opened, pair: MatchedPair) -> None:
    """One measure over the blocks, large, and all of them small."""
    st.subheader(t("report.evidence.blocks.title"))
    summary = evidence_of(pair)
    panels = plots.block_panels(summary) if summary is not None else {}
    if summary is None or not panels:
        widgets.show_notes(t)
        widgets.show_command(t, t("viewer.models.none"), f"explain evaluate {opened.folder}")
        st.caption(t("viewer.models.without"))
        return
    metric = state.choose(MEASURE, list(panels), next(iter(panels)))
    widgets.show_notes(t)
    st.selectbox(t("viewer.models.measure"), list(panels), key=MEASURE, width=420,
                 format_func=lambda name: plots.metric_label(summary, name, t))  # fmt: skip
    about = f"viewer.models.about.{metric}"
    st.markdown(t(about if about in t else "viewer.models.about.other"))
    curves = panels[metric]
    exhibits.show_figure(block_figure(summary, metric, curves, t.lang), "block", describe_curves(curves, t))
    st.caption(reading(t, summary, [block for blocks in curves.values() for block in blocks]))
    with st.expander(t("viewer.models.numbers")):
        exhibits.show_rows([block_row(t, model, own, blocks) for (model, own), blocks in curves.items()])
    st.subheader(t("viewer.models.overview"))
    exhibits.show_figure(plots.blocks_figure(summary, t.lang), "overview", t("report.evidence.blocks.lead"))
    st.caption(t("report.evidence.blocks.lead"))


def reading(t: Translator, summary: Summary, blocks: list[Block]) -> str:
    """On what the numbers rest, and what to beware of."""
    images = max(block.estimate.images for block in blocks)
    flags = dict.fromkeys(flag for block in blocks for flag in (*block.estimate.flagged, *block.estimate.missing))
    words = [t(f"term.flag.{flag}") if f"term.flag.{flag}" in t else flag.replace("_", " ") for flag in flags]
    counted = images if images > 1 else summary.images.headline  # some numbers are one for all images together
    warning = " " + t("viewer.models.flags", flags=", ".join(words)) if words else ""
    return t("viewer.models.reading", images=counted, seeds=len(summary.seeds)) + warning


def block_row(t: Translator, model: str, metric: str, blocks: list[Block]) -> dict[str, str]:
    """The numbers of one curve."""
    chance = f", {t('plot.chance')}" if plots.block_dash(model, metric) == "dot" else ""
    name = literal(plots.model_label(model, t)) + chance
    return {t("report.evidence.model"): name} | {str(one.block + 1): number(one.estimate.mean) for one in blocks}


def weights_of(t: Translator, opened: Opened, models: list[str]) -> dict[str, TunedWeights]:
    """What was trained of models; empty while that is being read, which the page then says."""
    found = {model: tuned_weights.ready(opened, model) for model in models}
    if any(part is None for part in found.values()):
        widgets.wait_for(t, [
            tuned_weights.work_of(opened, model, t("viewer.models.weights", model=opened.label_of(model, t)))
            for model, part in found.items() if part is None
        ])  # fmt: skip
        return {}
    for part in found.values():
        if isinstance(part, ExplainError):
            st.warning(literal(str(part)), icon=":material/error:")
    return {model: part for model, part in found.items() if isinstance(part, TunedWeights)}


def show_trained(t: Translator, opened: Opened, pair: MatchedPair) -> None:
    """How many parameters each arm trained in each block."""
    st.subheader(t("viewer.models.trained"))
    widgets.show_notes(t)
    exhibits.show_lines([
        f"**{literal(opened.label_of(arm, t))}**: " + t(
            "viewer.models.trained_share", trained=f"{run.manifest.trained_parameters:,}",
            share=f"{100 * run.manifest.trained_parameters / run.manifest.total_parameters:.3g}",
        )
        for arm, run in pair.runs.items()
    ])  # fmt: skip
    found = weights_of(t, opened, list(pair.runs))
    if found:
        parts = {arm: weights.parameters for arm, weights in found.items()}
        exhibits.show_figure(trained_figure(parts, t.lang), "trained", t("viewer.models.trained_reading"))
        st.caption(t("viewer.models.trained_reading"))


def show_prompts(t: Translator, opened: Opened, pair: MatchedPair) -> None:
    """Norms of an arm's prompts, and how alike those of one block are."""
    st.subheader(t("viewer.models.prompts"))
    arms = [arm for arm, run in pair.runs.items() if "num_tokens" in run.manifest.tuning_options]
    arm = state.choose(PROMPTED, arms, arms[0])
    if len(arms) > 1:
        st.segmented_control(t("viewer.models.arm"), arms, key=PROMPTED, required=True,
                             format_func=lambda name: opened.label_of(name, t))  # fmt: skip
    found = weights_of(t, opened, [arm])
    if not found:
        widgets.show_notes(t)
        return
    weights = found[arm]
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(f"**{t('viewer.models.norms')}**")
        exhibits.show_figure(prompt_norms_figure(weights.norms(), t.lang), "norms", t("viewer.models.norms_reading"))
        st.caption(t("viewer.models.norms_reading"))
    with right:
        show_cosines(t, weights)
    st.caption(t("viewer.models.prompts_cannot"))


def show_cosines(t: Translator, weights: TunedWeights) -> None:
    """How alike the prompts of a chosen block are."""
    blocks = [str(block) for block in weights.prompts]
    chosen = state.choose(BLOCK, blocks, blocks[-1])
    widgets.show_notes(t)
    if len(blocks) > 1:
        st.segmented_control(t("viewer.models.block"), blocks, key=BLOCK, required=True, wrap=True)
    else:
        st.markdown(f"**{t('viewer.models.one_block', block=chosen)}**")
    block = int(chosen)
    exhibits.show_figure(prompt_cosines_figure(weights.cosines(block), t.lang), "cosines",
                         t("viewer.models.cosines_reading"))  # fmt: skip
    alike = weights.likeness().get(block)
    if alike is not None:
        width = weights.prompts[block].shape[1]
        st.markdown(t("viewer.models.alike", block=block, value=number(alike), chance=number(sqrt(2 / (pi * width))),
                      width=width))  # fmt: skip
    st.caption(t("viewer.models.cosines_reading"))


if __name__ == "__main__":
    show()

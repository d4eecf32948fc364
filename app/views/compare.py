"""Compare: one test image, the maps of both models for the same class, method by method."""

import time
from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import export, state, widgets
from app.picture import Comparison, Look, Place, arrange, enlarge
from app.state import Opened
from explain.attribution import Array, Attribution
from explain.data.base import Sample
from explain.errors import ExplainError
from explain.evidence.planted import PlantedResult
from explain.i18n import Translator
from explain.methods.base import METHODS
from explain.render.plots import arm_label

ORDER = 10
ICON = ":material/compare:"


def show() -> None:
    """Draw the page."""
    t = state.translator()
    with st.spinner(t("viewer.opening")):
        opened = state.open_pair()
    widgets.show_header(t, opened)
    sample = widgets.choose_image(t, opened)
    if sample is None:
        widgets.show_notes(t)
        return
    target = widgets.choose_target(t, opened, sample)
    methods = widgets.choose_methods(t)
    look = widgets.choose_look(t)
    arms = widgets.choose_arms(t, opened)
    widgets.show_notes(t)
    planted = widgets.find_planted_test(opened.pair)
    if not methods:
        st.info(t("viewer.no_method"))
        return
    left, right = st.columns([1.55, len(methods)], gap="medium")
    with left.container(gap="small"):
        image = show_input(t, opened, arms, sample)
        status = st.empty()
    found = find_all(t, opened, arms, methods, sample, target, status)
    comparison = put_together(opened, arms, methods, sample, target, image, found, look)
    with right.container(gap="xsmall"):
        show_maps(t, comparison, planted)
    show_downloads(t, comparison)


def show_input(t: Translator, opened: Opened, arms: Sequence[str], sample: Sample) -> Array:
    """The image as the models see it and what they answer; there is something to look at while maps are made."""
    truth = opened.class_names[sample.label]
    st.markdown(t("viewer.truth", name=f"**{widgets.literal(truth)}**"))
    with st.spinner(t("viewer.loading")):  # the model says how it sees an image
        image = enlarge(state.load_pixels(opened.pair.vpt, sample))
    st.image(image, width="stretch", output_format="PNG", alt=t("viewer.alt_input"))
    widgets.show_probabilities(t, opened, arms, sample)
    return image


def find_all(
    t: Translator, opened: Opened, arms: Sequence[str], methods: Sequence[str], sample: Sample, target: int,
    status: DeltaGenerator,
) -> dict[Place, Attribution | ExplainError]:  # fmt: skip
    """Every map of the page; the status line says which one is being computed, then what they explain."""
    places = [(arm, method) for method in methods for arm in arms]
    found = {}
    started = time.perf_counter()
    for number, (arm, method) in enumerate(places, start=1):
        what = widgets.literal(f"{arm_label(arm, t)}, {METHODS[method].label}")
        running = t("viewer.running", number=number, count=len(places), what=what)
        status.caption(f":material/hourglass_top: {running}")
        found[arm, method] = state.find_maps(opened.pair.runs[arm], sample, method, target)
    name, seconds = widgets.literal(opened.class_names[target]), f"{time.perf_counter() - started:.1f}"
    status.caption(t("viewer.explained", name=f"**{name}**", seconds=seconds))
    return found


def put_together(
    opened: Opened, arms: Sequence[str], methods: Sequence[str], sample: Sample, target: int, image: Array,
    found: dict[Place, Attribution | ExplainError], look: Look,
) -> Comparison:  # fmt: skip
    """Give every map that was found its scale, and keep the reasons of the others."""
    maps = {place: part for place, part in found.items() if isinstance(part, Attribution)}
    failed = {place: part for place, part in found.items() if isinstance(part, ExplainError)}
    grid = state.load_model(opened.pair.vpt).layout.grid
    shown = arrange(maps, look, grid)
    return Comparison(opened, sample, target, tuple(arms), tuple(methods), image, shown, failed, look)


def show_maps(t: Translator, comparison: Comparison, planted: PlantedResult | None) -> None:
    """A column per method, a row per model."""
    methods = comparison.methods
    for column, method in zip(st.columns(len(methods)), methods, strict=True):
        with column:
            widgets.show_method(t, method)
    for arm in comparison.arms:
        widgets.show_answer(t, comparison, arm)
        for column, method in zip(st.columns(len(methods)), methods, strict=True):
            with column.container(gap="xsmall"):
                show_map(t, comparison, (arm, method), planted)


def show_map(t: Translator, comparison: Comparison, place: Place, planted: PlantedResult | None) -> None:
    """One map with its legend and what speaks against it, or why there is none."""
    if place in comparison.failed:
        st.warning(widgets.literal(str(comparison.failed[place])), icon=":material/block:")
        return
    arm, method = place
    alt = t("viewer.alt_map", arm=arm_label(arm, t), method=METHODS[method].label)
    # JPEG would smear the colours of a map
    st.image(comparison.draw(place), width="stretch", output_format="PNG", alt=alt)
    widgets.show_trust(t, planted, arm, method)
    widgets.show_legend(t, comparison.shown[place], comparison.look)


def show_downloads(t: Translator, comparison: Comparison) -> None:
    """The comparison as a picture, and the raw maps; made when asked for."""
    stem = export.file_stem(comparison.sample.id)
    with st.sidebar.container(horizontal=True):
        st.download_button(
            t("viewer.download_png"), lambda: export.comparison_png(t, comparison),
            f"{stem}.png", "image/png", key="download_png", icon=":material/image:", on_click="ignore",
        )  # fmt: skip
        st.download_button(
            t("viewer.download_npz"), lambda: export.maps_npz(comparison),
            f"{stem}.npz", "application/zip", key="download_npz", icon=":material/data_array:",
            on_click="ignore", help=t("viewer.download_npz_help"),
        )  # fmt: skip


if __name__ == "__main__":
    show()

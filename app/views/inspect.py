"""Inspect: one image, the maps of the models side by side for the same class, method by method."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import streamlit as st

from app import choices, export, maps, opening, review, state, widgets
from app.maps import Wanted
from app.measured import evidence_of
from app.opening import Opened
from app.showing import Found, Shown
from app.words import literal, percent
from explain.archive.manifest import Entry
from explain.attribution import Attribution
from explain.errors import ExplainError
from explain.evidence.summary import Estimate, Summary
from explain.i18n import Translator
from explain.methods.base import METHODS
from explain.metrics.agreement import pearson
from explain.metrics.complexity import gini
from explain.metrics.localisation import mask_on_grid, relevance_mass
from explain.render.heatmap import pool

ORDER = 30
ICON = ":material/compare:"

READING, CODE = "reading_open", "code_open"  # session keys; streamlit would print a docstring here


def show() -> None:
    """Draw the page."""
    t = state.translator()
    with st.spinner(t("viewer.opening")):
        opened = opening.open_location()
    header, body = st.container(), st.container()
    with body:  # before what stands above it: a step through the images waits for the maps
        show_image(t, opened)
    with header:
        widgets.show_header(t, opened)


def show_image(t: Translator, opened: Opened) -> None:
    """The image chosen, its maps, and what is said of them."""
    stepper, target_at, methods_at, models_at = st.columns([3, 2, 4, 2.4], gap="small", vertical_alignment="bottom")
    with stepper:
        image = choices.choose_image(t, opened)
    if image is None:
        widgets.show_notes(t)
        return
    targets = choices.choose_targets(t, opened, image, target_at)
    methods = choices.choose_methods(t, opened, methods_at)
    models = choices.choose_models(t, opened, models_at)
    widgets.show_notes(t)
    if not methods or not models:
        st.info(t("viewer.no_method"))
        return
    wanted = [Wanted(model, method, targets[model]) for model in models for method in methods]
    found: Found = {one: maps.ready(opened, image, one) for one in wanted}
    picture = show_maps(t, opened, image, found)
    missing = [one for one, part in found.items() if part is None]
    widgets.wait_for(t, [maps.work_of(opened, image, one, widgets.words_of(t, opened, one)) for one in missing],
                     widgets.spreads_to_read(opened, methods))  # fmt: skip
    measured, reviewed = st.columns([3, 2], gap="large")
    with measured:
        show_measures(t, opened, image, found)
        take_along(t, opened, image, found)
    with reviewed:
        review.show_review(t, opened, image)
    if picture is not None:
        reading = st.expander(t("viewer.inspect.reading"), icon=":material/help:", key=READING, on_change="rerun")
        if reading.open:
            with reading:
                widgets.show_method_help(t, methods)


def show_maps(
    t: Translator, opened: Opened, image: Entry, found: Found
) -> npt.NDArray[np.uint8] | None:
    """The panel; None where the image itself cannot be shown."""
    try:
        picture, mask = maps.picture_of(image), maps.mask_of(image)
    except ExplainError as error:
        st.error(t("viewer.inspect.missing_file", why=literal(str(error))), icon=":material/broken_image:")
        return None
    models = list(dict.fromkeys(one.model for one in found))
    shown = Shown(
        image.id, picture, {model: opened.answer(model, image.id) for model in models}, opened.grid_of(models[0]),
        "" if image.label is None else opened.class_names[image.label], explained(t, opened, found), mask,
    )  # fmt: skip
    widgets.draw_panel(t, opened, shown, found)
    return picture


def explained(t: Translator, opened: Opened, found: Found) -> str:
    """Name of the class that the maps explain, or that each model has its own."""
    targets = {one.target for one in found}
    return opened.class_names[targets.pop()] if len(targets) == 1 else t("viewer.target.own")


def show_measures(t: Translator, opened: Opened, image: Entry, found: Found) -> None:
    """Numbers beside the maps: how alike those of the compared models are, how concentrated, how much in the region."""
    grid_maps = {one: on_grid(opened, one, part) for one, part in found.items() if isinstance(part, Attribution)}
    if not grid_maps:
        return
    st.subheader(t("viewer.inspect.measures"))
    first, second = opened.compared
    summary = find_summary(opened)
    labels = {model: opened.label_of(model, t) for model in dict.fromkeys(one.model for one in grid_maps)}
    mask = maps.mask_of(image)
    rows = []
    for method in dict.fromkeys(one.method for one in grid_maps):
        of_model = {one.model: values for one, values in grid_maps.items() if one.method == method}
        row = {t("viewer.inspect.method"): f"**{literal(METHODS[method].label)}**"}
        if first != second and first in of_model and second in of_model:
            name = t("viewer.inspect.agreement", first=labels[first], second=labels[second])
            row[name] = agreement(t, summary, method, of_model[first], of_model[second], opened)
        for model, label in labels.items():
            values = of_model.get(model)
            row[t("viewer.inspect.gini", model=label)] = "–" if values is None else number(float(gini(values[None])[0]))
            if mask is not None and values is not None:
                share = mask_on_grid(mask[None], (values.shape[0], values.shape[1]))
                row[t("viewer.inspect.mass", model=label)] = percent(float(relevance_mass(values[None], share)[0]))
        rows.append(row)
    widgets.show_table({name: [row.get(name, "–") for row in rows] for name in rows[0]})
    st.caption(" ".join([t("viewer.inspect.agreement_help"), t("viewer.inspect.gini_help"),
                         *([t("viewer.inspect.mass_help")] if mask is not None else [])]))  # fmt: skip
    show_probabilities(t, opened, image, labels)


def on_grid(opened: Opened, wanted: Wanted, found: Attribution) -> npt.NDArray[np.float32]:
    """A map as patch means (h, w)."""
    grid, values = opened.grid_of(wanted.model), found.values[0]
    return pool(values, grid) if values.shape[0] > grid[0] and values.shape[1] > grid[1] else values


def agreement(
    t: Translator, summary: Summary | None, method: str, first: npt.NDArray[np.float32],
    second: npt.NDArray[np.float32], opened: Opened,
) -> str:  # fmt: skip
    """How alike two maps are, beside what an evaluation says is alike and unlike."""
    if first.shape != second.shape:
        return "–"
    value = number(float(pearson(first[None], second[None])[0]))
    known = [row for row in (summary.agreements if summary else ())
             if (row.first, row.second, row.method, row.metric) == (*opened.compared, method, "pearson")]  # fmt: skip
    if not known:
        return value
    ceilings = [part for part in (known[0].first_ceiling, known[0].second_ceiling) if part is not None]
    return t("viewer.inspect.between", value=value, floor=mean_of(known[0].floor),
             ceiling=" / ".join(map(mean_of, ceilings)) or "–")  # fmt: skip


def mean_of(estimate: Estimate) -> str:
    """An estimate's mean as text."""
    return "–" if estimate.mean is None else number(estimate.mean)


def number(value: float) -> str:
    """Two digits behind the point, a true minus sign, a dash for no number."""
    return "–" if np.isnan(value) else f"{value:.2f}".replace("-", "\u2212")


def find_summary(opened: Opened) -> Summary | None:
    """The evaluation of the pair; None where there is none that speaks of these weights."""
    try:
        return evidence_of(opened.pair) if opened.pair else None
    except ExplainError:  # told on the page "Evidence"
        return None


def show_probabilities(
    t: Translator, opened: Opened, image: Entry, labels: Mapping[str, str], *, most: int = 4
) -> None:
    """The likeliest classes of every model, the true one always among them."""
    answers = {model: opened.answer(model, image.id) for model in labels}
    shares = {model: answer.probabilities for model, answer in answers.items() if answer is not None}
    if not shares:
        return
    order = [int(index) for index in np.argsort(-np.max(list(shares.values()), axis=0))]
    rows = order[:most]
    if image.label is not None and image.label not in rows:
        rows = [*order[: most - 1], image.label]
    names = [f"{'✓ ' if index == image.label else ''}{literal(opened.class_names[index])}" for index in rows]
    table = {t("viewer.inspect.probabilities"): names}
    table |= {labels[model]: [percent(float(part[index])) for index in rows] for model, part in shares.items()}
    widgets.show_table(table)


def take_along(t: Translator, opened: Opened, image: Entry, found: Found) -> None:
    """The raw maps as a file, and the lines of Python that make them."""
    there = {one: part for one, part in found.items() if isinstance(part, Attribution)}
    if not there:
        return
    st.download_button(
        t("viewer.inspect.npz"), lambda: export.maps_npz(opened, image, there), f"{export.file_stem(image.id)}.npz",
        "application/zip", key="download_npz", icon=":material/data_array:", on_click="ignore",
        help=t("viewer.download_npz_help"),
    )  # fmt: skip
    code = st.expander(t("viewer.inspect.code"), icon=":material/code:", key=CODE, on_change="rerun")
    if code.open:
        code.code(export.snippet(opened, image, list(there)), language=None)


if __name__ == "__main__":
    show()

"""Image evidence: how well the order of one image's map is, patch by patch, on the page "Evidence"."""

import streamlit as st

from app import choices, curves, exhibits, maps, state, widgets
from app.exhibits import number
from app.maps import Wanted
from app.opening import Opened
from app.words import literal
from explain.archive.manifest import Entry
from explain.attribution import Array, Attribution
from explain.engine import DEFAULT_METHODS
from explain.errors import ExplainError
from explain.i18n import Translator
from explain.methods.base import METHODS
from explain.metrics.faithfulness import gain, is_flat
from explain.render.faithfulness_plots import RemovalCurves, removal_figure

METHOD = "curve"
"""Key of the method whose order is followed."""


def show(t: Translator, opened: Opened) -> None:
    """Deletion and insertion of one image in the order of a map, beside random orders, for both models."""
    st.subheader(t("viewer.evidence.curves.title"))
    st.caption(t("viewer.evidence.curves.lead"))
    stepper, left, right = st.columns([3, 3, 3], gap="small", vertical_alignment="bottom")
    with stepper:
        image = choices.choose_image(t, opened)
    method = state.choose(METHOD, list(METHODS), DEFAULT_METHODS[0])
    left.selectbox(t("viewer.evidence.curves.method"), list(METHODS), key=METHOD,
                   format_func=lambda name: METHODS[name].label)  # fmt: skip
    if image is None:
        widgets.show_notes(t)
        return
    targets = choices.choose_targets(t, opened, image, right)
    widgets.show_notes(t)
    wanted = [Wanted(model, method, targets[model]) for model in dict.fromkeys(opened.compared)]
    found = {one: maps.ready(opened, image, one) for one in wanted}
    drawn = []
    for one, part in found.items():
        if isinstance(part, Attribution) and is_flat(part.values).any():
            st.warning(t("viewer.evidence.curves.flat", model=literal(opened.label_of(one.model, t))))
        elif isinstance(part, ExplainError):
            st.warning(literal(str(part)), icon=":material/error:")
        else:
            drawn.append(one)
    show_curves(t, opened, image, drawn)


def show_curves(t: Translator, opened: Opened, image: Entry, wanted: list[Wanted]) -> None:
    """The curves of the maps that rank something, as soon as they are there."""
    ready = []
    for one in wanted:
        own, random = (curves.ready(opened, image, one, random=random) for random in (False, True))
        if isinstance(own, ExplainError) or isinstance(random, ExplainError):
            st.warning(literal(str(own if isinstance(own, ExplainError) else random)), icon=":material/error:")
        elif own is not None and random is not None:
            ready.append((one.model, own, random))
        else:
            wish_curves(t, opened, image, wanted)
            return
    if not ready:
        return
    drawn = [RemovalCurves(model, own.shares, own.deletion[0], own.insertion[0], random.deletion, random.insertion)
             for model, own, random in ready]  # fmt: skip
    exhibits.show_lines([beaten(t, opened, *one) for one in ready])
    exhibits.show_figure(removal_figure(drawn, 1 / len(opened.class_names), t.lang), "curves",
                         t("viewer.evidence.curves.lead"))  # fmt: skip
    seeds = f"{curves.RANDOM_SEEDS[0]} – {curves.RANDOM_SEEDS[-1]}"
    st.caption(t("viewer.evidence.curves.random", count=len(curves.RANDOM_SEEDS), seeds=seeds,
                 steps=len(ready[0][1].shares) - 1))  # fmt: skip
    exhibits.show_rows([areas_row(t, opened, *one) for one in ready])
    st.caption(t("viewer.evidence.curves.cannot"))


def wish_curves(t: Translator, opened: Opened, image: Entry, wanted: list[Wanted]) -> None:
    """Have the curves computed."""
    names = {
        one: t("viewer.evidence.curves.what", method=METHODS[one.method].label, model=opened.label_of(one.model, t))
        for one in wanted
    }
    widgets.wait_for(t, curves.works_of(opened, image, wanted, names))


def beaten(t: Translator, opened: Opened, model: str, own: curves.Curves, random: curves.Curves) -> str:
    """How many random orders a map's order is better than."""
    mine = float((own.insertion_areas - own.deletion_areas)[0])
    count = int((random.insertion_areas - random.deletion_areas < mine).sum())
    return t("viewer.evidence.curves.beaten", model=literal(opened.label_of(model, t)), count=count,
             orders=len(random.deletion), gain=number(image_gain(own, random)))  # fmt: skip


def image_gain(own: curves.Curves, random: curves.Curves) -> float:
    """The gain of a map's order over the mean of the random ones."""
    return float(gain(own.insertion_areas[0], own.deletion_areas[0], random.insertion_areas.mean(),
                      random.deletion_areas.mean()))  # fmt: skip


def areas_row(t: Translator, opened: Opened, model: str, own: curves.Curves, random: curves.Curves) -> dict[str, str]:
    """The areas under one model's curves, those of random orders with their least and largest."""

    def spread(areas: Array) -> str:
        return f"{number(float(areas.mean()))} ({number(float(areas.min()))} – {number(float(areas.max()))})"

    return {
        t("report.evidence.model"): literal(opened.label_of(model, t)),
        t("viewer.evidence.curves.deletion"): number(float(own.deletion_areas[0])),
        t("viewer.evidence.curves.random_deletion"): spread(random.deletion_areas),
        t("viewer.evidence.curves.insertion"): number(float(own.insertion_areas[0])),
        t("viewer.evidence.curves.random_insertion"): spread(random.insertion_areas),
        t("viewer.evidence.curves.gain"): f"**{number(image_gain(own, random))}**",
    }

"""Choices that several pages share: the image and the steps to others, the class that is explained, methods, models."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import filters, state
from app.index import Query, Rows
from app.opening import Opened
from app.words import literal
from explain.archive.manifest import Entry
from explain.engine import DEFAULT_METHODS
from explain.i18n import Translator
from explain.methods.base import METHODS

MAX_METHODS = 4
"""More columns would be too narrow to see anything in."""

OWN = "own"
"""Choice of a target: every model for the class that it answers."""


def choose_image(t: Translator, opened: Opened) -> Entry | None:
    """The image, and steps through those that the filters leave; None where none is left.

    Left and right arrow keys step; the filters are those of the gallery.
    """
    query = filters.chosen(opened)
    found = opened.index.find(query)
    asked = state.choose_text(state.SAMPLE, longest=2000)
    row = opened.index.row_of(asked) if asked else None
    if asked and row is None:
        warning = t("viewer.corrected", name=state.SAMPLE, value=literal(asked))
        st.warning(warning, icon=":material/link_off:")
    at = 0 if row is None and len(found) else opened.index.place_of(query, row)
    name = asked if row is not None else str(opened.index.fetch([found[0]], ["id"])[0]["id"]) if at is not None else ""
    if name:
        st.session_state[state.SAMPLE] = name
        number = "–" if at is None else f"{at + 1:,}"
        place = t("viewer.image", number=number, count=f"{len(found):,}")
        outside = f" · {t('viewer.not_among')}" if at is None else ""
        st.markdown(f"**{literal(name)}**  \n:gray[:small[{place}{outside}]]")
    else:
        st.info(t("viewer.no_image"))
    with st.container(horizontal=True, gap="xsmall"):
        _step(t, opened, found, -1, at)
        _step(t, opened, found, +1, at)
        if query != Query():
            _clear_filters(t)
    return opened.image(name) if name else None


def _clear_filters(t: Translator) -> None:
    def clear() -> None:
        for key in filters.KEYS:
            st.session_state.pop(key, None)

    st.button(t("viewer.all_images"), key="all_images", icon=":material/filter_alt_off:", type="tertiary",
              on_click=clear)  # fmt: skip


def _step(t: Translator, opened: Opened, found: Rows, by: int, at: int | None) -> None:
    to = 0 if at is None else at + by

    def go() -> None:
        st.session_state[state.SAMPLE] = opened.index.fetch([found[to]], ["id"])[0]["id"]

    label, key = (t("viewer.previous"), "Left") if by < 0 else (t("viewer.next"), "Right")
    st.button(label, key=f"step_{key.lower()}", shortcut=key, on_click=go, disabled=not 0 <= to < len(found))


def choose_targets(t: Translator, opened: Opened, image: Entry, place: DeltaGenerator) -> dict[str, int]:
    """The class that each model is explained for: the true one, one model's answer or any for all, or each its own.

    Returns:
        Model -> class index.
    """
    names = opened.class_names
    answers = {model: answer.index for model in opened.models if (answer := opened.answer(model, image.id)) is not None}
    classes = {} if image.label is None else {"label": image.label}
    classes |= {f"answer:{model}": answers[model] for model in dict.fromkeys(opened.compared) if model in answers}
    classes |= {f"class:{name}": number for number, name in enumerate(names)}
    choices = [*classes, *([OWN] if set(opened.compared) <= set(answers) else [])]

    def describe(choice: str) -> str:
        kind, _, what = choice.partition(":")
        if kind == OWN:
            return t("viewer.target.own")
        name = names[classes[choice]]
        if kind == "label":
            return t("viewer.target.label", name=name)
        return name if kind == "class" else t("viewer.target.answer", model=opened.label_of(what, t), name=name)

    # an archive alone has the maps of one target only
    kept = opened.archive.job.targets if opened.archive is not None and opened.pair is None else "label"
    plain = OWN if kept == "predicted" and OWN in choices else f"class:{names[kept]}" if isinstance(kept, int) else ""
    chosen = state.choose(state.TARGET, choices, plain or choices[0])
    place.selectbox(t("viewer.target"), choices, key=state.TARGET, format_func=describe, help=t("viewer.target_help"))
    own = chosen == OWN
    return {model: answers.get(model, image.label or 0) if own else classes[chosen] for model in opened.models}


def choose_methods(t: Translator, opened: Opened, place: DeltaGenerator) -> list[str]:
    """The methods shown, in the order chosen."""
    known = list(METHODS) if opened.pair is not None else list(opened.archive.methods if opened.archive else ())
    plain = [name for name in DEFAULT_METHODS if name in known] or known[:MAX_METHODS]
    state.choose_many(state.METHOD_NAMES, known, plain, most=MAX_METHODS)
    return place.multiselect(
        t("viewer.methods"), known, key=state.METHOD_NAMES, max_selections=MAX_METHODS,
        format_func=lambda name: METHODS[name].label,
    )  # fmt: skip


def choose_models(t: Translator, opened: Opened, place: DeltaGenerator) -> list[str]:
    """The models shown, row by row: the two that are compared, and others where they are wanted."""
    plain = list(dict.fromkeys(opened.compared))
    if len(opened.models) <= len(plain):
        return plain
    state.choose_many(state.MODEL_NAMES, opened.models, plain)
    return place.multiselect(t("viewer.models"), opened.models, key=state.MODEL_NAMES,
                             format_func=lambda name: opened.label_of(name, t))  # fmt: skip

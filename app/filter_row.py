"""The row of filters, and what is said when they leave no image."""

import streamlit as st

from app import filters
from app.index import Query
from app.opening import Opened
from app.words import literal
from explain.data.base import PARTS
from explain.i18n import Translator
from explain.reviews import VERDICTS

RANGE = "_confidence_range"
PART_WORDS = {"train": "term.training", "val": "term.validation", "test": "term.test"}
WIDTH = 230


def show_filters(t: Translator, opened: Opened, query: Query) -> None:
    """What is left out: the filters one needs most in a row, the others behind a button."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        counts = opened.index.outcomes(query)
        st.selectbox(
            t("viewer.outcome"), list(counts), key=filters.OUTCOME, on_change=first_page, width=WIDTH,
            format_func=lambda outcome: counted(outcome_label(outcome, opened, t), counts[outcome]),
        )  # fmt: skip
        labels = opened.index.counts("label", filters.relaxed(query, "class"))
        sizes = {name: labels.get(label, 0) for label, name in enumerate(opened.class_names)}
        sizes[filters.EVERY_CLASS] = sum(labels.values())
        st.selectbox(
            t("viewer.class"), (filters.EVERY_CLASS, *opened.class_names), key=filters.CLASS, on_change=first_page,
            format_func=lambda name: counted(class_label(name, t("viewer.class.all")), sizes[name]), width=WIDTH,
        )  # fmt: skip
        st.text_input(t("viewer.gallery.find"), key=filters.CONTAINS, on_change=first_page, width=WIDTH,
                      icon=":material/search:", placeholder=t("viewer.gallery.find_example"))  # fmt: skip
        rare = len({"part", "answer", "confidence", "review"} & set(filters.active(query)))
        label = t("viewer.gallery.more") + (f" ({rare})" if rare else "")
        with st.popover(label, icon=":material/tune:", width="content", key="more_filters"):
            show_rare_filters(t, opened)
        st.button(t("viewer.gallery.reset"), key="reset", icon=":material/filter_alt_off:", type="tertiary",
                  disabled=not filters.active(query), on_click=drop, args=(tuple(filters.FILTERS),))  # fmt: skip


def show_rare_filters(t: Translator, opened: Opened) -> None:
    """The filters behind the button."""
    parts = [part for part in PARTS if part in opened.index.parts]
    if parts:
        names = {"": t("viewer.gallery.any")} | {part: t(PART_WORDS[part]) for part in parts}
        st.selectbox(t("viewer.gallery.part"), ("", *parts), key=filters.PART, format_func=names.__getitem__,
                     on_change=first_page)  # fmt: skip
    models = filters.answering(opened)
    if models:
        st.selectbox(t("viewer.gallery.by"), models, key=filters.BY, on_change=first_page,
                     format_func=lambda model: opened.label_of(model, t))  # fmt: skip
        model = opened.label_of(st.session_state[filters.BY], t)
        st.selectbox(
            t("viewer.gallery.answer", model=model), (filters.EVERY_CLASS, *opened.class_names), key=filters.ANSWER,
            format_func=lambda name: class_label(name, t("viewer.gallery.any")), on_change=first_page,
        )  # fmt: skip
        session = st.session_state
        session[RANGE] = tuple(sorted((session[filters.LOW], session[filters.HIGH])))
        st.slider(t("viewer.gallery.confidence", model=model), 0, 100, key=RANGE, format="%d %%", on_change=take_range)
    if opened.reviews is not None:
        names = {"": t("viewer.gallery.any"), filters.UNREVIEWED: t("viewer.gallery.verdict.none")}
        names |= {name: t(f"viewer.gallery.verdict.{name}") for name in VERDICTS if name}
        st.selectbox(t("viewer.gallery.verdict"), list(names), key=filters.VERDICT, format_func=names.__getitem__,
                     on_change=first_page)  # fmt: skip
        tags = opened.reviews.tags()
        known = list(dict.fromkeys(("", *tags, st.session_state[filters.TAG])))
        st.selectbox(
            t("viewer.gallery.tag"), known, key=filters.TAG, on_change=first_page,
            format_func=lambda tag: counted(tag, tags.get(tag, 0)) if tag else t("viewer.gallery.any"),
        )  # fmt: skip


def show_nothing(t: Translator, opened: Opened, query: Query) -> None:
    """No image is left: which filters to drop, and how many images that would give."""
    names = filters.active(query)
    sizes = {name: opened.index.size(filters.relaxed(query, name)) for name in names}
    helpful = [name for name in names if sizes[name]]
    st.info(t("viewer.gallery.nothing" if helpful else "viewer.gallery.nothing_by_one"), icon=":material/search_off:")
    for name in helpful:
        words = counted(t("viewer.gallery.drop", filter=describe(t, opened, query, name)), sizes[name])
        st.button(words, key=f"drop_{name}", icon=":material/close:", on_click=drop, args=((name,),))
    if not helpful or len(names) > 1:
        st.button(counted(t("viewer.gallery.drop_all"), opened.index.count), key="drop_all",
                  icon=":material/filter_alt_off:", on_click=drop, args=(tuple(filters.FILTERS),))  # fmt: skip


def describe(t: Translator, opened: Opened, query: Query, name: str) -> str:
    """A filter and its value in words, as Markdown."""
    session = st.session_state
    model = opened.label_of(session[filters.BY], t)
    tag, verdict = session[filters.TAG], session[filters.VERDICT]
    said = ", ".join(([t(f"viewer.gallery.verdict.{verdict}")] if verdict else []) + ([tag] if tag else []))
    low, high = sorted((session[filters.LOW], session[filters.HIGH]))
    label, value = {
        "outcome": lambda: (t("viewer.outcome"), outcome_label(query.outcome, opened, t)),
        "class": lambda: (t("viewer.class"), session[filters.CLASS]),
        "find": lambda: (t("viewer.gallery.find"), query.contains),
        "part": lambda: (t("viewer.gallery.part"), t(PART_WORDS[query.part])),
        "answer": lambda: (t("viewer.gallery.answer", model=model), session[filters.ANSWER]),
        "confidence": lambda: (t("viewer.gallery.confidence", model=model), f"{low} – {high} %"),
        "review": lambda: (t("viewer.gallery.verdict"), said),
    }[name]()
    return literal(f"{label}: {value}")


def counted(label: str, count: int) -> str:
    """A choice with the number of images that it leaves."""
    return f"{label} ({count:,})"


def outcome_label(outcome: str, opened: Opened, t: Translator) -> str:
    """An outcome in words."""
    first, second = (opened.label_of(model, t) for model in opened.compared)
    names = {"only_first": {"first": first}, "only_second": {"second": second}}
    return t(f"viewer.outcome.{outcome}", **names.get(outcome, {}))


def class_label(name: str, every: str) -> str:
    """A class, or the word for all of them."""
    return every if name == filters.EVERY_CLASS else name


def first_page() -> None:
    """A filter changed: what was on a later page is somewhere else now."""
    st.session_state[filters.PAGE] = 1


def drop(names: tuple[str, ...]) -> None:
    """Drop filters."""
    filters.reset(names)
    first_page()


def take_range() -> None:
    """The slider's two ends are two values in the link."""
    st.session_state[filters.LOW], st.session_state[filters.HIGH] = st.session_state[RANGE]
    first_page()

"""Overview: which model is better, by how much, on which images, and where to look first."""

from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from app import filters, state, widgets
from app.answers import Answers, answers_of
from app.headline import facts_of, headline_of
from app.index import Query
from app.opening import Opened
from app.suggestions import Suggestion, compared_methods, likeness_column, suggest
from app.words import literal, percent
from explain.data.decode import decode
from explain.errors import ExplainError
from explain.i18n import Translator
from explain.metrics.classification import confusion
from explain.render import overview_plots as plots

ORDER = 10
ICON = ":material/dashboard:"

METHOD = "alike"  # session key; streamlit would print a docstring here
THUMBNAIL_PX = 320
MATRIX_CLASSES = 40  # more do not fit a screen
MISTAKES = 5
PLAIN = {"displayModeBar": False}


def show() -> None:
    """Draw the page."""
    t, opened = widgets.open_page()
    answers = answers_of(opened)
    methods = compared_methods(opened)
    method = state.choose(METHOD, methods, methods[0]) if methods else None
    widgets.show_notes(t)
    show_verdict(t, opened, answers)
    left, right = st.columns([3, 2], gap="large")
    with left:
        show_rates(t, answers)
    with right:
        show_outcomes(t, opened, answers)
    show_suggestions(t, opened, answers.part, method)
    show_confusion(t, opened, answers)
    show_likeness(t, opened, methods, method, answers.part)


def show_verdict(t: Translator, opened: Opened, answers: Answers) -> None:
    """The result in a sentence, then what it rests on."""
    verdict = headline_of(t, opened, answers)
    st.markdown(f"## {verdict.title}")
    st.markdown("  \n".join(verdict.why))
    facts = facts_of(t, opened)
    if facts:
        st.caption("  \n".join(facts))


def show_rates(t: Translator, answers: Answers) -> None:
    """Accuracy of every model."""
    if not answers.rates:
        return
    st.subheader(t("viewer.overview.accuracy"))
    rates = {model: (rate.share, rate.low, rate.high) for model, rate in answers.rates.items()}
    st.plotly_chart(plots.rates_figure(rates, t), key="figure_rates", config=PLAIN, alt=t("viewer.overview.accuracy"))
    kind = "accuracy_test" if answers.part else "accuracy_all"
    st.caption(t(f"viewer.overview.{kind}", count=f"{answers.count:,}"))


def show_outcomes(t: Translator, opened: Opened, answers: Answers) -> None:
    """The images by who was right, each number a way into the gallery."""
    first, second = opened.compared
    if not answers.count or first == second:
        return
    st.subheader(t("viewer.overview.outcomes"))
    counts = answers.outcomes(first, second)
    names = {model: literal(opened.label_of(model, t)) for model in (first, second)}
    head = st.columns([2, 3, 3])
    for place, kind in zip(head[1:], ("right", "wrong"), strict=True):
        place.markdown(f"**{t(f'viewer.overview.{kind}', model=names[second])}**")
    for kind, outcomes in (("right", ("both_right", "only_first")), ("wrong", ("only_second", "both_wrong"))):
        row = st.columns([2, 3, 3], vertical_alignment="center")
        row[0].markdown(f"**{t(f'viewer.overview.{kind}', model=names[first])}**")
        for place, outcome in zip(row[1:], outcomes, strict=True):
            with place.container(border=True):
                share = percent(counts[outcome] / answers.count)
                label = t("viewer.overview.cell", count=f"**{counts[outcome]:,}**", share=share)
                link_to_gallery(label, Query(outcome, part=answers.part))
    st.caption(t("viewer.overview.outcomes_why"))


def show_suggestions(t: Translator, opened: Opened, part: str, method: str | None) -> None:
    """One image of every kind that is worth a look."""
    found = suggest(opened, part, method)
    failed = len(opened.index.find(Query("failed")))
    if not found and not failed:
        return
    st.subheader(t("viewer.overview.first_looks"))
    st.caption(t("viewer.overview.first_looks_why"))
    for place, one in zip(st.columns(max(len(found), 4)), found, strict=False):
        with place:
            show_suggestion(t, opened, one, method)
    if failed:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/warning: {t('viewer.overview.look.failed', count=f'{failed:,}')}", width="content")
            link_to_gallery(t("viewer.overview.look.failed_link"), Query("failed"))
    if opened.reviews is not None:
        reviewed = f"{len(opened.reviews.by_sample()):,}"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(t("viewer.overview.reviewed", count=reviewed, total=f"{opened.index.count:,}"), width="content")
            st.page_link("views/gallery.py", label=t("viewer.overview.unreviewed"), icon=":material/arrow_forward:",
                         icon_position="right", query_params={filters.VERDICT: filters.UNREVIEWED})  # fmt: skip


def show_suggestion(t: Translator, opened: Opened, one: Suggestion, method: str | None) -> None:
    """A card: what kind, the image, what both models said, why this one, and where more are."""
    first, second = (literal(opened.label_of(model, t)) for model in opened.compared)
    words = {"only_first": {"first": first}, "only_second": {"second": second}, "unsure": {"first": first}}
    st.markdown(f"**{t(f'viewer.overview.look.{one.kind}', **words.get(one.kind, {}))}**")
    name = str(one.row["id"])
    try:
        entry = opened.image(name)
        picture = thumbnail(str(entry.path), entry.sha256 or "")
        st.image(picture, width="stretch", alt=t("viewer.overview.look.alt", name=name))
    except ExplainError as error:
        st.caption(t("viewer.overview.look.no_picture", reason=literal(str(error))))
    st.page_link("views/inspect.py", label=f"**{literal(name)}**", icon=":material/compare:",
                 query_params=link_of(one.query, sample=name))  # fmt: skip
    lines = [answer_line(t, opened, one.row, model) for model in opened.compared]
    label = one.row.get("label")
    if label is not None:
        lines.insert(0, t("viewer.overview.look.truth", name=literal(opened.class_names[label])))
    st.caption("  \n".join(lines))
    st.caption(why(t, opened, one, method, first, second))
    link_to_gallery(t("viewer.overview.look.all", count=f"{one.count:,}"), one.query)


def why(t: Translator, opened: Opened, one: Suggestion, method: str | None, first: str, second: str) -> str:
    """By which number the image was found."""
    if one.kind == "unlike" and method is not None:
        value = f"{one.row[one.query.sort]:.2f}".replace("-", "\u2212")
        return t("viewer.overview.look.unlike.why", method=literal(method_label(method)), value=value)
    words = {"both_wrong": {"first": first}, "only_first": {"first": first}, "only_second": {"second": second},
             "unsure": {"first": first}}  # fmt: skip
    return t(f"viewer.overview.look.{one.kind}.why", **words.get(one.kind, {}))


def answer_line(t: Translator, opened: Opened, row: dict[str, Any], model: str) -> str:
    """What a model said of an image, how sure it was, and whether that is right."""
    marks = {True: ":green[✓]", False: ":red[✗]", None: ""}
    name = literal(opened.class_names[row[f"{model}_prediction"]])
    return f"{widgets.badge(t, model)} {name} {percent(row[f'{model}_confidence'])} {marks[row[f'{model}_correct']]}"


def show_confusion(t: Translator, opened: Opened, answers: Answers) -> None:
    """Which classes each model mistakes for which."""
    names, models = opened.class_names, tuple(dict.fromkeys(opened.compared))
    if not answers.count:
        return
    st.subheader(t("viewer.overview.confusion"))
    counts = {model: confusion(answers.labels, answers.classes[model], len(names)) for model in models}
    if len(names) <= MATRIX_CLASSES:
        first, second = (opened.label_of(model, t) for model in opened.compared)
        figure = plots.confusion_figure(counts, names, t, dark=st.context.theme.type == "dark")
        st.plotly_chart(figure, key="figure_confusion", config=PLAIN,
                        alt=t("viewer.overview.confusion_alt", first=first, second=second))  # fmt: skip
        st.caption(t("viewer.overview.confusion_why"))
    else:
        st.caption(t("viewer.overview.confusion_many", count=len(names)))
    mistakes = np.sum([table * ~np.eye(len(names), dtype=bool) for table in counts.values()], axis=0)
    commonest = [index for index in np.argsort(-mistakes, axis=None, kind="stable")[:MISTAKES] if mistakes.flat[index]]
    if not commonest:
        return
    st.markdown(t("viewer.overview.confusion_most"))
    with st.container(horizontal=True):
        for index in commonest:
            truth, answer = divmod(int(index), len(names))
            told = [t("viewer.overview.confusion_count", model=literal(opened.label_of(model, t)),
                      count=int(counts[model][truth, answer])) for model in models]  # fmt: skip
            label = t("viewer.overview.confusion_link", truth=literal(names[truth]), answer=literal(names[answer]),
                      counts=", ".join(told))  # fmt: skip
            most = max(models, key=lambda model: counts[model][truth, answer])
            link_to_gallery(label, Query(part=answers.part, label=truth, answered=(most, answer)), opened)


def show_likeness(t: Translator, opened: Opened, methods: list[str], method: str | None, part: str) -> None:
    """How alike the maps of the two models are, over all images."""
    first, second = (opened.label_of(model, t) for model in opened.compared)
    if first == second:
        return
    st.subheader(t("viewer.overview.alike"))
    if method is None and opened.pair is not None:
        folder = opened.pair.path
        widgets.show_command(t, t("viewer.overview.alike_none"), f"explain attribute {folder} --out {folder}/maps")
        return
    column = likeness_column(opened, method) if method is not None else None
    if column is None:
        st.caption(t("viewer.overview.alike_one", first=literal(first), second=literal(second)))
        return
    st.selectbox(t("viewer.overview.alike_method"), methods, key=METHOD, format_func=method_label, width=320)
    query = Query(part=part, sort=column)
    values = opened.index.values(column, query)
    if len(values):
        middle = f"{np.median(values):.2f}".replace("-", "\u2212")
        st.plotly_chart(plots.alikeness_figure(values, t), key="figure_alike", config=PLAIN,
                        alt=t("viewer.overview.alike_alt", count=f"{len(values):,}", value=middle))  # fmt: skip
    st.caption(t("viewer.overview.alike_why"))
    link_to_gallery(t("viewer.overview.alike_link"), query)


def link_to_gallery(label: str, query: Query, opened: Opened | None = None) -> None:
    """A link that opens the gallery on these images; `opened` names the classes of a query that has some."""
    st.page_link("views/gallery.py", label=label, icon=":material/arrow_forward:", icon_position="right",
                 query_params=link_of(query, opened))  # fmt: skip


def link_of(query: Query, opened: Opened | None = None, **more: str) -> dict[str, str]:
    """A query as the parameters of a link, without what is as it would be anyway."""
    values = {filters.OUTCOME: query.outcome, filters.PART: query.part, filters.SORT: query.sort,
              filters.DESCENDING: "1" if query.descending else ""}  # fmt: skip
    if opened is not None and query.label is not None:
        values[filters.CLASS] = opened.class_names[query.label]
    if opened is not None and query.answered is not None:
        values |= {filters.BY: query.answered[0], filters.ANSWER: opened.class_names[query.answered[1]]}
    return {key: value for key, value in values.items() if value and value != Query().outcome} | more


def method_label(method: str) -> str:
    """A method's name for readers."""
    from explain.methods.base import METHODS  # loads every method, which only an archive's maps are worth

    return METHODS[method].label


@st.cache_data(max_entries=100, show_spinner=False)
def thumbnail(path: str, sha256: str) -> Image.Image:
    """A small picture of an image file; `sha256` tells another file of the same name from it."""
    found = decode(path).image
    found.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return found


if __name__ == "__main__":
    show()

"""Gallery: find images by what the models said of them and by their numbers, and open one."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import columns, filters, state, widgets
from app.filter_row import first_page, show_filters, show_nothing
from app.grid import Answered, Cell, Grid, show_grid
from app.index import Query, Rows
from app.opening import Opened
from app.thumbnails import Overlay, Thumbnail, overlays, thumbnails_of
from app.words import literal
from explain.i18n import Translator
from explain.methods.base import METHODS
from explain.render import arm_colour
from explain.render.evidence_plots import status_key

ORDER = 20
ICON = ":material/grid_view:"

VIEW, SIZE, OVER = "gallery", "per_page", "over"
VIEWS, SIZES = ("grid", "table"), ("24", "48", "96")
GRID, TABLE, OPENED = "gallery_grid", "gallery_table", "_opened"
POLL_S = 0.25
MOST_PAGES = 10**9
MOST_AGREEMENTS = 3

Facts = dict[str, Any]  # what the index tells of one image; streamlit would print a docstring here


def show() -> None:
    """Draw the page."""
    if OPENED in st.session_state:  # left here and not in the callback, where streamlit would forget the filters
        state.go("inspect", **{state.SAMPLE: st.session_state.pop(OPENED)})
    t, opened = widgets.open_page()
    query, known = filters.chosen(opened), overlays(opened)
    view, size = state.choose(VIEW, VIEWS, "grid"), int(state.choose(SIZE, SIZES, "48"))
    over = known.get(state.choose(OVER, ("", *known), ""))
    widgets.show_notes(t)
    show_filters(t, opened, query)
    found = opened.index.find(query)
    show_order(t, opened, query, len(found), known, view)
    if not len(found):
        show_nothing(t, opened, query)
        return
    pages = -(-len(found) // size)
    page = min(state.choose_number(filters.PAGE, 1, MOST_PAGES, 1), pages)
    st.session_state[filters.PAGE] = page
    rows = found[(page - 1) * size : page * size]
    if view == "table":
        show_rows(t, opened, query, rows)
    else:
        show_cells(t, opened, query, rows, over)
    show_paging(t, page, pages, len(rows), size, len(found))


# ---- choices


def show_order(
    t: Translator, opened: Opened, query: Query, count: int, known: dict[str, Overlay], view: str
) -> None:
    """How many there are, in which order and in which way they are shown."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        all_of_them = f"{opened.index.count:,}"
        st.markdown(t("viewer.gallery.count", count=f"{count:,}", total=all_of_them), width="content")
        icons = {"grid": ":material/grid_view:", "table": ":material/table_rows:"}
        st.segmented_control(
            t("viewer.gallery.view"), VIEWS, key=VIEW, required=True, label_visibility="collapsed",
            format_func=lambda view: f"{icons[view]} {t(f'viewer.gallery.view.{view}')}",
        )  # fmt: skip
        st.space("stretch")
        names = {column: columns.label_of(column, opened, t) for column in filters.sortable(opened)}
        st.selectbox(t("viewer.gallery.sort"), list(names), key=filters.SORT, format_func=names.__getitem__,
                     on_change=first_page, width=270)  # fmt: skip
        down = query.descending
        st.button(
            t("viewer.gallery.down" if down else "viewer.gallery.up"), key="direction", on_click=turn_round,
            icon=":material/arrow_downward:" if down else ":material/arrow_upward:",
        )  # fmt: skip
        if known and view == "grid":
            words = {key: f"{opened.label_of(one.model, t)}, {columns.method_label(one.method)}"
                     for key, one in known.items()} | {"": t("viewer.gallery.no_map")}  # fmt: skip
            st.selectbox(t("viewer.gallery.over"), ("", *known), key=OVER, format_func=words.__getitem__, width=200)


def show_paging(t: Translator, page: int, pages: int, count: int, size: int, total: int) -> None:
    """Which page this is, and the way to the others."""
    first = (page - 1) * size + 1
    with st.container(horizontal=True, vertical_alignment="center"):
        place = t("viewer.gallery.place", first=f"{first:,}", last=f"{first + count - 1:,}", count=f"{total:,}")
        st.caption(place, width="content")
        st.space("stretch")
        if pages > 1:
            # one that begins where the page is: streamlit logs a trace when it is told so by the session
            pager = f"pager_{page}_{pages}"
            st.pagination(pages, default=page, key=pager, on_change=turn_page, args=(pager,))
        st.space("stretch")
        st.selectbox(t("viewer.gallery.per_page"), SIZES, key=SIZE, on_change=first_page, width=140,
                     label_visibility="collapsed",
                     format_func=lambda number: t("viewer.gallery.size", count=number))  # fmt: skip


# ---- callbacks


def turn_page(pager: str) -> None:
    """Another page was chosen."""
    st.session_state[filters.PAGE] = st.session_state[pager]


def turn_round() -> None:
    """The other direction."""
    st.session_state[filters.DESCENDING] = not st.session_state[filters.DESCENDING]
    first_page()


def open_cell() -> None:
    """A thumbnail was clicked on."""
    st.session_state[OPENED] = st.session_state[GRID]["opened"]


def open_row(names: Sequence[str]) -> None:
    """A row of the table was chosen."""
    chosen = st.session_state[TABLE]["selection"]["rows"]
    if chosen:
        st.session_state[OPENED] = names[chosen[0]]


# ---- images


def show_cells(t: Translator, opened: Opened, query: Query, rows: Rows, over: Overlay | None) -> None:
    """The images as thumbnails; a page of large files is filled piece by piece."""
    if over is not None:
        st.caption(about_maps(t, opened, over))
    facts = opened.index.fetch(rows, wanted_columns(opened, query))
    names = [str(row["id"]) for row in facts]
    pictures = thumbnails_of(opened, names, over)
    if None not in pictures:
        draw_cells(t, opened, query, facts, pictures)
        return

    def fill() -> None:
        now = thumbnails_of(opened, names, over)
        draw_cells(t, opened, query, facts, now)
        if None not in now:
            state.run_again()  # ends the polling

    st.fragment(fill, run_every=POLL_S)()


def about_maps(t: Translator, opened: Opened, over: Overlay) -> str:
    """What the maps on the thumbnails are, and what they cannot tell."""
    model, method = (literal(name) for name in (opened.label_of(over.model, t), columns.method_label(over.method)))
    planted = widgets.find_planted_test(opened.pair) if opened.pair else None
    trust = planted.trust(over.model, over.method) if planted else None
    status = t(status_key(trust.status)) if trust else t("viewer.flag.not_run")
    return " ".join((t("viewer.gallery.over_help", model=model, method=method), explained_class(t, opened, over),
                     t("viewer.gallery.flag", status=status)))  # fmt: skip


def explained_class(t: Translator, opened: Opened, over: Overlay) -> str:
    """Which class the archive's maps explain."""
    assert opened.archive is not None
    if not METHODS[over.method].class_specific:
        return t("viewer.read_class_agnostic")
    targets = opened.archive.job.targets
    if isinstance(targets, int):
        return t("viewer.gallery.target.class", name=literal(opened.archive.class_names[targets]))
    return t(f"viewer.gallery.target.{targets}")


def wanted_columns(opened: Opened, query: Query) -> list[str]:
    """What cells and rows tell of an image."""
    names = ["id", "status", "label", "part"]
    for model in filters.answering(opened):
        names += [f"{model}_{what}" for what in ("prediction", "confidence", "correct")]
    return list(dict.fromkeys([*names, *([query.sort] if query.sort else [])]))


def draw_cells(
    t: Translator, opened: Opened, query: Query, facts: Sequence[Facts], pictures: Sequence[Thumbnail | None]
) -> bool:
    """Draw a page of thumbnails; True when some of them are still to come."""
    link = filters.linked()
    cells = tuple(cell_of(t, opened, query, row, picture, link) for row, picture in zip(facts, pictures, strict=True))
    show_grid(Grid(cells, t("viewer.gallery.title"), t("term.right"), t("term.wrong"), t.lang), open_cell, GRID)
    return None in pictures


def cell_of(
    t: Translator, opened: Opened, query: Query, row: Facts, picture: Thumbnail | None, link: dict[str, Any]
) -> Cell:
    """What the grid shows of one image."""
    name, label = str(row["id"]), row["label"]
    answers = tuple(
        Answered(opened.label_of(model, t), arm_colour(model), row[f"{model}_correct"], answer_text(opened, row, model))
        for model in dict.fromkeys(opened.compared) if row.get(f"{model}_prediction") is not None
    )  # fmt: skip
    truth = "" if label is None else f"{t('term.truth')}: {opened.class_names[label]}"
    value = ""
    if query.sort not in ("", "id"):
        short = columns.label_of(query.sort, opened, t).split(", ")[0]
        value = f"{columns.format_number(query.sort, row[query.sort])} · {short}"  # a narrow cell cuts off what is last
    badge = t(f"viewer.gallery.badge.{picture.map}") if picture and picture.map else ""
    if row["status"] not in (None, "ok"):
        badge = t("viewer.gallery.badge.failed", why=row["status"])
    return Cell(
        name, state.link("inspect", **{**link, state.SAMPLE: name}), picture.data if picture else b"",
        picture.trouble if picture else "", badge, truth, answers, value,
    )  # fmt: skip


def answer_text(opened: Opened, row: Facts, model: str) -> str:
    """A model's answer and its confidence."""
    share = row[f"{model}_confidence"]
    name = opened.class_names[row[f"{model}_prediction"]]
    return name if share is None else f"{name} {100 * share:.0f} %"


def show_rows(t: Translator, opened: Opened, query: Query, rows: Rows) -> None:
    """The images as a table; choosing a row opens it."""
    agreements = [name for name in opened.index.numeric if name.startswith("agreement_")][:MOST_AGREEMENTS]
    sorted_by = [query.sort] if query.sort in opened.index.numeric else []
    numbers = list(dict.fromkeys([*sorted_by, "gap", *agreements]))
    facts = opened.index.fetch(rows, list(dict.fromkeys([*wanted_columns(opened, query), *numbers])))
    names, config = [str(row["id"]) for row in facts], {}
    shown: dict[str, list[Any]] = {
        t("viewer.gallery.column.id"): names,
        t("viewer.class"): [None if row["label"] is None else opened.class_names[row["label"]] for row in facts],
    }  # fmt: skip
    for model in filters.answering(opened):
        if all(row[f"{model}_prediction"] is None for row in facts):
            continue
        label = t("viewer.gallery.answer", model=opened.label_of(model, t))
        shown[label] = [signed_answer(opened, row, model) for row in facts]
        confidence = columns.label_of(f"{model}_confidence", opened, t)
        shares = [row[f"{model}_confidence"] for row in facts]
        shown[confidence] = [None if share is None else 100 * share for share in shares]
        config[confidence] = st.column_config.ProgressColumn(min_value=0, max_value=100, format="%.1f %%")
    for column in numbers:
        label = columns.label_of(column, opened, t)
        if label not in shown:
            shown[label] = [row[column] for row in facts]
            config[label] = st.column_config.NumberColumn(format="%.3g")
    st.dataframe(
        pd.DataFrame(shown), key=TABLE, hide_index=True, on_select=lambda: open_row(names), column_config=config,
        selection_mode="single-row", height="content", alt=t("viewer.gallery.title"),
    )  # fmt: skip
    st.caption(t("viewer.gallery.table_help"))


def signed_answer(opened: Opened, row: Facts, model: str) -> str | None:
    """An answer and whether it is right, for a cell of the table."""
    answer, right = row[f"{model}_prediction"], row[f"{model}_correct"]
    sign = {True: "✓ ", False: "✗ ", None: ""}[right]
    return None if answer is None else sign + opened.class_names[answer]


if __name__ == "__main__":
    show()

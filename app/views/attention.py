"""Attention: what one image's query token looks at, block by block and head by head, and what rollout makes of it."""

import re
from collections.abc import Mapping

import numpy as np
import streamlit as st

from app import attention, choices, state, widgets
from app.attention import FUSIONS, HEAD, QueryRows, Rollouts
from app.attention_grid import Large, Model, Sheet, show_sheet
from app.attention_grid.small_maps import SCOPES, SmallMaps, small_maps, tops
from app.opening import Opened
from app.words import literal, percent
from explain.archive.manifest import Entry
from explain.errors import ExplainError
from explain.i18n import Translator
from explain.render import arm_colour
from explain.render.attention_plots import TokenShares, token_shares_figure
from explain.render.heatmap import scale_for

ORDER = 40
ICON = ":material/grid_on:"

# session keys and, by the same names, the link's; streamlit would print a docstring here
QUERY, CELL, FUSION, SCALE, PROMPTS = "query", "cell", "fusion", "map_scale", "show_prompts"
OVER, UPTO, RESIDUAL = "over_image", "upto", "residual"
MOST_BLOCKS = 9999


def show() -> None:
    """Draw the page."""
    page = widgets.open_pair_page("viewer.attention.no_run")
    if page is None:
        return
    t, opened, _ = page
    image = choices.choose_image(t, opened)
    if image is None:
        widgets.show_notes(t)
        return
    models = choose(t, opened)
    residual = state.choose_number(RESIDUAL, 0.0, 1.0, 0.5)
    query, fusion = st.session_state[QUERY], st.session_state[FUSION]
    widgets.show_notes(t)
    rows = {model: attention.ready_rows(opened, image, model, query) for model in models}
    rollouts = {model: attention.ready_rollouts(opened, image, model, fusion, residual) for model in models}
    ask_for(t, opened, image, rows, rollouts, residual)
    show_errors(t, opened, rows)
    known = {model: part for model, part in rows.items() if isinstance(part, QueryRows)}
    if not known:
        keep_upto()
        return
    show_answers(t, opened, image, list(known))
    show_heads(t, opened, known)
    show_shares(t, known)
    show_rollouts(t, opened, known, rollouts)
    with st.expander(t("viewer.attention.reading"), icon=":material/help:"):
        st.markdown(t("viewer.attention.reading_text"))


# ---- choices


def choose(t: Translator, opened: Opened) -> list[str]:
    """Models, head fusion, scale, prompts and look; all are linked."""
    first, second, third, fourth, fifth = st.columns([4, 2, 3, 2, 2], gap="small", vertical_alignment="bottom")
    models = choices.choose_models(t, opened, first)
    if len(opened.models) <= len(models):
        first.caption(" ".join(widgets.badge(t, model) for model in models))
    state.choose(FUSION, FUSIONS, FUSIONS[0])
    second.selectbox(t("viewer.attention.fusion"), FUSIONS, key=FUSION, help=t("viewer.attention.fusion_help"),
                     format_func=lambda name: t(f"viewer.attention.fusion.{name}"))  # fmt: skip
    state.choose(SCALE, SCOPES, SCOPES[0])
    third.selectbox(t("viewer.attention.scale"), SCOPES, key=SCALE, help=t("viewer.attention.scale_help"),
                    format_func=lambda name: t(f"viewer.attention.scale.{name}"))  # fmt: skip
    state.choose_flag(PROMPTS, True)
    fourth.toggle(t("viewer.attention.prompts"), key=PROMPTS, help=t("viewer.attention.prompts_help"))
    state.choose_flag(OVER)
    fifth.toggle(t("viewer.attention.over"), key=OVER)
    query = state.choose_text(QUERY, HEAD)
    if query != HEAD and attention.patch_of(query) is None:
        st.warning(t("viewer.corrected", name=QUERY, value=literal(query)), icon=":material/link_off:")
        st.session_state[QUERY] = HEAD
    state.choose_text(CELL)
    return models


def choose_query(t: Translator, found: QueryRows) -> None:
    """What the query is, and the way back to the usual one."""

    def back() -> None:
        st.session_state[QUERY] = HEAD

    usual = t("viewer.attention.query.cls" if found.reads_cls else "viewer.attention.query.head")
    place = attention.patch_of(st.session_state[QUERY])
    name = usual if place is None else t("viewer.attention.query.patch", row=place[0] + 1, column=place[1] + 1)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"{t('viewer.attention.query')}: **{name}**", width="content")
        if place is None:
            st.caption(t("viewer.attention.query_hint"), width="content")
        else:
            st.button(t("viewer.attention.query_back", name=usual), key="query_back", on_click=back,
                      icon=":material/undo:")  # fmt: skip


def keep_upto() -> None:
    """Keep the block that a link asks for until a model ran: before that nobody knows how many there are."""
    if UPTO in st.query_params:
        state.choose_number(UPTO, 1, MOST_BLOCKS, MOST_BLOCKS)


def enlarged(rows: int, columns: int) -> tuple[int, int]:
    """The small map that is shown large, from 0: "b9h2" is block 9, head 2, "b9" its fusion; else the last fusion."""
    found = re.fullmatch("b([1-9][0-9]{0,3})(?:h([1-9][0-9]{0,3}))?", st.session_state[CELL])
    if found is None or int(found[1]) > rows or int(found[2] or 1) >= columns:
        return rows - 1, columns - 1
    return int(found[1]) - 1, int(found[2]) - 1 if found[2] else columns - 1


# ---- computing


def ask_for(
    t: Translator, opened: Opened, image: Entry, rows: Mapping[str, QueryRows | ExplainError | None],
    rollouts: Mapping[str, Rollouts | ExplainError | None], residual: float,
) -> None:  # fmt: skip
    """Have the worker find what is missing, and say how far it is."""
    query, fusion = st.session_state[QUERY], st.session_state[FUSION]
    works = [attention.rows_work(opened, image, model, query, words(t, opened, model, "viewer.attention.title"))
             for model, part in rows.items() if part is None]  # fmt: skip
    works += [
        attention.rollouts_work(
            opened, image, model, fusion, residual, words(t, opened, model, "viewer.attention.rollout")
        )
        for model, part in rollouts.items() if part is None
    ]  # fmt: skip
    widgets.wait_for(t, works)


def words(t: Translator, opened: Opened, model: str, what: str) -> str:
    """A piece of work for the line that says what is running."""
    return f"{opened.label_of(model, t)}, {t(what)}"


def show_errors(t: Translator, opened: Opened, rows: Mapping[str, QueryRows | ExplainError | None]) -> None:
    """Why a model has no attention to show; once where it is the same for all."""
    errors = {str(part): part for part in rows.values() if isinstance(part, ExplainError)}
    for error in errors.values():
        widgets.show_error(t, error)


# ---- what is shown


def show_answers(t: Translator, opened: Opened, image: Entry, models: list[str]) -> None:
    """The true class and what the models say."""
    parts = [] if image.label is None else [t("viewer.truth", name=literal(opened.class_names[image.label]))]
    for model in models:
        answer = opened.answer(model, image.id)
        if answer is not None:
            mark = {True: ":green[✓]", False: ":red[✗]", None: ""}[answer.right]
            parts.append(f"{widgets.badge(t, model)} {literal(answer.name)} ({percent(answer.share)}) {mark}")
    if parts:
        st.markdown(" &nbsp;·&nbsp; ".join(parts))


def show_heads(t: Translator, opened: Opened, known: Mapping[str, QueryRows]) -> None:
    """All blocks and heads as small maps, one of them large beside the image."""
    first = next(iter(known.values()))
    choose_query(t, first)
    fusion, scope = st.session_state[FUSION], st.session_state[SCALE]
    found = {model: small_maps(part, fusion, prompts=st.session_state[PROMPTS]) for model, part in known.items()}
    scales = tops(list(found.values()), scope)
    blocks, columns = (max(part.values.shape[axis] for part in found.values()) for axis in (0, 1))
    row, column = enlarged(blocks, columns)
    heads = [str(number + 1) for number in range(columns - 1)]
    sheet = Sheet(
        picture=first.picture, scope=scope, over=st.session_state[OVER], columns_set_off=1,
        models=tuple(
            Model(opened.label_of(model, t), arm_colour(model), part.values, scales[number], part.prompts, part.shares)
            for number, (model, part) in enumerate(found.items())
        ),
        rows=tuple(str(number + 1) for number in range(blocks)),
        columns=(*heads, t(f"viewer.attention.fused.{fusion}")),
        names=(*(t("viewer.attention.head", number=one) for one in heads), t(f"viewer.attention.over_heads.{fusion}")),
        texts=grid_texts(t), large=Large(row, column, attention.patch_of(st.session_state[QUERY]), asks=True),
    )  # fmt: skip

    def choose_cell(row: int, column: int) -> None:
        st.session_state[CELL] = f"b{row + 1}" + (f"h{column + 1}" if column < columns - 1 else "")

    def choose_patch(row: int, column: int) -> None:
        st.session_state[QUERY] = attention.patch_name(row, column)

    show_sheet(sheet, "attention_heads", on_cell=choose_cell, on_query=choose_patch)
    st.caption(heads_caption(t, found, scales))


def heads_caption(t: Translator, found: Mapping[str, SmallMaps], scales: list[np.ndarray]) -> str:
    """What the small maps are, their scale in numbers, and whether prompts count."""
    lines = [t("viewer.attention.caption")]
    scope = st.session_state[SCALE]
    ends = {"top": f"{max(float(part.max()) for part in scales):.3g}"}
    if scope != "all":
        ends["least"] = f"{min(float(part.min()) for part in scales):.3g}"
    lines.append(t(f"viewer.attention.caption.{scope}", **ends))
    if any(part.null[:, 2].any() for part in found.values()):
        lines.append(t("viewer.attention.caption.prompts"))
    elif not st.session_state[PROMPTS]:
        lines.append(t("viewer.attention.caption.no_prompts"))
    if attention.patch_of(st.session_state[QUERY]):
        lines.append(t("viewer.attention.caption.last_block"))
    return " ".join(lines)


def grid_texts(t: Translator) -> dict[str, str]:
    """Texts of the canvas; placeholders are filled in the browser."""
    return t.section("viewer.attention.grid.") | {"lang": t.lang}


def show_shares(t: Translator, known: Mapping[str, QueryRows]) -> None:
    """How much of the query's attention goes to which kind of token, beside uniform attention."""
    st.subheader(t("viewer.attention.shares"))
    shares = {model: small_maps(part, "mean", prompts=True) for model, part in known.items()}
    figure = token_shares_figure(
        {model: TokenShares(part.shares[:, :-1], part.null) for model, part in shares.items()}, t.lang
    )
    st.plotly_chart(figure, width="stretch", key="attention_shares", config={"displayModeBar": False},
                    alt=t("viewer.attention.shares"))  # fmt: skip
    st.caption(t("viewer.attention.shares_caption"))


def show_rollouts(
    t: Translator, opened: Opened, known: Mapping[str, QueryRows],
    rollouts: Mapping[str, Rollouts | ExplainError | None],
) -> None:  # fmt: skip
    """Rollout to a block, for all models on one scale."""
    st.subheader(t("viewer.attention.rollout_title"))
    blocks = max(len(part.rows) for part in known.values())
    upto = state.choose_number(UPTO, 1, blocks, blocks)
    left, right = st.columns([3, 2], gap="large")
    if blocks > 1:
        left.slider(t("viewer.attention.upto"), 1, blocks, key=UPTO, help=t("viewer.attention.upto_help"))
    right.slider(t("viewer.attention.residual"), 0.0, 1.0, key=RESIDUAL, step=0.05,
                 help=t("viewer.attention.residual_help"))  # fmt: skip
    there = {model: part for model, part in rollouts.items() if isinstance(part, Rollouts) and len(part.maps) >= upto}
    if not there:
        return
    fusion = st.session_state[FUSION]
    texts = grid_texts(t)
    top = scale_for([part.maps[upto - 1] for part in there.values()], False).high
    sheet = Sheet(
        picture=next(iter(known.values())).picture, over=st.session_state[OVER], small=False,
        models=tuple(rollout_model(t, opened, model, part, upto, top) for model, part in there.items()),
        rows=(str(upto),), columns=(fusion,), names=(t(f"viewer.attention.over_heads.{fusion}"),),
        texts=texts | {"block": texts["rollout_to"]},
    )  # fmt: skip
    show_sheet(sheet, "attention_rollout")
    st.caption(t("viewer.attention.rollout_caption", top=f"{top:.3g}", blocks=blocks))


def rollout_model(t: Translator, opened: Opened, model: str, found: Rollouts, upto: int, top: float) -> Model:
    """One model's rollout to a block, with the shares that the method measured."""
    values, extras = found.maps[upto - 1], {name: float(part[upto - 1]) for name, part in found.extras.items()}
    shares, notes = None, []
    if "prompt_share" in extras:
        parts = [extras["cls_share"], extras["register_share"], extras["prompt_share"], float(values.sum())]
        shares = np.array(parts, np.float32)[None, None]
        if extras["prompt_share_null"]:
            notes.append(t("viewer.attention.rollout_null", null=percent(extras["prompt_share_null"])))
    else:
        notes.append(t("viewer.attention.no_shares"))
    return Model(opened.label_of(model, t), arm_colour(model), values[None, None], np.full((1, 1), top, np.float32),
                 (np.zeros((1, 0), np.float32),), shares, tuple(notes))  # fmt: skip


if __name__ == "__main__":
    show()

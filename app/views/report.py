"""Report: make the audit report, look at its pages, take it away with its hash."""

import shlex
from pathlib import Path
from typing import cast

import streamlit as st

from app import making, state, widgets, worker
from app.making import Choice, Made
from app.opening import Opened
from app.words import literal
from explain.errors import ExplainError
from explain.evidence.found import evidence_file, planted_file
from explain.i18n import LANGUAGES, Translator
from explain.render.heatmap import SCOPES, Scope
from explain.report.panels import PER_RULE
from explain.training.pair import MatchedPair

ORDER = 100
ICON = ":material/picture_as_pdf:"

REPORT_LANG, SCOPE, BRIEF, IMAGES = "report_lang", "report_scope", "report_brief", "report_images"
MOST_IMAGES = 20
ASKED = "_report"  # session key: of the report that this browser wants
ROW = 4
READING_PX = 860


def show() -> None:
    """Draw the page."""
    page = widgets.open_pair_page()
    if page is None:
        return
    t, opened, pair = page
    with st.container(width=READING_PX):
        st.markdown(t("viewer.report.lead"))
        st.caption(t("viewer.report.images"))
    choice = choose(t)
    widgets.show_notes(t)
    show_missing_parts(t, pair)
    made = make(t, pair, choice)
    if made is not None:
        show_made(t, opened, made)


def choose(t: Translator) -> Choice:
    """Language, length, images and colour scale."""
    lang = state.choose(REPORT_LANG, LANGUAGES, t.lang)
    brief = state.choose_flag(BRIEF)
    per_rule = int(state.choose_number(IMAGES, 1, MOST_IMAGES, PER_RULE))
    scope = cast(Scope, state.choose(SCOPE, SCOPES, SCOPES[0]))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(t("viewer.report.lang"), LANGUAGES, key=REPORT_LANG, width=220,
                     format_func=widgets.LANGUAGE_NAMES.__getitem__)  # fmt: skip
        st.selectbox(t("viewer.report.scope"), SCOPES, key=SCOPE, width=280,
                     format_func=lambda name: t(f"term.scope.{name}"))  # fmt: skip
        st.number_input(t("viewer.report.per_rule"), 1, MOST_IMAGES, key=IMAGES, width=200)
        st.toggle(t("viewer.report.brief"), key=BRIEF, width="content")
    return Choice(lang, brief, per_rule, scope)


def show_missing_parts(t: Translator, pair: MatchedPair) -> None:
    """What would be in the report had it been measured, with the commands."""
    commands = {"evidence": ("evaluate", evidence_file(pair)), "planted": ("planted", planted_file(pair))}
    missing = {part: command for part, (command, file) in commands.items() if file is None}
    if not missing:
        st.caption(t("viewer.report.complete"))
        return
    with st.container(width=READING_PX):
        st.caption(t("viewer.report.missing"))
        folder = shlex.quote(str(pair.path))
        st.markdown("\n".join(f"- {t(f'viewer.report.missing.{part}')}: `explain {command} {folder}`"
                              for part, command in missing.items()))  # fmt: skip


def make(t: Translator, pair: MatchedPair, choice: Choice) -> Made | None:
    """The report when it is there; else a way to have it made, and how far that is."""
    work = making.work_of(pair, choice, t("viewer.report.making"))
    found = worker.the_worker().result(work.key)
    if isinstance(found, Made):
        return found
    session = st.session_state
    if session.get(widgets.STOPPED) == (work.key,):
        session.pop(widgets.STOPPED)
        session.pop(ASKED, None)
        st.caption(t("viewer.report.stopped"))
    if isinstance(found, ExplainError):
        st.error(f"**{t('viewer.report.failed')}**  \n{literal(str(found))}", icon=":material/error:")
    if session.get(ASKED) != work.key:
        if st.button(t("viewer.report.make"), key="make_report", type="primary", icon=":material/picture_as_pdf:"):
            session[ASKED] = work.key
            st.rerun()
        st.caption(t("viewer.report.time"))
    elif found is None:
        worker.the_worker().wish(worker.owner(), [work])
        widgets.show_progress(t, (work.key,))
    return None


def show_made(t: Translator, opened: Opened, made: Made) -> None:
    """The file to take away, its hash, how to verify it, and its pages."""
    assert opened.pair is not None and opened.folder is not None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(t("viewer.report.download"), made.pdf, f"report-{made.sha256[:8]}.pdf", "application/pdf",
                           key="download_report", type="primary", icon=":material/download:",
                           on_click="ignore")  # fmt: skip
        if st.button(t("viewer.report.keep"), key="keep_report", icon=":material/save:"):
            st.session_state[ASKED + made.sha256] = str(making.keep(made, opened.folder))
        st.caption(t("viewer.report.done", pages=len(made.pages), size=f"{len(made.pdf) / 1000:,.0f}"), width="content")
    kept = st.session_state.get(ASKED + made.sha256)
    if kept is not None:
        st.success(t("viewer.report.kept", file=literal(kept)), icon=":material/check_circle:")
    st.markdown(t("viewer.report.decision", decision=literal(made.decision), met=made.met, count=made.criteria))
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(f"**{t('viewer.report.hash')}**")
        st.code(made.sha256, language=None)
        st.caption(t("viewer.report.hash_help"))
    with right:
        st.markdown(f"**{t('viewer.report.verify')}**")
        st.code(verify_command(str(opened.pair.path), making.place_of(made, opened.folder)), language=None)
        st.caption(t("viewer.report.verify_help"))
    show_pages(t, made)


def show_pages(t: Translator, made: Made) -> None:
    """Every page as a picture."""
    st.subheader(t("viewer.report.preview"))
    for start in range(0, len(made.pages), ROW):
        for place, number in zip(st.columns(ROW, gap="small"), range(start, len(made.pages)), strict=False):
            words = t("viewer.report.page", page=number + 1, pages=len(made.pages))
            with place.container(border=True):
                st.image(made.pages[number], words, width="stretch", alt=words)


def verify_command(run: str, file: Path) -> str:
    """What shows that a file is the report on a run and was not changed."""
    return f"explain verify {shlex.quote(str(file))} --run {shlex.quote(run)}"


if __name__ == "__main__":
    show()

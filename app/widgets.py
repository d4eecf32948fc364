"""Pieces that pages are made of. Text of users (file and class names) only ever goes through `literal`."""

from collections.abc import Iterable, Mapping, Sequence

import streamlit as st

from app import access, spread, state, worker
from app.maps import Wanted
from app.measured import planted_of
from app.opening import Opened, open_location
from app.panel import show_panel
from app.showing import Found, Shown, panel_of
from app.words import literal, percent
from explain.errors import ExplainError
from explain.evidence.planted import PlantedResult
from explain.i18n import LANGUAGES, Translator
from explain.methods.base import METHODS
from explain.training.pair import MatchedPair, compare_runs

LANGUAGE_NAMES = {"en": "English", "ja": "日本語"}
ARM_BADGES = {"vpt": "blue", "ft": "orange"}
"""Streamlit's names of the colours that the theme sets to `explain.render.ARM_COLOURS`."""
STYLE = """<style>
.stMainBlockContainer { padding: 3.4rem 2.5rem 2rem; }
.stMainBlockContainer [data-testid="stCaptionContainer"] { color: inherit; opacity: .75; }
.stMainBlockContainer [data-testid="stCaptionContainer"] p { font-size: .8rem; line-height: 1.35; }
.stMainBlockContainer button[data-selected="true"],
.stMainBlockContainer button[data-selected="true"] * { color: inherit !important; }
.stMainBlockContainer h4 { padding: 0; font-size: 1.2rem; line-height: 1.4; }
.stMainBlockContainer h2 { padding: .2rem 0; font-size: 1.45rem; }
.stMainBlockContainer h3 { padding: .2rem 0; font-size: 1.15rem; }
</style>"""
"""Streamlit leaves a hand's breadth of white round a wide page, which maps need more, and draws captions and the chosen
one of several buttons too pale. Commands are plain text for the same reason: the colours of code are paler yet."""
MATCHED = "matched_open"
POLL_S = 0.5


def show_error(t: Translator, error: ExplainError) -> None:
    """An error in words: what was expected, what came, what to do."""
    st.error(f"**{t('viewer.error')}**  \n{literal(str(error))}", icon=":material/error:")


def show_notes(t: Translator) -> None:
    """Say which values of a link did not exist and were put back."""
    for key, value in state.notes():
        st.warning(t("viewer.corrected", name=key, value=literal(value)), icon=":material/link_off:")


def show_command(t: Translator, text: str, command: str) -> None:
    """Say what is not there, and the command that makes it."""
    st.info(f"{text} {t('viewer.command')}", icon=":material/terminal:")
    st.code(command, language=None)


def open_page() -> tuple[Translator, Opened]:
    """How a page begins: texts, what the viewer was started on, and the header drawn.

    Raises:
        ExplainError: it cannot be opened; see `open_location`.
    """
    t = state.translator()
    with st.spinner(t("viewer.opening")):
        opened = open_location()
    show_header(t, opened)
    return t, opened


def open_pair_page(missing: str = "viewer.no_pair") -> tuple[Translator, Opened, MatchedPair] | None:
    """As `open_page`, for a page that needs the trained pair; None where there is none, which is said.

    Args:
        missing: key of the text that says what the page would show.
    """
    t, opened = open_page()
    if opened.pair is not None:
        return t, opened, opened.pair
    show_notes(t)
    show_command(t, t(missing), "explain view RUN")
    return None


def show_header(t: Translator, opened: Opened) -> None:
    """Data set, accuracy of the compared models with its interval, the verdict on the matching, and settings."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(f"**{literal(opened.name)}**", width="content")
        if opened.pair is None:
            st.caption(t("viewer.header_archive", count=f"{opened.index.count:,}", classes=len(opened.class_names)),
                       width="content")  # fmt: skip
        else:
            _show_accuracies(t, opened.pair)
            _show_matched(t, opened.pair)
        st.space("stretch")
        with st.popover(LANGUAGE_NAMES[t.lang], icon=":material/language:", type="tertiary", width="content"):
            st.radio(t("viewer.language"), LANGUAGES, key=state.LANG, format_func=LANGUAGE_NAMES.__getitem__)
            access.show_account(t)


def _show_accuracies(t: Translator, pair: MatchedPair) -> None:
    """The two arms of the pair; the others are behind the verdict's popover."""
    for arm in ("vpt", "ft"):
        test = pair.runs[arm].manifest.test
        low, high = f"{100 * test.low:.1f}", f"{100 * test.high:.1f}"
        st.markdown(f"{badge(t, arm)} **{percent(test.accuracy)}** "
                    f":small[{t('viewer.interval', low=low, high=high)}]", width="content",
                    help=t("viewer.accuracy_help", count=test.count))  # fmt: skip


def _show_matched(t: Translator, pair: MatchedPair) -> None:
    fields = compare_runs(pair.runs)
    equal = sum(field.equal for field in fields)
    label = f"{t('viewer.matched')} {equal}/{len(fields)}"
    # what is behind a button is only made when it is opened: every element costs each step through the images
    popover = st.popover(label, icon=":material/check_circle:", type="tertiary", width="content", key=MATCHED,
                         on_change="rerun")  # fmt: skip
    if not popover.open:
        return
    with popover:
        st.markdown(t("viewer.matched_help"))
        st.markdown(t("viewer.matched_fields", equal=equal, count=len(fields)))
        names = [t(f"term.matched.{field.key}") for field in fields]
        values = [_shorten(next(iter(field.values.values()))) for field in fields]
        show_table({t("report.matched.field"): names, t("report.matched.value"): values})


def show_table(columns: Mapping[str, Sequence[str]]) -> None:
    """A small table of Markdown texts, heading -> cells; a tenth of the time that `st.table` takes."""
    rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    st.markdown("\n".join(f"| {' | '.join(row)} |" for row in rows))


def badge(t: Translator, model: str) -> str:
    """A model's name as a coloured badge in Markdown."""
    name = t(f"term.arm.{model}") if f"term.arm.{model}" in t else model
    return f":{ARM_BADGES.get(model, 'gray')}-badge[**{literal(name)}**]"


def _shorten(value: str) -> str:
    return literal(value if len(value) <= 24 else value[:16] + "…")


def draw_panel(t: Translator, opened: Opened, shown: Shown, found: Found) -> None:
    """The panel of one image, with what the planted-cue test says of its methods and the scales over the data set."""
    planted = find_planted_test(opened.pair) if opened.pair else None
    kept = {one.method: _kept_spread(opened, one.method) for one in found}
    spreads = {method: part for method, part in kept.items() if part is not None}
    show_panel(panel_of(t, opened.name, shown, found, planted=planted, spreads=spreads))


def _kept_spread(opened: Opened, method: str) -> spread.Spread | None:
    """How large a method's maps are over the data set, once that is read."""
    work = spread.work_of(opened, method, opened.compared)
    found = worker.the_worker().result(work.key) if work is not None else None
    return found if isinstance(found, spread.Spread) else None


def spreads_to_read(opened: Opened, methods: Iterable[str]) -> list[worker.Work]:
    """The reading of these methods' scales over the data set; what the panel can do without at first."""
    works = [spread.work_of(opened, method, opened.compared) for method in methods]
    return [work for work in works if work is not None]


def words_of(t: Translator, opened: Opened, wanted: Wanted) -> str:
    """A map for the line that says what is running."""
    return f"{opened.label_of(wanted.model, t)}, {METHODS[wanted.method].label}"


STOPPED = "_stopped"
"""Keys of the work that this browser does not want to be done."""


def wait_for(t: Translator, works: Sequence[worker.Work], later: Sequence[worker.Work] = ()) -> None:
    """Have done what the page lacks and say how far that is; what the reader stopped waits for a click.

    Args:
        t: texts.
        works: in the order in which they are needed.
        later: begun when nothing else is lacking, and not waited for.
    """
    keys = tuple(work.key for work in works)
    # some of what was stopped may have been finished before it was
    stopped = bool(keys) and set(keys) <= set(st.session_state.get(STOPPED, ()))
    worker.the_worker().wish(worker.owner(), () if stopped else works or later)
    if keys and not stopped:
        show_progress(t, keys)
    if stopped:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(t("viewer.stopped"), width="content")
            if st.button(t("viewer.resume"), key="resume_work", icon=":material/play_arrow:"):
                del st.session_state[STOPPED]
                st.rerun()


@st.fragment(run_every=POLL_S)
def show_progress(t: Translator, keys: Sequence[worker.Key]) -> None:
    """How far this browser's wishes are, with a way to stop; the page runs again when all are there.

    Args:
        t: texts.
        keys: of the work that is waited for; remembered in `STOPPED` when the reader stops.
    """
    now = worker.the_worker().progress(worker.owner())
    if now.finished:
        state.run_again()
    with st.container(horizontal=True, vertical_alignment="center"):
        number = min(now.done + 1, now.total)
        st.progress(now.share, t("viewer.running", number=number, count=now.total, what=literal(now.what)))
        if st.button(t("viewer.stop"), key="stop_work", icon=":material/stop_circle:"):
            worker.the_worker().cancel(worker.owner())
            st.session_state[STOPPED] = tuple(keys)
            st.rerun()


def show_method_help(t: Translator, methods: Sequence[str]) -> None:
    """How to read the maps of these methods, with their sources and costs."""
    for name in methods:
        method = METHODS[name]
        st.markdown(f"**{literal(method.label)}**")
        own = f"viewer.read.{name}"
        words = [t(own)] if own in t else []
        words.append(t(f"viewer.read_{method.picture}"))
        if not method.class_specific:
            words.append(t("viewer.read_class_agnostic"))
        st.markdown(" ".join(words))
        st.caption(f"{t('viewer.source')}: {literal(method.source)}  \n{t('viewer.cost')}: {literal(method.cost)}")


def find_planted_test(pair: MatchedPair) -> PlantedResult | None:
    """A pair's planted-cue test; where it cannot be used, a note says why."""
    try:
        return planted_of(pair)
    except ExplainError as error:
        st.warning(literal(str(error)), icon=":material/science:")
        return None

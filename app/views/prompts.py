"""Prompts: what the prompt store holds of a name: its versions, which is in use, what two of them differ in."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import state, widgets
from app.opening import Opened
from app.words import literal, percent
from explain.i18n import Translator

if TYPE_CHECKING:  # the store loads torch, which other pages need not wait for
    from explain.prompts.acceptance import Outcome
    from explain.prompts.compare import Comparison
    from explain.prompts.history import History, LogEntry
    from explain.prompts.stored import Stored

ORDER = 90
ICON = ":material/sell:"

VARIABLE, FOLDER = "EXPLAIN_PROMPTS", "prompts"  # where the commands look, too
NAME, FIRST, SECOND = "prompt", "version_a", "version_b"
SHOWN_LINES = 50
ID_DIGITS = 10


def show() -> None:
    """Draw the page."""
    from explain.prompts.store import PromptStore

    t, opened = widgets.open_page()
    store = PromptStore(os.environ.get(VARIABLE) or FOLDER)
    names = store.names()
    st.markdown(t("viewer.prompts.lead"))
    if not names:
        show_none(t, opened, store.path)
        return
    name = state.choose(NAME, names, names[0])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(t("viewer.prompts.name"), names, key=NAME, width=320)
        st.caption(t("viewer.prompts.store", folder=literal(str(store.path.absolute()))), width="content")
    history = store.history(name)
    versions = {f"v{version.number}": store.at(name, version) for version in history.versions}
    for problem in history.problems():
        st.warning(t("viewer.prompts.problem", problem=literal(problem)), icon=":material/gpp_bad:")
    show_versions(t, history, versions)
    chosen = choose_two(t, history, versions)
    widgets.show_notes(t)
    show_criteria(t, history, {one: versions[one] for one in dict.fromkeys(chosen)})
    if chosen[0] != chosen[1]:
        show_comparison(t, {one: versions[one] for one in chosen})
    show_log(t, history)


def show_none(t: Translator, opened: Opened, folder: Path) -> None:
    """Which command registers the first version."""
    run = opened.folder / "vpt" if opened.pair is not None and opened.folder is not None else "RUN/vpt"
    text = t("viewer.prompts.none", folder=literal(str(folder.absolute())))
    widgets.show_command(t, text, f'explain prompts add {run} --name line-3 --owner NAME --purpose "PURPOSE"')


def show_versions(t: Translator, history: "History", versions: Mapping[str, "Stored"]) -> None:
    """What the name is for, and every version of it, the newest on top."""
    card = list(versions.values())[-1].card
    tuning = t(f"term.tuning.{card.tuning}") if f"term.tuning.{card.tuning}" in t else card.tuning
    st.caption(t("viewer.prompts.facts", purpose=literal(card.purpose), owner=literal(card.owner),
                 tuning=literal(tuning), parameters=f"{card.trained_parameters:,}",
                 size=f"{card.weights_bytes / 1000:,.0f}", classes=literal(", ".join(card.class_names))))  # fmt: skip
    st.subheader(t("viewer.prompts.versions"))
    by_whom = {entry.after: entry.who for entry in history.log if entry.what in ("add", "import")}
    rows = [
        {
            t("viewer.prompts.version"): f"**{number}**",
            t("viewer.prompts.labels"): labels_of(history, stored) or "–",
            t("term.accuracy"): f"{percent(stored.card.test.accuracy)} ({percent(stored.card.test.low)} – "
                                f"{percent(stored.card.test.high)})",
            t("viewer.prompts.metrics"): literal(_measured(history, stored)) or "–",
            t("viewer.prompts.registered"): literal(stored.card.created[:16].replace("T", " ")),
            t("viewer.prompts.who"): literal(by_whom.get(stored.version.id, "")) or "–",
            t("viewer.prompts.approver"): literal(stored.card.approver) or "–",
            t("viewer.prompts.id"): f"`{stored.version.id[:ID_DIGITS]}`",
        }
        for number, stored in reversed(versions.items())
    ]  # fmt: skip
    widgets.show_table({head: [row[head] for row in rows] for head in rows[0]})
    st.caption(t("viewer.prompts.labels_help"))


def labels_of(history: "History", stored: "Stored") -> str:
    """The aliases and tags that a version has, as badges."""
    kinds = ((history.aliases, "green"), (history.tags, "gray"))
    return " ".join(f":{colour}-badge[{literal(label)}]" for labels, colour in kinds
                    for label, id in labels.items() if id == stored.version.id)  # fmt: skip


def _measured(history: "History", stored: "Stored") -> str:
    values = stored.card.metrics | history.measured.get(stored.version.id, {})
    return ", ".join(f"{metric} {value:.4g}" for metric, value in values.items())


def choose_two(t: Translator, history: "History", versions: Mapping[str, "Stored"]) -> tuple[str, str]:
    """The two versions to compare: what is in production, else the one before, and the newest."""
    numbers = list(versions)
    st.subheader(t("viewer.prompts.compare"))
    if len(numbers) == 1:
        st.caption(t("viewer.prompts.only_one"))
        return numbers[0], numbers[0]
    in_use = [number for number in numbers[:-1] if versions[number].version.id == history.aliases.get("production")]
    first = state.choose(FIRST, numbers, (in_use or [numbers[-2]])[0])
    second = state.choose(SECOND, numbers, numbers[-1])
    left, right, _ = st.columns([1, 1, 3])
    left.selectbox(t("viewer.prompts.first"), numbers, key=FIRST)
    right.selectbox(t("viewer.prompts.second"), numbers, key=SECOND)
    if first == second:
        st.caption(t("viewer.prompts.same"))
    return first, second


def show_criteria(t: Translator, history: "History", versions: Mapping[str, "Stored"]) -> None:
    """What a promotion must fulfil, and whether the chosen versions do."""
    from explain.prompts.acceptance import judge

    st.markdown(f"**{t('viewer.prompts.criteria')}**")
    if not history.criteria:
        st.caption(t("viewer.prompts.no_criteria"))
        st.code(f'explain prompts criteria {history.name} "accuracy >= 0.95"', language=None)
        return
    columns = {t("viewer.prompts.criterion"): [literal(line) for line in history.criteria]}
    for number, stored in versions.items():
        outcomes = judge(history.criteria, stored, history.measured.get(stored.version.id, {}))
        columns[number] = [outcome_words(t, outcome) for outcome in outcomes]
    widgets.show_table(columns)


def outcome_words(t: Translator, outcome: "Outcome") -> str:
    """A criterion's value of one version, and whether it is good enough."""
    if outcome.value is None:
        return f":gray[{t('viewer.prompts.not_measured')}]"
    mark = ":green[✓]" if outcome.passed else ":red[✗]"
    return f"{mark} {literal(outcome.criterion.shown(outcome.value, digits=4))}"


def show_comparison(t: Translator, versions: Mapping[str, "Stored"]) -> None:
    """Answers, prompts, measurements and settings of two versions."""
    from explain.render.prompts_plots import cosines_figure

    (first, a), (second, b) = versions.items()
    found: Comparison = _compare(a, b, a.version.id + b.version.id)
    if found.agreement is not None:
        st.markdown(t("viewer.prompts.same_class", share=percent(found.agreement.share), count=found.agreement.count))
    left, right = st.columns(2, gap="large")
    with left:
        columns = {t("viewer.prompts.metric"): [literal(metric) for metric, *_ in found.metrics]}
        columns |= {name: [_number(row[place]) for row in found.metrics] for place, name in ((1, first), (2, second))}
        widgets.show_table(columns)
    with right:
        if found.cosines:
            st.markdown(f"**{t('viewer.prompts.cosine')}**")
            st.plotly_chart(cosines_figure(found.cosines, t), key="figure_cosines", config={"displayModeBar": False},
                            alt=t("viewer.prompts.cosine_alt", first=first, second=second))  # fmt: skip
            st.caption(t("viewer.prompts.cosine_why", matching=found.matching))
        for note in found.notes:
            st.caption(literal(note))
    st.markdown(f"**{t('viewer.prompts.settings')}**")
    if not found.settings:
        st.caption(t("viewer.prompts.no_settings"))
        return
    widgets.show_table({
        t("viewer.prompts.setting"): [literal(field) for field, *_ in found.settings],
        first: [literal(_shown(value)) or "–" for _, value, _ in found.settings],
        second: [literal(_shown(value)) or "–" for _, _, value in found.settings],
    })  # fmt: skip


@st.cache_data(max_entries=20, show_spinner=False)
def _compare(_a: "Stored", _b: "Stored", ids: str) -> "Comparison":
    from explain.prompts.compare import compare

    return compare(_a, _b)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.4g}"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)


def show_log(t: Translator, history: "History") -> None:
    """Who did what, the newest on top."""
    numbers = {version.id: f"v{version.number}" for version in history.versions}
    entries = list(reversed(history.log))[:SHOWN_LINES]
    st.subheader(t("viewer.prompts.log"))
    widgets.show_table({
        t("viewer.prompts.when"): [literal(entry.when[:19].replace("T", " ")) for entry in entries],
        t("viewer.prompts.actor"): [literal(entry.who) for entry in entries],
        t("viewer.prompts.what"): [t(f"viewer.prompts.event.{entry.what}") + (
            f" :gray-badge[{literal(entry.label)}]" if entry.label else "") for entry in entries],
        t("viewer.prompts.change"): [_change(entry, numbers) for entry in entries],
        t("viewer.prompts.approver"): [literal(entry.approver) or "–" for entry in entries],
        t("viewer.prompts.notes"): [literal("; ".join(entry.notes)) or "–" for entry in entries],
    })  # fmt: skip
    if len(history.log) > SHOWN_LINES:
        st.caption(t("viewer.prompts.older", count=len(history.log) - SHOWN_LINES))
    st.caption(t("viewer.prompts.log_why"))


def _change(entry: "LogEntry", numbers: Mapping[str, str]) -> str:
    ends = [literal(numbers.get(end or "", end or "")) for end in (entry.before, entry.after)]
    return " → ".join(ends) if ends[0] else ends[1] or "–"


if __name__ == "__main__":
    show()

"""Pieces that pages are made of. Text of users (file and class names) only ever goes through `literal`."""

import re
from collections.abc import Sequence

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import state
from app.picture import Comparison, Look, Shown, describe, percent
from app.state import Opened
from explain.data.base import Sample
from explain.engine import DEFAULT_METHODS
from explain.errors import ExplainError
from explain.evidence.found import find_planted
from explain.evidence.planted import PlantedResult
from explain.i18n import LANGUAGES, Translator
from explain.methods.base import METHODS
from explain.render.evidence_plots import status_key
from explain.render.heatmap import NOT_UNIFORM, POSITIVE_COLORMAPS, SIGNED_COLORMAPS, colour_bar
from explain.render.plots import arm_label
from explain.training.pair import MatchedPair, compare_runs

LANGUAGE_NAMES = {"en": "English", "ja": "日本語"}
ARM_BADGES = {"vpt": "blue", "ft": "orange"}
"""Streamlit's names of the colours that the theme sets to `explain.render.ARM_COLOURS`."""
STYLE = """<style>
.stMainBlockContainer { padding: 3.5rem 2.5rem 2rem; }
.stMainBlockContainer [data-testid="stCaptionContainer"] p { font-size: .8rem; line-height: 1.35; }
.stMainBlockContainer h4 { padding: 0; font-size: 1.3rem; line-height: 1.4; }
</style>"""
"""Streamlit leaves a hand's breadth of white round a wide page; maps need it more."""
MAX_METHODS = 4
TARGETS = ("label", "vpt", "ft")


def literal(text: str) -> str:
    """Text as Markdown that shows exactly this text: punctuation escaped, line breaks made spaces."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def show_error(t: Translator, error: ExplainError) -> None:
    """An error in words: what was expected, what came, what to do."""
    st.error(f"**{t('viewer.error')}**  \n{literal(str(error))}", icon=":material/error:")


def show_notes(t: Translator) -> None:
    """Say which values of a link did not exist and were put back."""
    for key, value in state.notes():
        st.warning(t("viewer.corrected", name=key, value=literal(value)), icon=":material/link_off:")


def choose_language(t: Translator) -> None:
    """The switch at the foot of the sidebar."""
    with st.sidebar:
        st.radio(t("viewer.language"), LANGUAGES, key=state.LANG, horizontal=True,
                 format_func=LANGUAGE_NAMES.__getitem__)  # fmt: skip


def show_header(t: Translator, opened: Opened) -> None:
    """Data set, accuracy of every arm with its interval, and the verdict on the matching."""
    st.html(STYLE)
    pair = opened.pair
    count = pair.vpt.manifest.test.count
    title, *arms, verdict = st.columns([2.2, *[2] * len(pair.runs), 2], gap="medium")
    title.markdown(f"#### {literal(pair.data.name)}")
    title.caption(t("viewer.header", count=count, classes=len(opened.class_names)),
                  help=t("viewer.accuracy_help", count=count))  # fmt: skip
    for column, (arm, run) in zip(arms, pair.runs.items(), strict=True):
        test = run.manifest.test
        column.markdown(f"#### {_badge(t, arm)} {percent(test.accuracy)}")
        column.caption(t("viewer.interval", low=f"{100 * test.low:.1f}", high=f"{100 * test.high:.1f}"))
    fields = compare_runs(pair.runs)
    equal = sum(field.equal for field in fields)
    verdict = verdict.container(gap=None)
    with verdict.popover(t("viewer.matched"), icon=":material/check_circle:", type="tertiary"):
        st.markdown(t("viewer.matched_help"))
        names = [t(f"term.matched.{_key_of(field.name)}") for field in fields]
        values = [_shorten(next(iter(field.values.values()))) for field in fields]
        st.table({t("report.matched.field"): names, t("report.matched.value"): values}, border="horizontal")
    verdict.caption(t("viewer.matched_fields", equal=equal, count=len(fields)))


def _badge(t: Translator, arm: str) -> str:
    return f":{ARM_BADGES.get(arm, 'gray')}-badge[**{literal(arm_label(arm, t))}**]"


def _key_of(words: str) -> str:
    return re.sub("[^a-z]+", "_", words.lower())


def _shorten(value: str) -> str:
    return literal(value if len(value) <= 24 else value[:16] + "…")


def choose_image(t: Translator, opened: Opened) -> Sample | None:
    """Filters with counts, the image, and steps through the images found; None where no image is found."""
    outcome_at, class_at, image_at, back_at, forth_at = st.columns(
        [2.1, 2, 4, 1.2, 1.2], vertical_alignment="bottom", gap="small"
    )
    names = (state.EVERY_CLASS, *opened.class_names)
    outcome = state.settle(state.OUTCOME, state.OUTCOMES, state.ALL)
    class_name = state.settle(state.CLASS, names, state.EVERY_CLASS)

    def outcome_name(name: str) -> str:
        return f"{t(f'viewer.outcome.{name}')} ({len(opened.ids(name, class_name))})"

    def class_label(name: str) -> str:
        return f"{t('viewer.class.all') if name == state.EVERY_CLASS else name} ({len(opened.ids(outcome, name))})"

    outcome_at.selectbox(t("viewer.outcome"), state.OUTCOMES, key=state.OUTCOME, format_func=outcome_name)
    class_at.selectbox(t("viewer.class"), names, key=state.CLASS, format_func=class_label)
    ids = opened.ids(outcome, class_name)
    if not ids:
        image_at.info(t("viewer.no_image"))
        return None
    sample = _settle_sample(opened, ids)
    at = ids.index(sample)
    image_at.selectbox(t("viewer.image", number=at + 1, count=len(ids)), ids, key=state.SAMPLE)
    _step(back_at, t("viewer.previous"), "Left", ids, at - 1)
    _step(forth_at, t("viewer.next"), "Right", ids, at + 1)
    return opened.pair.data.select([sample]).samples[0]


def _settle_sample(opened: Opened, ids: list[str]) -> str:
    """The chosen image; the first one found where the filters leave the chosen one out."""
    if st.session_state.get(state.SAMPLE) in opened.rows and st.session_state[state.SAMPLE] not in ids:
        st.session_state[state.SAMPLE] = ids[0]
    return state.settle(state.SAMPLE, ids, ids[0])


def _step(place: DeltaGenerator, label: str, key: str, ids: list[str], to: int) -> None:
    def go() -> None:
        st.session_state[state.SAMPLE] = ids[to]

    place.button(label, key=f"step_{key.lower()}", shortcut=key, on_click=go, disabled=not 0 <= to < len(ids),
                 width="stretch")  # fmt: skip


def choose_target(t: Translator, opened: Opened, sample: Sample) -> int:
    """The class both models are explained for: the true one, an arm's own answer, or any."""
    names = opened.class_names
    classes = {
        "label": sample.label,
        **{arm: opened.answer(arm, sample.id) for arm in ("vpt", "ft")},
        **{f"class:{name}": number for number, name in enumerate(names)},
    }

    def describe(choice: str) -> str:
        name = names[classes[choice]]
        return t(f"viewer.target.{choice}", name=name) if choice in TARGETS else name

    chosen = state.settle(state.TARGET, list(classes), "label")
    st.sidebar.selectbox(t("viewer.target"), list(classes), key=state.TARGET, format_func=describe,
                         help=t("viewer.target_help"))  # fmt: skip
    return classes[chosen]


def choose_methods(t: Translator) -> list[str]:
    """The methods shown, in the order chosen."""
    chosen = [name for name in st.session_state.get(state.METHOD_NAMES, DEFAULT_METHODS) if name in METHODS]
    st.session_state[state.METHOD_NAMES] = chosen
    return st.sidebar.multiselect(
        t("viewer.methods"), list(METHODS), key=state.METHOD_NAMES, max_selections=MAX_METHODS,
        format_func=lambda name: METHODS[name].label,
    )  # fmt: skip


def choose_look(t: Translator) -> Look:
    """How maps are drawn; nothing here computes a map again."""
    settings = st.session_state
    settings.setdefault(state.OPACITY, 0.6)
    settings.setdefault(state.AVERAGE, True)
    scope = state.settle(state.SCOPE, ("map", "sample"), "map")
    positive = state.settle(state.POSITIVE, POSITIVE_COLORMAPS, POSITIVE_COLORMAPS[0])
    signed = state.settle(state.SIGNED, SIGNED_COLORMAPS, SIGNED_COLORMAPS[0])

    def name_of(table: str) -> str:
        return f"{table} ({t('term.not_uniform')})" if table in NOT_UNIFORM else table

    with st.sidebar:
        st.slider(t("viewer.opacity"), 0.0, 1.0, step=0.05, key=state.OPACITY)
        st.radio(t("viewer.scale"), ("map", "sample"), key=state.SCOPE, help=t("viewer.scale_help"),
                 format_func=lambda scope: t(f"viewer.scale.{scope}"))  # fmt: skip
        st.selectbox(t("viewer.colours"), POSITIVE_COLORMAPS, key=state.POSITIVE, format_func=name_of)
        st.selectbox(t("viewer.colours_signed"), SIGNED_COLORMAPS, key=state.SIGNED, format_func=name_of)
        st.toggle(t("viewer.average"), key=state.AVERAGE, help=t("viewer.average_help"))
    return Look(settings[state.OPACITY], positive, signed, "sample" if scope == "sample" else "map",
                settings[state.AVERAGE])  # fmt: skip


def choose_arms(t: Translator, opened: Opened) -> list[str]:
    """The arms shown: the pair, and the reference where there is one and it is wanted."""
    others = [arm for arm in opened.pair.runs if arm not in ("vpt", "ft")]
    if not others:
        return ["vpt", "ft"]
    st.session_state.setdefault(state.REFERENCE, False)
    names = ", ".join(arm_label(arm, t) for arm in others)
    wanted = st.sidebar.toggle(t("viewer.reference", names=literal(names)), key=state.REFERENCE)
    return ["vpt", "ft", *(others if wanted else [])]


def show_method(t: Translator, name: str) -> None:
    """A method's title; behind it, how to read its map."""
    method = METHODS[name]
    with st.popover(method.label, type="tertiary", icon=":material/help:", width="stretch"):
        own = f"viewer.read.{name}"
        if own in t:
            st.markdown(t(own))
        st.markdown(t(f"viewer.read_{method.picture}"))
        if not method.class_specific:
            st.markdown(t("viewer.read_class_agnostic"))
        st.caption(f"{t('viewer.source')}: {literal(method.source)}  \n{t('viewer.cost')}: {literal(method.cost)}")


def show_answer(t: Translator, comparison: Comparison, arm: str) -> None:
    """One line: the arm, its answer, whether that is right."""
    name, share, right = comparison.answer(arm)
    verdict = f":green[**✓ {t('term.right')}**]" if right else f":red[**✗ {t('term.wrong')}**]"
    said = t("viewer.answer", name=f"**{literal(name)}**", probability=share)
    st.markdown(f"{_badge(t, arm)} &nbsp; {said} &nbsp; {verdict}")


def show_probabilities(t: Translator, opened: Opened, arms: Sequence[str], sample: Sample, *, top: int = 4) -> None:
    """A table of the likeliest classes of every arm, the true class always among them."""
    shares = {arm: opened.probabilities(arm, sample.id) for arm in arms}
    highest = np.max(list(shares.values()), axis=0)
    order = [int(number) for number in np.argsort(-highest)]
    rows = order[:top] if sample.label in order[:top] else [*order[: top - 1], sample.label]
    names = {number: literal(opened.class_names[number]) for number in rows}
    names[sample.label] = f"**{names[sample.label]}** ({t('viewer.true_mark')})"
    table = {t("term.class"): list(names.values())}
    table |= {arm_label(arm, t): [percent(float(part[number])) for number in rows] for arm, part in shares.items()}
    st.table(table, border="horizontal")


def show_legend(t: Translator, shown: Shown, look: Look) -> None:
    """Under a map: its colours with the values of both ends, the raw range, and what the method measured."""
    if shown.blank:
        st.markdown(f":orange-badge[:material/block: {t('term.blank')}]")
        st.caption(t("viewer.blank"))
        return
    _show_bar(shown, look.colormap(signed=shown.signed))
    st.caption("  \n".join(literal(line) for line in describe(shown, t)))


def find_planted_test(pair: MatchedPair) -> PlantedResult | None:
    """A pair's planted-cue test; where it cannot be used, a note says why."""
    try:
        return find_planted(pair)
    except ExplainError as error:
        st.warning(literal(str(error)), icon=":material/science:")
        return None


def show_trust(t: Translator, planted: PlantedResult | None, arm: str, method: str) -> None:
    """A badge where the planted-cue test speaks against a method on an arm, or could not speak; else nothing."""
    trust = planted.trust(arm, method) if planted else None
    if trust is None or trust.status == "PASSED":
        return
    name = arm_label(arm, t)
    if trust.status == "FAILED":
        difference, low, high = ("–" if value is None else f"{value:.2f}".replace("-", "\u2212")
                                 for value in (trust.difference, trust.low, trust.high))  # fmt: skip
        badge, why = ":red-badge[:material/cancel:", t("viewer.planted.failed", arm=name, difference=difference,
                                                        low=low, high=high)  # fmt: skip
    else:
        badge, why = ":gray-badge[:material/help:", t("viewer.planted.not_tested", arm=name)
    st.markdown(f"{badge} **{t(status_key(trust.status))}**]")
    st.caption(literal(why))


def _show_bar(shown: Shown, colormap: str) -> None:
    """The colour bar; the only HTML of the viewer, and all of it is numbers."""
    colours = colour_bar(colormap, signed=shown.signed, size=(1, 17))[0]
    stops = ",".join(f"rgb({red},{green},{blue})" for red, green, blue in colours.tolist())
    low, high = shown.scale.ends
    st.html(
        '<div style="display:flex;align-items:center;gap:.5rem;font-size:.8rem;'
        'font-variant-numeric:tabular-nums">'
        f'<span>{low}</span><span style="flex:1;height:.55rem;border-radius:.15rem;'
        f'background:linear-gradient(90deg,{stops})"></span><span>{high}</span></div>'
    )

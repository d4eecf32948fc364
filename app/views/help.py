"""Help: how to read a map, what each method shows and where it ends, keys, marks, files and words."""

from collections.abc import Iterable

import streamlit as st

from app import state, widgets
from app.exhibits import choose_section
from app.index import Query
from app.opening import Opened
from app.words import literal
from explain.i18n import LANGUAGES, Translator, translate

ORDER = 110
ICON = ":material/help:"

SECTIONS = ("reading", "methods", "colours", "keys", "flags", "files", "words")
QUESTIONS = ("class", "scale", "grain", "trust")
LIMITS = ("cause", "right", "missing", "seed", "habit")
KEYS = {
    "step": "← →", "zoom": "+ − 0", "pan": "← → ↑ ↓", "walk": "Shift + ← → ↑ ↓", "opacity": "o O", "threshold": "t T",
    "contour": "c", "grid": "g", "average": "a", "scale": "e", "difference": "d", "swipe": "s", "blink": "b",
    "full": "f", "more": "x",
}  # fmt: skip
FILES = {
    "run": "{run}/vpt/ {run}/ft/ …", "split": "{run}/dataset.json {run}/split.json", "maps": "{run}/maps/",
    "reviews": "{run}/reviews.jsonl", "evidence": "{run}/evidence/", "planted": "{run}/planted/",
    "report": "{run}/report.pdf", "prompts": "prompts/",
}  # fmt: skip
READING_PX = 860  # lines that are longer tire the eye
PICTURE_PX = 128


def show() -> None:
    """Draw the page."""
    t, opened = widgets.open_page()
    section = choose_section(t, "help", SECTIONS)
    widgets.show_notes(t)
    if section == "methods":
        show_methods(t, opened)
    elif section == "files":
        show_files(t, opened)
    else:
        {"reading": show_reading, "colours": show_colours, "keys": show_keys, "flags": show_flags,
         "words": show_words}[section](t)  # fmt: skip


def show_reading(t: Translator) -> None:
    """Four questions to ask of a map, and what none can answer."""
    with st.container(width=READING_PX):
        st.markdown(t("viewer.help.reading.lead"))
        for number, question in enumerate(QUESTIONS, start=1):
            st.markdown(f"**{number}. {t(f'viewer.help.reading.{question}.name')}**  \n"
                        f"{t(f'viewer.help.reading.{question}')}")  # fmt: skip
        st.subheader(t("viewer.help.reading.limits"))
        st.markdown("\n".join(f"- {t(f'viewer.help.reading.limit.{name}')}" for name in LIMITS))


def show_methods(t: Translator, opened: Opened) -> None:
    """Every registered method, those that most people begin with first."""
    from explain.engine import DEFAULT_METHODS
    from explain.methods.base import METHODS

    st.markdown(t("viewer.help.methods.lead", count=len(list(METHODS))))
    example = example_of(opened)
    if example is not None:
        show_example_line(t, opened, example)
    groups: dict[str, list[str]] = {"first": list(DEFAULT_METHODS), "layer": [], "attention": [], "score": []}
    for name in METHODS:
        if name not in DEFAULT_METHODS:
            groups[_group_of(name)].append(name)
    for group, names in groups.items():
        st.subheader(t(f"viewer.help.methods.{group}"))
        columns = 3 if group == "first" else 2
        for start in range(0, len(names), columns):
            for place, name in zip(st.columns(columns, gap="medium"), names[start : start + columns], strict=False):
                with place.container(border=True, height="stretch"):
                    show_method(t, opened, name, example)


def _group_of(name: str) -> str:
    """By what a method reads; a new one finds its place by itself."""
    from explain.methods.base import METHODS, Method

    method = METHODS[name]
    if method.attention or method.attention_gradients:
        return "attention"
    return "layer" if method.picture == "positive" and method.layers is not Method.layers else "score"


def show_method(t: Translator, opened: Opened, name: str, example: str | None) -> None:
    """What one method shows and does not, what it costs, and an example where the archive has one."""
    from explain.methods.base import METHODS

    method = METHODS[name]
    badges = [] if method.class_specific else [t("term.class_agnostic")]
    badges += [t("viewer.help.methods.prompts_only")] * method.needs_prompts
    badges += [t("viewer.help.methods.random")] * method.random
    st.markdown(f"**{literal(method.label)}** " + " ".join(f":gray-badge[{badge}]" for badge in badges))
    shows, misses = f"viewer.help.method.{name}.shows", f"viewer.help.method.{name}.misses"
    if shows in t:
        st.markdown(f"{t('viewer.help.methods.shows', text=t(shows))}  \n"
                    f"{t('viewer.help.methods.misses', text=t(misses))}")  # fmt: skip
    else:
        st.markdown(t("viewer.help.methods.no_text"))
    if example is not None:
        show_pictures(t, opened, name, example)
    st.caption(t("viewer.help.methods.facts", source=literal(method.source), cost=literal(method.cost)))


def example_of(opened: Opened) -> str | None:
    """The image looked at last, else the first that both models got right, else the first with maps."""
    if opened.archive is None or not opened.kept_as:
        return None
    asked = str(st.session_state.get(state.SAMPLE, ""))
    if opened.index.row_of(asked) is not None:
        return asked
    for outcome in ("both_right", "all"):
        found = opened.index.find(Query(outcome))
        if len(found):
            return str(opened.index.fetch(found[:1], ["id"])[0]["id"])
    return None


def show_example_line(t: Translator, opened: Opened, example: str) -> None:
    """Which image the pictures are of, and which model is where."""
    models = [model for model in dict.fromkeys(opened.compared) if model in opened.kept_as]
    row = opened.index.fetch([opened.index.row_of(example) or 0])[0]
    target = row.get(f"{models[0]}_target")
    if target is None:
        return
    words = {"name": literal(example), "target": literal(opened.class_names[target])}
    if len(models) > 1:
        first, second = (literal(opened.label_of(model, t)) for model in models)
        st.caption(t("viewer.help.methods.example", first=first, second=second, **words))
    else:
        st.caption(t("viewer.help.methods.example_one", **words))


def show_pictures(t: Translator, opened: Opened, method: str, example: str) -> None:
    """The maps of the example by one method, where the archive has them."""
    from app.thumbnails import overlays, thumbnails_of

    known = overlays(opened)
    wanted = [known[key] for model in dict.fromkeys(opened.compared) if (key := f"{model}.{method}") in known]
    found = [(over, thumbnails_of(opened, [example], over)[0]) for over in wanted]
    with st.container(horizontal=True, gap="small"):
        for over, picture in found:
            if picture is not None and picture.data:
                label = literal(opened.label_of(over.model, t))
                st.image(picture.data, width=PICTURE_PX,
                         alt=t("viewer.help.methods.alt", method=method, model=label, name=example))  # fmt: skip


def show_colours(t: Translator) -> None:
    """What colours mean, and what can share a scale."""
    from explain.render.heatmap import CLIP_PERCENTILE, POSITIVE_COLORMAPS, SCOPES, SIGNED_COLORMAPS, colour_bar

    with st.container(width=READING_PX):
        kinds = {"positive": (POSITIVE_COLORMAPS[0], "none", "top"), "signed": (SIGNED_COLORMAPS[0], "against", "for")}
        for kind, (name, low, high) in kinds.items():
            st.subheader(t(f"viewer.help.colours.{kind}.name"))
            st.image(colour_bar(name, signed=kind == "signed", size=(16, 512)), width=512,
                     alt=t("viewer.help.colours.bar_alt", name=name))  # fmt: skip
            with st.container(horizontal=True, width=512, horizontal_alignment="distribute"):
                st.caption(t(f"viewer.help.colours.{low}"), width="content")
                st.caption(t(f"viewer.help.colours.{high}"), width="content")
            st.markdown(t(f"viewer.help.colours.{kind}"))
        others = ", ".join([*POSITIVE_COLORMAPS[1:], *SIGNED_COLORMAPS[1:]])
        st.markdown(t("viewer.help.colours.more", names=literal(others)))
        st.subheader(t("viewer.help.colours.scopes"))
        st.markdown("\n".join(f"- **{t(f'term.scope.{scope}')}** — {t(f'viewer.help.colours.scope.{scope}')}"
                              for scope in SCOPES))  # fmt: skip
        st.markdown(t("viewer.help.colours.clip", percentile=CLIP_PERCENTILE))


def show_keys(t: Translator) -> None:
    """The keys of pages with maps."""
    with st.container(width=READING_PX):
        st.markdown(t("viewer.help.keys.lead"))
        widgets.show_table({t("viewer.help.keys.key"): [f"`{keys}`" for keys in KEYS.values()],
                            t("viewer.help.keys.what"): _texts(t, "viewer.help.keys.", KEYS)})  # fmt: skip


def show_flags(t: Translator) -> None:
    """What the words beside a map say of it."""
    marks = {
        "passed": f":green-badge[{t('term.status.passed')}]", "failed": f":red-badge[{t('term.status.failed')}]",
        "not_tested": f":gray-badge[{t('term.status.not_tested')}]",
        "not_run": f":gray-badge[{t('viewer.flag.not_run')}]",
        "blank": t("term.blank"), "agnostic": t("term.class_agnostic"), "converged": t("viewer.not_converged"),
        "gap": t("term.measure.completeness_gap"), "share": t("term.measure.prompt_share"), "mark_right": "✓ ✗",
    }  # fmt: skip
    with st.container(width=READING_PX):
        st.markdown(t("viewer.help.flags.lead"))
        widgets.show_table({t("viewer.help.flags.mark"): list(marks.values()),
                            t("viewer.help.flags.means"): _texts(t, "viewer.help.flags.", marks)})  # fmt: skip


def show_files(t: Translator, opened: Opened) -> None:
    """What lies where, with the paths of what is open."""
    folder = literal(str(opened.folder)) if opened.folder is not None else "RUN"
    st.caption(f"RUN = {folder}")
    files = [" ".join(f"`{part}`" if part != "…" else part for part in path.format(run="RUN").split(" "))
             for path in FILES.values()]  # fmt: skip
    texts = _texts(t, "viewer.help.files.", FILES)
    st.markdown(t("viewer.help.files.lead"))
    widgets.show_table({t("viewer.help.files.file"): [*files, t("viewer.help.files.browser")],
                        t("viewer.help.files.what"): [*texts, t("viewer.help.files.address")]})  # fmt: skip


def show_words(t: Translator) -> None:
    """The words of the viewer in both languages, with their meaning."""
    other = translate(next(lang for lang in LANGUAGES if lang != t.lang))
    words = list(t.section("viewer.help.word."))
    widgets.show_table({
        t("viewer.help.words.word"): [f"**{t(f'viewer.help.word.{word}')}**" for word in words],
        t("viewer.help.words.other"): _texts(other, "viewer.help.word.", words),
        t("viewer.help.words.means"): _texts(t, "viewer.help.meaning.", words),
    })  # fmt: skip


def _texts(t: Translator, prefix: str, names: Iterable[str]) -> list[str]:
    return [t(prefix + name) for name in names]


if __name__ == "__main__":
    show()

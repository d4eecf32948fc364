"""The form in which a person says what they think of an image's maps."""

import streamlit as st

from app import state
from app.opening import Opened
from app.words import literal
from explain.archive.manifest import Entry
from explain.errors import ExplainError
from explain.i18n import Translator
from explain.reviews import VERDICTS, Review, write_review

VERDICT, NOTE, TAGS, SHOWN = "review_verdict", "review_note", "review_tags", "_review_of"


def show_review(t: Translator, opened: Opened, image: Entry) -> None:
    """The form, filled with what was said before."""
    st.subheader(t("viewer.inspect.review"))
    if opened.reviews is None:
        st.caption(t("viewer.inspect.no_folder"))
        return
    before = opened.reviews.get(image.id)
    _fill(image.id, before)
    # the widgets stay the same from image to image: new ones would cost a step through the images 10 ms each
    with st.form("review", border=False):
        st.segmented_control(
            t("viewer.inspect.verdict"), VERDICTS[1:], key=VERDICT,
            format_func=lambda name: t(f"viewer.inspect.verdict.{name}"),
        )  # fmt: skip
        st.text_area(t("viewer.inspect.note"), max_chars=4000, height=96, key=NOTE)
        st.text_input(t("viewer.inspect.tags"), max_chars=400, key=TAGS)
        if st.form_submit_button(t("viewer.inspect.save"), icon=":material/save:", key="save_review"):
            session = st.session_state
            _save(t, opened, image, session[VERDICT] or "", session[NOTE], session[TAGS])
            before = opened.reviews.get(image.id)
    if before is not None:
        _show_last(t, opened, image, before)
    st.caption(t("viewer.inspect.review_help"))


def _fill(sample: str, before: Review | None) -> None:
    """Put what was said of an image into the form when the image changes, or the form was away."""
    session = st.session_state
    if session.get(SHOWN) != sample or NOTE not in session:
        session[VERDICT] = (before.verdict or None) if before else None
        session[NOTE] = before.note if before else ""
        session[TAGS] = ", ".join(before.tags) if before else ""
    session[SHOWN] = sample


def _save(t: Translator, opened: Opened, image: Entry, verdict: str, note: str, tags: str) -> None:
    assert opened.reviews is not None
    words = tuple(dict.fromkeys(" ".join(tag.split()) for tag in tags.split(",") if tag.strip()))
    try:
        write_review(opened.reviews, image.id, sha256=image.sha256, models=identities(opened), verdict=verdict,
                     note=note, tags=words, who=st.session_state.get(state.WHO) or "")  # fmt: skip
    except ExplainError as error:
        st.error(literal(str(error)))
        return
    st.toast(t("viewer.inspect.saved"), icon=":material/check:")


def _show_last(t: Translator, opened: Opened, image: Entry, before: Review) -> None:
    who = t("viewer.inspect.last_by", who=literal(before.who)) if before.who else ""
    st.caption(t("viewer.inspect.last", when=before.when.replace("T", " ")[:16], who=who))
    if before.models != identities(opened) or (image.sha256 and before.sha256 not in (None, image.sha256)):
        st.warning(t("viewer.inspect.older"), icon=":material/history:")


def identities(opened: Opened) -> dict[str, str]:
    """What tells the two compared models' trainings from every other."""
    runs = {model: opened.run(model) for model in opened.compared}
    known = {model: run.manifest.identity for model, run in runs.items() if run is not None}
    if known or opened.archive is None:
        return known
    facts = opened.archive.job.facts_of
    return {model: facts[name].sha256 for model, name in opened.kept_as.items() if model in opened.compared}

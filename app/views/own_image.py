"""Own image: images that the reader brings along, what every model says of them, and where it looks."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import streamlit as st

from app import choices, export, maps, state, uploads, widgets
from app.maps import Wanted
from app.opening import Answer, Opened
from app.paste import listen_for_paste
from app.showing import Found, Shown
from app.uploads import Judged, Upload
from app.words import literal, percent
from explain.archive.manifest import Entry
from explain.attribution import Attribution
from explain.data.decode import MAX_ASPECT, MAX_PIXELS, MIN_SIDE_PX, ImageRejected, read_bytes
from explain.errors import ExplainError
from explain.i18n import Translator

ORDER = 80
ICON = ":material/add_photo_alternate:"

CHOSEN, TURN, TARGET = "_own_chosen", "_own_turn", "own_target"  # session keys
SAMPLES = 4
CLASSES_NAMED = 8
CLASSES_SHOWN = 5
UNDECIDED = 0.5
THUMBNAIL_PX = 112


def show() -> None:
    """Draw the page."""
    page = widgets.open_pair_page("viewer.own_image.no_pair")
    if page is None:
        return
    t, opened, _ = page
    bring(t, opened)
    images = uploads.shelf().images
    if not images:
        widgets.show_notes(t)
        return
    upload = chosen_upload(images)
    say_which(t, upload, list(images.values()))
    explain_upload(t, opened, upload)


def bring(t: Translator, opened: Opened) -> None:
    """The ways in: files, the clipboard, and images to try; beside them the images that are there, to choose one."""
    left, right = st.columns([2, 3], gap="large")
    turn = st.session_state.setdefault(TURN, 0)
    images = uploads.shelf().images
    with left:
        files = st.file_uploader(
            t("viewer.own_image.upload"), accept_multiple_files=True, key=f"own_files_{turn}",
            max_upload_size=uploads.FILE_BYTES >> 20, help=t("viewer.own_image.private"),
        )  # fmt: skip
        st.caption(t("viewer.own_image.hint", most=uploads.MOST, megabytes=uploads.FILE_BYTES >> 20))
        listen_for_paste()
        if images:
            with st.popover(t("viewer.own_image.try"), icon=":material/texture:", type="tertiary"):
                offer_samples(t, opened)
    if files:
        with st.spinner(t("viewer.own_image.reading")):
            put((file.name, file.getvalue()) for file in files)
        st.session_state[TURN] = turn + 1  # an uploader of a new name is empty, and streamlit lets the files go
        st.rerun()
    with right:
        if images:
            choose_upload(t, list(images.values()), chosen_upload(images))
        else:
            st.markdown(t("viewer.own_image.or_try"))
            offer_samples(t, opened)
    say_what_came(t)


def chosen_upload(images: Mapping[str, Upload]) -> Upload:
    """The image that is looked at: the one chosen, else the newest."""
    return images.get(st.session_state.get(CHOSEN, "")) or list(images.values())[-1]


def put(files: Iterable[tuple[str, bytes]]) -> None:
    """Take files over into the session and show the first of them."""
    first = uploads.shelf().put(files)
    if first is not None:
        st.session_state[CHOSEN] = first


def offer_samples(t: Translator, opened: Opened) -> None:
    """Test images of the data set, to see what the page does."""
    samples = [(entry, picture) for entry in uploads.find_samples(opened, SAMPLES)
               if (picture := picture_of(entry)) is not None]  # fmt: skip
    with st.container(horizontal=True, gap="small"):
        for number, (entry, picture) in enumerate(samples):
            with st.container(width=THUMBNAIL_PX, gap="xsmall"):
                name = opened.class_names[entry.label or 0]
                st.image(picture, width="stretch", alt=t("viewer.own_image.sample_alt", name=name))
                st.button(label(name), key=f"own_sample_{number}", on_click=put_sample,
                          args=(entry,), width="stretch")  # fmt: skip


def picture_of(entry: Entry) -> object:
    """A picture, or None where the file cannot be shown."""
    try:
        return maps.picture_of(entry)
    except ExplainError:
        return None


def put_sample(entry: Entry) -> None:
    """Take a test image as if it had been brought along."""
    name = entry.path.name
    try:
        put([(name, read_bytes(entry.path))])
    except ImageRejected as rejection:  # it went away since it was drawn
        uploads.shelf().refused.append(uploads.Refused(name, rejection.reason, rejection.detail))


def say_what_came(t: Translator) -> None:
    """Files that cannot be used, each with the reason, and older images that had to go."""
    shelf = uploads.shelf()
    if shelf.refused:
        reasons = t.section("viewer.own_image.refused.")
        limits = {"most": uploads.MOST, "megabytes": uploads.FILE_BYTES >> 20, "megapixels": MAX_PIXELS // 10**6,
                  "side": MIN_SIDE_PX, "ratio": MAX_ASPECT}  # fmt: skip
        lines = [f"- **{literal(one.name)}**: {reasons[one.reason].format(**limits)}" for one in shelf.refused]
        head = t("viewer.own_image.refused", count=len(shelf.refused))
        st.warning("\n".join([f"{head}", "", *lines]), icon=":material/block:")
    if shelf.dropped:
        names = ", ".join(map(literal, shelf.dropped))
        st.info(t("viewer.own_image.dropped", most=uploads.MOST, megabytes=uploads.SESSION_BYTES >> 20, names=names),
                icon=":material/history:")  # fmt: skip


def choose_upload(t: Translator, images: Sequence[Upload], chosen: Upload) -> None:
    """The images side by side, to choose one."""

    def choose(sha256: str) -> None:
        st.session_state[CHOSEN] = sha256

    st.markdown(t("viewer.own_image.yours", count=len(images)))
    with st.container(horizontal=True, gap="small"):
        for number, one in enumerate(images):
            with st.container(width=THUMBNAIL_PX, gap="xsmall"):
                st.image(one.thumbnail, width="stretch", alt=one.name)
                st.button(label(one.name), key=f"own_choose_{number}", on_click=choose,
                          args=(one.sha256,), width="stretch", help=literal(one.name),
                          type="primary" if one is chosen else "secondary")  # fmt: skip


def label(name: str) -> str:
    """A name on one line below a thumbnail."""
    return literal(uploads.shorten(name, 11)).replace(" ", "\u00a0")


def say_which(t: Translator, upload: Upload, images: Sequence[Upload]) -> None:
    """Name and size of the image that is looked at, what was done to it, and ways to have images forgotten."""

    def forget(*hashes: str) -> None:
        for sha256 in hashes:
            uploads.shelf().remove(sha256)

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        width, height = upload.size
        st.markdown(f"**{literal(upload.name)}** &nbsp; :gray[{width} × {height} px]", width="content")
        if upload.flags:
            st.caption(" ".join(t(f"viewer.own_image.flag.{flag}") for flag in upload.flags), width="content")
        st.button(t("viewer.own_image.remove"), key="own_remove", on_click=forget, args=(upload.sha256,),
                  icon=":material/delete:", type="tertiary")  # fmt: skip
        if len(images) > 1:
            st.button(t("viewer.own_image.remove_all"), key="own_remove_all", on_click=forget,
                      args=tuple(one.sha256 for one in images), icon=":material/delete_sweep:",
                      type="tertiary")  # fmt: skip


def explain_upload(t: Translator, opened: Opened, upload: Upload) -> None:
    """What the models say of one image, and their maps; what is not there is computed by the worker."""
    left, middle, right = st.columns([2, 4, 3], gap="small")
    target = choose_target(t, opened)
    left.selectbox(t("viewer.target"), targets(opened), key=TARGET, help=t("viewer.own_image.target_help"),
                   format_func=lambda choice: describe_target(t, opened, choice))  # fmt: skip
    methods = choices.choose_methods(t, opened, middle)
    models = choices.choose_models(t, opened, right)
    widgets.show_notes(t)
    if not methods or not models:
        st.info(t("viewer.no_method"))
        return
    asked = [*models, *([target.removeprefix("answer:")] if target.startswith("answer:") else [])]
    said = {model: uploads.judged(run, upload) for model in dict.fromkeys(asked) if (run := opened.run(model))}
    errors = [part for part in said.values() if isinstance(part, ExplainError)]
    if errors:
        widgets.show_error(t, errors[0])
        return
    answers = {model: part.answer(opened.class_names) for model, part in said.items() if isinstance(part, Judged)}
    if len(answers) < len(said):
        picture, waiting = st.columns([1, 3], gap="large")
        picture.image(upload.picture, width="stretch", alt=upload.name)
        with waiting:
            widgets.wait_for(t, [
                uploads.judging(run, upload, t("viewer.own_image.answering", model=opened.label_of(model, t)))
                for model, part in said.items() if part is None and (run := opened.run(model))
            ])  # fmt: skip
        return
    explained = {model: class_of(target, model, answers, opened) for model in models}
    wanted = [Wanted(model, method, explained[model]) for model in models for method in methods]
    found: Found = {one: maps.ready(opened, upload.entry, one) for one in wanted}
    grid = next(part.grid for part in said.values() if isinstance(part, Judged))
    show_answers(t, opened, upload, {model: answers[model] for model in models})
    show_maps(t, opened, upload, found, answers, grid)
    widgets.wait_for(t, [
        uploads.mapping(opened, run, upload, one, widgets.words_of(t, opened, one))
        for one, part in found.items() if part is None and (run := opened.run(one.model))
    ], widgets.spreads_to_read(opened, methods))  # fmt: skip
    take_along(t, opened, upload, found)
    with st.expander(t("viewer.own_image.reading_maps"), icon=":material/help:"):
        widgets.show_method_help(t, methods)


def targets(opened: Opened) -> list[str]:
    """What can be explained: one model's answer in all models, each model's own, or a class."""
    answers = [f"answer:{model}" for model in dict.fromkeys(opened.compared)]
    return [*answers, choices.OWN, *(f"class:{name}" for name in opened.class_names)]


def choose_target(t: Translator, opened: Opened) -> str:
    """The choice that is linked."""
    known = targets(opened)
    return state.choose(TARGET, known, known[0])


def describe_target(t: Translator, opened: Opened, choice: str) -> str:
    """A choice in words."""
    kind, _, what = choice.partition(":")
    if kind == "answer":
        return t("viewer.own_image.target.answer", model=opened.label_of(what, t))
    return what if kind == "class" else t("viewer.own_image.target.own")


def class_of(target: str, model: str, answers: Mapping[str, Answer], opened: Opened) -> int:
    """The class that a model is explained for."""
    kind, _, what = target.partition(":")
    if kind == "class":
        return opened.class_names.index(what)
    return answers[what if kind == "answer" else model].index


def show_answers(t: Translator, opened: Opened, upload: Upload, answers: Mapping[str, Answer]) -> None:
    """The likeliest classes of every model, and how little that may mean."""
    shares = {model: answer.probabilities for model, answer in answers.items()}
    order = np.argsort(-np.max(list(shares.values()), axis=0), kind="stable")[:CLASSES_SHOWN]
    table, caution = st.columns([1, 1], gap="large")
    with table:
        rows: dict[str, list[str]] = {t("term.class"): [literal(opened.class_names[index]) for index in order]}
        for model, part in shares.items():
            rows[widgets.badge(t, model)] = [
                f"**{percent(float(part[index]))}**" if index == answers[model].index else percent(float(part[index]))
                for index in order
            ]
        st.table(rows, border="horizontal")
    with caution:
        names = opened.class_names
        known = t("viewer.own_image.classes", names=", ".join(map(literal, names))) if len(names) <= CLASSES_NAMED \
            else t("viewer.own_image.many_classes", count=len(names))  # fmt: skip
        st.info(f"{known} {t('viewer.own_image.caution')}", icon=":material/warning:")
        if max(answer.share for answer in answers.values()) < UNDECIDED:
            st.warning(t("viewer.own_image.undecided"), icon=":material/question_mark:")
        twin = uploads.find_twin(opened, upload)
        if twin is not None:
            place = t(f"viewer.own_image.part.{twin[1] or 'none'}")
            st.caption(t("viewer.own_image.twin", name=literal(twin[0]), part=place))


def show_maps(
    t: Translator, opened: Opened, upload: Upload, found: Found, answers: Mapping[str, Answer], grid: tuple[int, int]
) -> None:
    """The panel."""
    classes = dict.fromkeys(opened.class_names[one.target] for one in found)
    if len(classes) > 1:
        st.caption(t("viewer.own_image.different_classes"))
    shown = Shown(upload.name, upload.picture, dict(answers), grid, "", " / ".join(classes))
    widgets.draw_panel(t, opened, shown, found)


def take_along(t: Translator, opened: Opened, upload: Upload, found: Found) -> None:
    """The raw maps as a file, and that a link does not hold the image."""
    there = {one: part for one, part in found.items() if isinstance(part, Attribution)}
    with st.container(horizontal=True, vertical_alignment="center"):
        if there:
            st.download_button(
                t("viewer.download_npz"), lambda: export.maps_npz(opened, upload.entry, there),
                f"{export.file_stem(upload.name)}.npz", "application/zip", key="own_npz",
                icon=":material/data_array:", on_click="ignore", help=t("viewer.download_npz_help"),
            )  # fmt: skip
        st.caption(t("viewer.own_image.no_link"), width="content")


if __name__ == "__main__":
    show()

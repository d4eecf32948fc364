"""What the viewer remembers: session keys, the link in the address bar, and cached runs, models and maps.

Values that make a link (`LINKED`) live in the session and are mirrored in the address. An address that is not
what was last written there comes from somebody who opened a link or went back: it wins over the session.
They are language-neutral, which is why widgets are not bound to the address directly: streamlit would write
their translated labels there.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from explain.archive.archive import MapArchive
from explain.archive.job import KEY as JOB
from explain.attribution import Array, Attribution
from explain.data.base import Sample
from explain.engine import attribute, open_image, recorded_options
from explain.errors import ExplainError, InputError, IntegrityError, UnknownNameError
from explain.i18n import LANGUAGES, Translator, translate
from explain.methods.base import METHODS
from explain.model import TunedModel
from explain.training.pair import MatchedPair
from explain.training.run import Predictions, Run

RUN_VARIABLE = "EXPLAIN_RUN"
DEFAULT_RUN = "runs/demo"
MAPS = "maps"
"""Folder of a run in which an archive of maps is found by itself."""
MAPS_FLAG = "--maps="
"""What an archive elsewhere is named by, behind the run."""

SAMPLE, TARGET, OUTCOME, CLASS, LANG = "sample", "target", "outcome", "class", "lang"
LINKED = (SAMPLE, TARGET, OUTCOME, CLASS, LANG)
METHOD_NAMES, REFERENCE = "methods", "reference"
OPACITY, POSITIVE, SIGNED, SCOPE, AVERAGE = "opacity", "positive", "signed", "scope", "average"
KEPT = (*LINKED, METHOD_NAMES, REFERENCE, OPACITY, POSITIVE, SIGNED, SCOPE, AVERAGE)
_PUBLISHED, _NOTES = "_published", "_notes"

ALL, EVERY_CLASS = "all", "*"
"""No filter; a class may well be called "all"."""
OUTCOMES = (ALL, "only_vpt", "only_ft", "both_wrong", "both_right")


def begin() -> None:
    """Take over an opened link, and keep the values of widgets that this page does not draw."""
    st.session_state[_NOTES] = []
    asked = {key: st.query_params[key] for key in LINKED if key in st.query_params}
    if asked != st.session_state.get(_PUBLISHED):
        st.session_state.update(asked)
    for key in KEPT:
        if key in st.session_state:
            # streamlit forgets a widget's value when its page or its options change, but not one set by hand
            st.session_state[key] = st.session_state[key]


def publish_link() -> None:
    """Write the values that make a link to the address, without those that are as they would be anyway."""
    plain = {TARGET: "label", OUTCOME: ALL, CLASS: EVERY_CLASS, LANG: default_language()}
    chosen = {key: st.session_state.get(key) for key in LINKED}
    wanted = {key: value for key, value in chosen.items() if value not in (None, plain.get(key))}
    for key in LINKED:
        if key not in wanted and key in st.query_params:
            del st.query_params[key]
        elif key in wanted and st.query_params.get(key) != wanted[key]:
            st.query_params[key] = wanted[key]
    st.session_state[_PUBLISHED] = wanted


def settle(key: str, options: Sequence[str], default: str) -> str:
    """The session's value of a choice, put back to the default where it is not among the options.

    A value that cannot be had is noted for the reader, see `notes`.
    """
    value = st.session_state.setdefault(key, default)
    if value not in options:
        st.session_state[_NOTES].append((key, str(value)))
        st.session_state[key] = value = default
    return str(value)


def notes() -> list[tuple[str, str]]:
    """(key, value) of the choices that had to be put back in this run of the page."""
    return list(st.session_state[_NOTES])


def default_language() -> str:
    """The browser's language where there is a catalogue for it, else English."""
    language = (st.context.locale or "").split("-")[0].lower()
    return language if language in LANGUAGES else "en"


def translator() -> Translator:
    """Texts in the language chosen."""
    return translate(settle(LANG, LANGUAGES, default_language()))


def run_folder() -> Path:
    """The run's folder: behind `--` on the command line, else $EXPLAIN_RUN, else where the demo left it."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get(RUN_VARIABLE) or DEFAULT_RUN
    return Path(given)


def open_archive() -> MapArchive | None:
    """The archive of maps that the viewer was started with, or that lies in the run's folder; None when there is none.

    Raises:
        IntegrityError: its description is damaged, or there is none where one was named.
    """
    given = [word.removeprefix(MAPS_FLAG) for word in sys.argv[1:] if word.startswith(MAPS_FLAG)]
    if given:
        return _open_archive(given[0], 0)
    inside = run_folder() / MAPS
    return _open_archive(str(inside), (inside / JOB).stat().st_mtime_ns) if (inside / JOB).is_file() else None


@st.cache_resource(max_entries=2, show_spinner=False)
def _open_archive(location: str, stamp: int) -> MapArchive:
    return MapArchive(location)


def open_pair() -> "Opened":
    """The pair this viewer was started on, loaded again when its runs change.

    Raises:
        InputError: there is no such folder.
        IntegrityError: the pair is not finished, or files changed since.
        MismatchedRunsError: the runs were not trained alike.
    """
    folder = run_folder()
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}. Start the viewer on a trained pair: explain view FOLDER; "
            "explain demo makes one in runs/demo."
        )
    stamps = tuple((str(file), file.stat().st_mtime_ns) for file in sorted(folder.glob("*/manifest.json")))
    return _open_pair(str(folder), stamps)


@dataclass(frozen=True)
class Opened:
    """A pair and what the pages ask of it again and again.

    Args:
        pair: the matched runs.
    """

    pair: MatchedPair

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Each arm's answers on the same test images in the same order."""
        answers = {arm: run.predictions for arm, run in self.pair.runs.items()}
        if any(found.ids != answers["vpt"].ids for found in answers.values()):
            raise IntegrityError(f"the runs in {self.pair.path} answered different images; train the pair again")
        return answers

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each test image in the predictions."""
        return {name: row for row, name in enumerate(self.predictions["vpt"].ids)}

    @cached_property
    def outcomes(self) -> Array:
        """Which of `OUTCOMES` each test image is, (n,) of text."""
        vpt, ft = self.predictions["vpt"].correct, self.predictions["ft"].correct
        return np.select([vpt & ft, vpt, ft], ["both_right", "only_vpt", "only_ft"], "both_wrong")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in label order."""
        return self.pair.vpt.manifest.class_names

    def ids(self, outcome: str = ALL, class_name: str = EVERY_CLASS) -> list[str]:
        """Test images of an outcome and a true class, in the order of the predictions."""
        found = self.predictions["vpt"]
        chosen = np.ones(len(found.ids), dtype=bool)
        if outcome != ALL:
            chosen &= self.outcomes == outcome
        if class_name != EVERY_CLASS:
            chosen &= found.labels == self.class_names.index(class_name)
        return [found.ids[row] for row in np.flatnonzero(chosen)]

    def answer(self, arm: str, sample: str) -> int:
        """The class an arm gave an image."""
        return int(self.predictions[arm].classes[self.rows[sample]])

    def probabilities(self, arm: str, sample: str) -> Array:
        """(K,) of an arm for an image."""
        return np.asarray(self.predictions[arm].probabilities[self.rows[sample]])


@st.cache_resource(max_entries=2, show_spinner=False)
def _open_pair(folder: str, stamps: tuple[tuple[str, int], ...]) -> Opened:
    return Opened(MatchedPair.load(folder))


def load_model(run: Run) -> TunedModel:
    """A run's model on the CPU, built once for all sessions."""
    return _load_model(run, run.manifest.identity)


@st.cache_resource(max_entries=6, show_spinner=False)
def _load_model(_run: Run, key: str) -> TunedModel:
    return _run.model


def find_maps(
    run: Run, sample: Sample, method: str, target: int, options: Mapping[str, Any] | None = None
) -> Attribution | ExplainError:
    """One method's map of one image, computed at the first call; an error where the method cannot be had.

    Args:
        run: whose model.
        sample: the image.
        method: registered name.
        target: class index the map explains; a class-agnostic method gives the same map for all.
        options: the method's options.
    """
    # one entry for every target, where the target makes no difference
    asked = target if METHODS[method].class_specific else None
    key = (run.manifest.identity, sample.id, sample.sha256)
    try:
        kept = kept_map(open_archive(), run, sample, method, asked, dict(options or {}))
        if kept is not None:
            return kept
        return _find_maps(run, sample, key, method, asked, dict(options or {}))
    except ExplainError as error:
        return error


def kept_map(
    archive: MapArchive | None, run: Run, sample: Sample, method: str, target: int | None, options: Mapping[str, Any]
) -> Attribution | None:
    """The map as an archive keeps it; None unless it is of this run, image, target and exactly these options.

    Raises:
        IntegrityError: it is there but damaged; a damaged archive is said, not got round.
    """
    if archive is None or archive.job.methods.get(method) != recorded_options(METHODS.create(method, **options)):
        return None
    names = [facts.name for facts in archive.job.models if facts.run_identity == run.manifest.identity]
    try:
        found = archive[sample.id] if names else None
    except UnknownNameError:  # another image, or its shard is not computed yet
        return None
    if found is None or names[0] not in found or found.entry.sha256 != sample.sha256:
        return None
    map_of_it = found[names[0]][method]
    return None if target not in (None, map_of_it.target) else found.attribution(names[0], method)


@st.cache_data(max_entries=600, show_spinner=False)
def _find_maps(
    _run: Run, _sample: Sample, key: tuple[str, ...], method: str, target: int | None, options: dict[str, Any]
) -> Attribution:
    model = load_model(_run)
    return attribute(model, [_sample.path], methods=method, targets=target, options={method: options})[method]


def load_pixels(run: Run, sample: Sample) -> Array:
    """An image as a run's model sees it, uint8 (H, W, 3)."""
    return _load_pixels(run, sample, (run.manifest.identity, sample.id, sample.sha256))


@st.cache_data(max_entries=200, show_spinner=False)
def _load_pixels(_run: Run, _sample: Sample, key: tuple[str, ...]) -> Array:
    pixels = load_model(_run).transform.pixels(open_image(_sample))
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

"""Opened: what the viewer was started on, a trained pair, an archive of maps, or both, and what pages ask of it.

    explain view runs/textile            a pair; `maps` in its folder is its archive
    explain view maps/textile            an archive; its pair is opened too where it still lies there
"""

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import streamlit as st

from app import server
from app.index import Index
from explain.archive.archive import MapArchive
from explain.archive.explained import Explained
from explain.archive.job import KEY as JOB
from explain.archive.manifest import Entry
from explain.attribution import Array
from explain.data.base import PARTS
from explain.errors import ExplainError, InputError, IntegrityError, UnknownNameError
from explain.i18n import Translator
from explain.render.plots import arm_label
from explain.reviews import Reviews
from explain.training.pair import MatchedPair
from explain.training.run import Predictions, Run

RUN_VARIABLE = "EXPLAIN_RUN"
DEFAULT_RUN = "runs/demo"
MAPS = "maps"
"""Folder of a run in which an archive of maps is found by itself."""

PAIR = ("vpt", "ft")
LOOKED_AT = 64
"""Images of an archive that are kept in memory as they were read."""


@dataclass(frozen=True)
class Answer:
    """What a model says of an image.

    Args:
        probabilities: (K,), 0-1.
        index: the likeliest class.
        name: its name.
        right: whether that is the true class; None where the image has no label.
    """

    probabilities: Array
    index: int
    name: str
    right: bool | None

    @property
    def share(self) -> float:
        """Probability of the likeliest class, 0-1."""
        return float(self.probabilities[self.index])


@dataclass(frozen=True)
class Opened:
    """See the module; at least one of pair and archive is there.

    Args:
        location: what the viewer was started on.
        pair: the matched runs.
        archive: maps that are there already.
    """

    location: str
    pair: MatchedPair | None
    archive: MapArchive | None
    _looked_at: "OrderedDict[str, Explained]" = field(default_factory=OrderedDict, compare=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, compare=False)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.pair.data.name if self.pair else self._the_archive.job.data.name

    @property
    def folder(self) -> Path | None:
        """Where what is found out is kept: the pair's folder, else the archive's; None for one in a bucket."""
        return self.pair.path if self.pair else self._the_archive.store.folder

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names of the models, VPT and FT first."""
        names = tuple(self.pair.runs) if self.pair else self._the_archive.models
        return tuple(sorted(names, key=lambda name: PAIR.index(name) if name in PAIR else len(PAIR)))

    @property
    def compared(self) -> tuple[str, str]:
        """The two models that are set side by side; one twice where there is only one."""
        return self.models[0], self.models[min(1, len(self.models) - 1)]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in label order."""
        return self.pair.vpt.manifest.class_names if self.pair else self._the_archive.class_names

    @property
    def _the_archive(self) -> MapArchive:
        assert self.archive is not None  # opened with a pair or an archive
        return self.archive

    def run(self, model: str) -> Run | None:
        """The run that can compute a model's maps; None where they can only come from the archive."""
        return self.pair.runs.get(model) if self.pair else None

    def label_of(self, model: str, t: Translator) -> str:
        """A model's name for readers."""
        return arm_label(model, t)

    def grid_of(self, model: str) -> tuple[int, int]:
        """Rows and columns of a model's patch grid, without building the model where the archive knows it."""
        name = self.kept_as.get(model)
        if name is not None:
            return self._the_archive.job.facts_of[name].grid
        run = self.run(model)
        if run is None:
            raise UnknownNameError(f"no model {model!r} here; there are {', '.join(self.models)}")
        return run.model.layout.grid

    @cached_property
    def kept_as(self) -> Mapping[str, str]:
        """Model -> its name in the archive, for the models whose very weights the archive's maps are of."""
        if self.archive is None:
            return {}
        if self.pair is None:
            return {name: name for name in self.archive.models}
        names = {facts.run_identity: facts.name for facts in self.archive.job.models if facts.run_identity}
        found = {arm: names.get(run.manifest.identity) for arm, run in self.pair.runs.items()}
        return {arm: name for arm, name in found.items() if name is not None}

    @cached_property
    def committed(self) -> tuple[int, ...]:
        """Shards of the archive that were there when it was opened."""
        return tuple(self.archive.committed()) if self.archive is not None else ()

    # ---- images

    @cached_property
    def reviews(self) -> Reviews | None:
        """What people said of the images; None where there is no folder to keep it in.

        Raises:
            IntegrityError: a line of the file is not a review.
        """
        return Reviews(self.folder) if self.folder is not None else None

    @property
    def index(self) -> Index:
        """One row per image: the archive's, then the test images that it does not have."""
        with self._lock:  # built once, whoever asks first
            return self._index

    @cached_property
    def _index(self) -> Index:
        tables = []
        if self.archive is not None and self.kept_as:
            table = self.archive.to_arrow()
            kept = {name: model for model, name in self.kept_as.items()}
            tables.append(table.rename_columns([_renamed(column, kept) for column in table.column_names]))
        if self.pair is not None:
            tables.append(_answers_table(self._predictions))
        parts = {} if self.pair is None else {
            name: part for part in PARTS for name in getattr(self.pair.split, part)
        }  # fmt: skip
        return Index(tables, self.compared, parts)

    def image(self, name: str) -> Entry:
        """Where an image is and what is known of it.

        Raises:
            UnknownNameError: no such image.
        """
        if self.pair is not None and name in self.pair.data.by_id:
            sample = self.pair.data.by_id[name]
            return Entry(sample.id, sample.path, sample.label, sample.sha256, sample.mask)
        return self._the_archive.entry(self._the_archive.row_of(name))

    def explained(self, name: str) -> Explained | None:
        """What the archive holds of an image; None when it does not have it.

        Raises:
            IntegrityError: it is there but damaged; a damaged archive is said, not got round.
        """
        if self.archive is None or not self.kept_as:
            return None
        with self._lock:
            found = self._looked_at.pop(name, None)
        try:
            found = found or self.archive[name]
        except UnknownNameError:  # another image, or its shard is not computed yet
            return None
        with self._lock:
            self._looked_at[name] = found
            while len(self._looked_at) > LOOKED_AT:
                self._looked_at.popitem(last=False)
        return found

    def answer(self, model: str, name: str) -> Answer | None:
        """What a model says of an image; None where that was not recorded."""
        probabilities = self._probabilities(model, name)
        if probabilities is None:
            return None
        index, label = int(np.argmax(probabilities)), self.image(name).label
        return Answer(probabilities, index, self.class_names[index], None if label is None else index == label)

    def _probabilities(self, model: str, name: str) -> Array | None:
        row = self._test_rows.get(name)
        if row is not None and model in self._predictions:
            return np.asarray(self._predictions[model].probabilities[row])
        found, kept = self.explained(name), self.kept_as.get(model)
        if found is None or kept is None or kept not in found.logits:
            return None
        powers = np.exp(found.logits[kept] - found.logits[kept].max())
        return np.asarray(powers / powers.sum())

    @cached_property
    def _predictions(self) -> dict[str, Predictions]:
        """Each arm's answers on the same test images in the same order."""
        if self.pair is None:
            return {}
        answers = {arm: run.predictions for arm, run in self.pair.runs.items()}
        if any(found.ids != answers["vpt"].ids for found in answers.values()):
            raise IntegrityError(f"the runs in {self.pair.path} answered different images; train the pair again")
        return answers

    @cached_property
    def _test_rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self._predictions["vpt"].ids)} if self._predictions else {}


def _renamed(column: str, kept: Mapping[str, str]) -> str:
    """A column of the archive's table under the viewer's names of the models."""
    for name, model in kept.items():
        if column.startswith(f"{name}_"):
            return f"{model}_{column.removeprefix(f'{name}_')}"
    if column.startswith("agreement_"):
        for first, second in ((a, b) for a in kept for b in kept):
            if column.endswith(f"_{first}_{second}"):
                return f"{column.removesuffix(f'_{first}_{second}')}_{kept[first]}_{kept[second]}"
    return column


def _answers_table(predictions: Mapping[str, Predictions]) -> pa.Table:
    """The test images as an archive's table would tell them, without what only maps can tell."""
    first = predictions["vpt"]
    columns: dict[str, pa.Array] = {
        "row": pa.array(range(len(first.ids)), pa.int64()), "id": pa.array(first.ids, pa.string()),
        "status": pa.array(["ok"] * len(first.ids)), "label": pa.array(first.labels, pa.int32()),
    }  # fmt: skip
    for arm, found in predictions.items():
        columns |= {
            f"{arm}_prediction": pa.array(found.classes, pa.int32()),
            f"{arm}_confidence": pa.array(found.probabilities.max(axis=1), pa.float32()),
            f"{arm}_correct": pa.array(found.correct),
        }
    return pa.table(columns)


def open_location() -> Opened:
    """What stands behind `--` on the command line, else $EXPLAIN_RUN, else the demo's run; again when it changes.

    Raises:
        InputError: there is no such folder.
        IntegrityError: the pair is not finished, files changed since, or the archive is damaged.
        MismatchedRunsError: the runs were not trained alike.
    """
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    location = words[0] if words else os.environ.get(RUN_VARIABLE) or DEFAULT_RUN
    given = server.word_of(server.MAPS_FLAG, sys.argv)
    folder = Path(location)
    if is_archive(location):
        return _open_archive(location, _stamp_of(location))
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}. Start the viewer on a trained pair or an archive of maps: explain view "
            "FOLDER; explain demo makes a pair in runs/demo."
        )
    inside = folder / MAPS
    maps = given if given else str(inside) if (inside / JOB).is_file() else None
    stamps = tuple((str(file), file.stat().st_mtime_ns) for file in sorted(folder.glob("*/manifest.json")))
    return _open_pair(location, stamps, maps, _stamp_of(maps) if maps else 0)


def is_archive(location: str) -> bool:
    """Whether a location is an archive of maps: a folder with its description, or any URL."""
    return "://" in location or (Path(location) / JOB).is_file()


def _stamp_of(location: str) -> int:
    """Changes when an archive in a folder does: it was made again, or shards were added."""
    folder = Path(location)
    if "://" in location or not (folder / JOB).is_file():
        return 0
    receipts = folder / "receipts"
    return (folder / JOB).stat().st_mtime_ns + (sum(1 for _ in receipts.rglob("*.json")) if receipts.is_dir() else 0)


@st.cache_resource(max_entries=2, show_spinner=False)
def _open_pair(location: str, stamps: tuple[tuple[str, int], ...], maps: str | None, stamp: int) -> Opened:
    pair = MatchedPair.load(location)
    return Opened(location, pair, MapArchive(maps) if maps else None)


@st.cache_resource(max_entries=2, show_spinner=False)
def _open_archive(location: str, stamp: int) -> Opened:
    archive = MapArchive(location)
    return Opened(location, _pair_of(archive), archive)


def _pair_of(archive: MapArchive) -> MatchedPair | None:
    """The pair that an archive was made of, where it still lies there with the same weights; else None."""
    folders = {Path(facts.run).parent for facts in archive.job.models if facts.run}
    if len(folders) != 1:
        return None
    try:
        pair = MatchedPair.load(folders.pop())
    except ExplainError:  # moved, trained again, or no pair at all: the archive stands by itself
        return None
    identities = {run.manifest.identity for run in pair.runs.values()}
    return pair if all(facts.run_identity in identities for facts in archive.job.models) else None

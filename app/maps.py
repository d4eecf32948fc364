"""Maps of one image: from the archive when it has just this one, else from the worker.

A map is known by its content: the trained weights, the bytes of the image, method, target and options. Methods run with
the options of the archive where there is one, so that a map of another class can be compared with those that it holds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from app import worker
from app.opening import Opened
from app.worker import Ticket, Work
from explain.archive.manifest import Entry
from explain.attribution import Array, Attribution
from explain.data.decode import load_mask
from explain.engine import attribute, open_image, recorded_options
from explain.errors import ExplainError, InputError
from explain.methods.base import METHODS
from explain.model import TunedModel
from explain.training.run import Run

WIDEST = 1500
"""Pixels of the longer side of a picture that is sent to the browser at most."""


@dataclass(frozen=True)
class Wanted:
    """One map.

    Args:
        model: name.
        method: registered name.
        target: class index that it explains; a class-agnostic method gives the same map for all.
    """

    model: str
    method: str
    target: int

    @property
    def asked(self) -> int | None:
        """The target where it makes a difference; None lets one map serve all."""
        return self.target if METHODS[self.method].class_specific else None


def options_of(opened: Opened, method: str) -> dict[str, Any]:
    """The options that a method runs with here: the archive's, where it has the method."""
    return dict(opened.archive.job.methods.get(method, {})) if opened.archive is not None else {}


def ready(opened: Opened, image: Entry, wanted: Wanted) -> Attribution | ExplainError | None:
    """A map, or why there is none; None when it is not there yet. Never computes."""
    try:
        kept = kept_map(opened, image, wanted)
    except ExplainError as error:
        return error  # damage is said, not got round
    if kept is not None:
        return kept
    if opened.run(wanted.model) is None:
        return _not_kept(opened, wanted)
    found: Attribution | ExplainError | None = worker.the_worker().result(key_of(opened, image, wanted))
    return found


def work_of(opened: Opened, image: Entry, wanted: Wanted, what: str) -> Work:
    """What the worker has to do for a map that is not there; `what` is the map in words."""
    return Work(key_of(opened, image, wanted), what, _computing(opened, image, wanted))


def key_of(opened: Opened, image: Entry, wanted: Wanted) -> tuple[Any, ...]:
    """What a map is known by."""
    run = opened.run(wanted.model)
    identity = run.manifest.identity if run else ""
    return ("map", identity, image.sha256 or str(image.path), wanted.method, wanted.asked,
            repr(sorted(options_of(opened, wanted.method).items())))  # fmt: skip


def _computing(opened: Opened, image: Entry, wanted: Wanted) -> Any:
    run = opened.run(wanted.model)
    options = options_of(opened, wanted.method)

    def compute(ticket: Ticket) -> Attribution:
        assert run is not None  # `ready` has said why not
        return attribute(
            load_model(run), [image.path], methods=wanted.method, targets=wanted.asked,
            options={wanted.method: options}, progress=ticket.say, cancelled=ticket.cancelled,
        )[wanted.method]  # fmt: skip

    return compute


def kept_map(opened: Opened, image: Entry, wanted: Wanted) -> Attribution | None:
    """The map as the archive keeps it; None unless it is of this run, image, target and exactly these options.

    Raises:
        IntegrityError: it is there but damaged.
    """
    name = opened.kept_as.get(wanted.model)
    archive = opened.archive
    if archive is None or name is None or wanted.method not in archive.job.methods:
        return None
    options = options_of(opened, wanted.method)
    if archive.job.methods[wanted.method] != recorded_options(METHODS.create(wanted.method, **options)):
        return None
    found = opened.explained(image.id)
    if found is None or name not in found or (image.sha256 and found.entry.sha256 not in (None, image.sha256)):
        return None
    if wanted.asked not in (None, found[name][wanted.method].target):
        return None
    return found.attribution(name, wanted.method)


def _not_kept(opened: Opened, wanted: Wanted) -> ExplainError:
    """Why a map that can only come from an archive is not there."""
    archive = opened.archive
    assert archive is not None
    if wanted.method not in archive.job.methods:
        return InputError(f"the archive holds {', '.join(archive.methods)}, not {wanted.method}; to compute it here, "
                          "open the trained pair: explain view RUN")  # fmt: skip
    return InputError("the archive holds no such map of this image: it explains another class, or the image failed; "
                      "to compute it here, open the trained pair: explain view RUN")  # fmt: skip


def load_model(run: Run) -> TunedModel:
    """A run's model on the CPU, built once for all sessions."""
    return _load_model(run, run.manifest.identity)


@st.cache_resource(max_entries=8, show_spinner=False)
def _load_model(_run: Run, key: str) -> TunedModel:
    return _run.model


def picture_of(image: Entry) -> npt.NDArray[np.uint8]:
    """An image as the file shows it, uint8 (H, W, 3), its longer side `WIDEST` at most."""
    return _picture(image, image.sha256 or str(image.path))


@st.cache_data(max_entries=200, show_spinner=False)
def _picture(_image: Entry, key: str) -> npt.NDArray[np.uint8]:
    found = open_image(_image)
    found.thumbnail((WIDEST, WIDEST))
    return np.asarray(found)


def mask_of(image: Entry) -> Array | None:
    """The region that decides an image's label, bool (H, W) at the size of its file; None where it has none.

    Raises:
        ImageRejected: it cannot be read, or is of another size than the image.
    """
    return None if image.mask is None else _mask(image, f"{image.sha256 or image.path} {image.mask}")


@st.cache_data(max_entries=200, show_spinner=False)
def _mask(_image: Entry, key: str) -> Array:
    assert _image.mask is not None
    width, height = open_image(_image).size
    return load_mask(_image.mask, (height, width))

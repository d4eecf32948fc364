"""Thumbnails: small pictures of the images of one page, with a map over them where one is wanted.

They are made for the page that is looked at and no other, and kept in memory as JPEG. A file that cannot be shown gives
the reason in place of a picture, and the others are still shown.
"""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
from PIL import Image

from app.opening import Opened
from explain.archive.manifest import Entry
from explain.attribution import Array
from explain.data.decode import ImageRejected, decode
from explain.errors import ExplainError, UnknownNameError
from explain.methods.base import METHODS
from explain.render.heatmap import is_blank, overlay

SIDE = 128
"""Pixels of the longer side."""

KEPT = 5000
QUALITY = 82
BUDGET_S = 0.3
"""How long a page waits for pictures before it shows those that are there."""

@dataclass(frozen=True)
class Overlay:
    """A map of every image, to be laid over it.

    Args:
        model: the viewer's name of the model.
        method: registered name.
    """

    model: str
    method: str

    @property
    def key(self) -> str:
        """As it is written in a link."""
        return f"{self.model}.{self.method}"


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    Args:
        data: JPEG; empty where there is none.
        trouble: why there is no picture; "" where there is one.
        map: "" when no map was asked for or it is there, "blank" when it has nothing to draw, "none" when the archive
            does not have it.
    """

    data: bytes
    trouble: str = ""
    map: str = ""


def overlays(opened: Opened) -> dict[str, Overlay]:
    """The maps that the archive has of every image, by their key."""
    if opened.archive is None:
        return {}
    found = [Overlay(model, method) for model in opened.models if model in opened.kept_as
             for method in opened.archive.methods if method in METHODS]  # fmt: skip
    return {one.key: one for one in found}


def thumbnails_of(
    opened: Opened, names: Sequence[str], over: Overlay | None, budget_s: float = BUDGET_S
) -> list[Thumbnail | None]:
    """Thumbnails of some images, None for those that the time did not suffice for: ask again.

    Args:
        opened: where the images are.
        names: their ids.
        over: the map laid over them; None for none.
        budget_s: seconds after which no other is begun; the first is always made.
    """
    until = time.monotonic() + budget_s
    found: list[Thumbnail | None] = []
    for number, name in enumerate(names):
        late = time.monotonic() > until and number > 0
        found.append(None if late else _thumbnail(opened, name, over))
    return found


def _thumbnail(opened: Opened, name: str, over: Overlay | None) -> Thumbnail:
    entry = opened.image(name)
    try:
        stamp = _stamp_of(entry)
        if over is None:
            return _plain(entry, *stamp)
        assert opened.archive is not None  # else there are no overlays
        try:
            return _overlaid(opened, entry, over, opened.archive.job.sha256, *stamp)
        except UnknownNameError:  # not computed yet, or the image failed
            return replace(_plain(entry, *stamp), map="none")
    except ImageRejected as error:
        return Thumbnail(b"", error.detail)
    except ExplainError as error:  # a damaged archive is said, not got round
        return Thumbnail(b"", str(error))


def _stamp_of(entry: Entry) -> tuple[str, int]:
    """Changes when the file does."""
    try:
        facts = entry.path.stat()
    except OSError:  # reading it will say why
        return str(entry.path), 0
    return f"{entry.path} {facts.st_size}", facts.st_mtime_ns


@st.cache_data(max_entries=KEPT, show_spinner=False)
def _plain(_entry: Entry, name: str, stamp: int) -> Thumbnail:
    return Thumbnail(_jpeg(_small(_entry)))


@st.cache_data(max_entries=KEPT, show_spinner=False)
def _overlaid(_opened: Opened, _entry: Entry, over: Overlay, job: str, name: str, stamp: int) -> Thumbnail:
    values = _map_of(_opened, _entry, over)
    signed = METHODS[over.method].picture == "signed"
    small = _small(_entry)
    if is_blank(values, signed):
        return Thumbnail(_jpeg(small), map="blank")
    return Thumbnail(_jpeg(Image.fromarray(overlay(np.asarray(small), values, signed=signed))))


def _small(entry: Entry) -> Image.Image:
    image = decode(entry.path, draft=SIDE).image
    image.thumbnail((SIDE, SIDE))
    return image


def _jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()


def _map_of(opened: Opened, entry: Entry, over: Overlay) -> Array:
    """A map on the patch grid; no other of the image is decoded.

    Raises:
        UnknownNameError: the archive does not have it, or has it of another file.
    """
    archive, model = opened.archive, opened.kept_as[over.model]
    assert archive is not None
    row = archive.row_of(entry.id)
    if entry.sha256 and archive.entry(row).sha256 not in (None, entry.sha256):
        raise UnknownNameError(f"the map that the archive has of {entry.id!r} is of another file")
    grid = next(one.name for one in archive.job.columns
                if (one.model, one.method, one.part) == (model, over.method, "grid"))  # fmt: skip
    return archive.at(row, [grid])[model][over.method].on_grid

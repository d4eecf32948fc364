"""Uploads: images that a reader brings along, held in the memory of that reader's session and nowhere else.

What a browser says of a file, its name, ending and type, is shown at most: the content decides what it is, no path is
made of a name, and nothing is written to disk.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st
from PIL import Image, ImageOps

from app import maps
from app.maps import Wanted
from app.opening import Answer, Opened
from app.worker import Ticket, Work, the_worker
from explain.archive.manifest import Entry
from explain.attribution import Array, Attribution
from explain.data.base import PARTS
from explain.data.decode import ImageRejected, decode_bytes
from explain.data.names import printable
from explain.engine import attribute, load_images
from explain.errors import ExplainError
from explain.training.run import Run

MOST = 20
"""Images of a session, and files of one upload."""

FILE_BYTES = 20 * 2**20
SESSION_BYTES = 50 * 2**20
SHOWN_QUALITY = 92
THUMBNAIL_SIDE = 192
NAME_LENGTH = 60

TOO_LARGE, TOO_MANY = "too_large", "too_many"
"""Reasons beside those of `explain.data.decode.REASONS`."""

SHELF = "_shelf"


@dataclass(frozen=True)
class Upload:
    """One usable image.

    Args:
        name: what its file was called, printable and not long; for the eye only.
        data: bytes of the file.
        sha256: of these bytes; the image is known by it.
        size: (width, height) in pixels, upright.
        flags: what decoding had to decide, see `explain.data.decode`.
        shown: JPEG of it, small enough for a page.
        thumbnail: JPEG of its middle, small and square.
    """

    name: str
    data: bytes = field(repr=False)
    sha256: str
    size: tuple[int, int]
    flags: tuple[str, ...]
    shown: bytes = field(repr=False)
    thumbnail: bytes = field(repr=False)

    @property
    def memory(self) -> int:
        """Bytes that it takes."""
        return len(self.data) + len(self.shown) + len(self.thumbnail)

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        """As a page shows it, uint8 (H, W, 3)."""
        return np.asarray(Image.open(io.BytesIO(self.shown)))

    @property
    def entry(self) -> Entry:
        """The image as the rest of the viewer knows images; there is no file behind its path."""
        return Entry(self.name, Path(), None, self.sha256)


@dataclass(frozen=True)
class Refused:
    """A file that cannot be used: its name, a reason in one word, and what was found, in English."""

    name: str
    reason: str
    detail: str = ""


@dataclass
class Shelf:
    """The images of one session, oldest first, and what became of the last files that were brought.

    Args:
        images: by SHA-256.
        refused: of the last files, those that cannot be used.
        dropped: names of older images that had to make room for them.
    """

    images: dict[str, Upload] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def put(self, files: Iterable[tuple[str, bytes]]) -> str | None:
        """Add files; those that cannot be used are listed, and the oldest images go where there is no room.

        Args:
            files: names and contents; read one after the other.

        Returns:
            The SHA-256 of the first usable one that there was room for; None where there is none.
        """
        self.refused, self.dropped = [], []
        came: list[str] = []
        remaining = iter(files)
        for name, data in islice(remaining, MOST):
            upload = take(name, data)
            if isinstance(upload, Refused):
                self.refused.append(upload)
                continue
            self.images.pop(upload.sha256, None)
            self.images[upload.sha256] = upload
            came.append(upload.sha256)
        self.refused += [Refused(shorten(name), TOO_MANY) for name, _ in remaining]
        while len(self.images) > MOST or sum(each.memory for each in self.images.values()) > SESSION_BYTES:
            self.dropped.append(self.images.pop(next(iter(self.images))).name)
        return next((sha256 for sha256 in came if sha256 in self.images), None)

    def remove(self, sha256: str) -> None:
        """Forget an image."""
        self.images.pop(sha256, None)


def take(name: str, data: bytes) -> Upload | Refused:
    """One file, looked at."""
    name = shorten(name)
    if len(data) > FILE_BYTES:
        return Refused(name, TOO_LARGE)
    try:
        decoded = decode_bytes(data)
    except ImageRejected as rejection:
        return Refused(name, rejection.reason, rejection.detail)
    size = decoded.image.size
    decoded.image.thumbnail((maps.WIDEST, maps.WIDEST))
    thumbnail = ImageOps.fit(decoded.image, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return Upload(name, data, hashlib.sha256(data).hexdigest(), size, decoded.flags,
                  to_jpeg(decoded.image), to_jpeg(thumbnail))  # fmt: skip


def to_jpeg(image: Image.Image) -> bytes:
    """An image as a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=SHOWN_QUALITY)
    return stream.getvalue()


def shorten(name: str, length: int = NAME_LENGTH) -> str:
    """A client's file name as something to show: without folders and unprintable characters, its middle left out."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    text = printable(last if len(last) <= 2 * length else last[:length] + last[-length:]) or "?"
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - half]}…{text[-half:]}"


def shelf() -> Shelf:
    """The images of this session."""
    found: Shelf = st.session_state.setdefault(SHELF, Shelf())
    return found


# ---- what models say of them


@dataclass(frozen=True)
class Judged:
    """What a model says of an image: probabilities (K,), 0-1, and rows and columns of its patch grid."""

    probabilities: Array
    grid: tuple[int, int]

    def answer(self, class_names: tuple[str, ...]) -> Answer:
        """The same as the rest of the viewer says it; nobody knows whether it is right."""
        index = int(np.argmax(self.probabilities))
        return Answer(self.probabilities, index, class_names[index], None)


def judged(run: Run, upload: Upload) -> Judged | ExplainError | None:
    """What a model says; None where it is not there yet."""
    found: Judged | ExplainError | None = the_worker().result(_judging_key(run, upload))
    return found


def judging(run: Run, upload: Upload, what: str) -> Work:
    """What the worker has to do for `judged`; `what` says it in words."""

    def judge(ticket: Ticket) -> Judged:
        import torch  # not for pages that only show

        model = maps.load_model(run).replica()
        images = load_images([decode_bytes(upload.data).image], model.transform)
        with torch.inference_mode():
            logits = model(images.to(model.device, model.dtype))
        return Judged(np.asarray(logits.double().softmax(1)[0].cpu().numpy()), model.layout.grid)

    return Work(_judging_key(run, upload), what, judge)


def _judging_key(run: Run, upload: Upload) -> tuple[Any, ...]:
    return ("judged", run.manifest.identity, upload.sha256)


def mapping(opened: Opened, run: Run, upload: Upload, wanted: Wanted, what: str) -> Work:
    """What the worker has to do for a map, kept under the key that the same file has in the data set."""
    options = maps.options_of(opened, wanted.method)

    def compute(ticket: Ticket) -> Attribution:
        return attribute(
            maps.load_model(run), [decode_bytes(upload.data).image], methods=wanted.method, targets=wanted.asked,
            options={wanted.method: options}, progress=ticket.say, cancelled=ticket.cancelled,
        )[wanted.method]  # fmt: skip

    return Work(maps.key_of(opened, upload.entry, wanted), what, compute)


def find_twin(opened: Opened, upload: Upload) -> tuple[str, str] | None:
    """Id and part ("train", "val", "test" or "") of the data set's image with the very same bytes; None for none."""
    if opened.pair is None:
        return None
    twins = (sample.id for sample in opened.pair.data.samples if sample.sha256 == upload.sha256)
    name = next(twins, None)
    if name is None:
        return None
    return name, next((part for part in PARTS if name in getattr(opened.pair.split, part)), "")


def find_samples(opened: Opened, most: int) -> Iterator[Entry]:
    """Test images to try the page with: of every class in turn."""
    if opened.pair is None:
        return
    by_class: dict[int, list[str]] = {}
    for name in opened.pair.split.test:
        by_class.setdefault(opened.pair.data.by_id[name].label, []).append(name)
    turns = ((turn, label, names[turn]) for label, names in by_class.items() for turn in range(min(most, len(names))))
    for _, _, name in sorted(turns)[:most]:
        yield opened.image(name)

"""Loading: the images of a shard in order, decoded ahead of whoever uses them.

An image that cannot be used is no error here: it comes with the reason as its status, and the work goes on. What is
hashed and what is decoded are the same bytes, read once.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Generic, TypeVar

from PIL import Image

from explain.data.decode import ImageRejected, decode_bytes, read_bytes

if TYPE_CHECKING:  # a process that only decodes imports this file, and must not wait for what the archive imports
    from explain.archive.manifest import Entry

HELD_PIXELS = 50_000_000
"""No further image is begun while so many decoded pixels (4 bytes each) wait; one image of the largest size."""


@dataclass(frozen=True)
class Picture:
    """What became of one file.

    Args:
        image: upright 8-bit RGB; None unless the status is "ok".
        status: "ok", "hash_mismatch", "decoder_crashed" or a reason of `explain.data.decode`.
        detail: one sentence that explains any other status than "ok".
        flags: what decoding had to decide, as `explain.data.decode` lists them.
    """

    image: Image.Image | None
    status: str = "ok"
    detail: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """One image of a shard: its row there, its line of the manifest, and the fields of `Picture`."""

    row: int
    entry: "Entry"
    image: Image.Image | None
    status: str = "ok"
    detail: str = ""
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: "Entry", row: int, picture: Picture) -> "Loaded":
        """The picture, at its place in the shard."""
        return cls(row, entry, picture.image, picture.status, picture.detail, picture.flags)


Decode = Callable[["Entry", int], Loaded]
"""Called with a line of the manifest and its row in the shard, on any thread; a bad image is a status, not an error."""


def read_picture(path: Path, sha256: str | None, root: Path | None = None) -> Picture:
    """Read, check and decode one file.

    Args:
        path: the file.
        sha256: hash that its bytes must have, 64 hex digits; None: not known, so not compared.
        root: folder that the file may not leave by a link; None: it may lie anywhere.
    """
    try:
        data = read_bytes(path, root=root)
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            detail = f"expected the file with SHA-256 {sha256[:12]}…, found {found[:12]}…: it was changed or replaced"
            return Picture(None, "hash_mismatch", detail)
        decoded = decode_bytes(data)
    except ImageRejected as rejection:
        return Picture(None, rejection.reason, rejection.detail)
    return Picture(decoded.image, flags=decoded.flags)


def read_image(entry: "Entry", row: int, root: Path | None = None) -> Loaded:
    """Read, check and decode the file of one line of the manifest, in this process; `root` as in `read_picture`."""
    return Loaded.of(entry, row, read_picture(entry.path, entry.sha256, root))


T = TypeVar("T", bound=Loaded)


def load_ahead(
    entries: Sequence["Entry"], decode: Callable[["Entry", int], T], *, ahead: int = 32, threads: int = 1
) -> Generator[T, None, None]:
    """Give the images in order while the next ones are decoded.

    Close it (`contextlib.closing`) when leaving early: what has not begun is then dropped and the threads end.

    Args:
        entries: the lines of the manifest that make up the shard.
        decode: what makes an image of a line, such as `read_image`.
        ahead: images that are decoded or being decoded at most, beside the one given last. Large images make it fewer,
            see `HELD_PIXELS`.
        threads: images decoded at once.
    """
    window = _Window(entries, decode, ahead, threads)
    try:
        for _ in entries:
            yield window.take()
    finally:
        window.close()


class _Window(Generic[T]):
    """The images between the one that was taken last and the one that is begun next.

    Whoever takes an image or finishes one begins the next: so no thread ever waits for room, and none is left waiting
    when the reader is gone.
    """

    def __init__(
        self, entries: Sequence["Entry"], decode: Callable[["Entry", int], T], ahead: int, threads: int
    ) -> None:
        self._entries, self._decode, self._ahead, self._threads = entries, decode, max(ahead, 1), threads
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._lock = RLock()  # an image that is finished at once calls back while the lock is held
        self._images: deque[Future[T]] = deque()
        self._begun = 0
        self._closed = False

    def take(self) -> T:
        """The next image in order; raises what `decode` raised for it."""
        with self._lock:
            self._begin()
            image = self._images.popleft()
            self._begin()
        return image.result()

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(cancel_futures=True)

    def _begin(self) -> None:
        while not self._closed and self._begun < len(self._entries) and self._has_room():
            image = self._pool.submit(self._decode, self._entries[self._begun], self._begun)
            self._images.append(image)
            self._begun += 1
            image.add_done_callback(self._finished)

    def _finished(self, _: "Future[T]") -> None:
        with self._lock:
            self._begin()

    def _has_room(self) -> bool:
        if not self._images:
            return True
        running = sum(not image.done() for image in self._images)
        return running < self._threads and len(self._images) < self._ahead and self._held_pixels() < HELD_PIXELS

    def _held_pixels(self) -> int:
        done = [image.result() for image in self._images if image.done() and image.exception() is None]
        return sum(one.image.width * one.image.height for one in done if one.image is not None)

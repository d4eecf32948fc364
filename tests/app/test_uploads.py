"""Uploads: what is taken, what is refused and why, and what a session remembers."""

import hashlib
import io
import os
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import uploads
from app.uploads import Refused, Shelf, Upload, shorten, take


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(number: int) -> bytes:
    return saved(picture(seed=number), "PNG")


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 3.6 billion pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


JPEG = saved(picture(200, 200), "JPEG")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


class Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("bomb.png", bomb(), "bomb"), ("drawing.png", SVG, "unsupported_format"),
        ("page.jpg", b"<html><script>alert(1)</script></html>", "unsupported_format"),
        ("weights.pt", pickle.dumps(Boom()), "unsupported_format"), ("cut.jpg", JPEG[: len(JPEG) // 2], "truncated"),
        ("empty.png", b"", "empty"), ("tiny.png", saved(picture(4, 4), "PNG"), "too_small"),
        ("narrow.png", saved(picture(900, 10), "PNG"), "too_small"), ("head.png", b"\x89PNG\r\n\x1a\nxxxx", "corrupt"),
        ("float.tif", saved(Image.fromarray(np.ones((20, 20), np.float32)), "TIFF"), "unsupported_mode"),
        ("large.png", b"\x89PNG" + bytes(uploads.FILE_BYTES), uploads.TOO_LARGE),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_reason(name: str, data: bytes, reason: str) -> None:
    found = take(name, data)
    assert isinstance(found, Refused) and (found.name, found.reason) == (name, reason)


def test_an_image_is_known_by_its_bytes_and_shown_small() -> None:
    data = saved(picture(2000, 1000), "PNG")
    found = take("large.png", data)
    assert isinstance(found, Upload)
    assert found.sha256 == hashlib.sha256(data).hexdigest() == found.entry.sha256 and found.size == (2000, 1000)
    assert found.picture.shape == (750, 1500, 3) and found.picture.dtype == np.uint8
    assert Image.open(io.BytesIO(found.thumbnail)).size == (192, 192)
    assert str(found.entry.path) == "." and found.memory > len(data)


def test_the_content_decides_and_decisions_are_told() -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = take("photo.png", saved(picture(40, 30), "JPEG", exif=exif))
    frames = take("page.bin", saved(picture(), "GIF", save_all=True, append_images=[picture(seed=1)]))
    deep = take("deep.png", saved(Image.fromarray(np.full((20, 30), 40000, np.uint16)), "PNG"))
    clear = take("clear.png", saved(Image.new("RGBA", (20, 20), (0, 0, 0, 0)), "PNG"))
    cmyk = take("cmyk.jpg", saved(picture().convert("CMYK"), "JPEG"))
    found = [turned, frames, deep, clear, cmyk]
    assert [each.flags for each in found if isinstance(each, Upload)] == [
        ("rotated",), ("multi_frame",), ("reduced_to_8_bit",), ("alpha_composited",), (),
    ]  # fmt: skip
    assert isinstance(turned, Upload) and turned.size == (30, 40) and turned.picture.shape == (40, 30, 3)
    assert isinstance(deep, Upload) and abs(int(deep.picture[0, 0, 0]) - 40000 // 256) <= 1


def test_one_bad_file_does_not_keep_the_good_ones_out() -> None:
    shelf = Shelf()
    first = shelf.put([("a.svg", SVG), ("b.png", png(1)), ("c.png", b""), ("d.png", png(2))])
    assert [each.name for each in shelf.images.values()] == ["b.png", "d.png"]
    assert [(each.name, each.reason) for each in shelf.refused] == [("a.svg", "unsupported_format"), ("c.png", "empty")]
    assert first is not None and shelf.images[first].name == "b.png"
    assert shelf.put([("e.png", b"")]) is None and len(shelf.images) == 2  # and what was said before is over
    assert [each.name for each in shelf.refused] == ["e.png"]


def test_the_same_bytes_are_one_image_under_the_newer_name() -> None:
    shelf = Shelf()
    shelf.put([("a.png", png(1)), ("b.png", png(2)), ("c.png", png(1))])
    assert [each.name for each in shelf.images.values()] == ["b.png", "c.png"]


def test_more_files_than_allowed_are_refused_and_the_oldest_images_make_room() -> None:
    shelf = Shelf()
    shelf.put((f"{number}.png", png(number)) for number in range(uploads.MOST + 2))
    assert len(shelf.images) == uploads.MOST and shelf.dropped == []
    assert [(each.name, each.reason) for each in shelf.refused] == [("20.png", "too_many"), ("21.png", "too_many")]
    shelf.put([("new.png", png(99))])
    assert shelf.dropped == ["0.png"] and len(shelf.images) == uploads.MOST and shelf.refused == []


def test_the_oldest_go_when_a_session_has_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, each = Shelf(), take("x", png(0))
    assert isinstance(each, Upload)
    monkeypatch.setattr(uploads, "SESSION_BYTES", int(2.5 * each.memory))
    newest = shelf.put([("a.png", png(1)), ("b.png", png(2)), ("c.png", png(3))])
    assert shelf.dropped == ["a.png"] and newest is not None and shelf.images[newest].name == "b.png"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("photo.jpg", "photo.jpg"), ("../../etc/passwd", "passwd"), ("C:\\fakepath\\a.png", "a.png"), ("", "?"),
        ("a\u202egnp.exe", "a%E2%80%AEgnp.exe"), ("a\nb.png", "a%0Ab.png"), ("dir/", "?"), ("糸.png", "糸.png"),
        ("x" * 5000 + ".png", "x" * 30 + "…" + "x" * 25 + ".png"),
    ],
)  # fmt: skip
def test_a_name_is_made_fit_to_show(given: str, shown: str) -> None:
    assert shorten(given) == shown and len(shown) <= uploads.NAME_LENGTH


def test_nothing_is_opened_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    take("warm.png", png(0))
    opened: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching[0] and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    for name in ("/tmp/evil.png", "../evil.png", str(Path.home() / "evil.png")):
        take(name, png(1))
        take(name, SVG)
    watching[0] = False
    assert opened == []

import gc
import hashlib
import os
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explain.archive.manifest import Entry
from explain.batch import loading
from explain.batch.loading import Loaded, load_ahead, read_image
from explain.data.decode import FORMATS_READ, ImageRejected, decode, decode_bytes


def picture(seed: int = 0, height: int = 24, width: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(path: Path, seed: int = 0, **options: object) -> Path:
    picture(seed).save(path, **options)
    return path


def entry(path: Path, sha256: str | None = None) -> Entry:
    return Entry(path.name, path, None, sha256, None)


def entries(count: int) -> list[Entry]:
    return [entry(Path(f"{row}.png")) for row in range(count)]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


class Watched:
    """A decoder that notes the rows it was asked for, and may be slow."""

    def __init__(self, seconds: float = 0, size: tuple[int, int] = (8, 8)) -> None:
        self.seconds, self.size, self.rows = seconds, size, []

    def __call__(self, entry: Entry, row: int) -> Loaded:
        self.rows.append(row)
        time.sleep(self.seconds)
        return Loaded(row, entry, Image.new("RGB", self.size))


# one image


def test_image_with_the_listed_hash_comes_with_its_pixels_row_and_entry(tmp_path):
    path = saved(tmp_path / "a.png")
    listed = entry(path, sha256_of(path))
    loaded = read_image(listed, 7)
    assert (loaded.row, loaded.entry, loaded.status, loaded.detail, loaded.flags) == (7, listed, "ok", "", ())
    assert np.array_equal(loaded.image, picture())


def test_image_without_a_listed_hash_is_not_compared(tmp_path):
    assert read_image(entry(saved(tmp_path / "a.png")), 0).status == "ok"


def test_image_that_was_changed_after_it_was_listed_is_a_hash_mismatch(tmp_path):
    path = saved(tmp_path / "a.png")
    listed = entry(path, sha256_of(path))
    saved(path, seed=1)
    loaded = read_image(listed, 0)
    assert (loaded.status, loaded.image) == ("hash_mismatch", None)
    assert listed.sha256[:12] in loaded.detail and sha256_of(path)[:12] in loaded.detail


def test_changed_file_that_no_longer_decodes_is_a_hash_mismatch_too(tmp_path):
    path = saved(tmp_path / "a.png")
    listed = entry(path, sha256_of(path))
    path.write_bytes(b"no picture")
    assert read_image(listed, 0).status == "hash_mismatch"


def test_files_that_cannot_be_used_come_with_the_reason_of_decode(tmp_path):
    saved(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "text.png").write_bytes(b"this is no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    expected = {"cut": "truncated", "text": "unsupported_format", "empty": "empty", "folder": "not_a_file",
                "pipe": "not_a_file", "gone": "missing", "nul\0": "missing"}  # fmt: skip
    found = {name: read_image(entry(tmp_path / f"{name}.png"), 0) for name in expected}
    assert {name: loaded.status for name, loaded in found.items()} == expected
    assert all(loaded.image is None and loaded.detail for loaded in found.values())


def test_link_out_of_the_root_is_refused_before_it_is_read(tmp_path):
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "link.png").symlink_to(saved(tmp_path / "a.png"))
    assert read_image(entry(inside / "link.png"), 0).status == "ok"
    assert read_image(entry(inside / "link.png"), 0, root=inside).status == "outside_root"


@pytest.mark.parametrize("kind", FORMATS_READ)
def test_bytes_decode_to_what_their_file_decodes_to(tmp_path, kind):
    path = saved(tmp_path / "a", format=kind)
    whole = path.read_bytes()
    assert decode_bytes(whole) == decode(path)
    for keep in (0, 16, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        assert outcome(decode_bytes, whole[:keep]) == outcome(decode, path)


def outcome(read, source) -> tuple:
    try:
        decoded = read(source)
    except ImageRejected as rejection:
        return rejection.reason, rejection.detail
    return decoded.image.tobytes(), decoded.flags


# ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_images_come_in_order_each_once_and_bad_ones_keep_their_place(tmp_path, threads):
    listed = [entry(saved(tmp_path / f"{row}.png", seed=row) if row % 5 else tmp_path / "gone") for row in range(40)]
    found = list(load_ahead(listed, read_image, threads=threads, ahead=4))
    assert [(one.row, one.entry) for one in found] == list(enumerate(listed))
    assert [one.status for one in found] == ["ok" if row % 5 else "missing" for row in range(40)]
    assert all(np.array_equal(one.image, picture(one.row)) for one in found if one.image is not None)
    assert decoders() == []


def test_no_entries_give_no_images():
    assert list(load_ahead([], read_image)) == []


def test_next_images_are_decoded_while_the_reader_works():
    decode = Watched(seconds=0.01)
    with closing(load_ahead(entries(100), decode=decode, ahead=5)) as images:
        next(images)
        until = time.monotonic() + 10
        while len(decode.rows) < 6 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        assert sorted(decode.rows) == list(range(6))  # the one given and 5 ahead, however long the reader takes


def test_large_images_are_decoded_only_a_few_ahead(monkeypatch):
    monkeypatch.setattr(loading, "HELD_PIXELS", 3 * 64 * 64)
    decode = Watched(size=(64, 64))
    with closing(load_ahead(entries(100), decode=decode, ahead=32)) as images:
        next(images)
        time.sleep(0.2)
        assert len(decode.rows) <= 1 + 3 + 1
        assert [one.row for one in images] == list(range(1, 100))


def test_one_image_larger_than_all_that_may_be_held_still_comes(monkeypatch):
    monkeypatch.setattr(loading, "HELD_PIXELS", 1)
    assert [one.row for one in load_ahead(entries(20), decode=Watched(), threads=2)] == list(range(20))


def test_at_most_the_given_number_of_threads_decode_at_once():
    running, most, lock = [0], [0], threading.Lock()

    def decode(entry: Entry, row: int) -> Loaded:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002)
        with lock:
            running[0] -= 1
        return Loaded(row, entry, None)

    list(load_ahead(entries(50), decode=decode, threads=3))
    assert 1 < most[0] <= 3


def test_closed_reader_leaves_no_thread_and_begins_nothing_more():
    decode = Watched(seconds=0.01)
    images = load_ahead(entries(1000), decode=decode)
    next(images)
    images.close()
    assert decoders() == []
    begun = len(decode.rows)
    time.sleep(0.05)
    assert len(decode.rows) == begun < 40


def test_reader_that_fails_leaves_no_thread():
    def reader() -> None:
        for _ in load_ahead(entries(1000), decode=Watched(seconds=0.001)):
            raise ValueError("the reader's own")

    with pytest.raises(ValueError, match="the reader's own"):
        reader()
    gc.collect()
    assert decoders() == []


def test_error_of_the_decoder_reaches_the_reader_at_its_row_and_leaves_no_thread():
    def decode(entry: Entry, row: int) -> Loaded:
        if row == 3:
            raise ZeroDivisionError("row three")
        return Loaded(row, entry, None)

    seen = []
    with pytest.raises(ZeroDivisionError, match="row three"):
        for one in load_ahead(entries(10), decode=decode):
            seen.append(one.row)
    assert seen == [0, 1, 2]
    assert decoders() == []

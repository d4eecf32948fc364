import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from poison import poisoned_site

from explain.archive.manifest import Entry
from explain.batch import isolated
from explain.batch.isolated import IsolatedDecoder
from explain.batch.loading import load_ahead, read_image
from explain.errors import ExplainError


@pytest.fixture
def poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(poisoned_site(tmp_path / "site"))


def saved(path: Path, seed: int = 0, word: bytes = b"") -> Path:
    values = np.random.default_rng(seed).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    Image.fromarray(values, "RGBA" if seed % 2 else None).save(path, "PNG")
    path.write_bytes(path.read_bytes() + word)
    return path


def entry(path: Path, sha256: str | None = None) -> Entry:
    return Entry(path.name, path, None, sha256, None)


def test_child_gives_the_pixels_flags_and_reasons_of_this_process(tmp_path):
    saved(tmp_path / "alpha.png", 1)
    Image.new("I;16", (9, 9), 40_000).save(tmp_path / "deep.png")
    whole = saved(tmp_path / "whole.png", 2).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:300])
    (tmp_path / os.fsdecode(b"no\xff utf-8\n.png")).write_bytes(whole)
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to(__file__)
    os.mkfifo(tmp_path / "pipe.png")
    listed = [entry(path) for path in sorted(tmp_path.iterdir())]
    listed += [entry(tmp_path / "gone.png"), entry(tmp_path / "nul\0.png"), entry(tmp_path / "whole.png", "0" * 64)]
    with IsolatedDecoder(tmp_path) as decode:
        found = [decode(one, row) for row, one in enumerate(listed)]
    assert found == [read_image(one, row, tmp_path) for row, one in enumerate(listed)]
    statuses = {one.status for one in found}
    assert statuses >= {"ok", "truncated", "outside_root", "not_a_file", "hash_mismatch", "missing"}


def test_pixels_survive_when_they_are_many_times_what_a_pipe_holds(tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1100, 3), dtype=np.uint8)).save(path)
    with IsolatedDecoder() as decode:
        assert decode(entry(path), 0) == read_image(entry(path), 0)


@pytest.mark.usefixtures("poison")
def test_file_that_kills_its_decoder_is_marked_and_a_new_child_goes_on(tmp_path):
    words = [b"", b"KILL", b"", b"EXIT", b"EXIT", b"NOISE", b""]
    listed = [entry(saved(tmp_path / f"{row}.png", row, word)) for row, word in enumerate(words)]
    with IsolatedDecoder() as decode:
        found = list(load_ahead(listed, decode=decode))
    bad = ["ok", "decoder_crashed", "ok", "decoder_crashed", "decoder_crashed", "ok", "ok"]
    assert [one.status for one in found] == bad
    assert [one.detail for one in found if one.status != "ok"] == [
        "the process that decoded it was killed by signal 9",
        "the process that decoded it ended with code 3",
        "the process that decoded it ended with code 3",
    ]
    assert all(one == read_image(one.entry, one.row) for one in found if one.status == "ok")


@pytest.mark.usefixtures("poison")
def test_mask_that_kills_its_decoder_is_found_before_this_process_opens_it(tmp_path):
    image, mask, killer = (saved(tmp_path / name, word=word) for name, word in
                           [("a.png", b""), ("mask.png", b""), ("killer.png", b"KILL")])  # fmt: skip
    with IsolatedDecoder() as decode:
        found = [decode(Entry("a", image, None, None, one), 0) for one in (mask, killer, tmp_path / "gone.png")]
    assert [one.status for one in found] == ["ok", "bad_mask", "ok"]  # the last is told apart where it is opened
    assert found[1].image is None and "killed by signal 9" in found[1].detail


@pytest.mark.usefixtures("poison")
def test_file_that_never_ends_is_marked_after_its_time(tmp_path):
    began = time.monotonic()
    with IsolatedDecoder(seconds=1) as decode:
        hung = decode(entry(saved(tmp_path / "a.png", word=b"HANG")), 0)
        assert (hung.status, hung.detail) == ("decoder_crashed", "the process that decoded it did not end in time")
        assert decode(entry(saved(tmp_path / "b.png")), 1).status == "ok"
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("poison")
def test_file_that_wants_too_much_memory_is_refused_and_this_process_never_pays(tmp_path):
    with IsolatedDecoder() as decode:
        greedy = decode(entry(saved(tmp_path / "a.png", word=b"GREED")), 0)
        assert (greedy.status, greedy.image) == ("decoder_crashed", None)
        assert decode(entry(saved(tmp_path / "b.png")), 1).status == "ok"


def test_child_that_died_between_two_images_is_not_the_fault_of_the_next(tmp_path):
    path = saved(tmp_path / "a.png")
    with IsolatedDecoder() as decode:
        decode(entry(path), 0)
        os.kill(decode._child._process.pid, signal.SIGKILL)
        decode._child._process.wait()
        assert decode(entry(path), 1).status == "ok"


def test_leaving_ends_the_child(tmp_path):
    with IsolatedDecoder() as decode:
        decode(entry(saved(tmp_path / "a.png")), 0)
        process = decode._child._process
        assert process.poll() is None
    assert process.returncode is not None


def test_child_that_cannot_start_is_an_error_and_no_image_is_blamed(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated.sys, "executable", "/bin/false")
    with IsolatedDecoder() as decode, pytest.raises(ExplainError, match="ended with code 1 before the first image"):
        decode(entry(saved(tmp_path / "a.png")), 0)
    monkeypatch.setattr(isolated.sys, "executable", str(tmp_path / "no python"))
    with IsolatedDecoder() as decode, pytest.raises(ExplainError, match="No such file"):
        decode(entry(saved(tmp_path / "a.png")), 0)


@pytest.mark.usefixtures("poison")
def test_orphaned_child_ends_by_itself_even_while_its_file_hangs(tmp_path):
    path = saved(tmp_path / "a.png", word=b"HANG")
    command = [sys.executable, "-P", "-m", "explain.batch.isolated", str(2**31), "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout.readline() == b"ready\n"
        child.stdin.write(b'{"path": "%s", "sha256": null, "root": null}\n' % os.fsencode(path))
        child.stdin.close()
        assert child.wait(10) == -signal.SIGALRM


def test_child_does_not_import_torch():
    program = "import sys, explain.batch.isolated; print(*{'torch', 'pyarrow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"

"""`explain attribute` and `explain archive` as a user meets them: output, files, exit codes, and signals."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from squares import draw_pictures

from explain import cli
from explain.archive.archive import MapArchive
from explain.archive.store import Store
from explain.batch import base
from explain.training.pair import MatchedPair

QUICK = ("--method", "attention_rollout", "--device", "cpu", "--shard-size", "2", "--no-pictures")


def explain(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `explain …` in this process; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["explain", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return lambda *arguments: explain(monkeypatch, *arguments)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "images", per_class=2)


@pytest.fixture
def finished(command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path) -> Path:
    """An archive of four images in two shards."""
    assert command("attribute", tiny_pair.vpt.path, images, "--out", tmp_path / "maps", *QUICK) == 0
    return tmp_path / "maps"


# ---- attribute


def test_attribute_keeps_maps_in_an_archive_and_draws_pictures(
    command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tiny_pair.vpt.path, tmp_path / "maps"
    arguments = ("--method", "attention_rollout", "--method", "grad_cam", "--target", "right", "--device", "cpu")
    assert command("attribute", run, images, "--out", out, *arguments) == 0
    shown = capsys.readouterr().out
    assert "4 images: about" in shown and f"4 images in {out}: 4 ok" in shown
    archive = MapArchive(out)
    assert (archive.models, archive.methods) == (("vpt",), ("attention_rollout", "grad_cam"))
    right = archive.class_names.index("right")
    assert [image["vpt"]["grad_cam"].target for image in archive] == [right] * 4
    assert len(list((out / "pictures").rglob("*.png"))) >= 4 * 2


def test_attribute_of_a_pair_explains_labels_by_both_models(
    command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path
) -> None:
    assert command("attribute", tiny_pair.path, images, "--out", tmp_path / "maps", *QUICK) == 0
    archive = MapArchive(tmp_path / "maps")
    assert archive.models == ("vpt", "ft")
    assert archive.to_pandas()["ft_target"].tolist() == [0, 0, 1, 1]


def test_options_reach_the_method(command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path) -> None:
    arguments = ("--method", "integrated_gradients", "--option", "integrated_gradients.n_steps=2", "--store-maps",
                 "grid", "--device", "cpu", "--no-pictures")  # fmt: skip
    assert command("attribute", tiny_pair.vpt.path, images, "--out", tmp_path / "maps", *arguments) == 0
    job = MapArchive(tmp_path / "maps").job
    assert job.methods["integrated_gradients"]["n_steps"] == 2
    assert job.store_maps == "grid"


def test_images_that_cannot_be_used_are_named_and_the_others_explained(
    command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "left" / "empty.jpg").write_bytes(b"")
    (images / "left" / "\x1b[31mred.png").write_bytes(b"no image")
    assert command("attribute", tiny_pair.vpt.path, images, "--out", tmp_path / "maps", *QUICK) == 3
    told = capsys.readouterr()
    assert "left out: left/empty.jpg: empty:" in told.err
    assert "red.png: unsupported_format:" in told.err and "\x1b" not in told.err
    assert "6 images" in told.out and "4 ok" in told.out
    assert sum(bool(image) for image in MapArchive(tmp_path / "maps")) == 4


def test_images_that_change_on_the_way_are_named(
    command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def changing(archive: object, models: object, shard: int, **rest: object) -> object:
        (images / "left" / "00.png").write_bytes(b"something else")
        (images / "right" / "01.png").unlink(missing_ok=True)
        return run(archive, models, shard, **rest)

    run = base.run_shard
    monkeypatch.setattr(base, "run_shard", changing)
    assert command("attribute", tiny_pair.vpt.path, images, "--out", tmp_path / "maps", *QUICK) == 3
    told = capsys.readouterr().err
    assert "left/00.png: hash_mismatch" in told and "right/01.png: missing" in told
    assert MapArchive(tmp_path / "maps").to_pandas()["status"].tolist() == ["hash_mismatch", "ok", "ok", "missing"]


def test_the_same_command_goes_on_and_another_is_refused(
    command: Command, finished: Path, tiny_pair: MatchedPair, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "receipts/000/000001.json").unlink()
    assert command("attribute", tiny_pair.vpt.path, "--out", finished, *QUICK, "--target", "left") == 2
    assert "targets is predicted there and 0 now" in capsys.readouterr().err
    assert command("attribute", tiny_pair.vpt.path, images, "--out", finished, *QUICK) == 0
    assert "2 of 4 images are there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--batch-size", "0"], 2, "batch_size"),
        (["--threads", "0"], 2, "threads"),
        (["--shard-size", "0"], 2, "shard_size"),
        (["--memory", "0"], 2, "memory_budget"),
        (["--store-maps", "jpeg"], 2, "store_maps"),
        (["--method", "nosuch"], 2, "nosuch"),
        (["--option", "n_steps=3"], 2, "method.name=value"),
        (["--target", "middle"], 2, "middle"),
        (["--target", "7"], 2, "out of range"),
        (["--target", "-1"], 2, "-1"),
        (["--backend", "nosuch"], 2, "inline"),
        (["--workers", "2"], 2, "workers"),
        (["--device", "tpu"], 2, "tpu"),
        (["--out", "/dev/null/maps"], 2, "nothing can be written"),
        (["--out", "nosuch://bucket/maps"], 2, "nosuch"),
    ],
)
def test_an_argument_that_does_not_fit_is_one_line(
    arguments: list[str], code: int, words: str, command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert command("attribute", tiny_pair.vpt.path, images, "--out", tmp_path / "maps", *QUICK, *arguments) == code
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told
    assert not (tmp_path / "maps" / "job.json").exists()


def test_a_folder_without_images_is_refused(
    command: Command, tiny_pair: MatchedPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert command("attribute", tiny_pair.vpt.path, tmp_path / "empty", "--out", tmp_path / "maps", *QUICK) == 2
    assert "no images" in capsys.readouterr().err


def test_a_disk_that_fails_is_one_line_with_exit_4(
    command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def putting(self: Store, key: str, data: object) -> None:
        if key.startswith("metrics"):
            with self._failures_named("written", key):
                raise OSError(28, os.strerror(28))
        put(self, key, data)

    put = Store.put
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", putting)
        assert command("attribute", tiny_pair.vpt.path, images, "--out", tmp_path / "maps", *QUICK) == 4
    told = capsys.readouterr().err
    assert "No space left on device" in told and "MB are free there" in told and "Traceback" not in told
    assert command("attribute", tiny_pair.vpt.path, images, "--out", tmp_path / "maps", *QUICK) == 0


# ---- archive


def test_info_says_what_an_archive_holds(
    command: Command, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("archive", "info", finished) == 0
    shown = capsys.readouterr().out
    assert "4 of images, in 2 shards" in shown and "attention_rollout" in shown and "4×4 grid" in shown
    assert MapArchive(finished).content_sha256 in shown


def test_a_whole_archive_is_verified(command: Command, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("archive", "verify", finished) == 0
    assert "is whole: 4 images" in capsys.readouterr().out
    assert command("archive", "repair", finished) == 0
    assert "nothing is damaged" in capsys.readouterr().out


def test_damage_is_named_and_repaired_and_only_that_shard_computed_again(
    command: Command, finished: Path, tiny_pair: MatchedPair, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, path = MapArchive(finished).content_sha256, finished / "maps/000/000001.parquet"
    path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
    assert command("archive", "verify", finished) == 5
    told = capsys.readouterr().err
    assert "damaged: shard 1:" in told and "000001.parquet" in told and "explain archive repair" in told
    assert "shard 0" not in told
    assert command("archive", "repair", finished) == 4
    assert "1 damaged shards were taken out (1)" in capsys.readouterr().err
    assert command("archive", "verify", finished) == 4
    assert "1 shards are not computed yet" in capsys.readouterr().err
    assert command("attribute", tiny_pair.vpt.path, images, "--out", finished, *QUICK) == 0
    assert "2 of 4 images are there already" in capsys.readouterr().out
    assert MapArchive(finished).content_sha256 == content
    assert command("archive", "verify", finished) == 0


def test_attribute_tells_the_command_that_repairs(
    command: Command, finished: Path, tiny_pair: MatchedPair, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "metrics/000/000000.parquet").unlink()
    arguments = ["attribute", str(tiny_pair.vpt.path), str(images), "--out", str(finished), *QUICK]
    assert command(*arguments) == 5
    told = capsys.readouterr().err
    assert told.rstrip().endswith(shlex.join(["explain", *arguments, "--repair"]))
    assert command(*arguments, "--repair") == 0
    assert command("archive", "verify", finished) == 0


@pytest.mark.parametrize("action", ["info", "verify", "repair"])
def test_a_place_without_an_archive_is_one_line(
    action: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("archive", action, tmp_path) == 5
    told = capsys.readouterr().err
    assert "holds no archive of maps" in told and "Traceback" not in told


def test_an_archive_is_exported(command: Command, finished: Path, tmp_path: Path) -> None:
    assert command("archive", "export", finished, tmp_path / "npz", "--format", "npz") == 0
    assert list((tmp_path / "npz").rglob("*.npz"))


# ---- signals, to a process of its own


class Running:
    """`explain attribute` of 96 images in shards of four, in a process of its own."""

    def __init__(self, run: Path, images: Path, out: Path) -> None:
        self.out = out
        self.arguments = ["attribute", str(run), str(images), "--out", str(out), "--method", "integrated_gradients",
                          "--option", "integrated_gradients.n_steps=4", "--shard-size", "4", "--device", "cpu",
                          "--threads", "1", "--no-pictures"]  # fmt: skip
        self.process = self.start(self.arguments)

    @staticmethod
    def start(arguments: list[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "explain.cli", *arguments]
        # what runs in the background of a shell was told to ignore SIGINT, and its children inherit that
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def wait_for(self, name: str) -> None:
        """Until the run has written a file."""
        deadline = time.monotonic() + 120
        while not (self.out / name).exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.process.communicate()
            time.sleep(0.005)

    def stop(self, *signals: signal.Signals, pause: float = 0.05) -> tuple[str, float]:
        """Send the signals; what the process said on its way out, and how many seconds that took."""
        began = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
            time.sleep(pause)
        said = self.process.communicate(timeout=60)[1]
        return said, time.monotonic() - began

    def resume(self, line: str) -> None:
        """Do what the last line says."""
        program, *arguments = shlex.split(line[line.index("explain attribute") :])
        assert program == "explain" and arguments == self.arguments
        process = self.start(arguments)
        said = process.communicate(timeout=240)
        assert process.returncode == 0, said


@pytest.fixture
def running(tiny_pair: MatchedPair, tmp_path: Path) -> Iterator[Running]:
    """Started, with an image folder whose name has a space."""
    images = draw_pictures(tmp_path / "my images", per_class=48)
    shutil.rmtree(tmp_path / "maps", ignore_errors=True)
    found = Running(tiny_pair.vpt.path, images, tmp_path / "maps")
    yield found
    found.process.kill()
    found.process.communicate()


def assert_stopped_well(running: Running, said: str, seconds: float) -> str:
    """Exit 4 soon, in one line; that line."""
    assert running.process.returncode == 4, said
    assert seconds < 10
    lines = said.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in said, said
    return lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_in_the_middle_stops_the_run_and_its_command_finishes_it(
    number: signal.Signals, running: Running
) -> None:
    running.wait_for("receipts/000/000001.json")
    line = assert_stopped_well(running, *running.stop(number))
    archive = MapArchive(running.out)
    done = set(archive.committed())
    assert {0, 1} <= done and len(done) < 24
    before = {shard: archive.receipt(shard) for shard in done}
    running.resume(line)
    after = MapArchive(running.out)
    assert after.finished is not None and after.finished.statuses == {"ok": 96}
    assert {shard: after.receipt(shard) for shard in done} == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("pause", [0.0, 0.01, 0.1])
def test_two_signals_stop_it_too(number: signal.Signals, pause: float, running: Running) -> None:
    running.wait_for("receipts/000/000001.json")
    said, seconds = running.stop(number, number, pause=pause)
    # the second may come when everything is said and Python itself is on its way out
    assert running.process.returncode in (4, -number), said
    assert seconds < 10
    process = running.start(running.arguments)
    assert process.communicate(timeout=240) and process.returncode == 0
    assert len(MapArchive(running.out).to_arrow()) == 96


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("later", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_a_signal_while_models_are_loaded_or_images_listed_stops_it(
    number: signal.Signals, later: float, running: Running
) -> None:
    running.wait_for("writer.lock")
    time.sleep(later)
    line = assert_stopped_well(running, *running.stop(number))
    running.resume(line)
    assert len(MapArchive(running.out).to_arrow()) == 96


@pytest.mark.parametrize("piece", ["checking images", "listing images", "explaining"])
def test_an_interruption_at_any_piece_of_work_tells_the_command(
    piece: str, command: Command, tiny_pair: MatchedPair, images: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    @contextmanager
    def interrupting() -> Iterator[Callable[[str, int, int], None]]:
        def report(what: str, done: int, total: int) -> None:
            if what == piece:
                raise KeyboardInterrupt

        yield report

    given = [images] if piece == "checking images" else sorted(images.rglob("*.png"))
    arguments = ["attribute", str(tiny_pair.vpt.path), *map(str, given), "--out", str(tmp_path / "maps"), *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr("explain.cli_archive.progress_bars", interrupting)
        assert command(*arguments) == 4
    assert capsys.readouterr().err.rstrip().endswith(shlex.join(["explain", *arguments]))
    assert command(*arguments) == 0
    assert not np.any(MapArchive(tmp_path / "maps").to_pandas()["status"] != "ok")

"""A run under attack: disks that fail, memory that runs out, images that change, writers that meet."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_archive import explain_all, files_of, small_model, small_models

from explain.archive.archive import MapArchive
from explain.archive.folder import Folder
from explain.archive.verify import verify
from explain.batch.base import Backend, Done, Work
from explain.batch.inline import Inline
from explain.batch.models import Source
from explain.batch.shard import Step
from explain.data.base import Dataset
from explain.errors import InputError, StorageError
from explain.methods.attention_rollout import AttentionRollout
from explain.model import TunedModel


@dataclass(frozen=True)
class Job:
    """Four images in two shards, and what they give when nothing fails."""

    model: TunedModel
    data: Dataset
    files: dict[str, bytes]
    content: str

    def run(self, out: Path, **settings: Any) -> MapArchive:
        """Begin it, or go on with it."""
        return explain_all(self.model, self.data, out, methods="attention_rollout", shard_size=2, **settings)

    def check(self, out: Path) -> None:
        """It is finished, and no file differs from those of a run without faults, nor is left over."""
        found, written = MapArchive(out), files_of(out)
        assert found.content_sha256 == self.content
        assert verify(found) == []
        assert set(written) | {"events.jsonl"} == set(self.files)
        same = [name for name in self.files if name.split("/")[0] in ("manifest", "maps", "metrics", "table")]
        assert {name: written[name] for name in same} == {name: self.files[name] for name in same}


@pytest.fixture(scope="module")
def job(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Job:
    model, data = small_model(), pictures.select([sample.id for sample in pictures.samples[::6]])
    found = Job(model, data, {}, "").run(tmp_path_factory.mktemp("whole") / "maps")
    return Job(model, data, files_of(Path(found.store.url)), found.content_sha256)


def assert_nothing_is_promised_that_is_not_there(out: Path) -> None:
    if (out / "job.json").exists():
        assert verify(MapArchive(out)) == []
    else:
        assert not list(out.glob("receipts/*/*"))


# ---- disks that fail at one call


class FailingDisk:
    """Lets the n-th call that changes a folder fail, once."""

    CALLS = ("open", "write", "fsync", "replace", "link", "mkdir")

    def __init__(self, folder: Path, number: int, code: int) -> None:
        self.folder, self.left, self.code = folder, number, code
        self.failed: tuple[str, str] | None = None

    @contextmanager
    def plugged_in(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in self.CALLS:
                patch.setattr(os, name, self._failing(name, getattr(os, name)))
            yield

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(target: Any, *rest: Any, **named: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
            if str(path).startswith(str(self.folder)):
                self.left -= 1
                if self.left == 0:
                    self.failed = name, str(path)
                    raise OSError(self.code, os.strerror(self.code), path)
            return call(target, *rest, **named)

        return calling


def fail_at(job: Job, out: Path, number: int, code: int) -> bool:
    """Run with the n-th call failing, look at what is left, and go on; False when there is no such call."""
    disk = FailingDisk(out, number, code)
    error: Exception | None = None
    with disk.plugged_in():
        try:
            job.run(out)
        except (StorageError, InputError) as caught:
            error = caught
    if disk.failed is None:
        assert error is None
        return False
    call, path = disk.failed
    if path.endswith("events.jsonl"):
        assert error is None  # the log of events is no reason to stop
    else:
        assert isinstance(error, StorageError), (call, path, error)
        assert str(out) in str(error) and os.strerror(code) in str(error)
        if "written" in str(error):
            assert re.search(r"[0-9.]+ MB are free there.*Finished shards are kept", str(error))
        assert error.exit_code == 4
    assert_nothing_is_promised_that_is_not_there(out)
    job.run(out)
    job.check(out)
    return True


@pytest.mark.parametrize(
    ("first", "step"), [(3, 12), *(pytest.param(one, 4, marks=pytest.mark.slow) for one in (1, 2, 3, 4))]
)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_wherever_the_disk_fails_the_work_stops_and_goes_on_later(
    first: int, step: int, code: int, job: Job, tmp_path: Path
) -> None:
    number = first + (step // 2 if step == 12 and code == errno.EIO else 0)
    tried = 0
    while fail_at(job, tmp_path / str(number), number, code):
        number, tried = number + step, tried + 1
    assert tried > 5


# ---- disks that are full, for real


@contextmanager
def largest_file(count: int) -> Iterator[None]:
    """No file of this process may become larger; the system says EFBIG."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("count", [1, 1000, 2900, 4000])
def test_a_limit_on_the_size_of_files_stops_the_work(count: int, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    with largest_file(count), pytest.raises(StorageError, match=f"{os.strerror(errno.EFBIG)}; .* MB are free"):
        job.run(out)
    assert_nothing_is_promised_that_is_not_there(out)
    job.run(out)
    job.check(out)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "name", ["job.json", "maps/000/000001", "metrics/000/000001", "receipts/000/000001", "finished"]
)
def test_a_full_device_stops_the_work_at_any_file(
    name: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opening(path: Any, *rest: Any, **named: Any) -> int:
        folder, _, stem = name.rpartition("/")
        wanted = f"{out}/{folder}" if folder else str(out)
        hit = os.path.dirname(path) == wanted and os.path.basename(path).startswith(f".{stem}")
        return real("/dev/full", os.O_WRONLY) if hit else real(path, *rest, **named)

    out, real = tmp_path / "maps", os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        with pytest.raises(StorageError, match=os.strerror(errno.ENOSPC)) as failed:
            job.run(out)
    assert f"{out}/{name}" in str(failed.value)
    assert_nothing_is_promised_that_is_not_there(out)
    job.run(out)
    job.check(out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 kB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no disk can be mounted here: {tried.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def test_a_full_disk_stops_the_work_which_goes_on_when_there_is_room(small_disk: Path, job: Job) -> None:
    out = small_disk / "maps"
    said: list[str] = []
    with pytest.raises(StorageError, match=r"0\.0 MB are free there"):
        job.run(out, say=said.append)
    assert_nothing_is_promised_that_is_not_there(out)
    remount(small_disk, "size=4m")
    job.run(out)
    job.check(out)


def test_a_disk_that_is_read_only_is_refused_before_a_model_is_loaded(
    small_disk: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    remount(small_disk, "ro")
    monkeypatch.setattr(Source, "load", lambda source: pytest.fail("a model was loaded"))
    with pytest.raises(InputError, match=f"nothing can be written in .*{os.strerror(errno.EROFS)}"):
        job.run(small_disk / "maps")


def test_too_little_room_is_said_before_the_work(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Folder, "free_bytes", lambda folder: 100)
    job.run(tmp_path / "maps", say=said.append)
    assert "(100 B free)" in said[0]
    assert said[1].startswith("warning: that is more than the disk has room for")


# ---- places where nothing can be written


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    code: int, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if str(path).startswith(str(tmp_path)) and flags & os.O_CREAT:
            raise OSError(code, os.strerror(code), path)
        return real(path, flags, *rest, **named)

    real = os.open
    monkeypatch.setattr(Source, "load", lambda source: pytest.fail("a model was loaded"))
    monkeypatch.setattr(os, "open", opening)
    with pytest.raises(InputError, match="nothing can be written in .*choose another place") as refused:
        job.run(tmp_path / "maps")
    assert refused.value.exit_code == 2


def test_a_place_below_a_file_is_refused_before_a_model_is_loaded(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Source, "load", lambda source: pytest.fail("a model was loaded"))
    with pytest.raises(InputError, match="nothing can be written in"):
        job.run(tmp_path / "file" / "maps")


@pytest.mark.parametrize("home", ["/proc/nobody", "/dev/null"])
def test_without_a_home_that_can_be_written_everything_works(
    home: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EXPLAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    found = job.run(tmp_path / "maps")
    name = job.data.samples[2].id
    assert found[name]["model"]["attention_rollout"].shape == (3, 4)
    assert len(found.to_arrow()) == 4
    assert verify(found) == []


def test_a_bucket_whose_index_has_no_place_says_what_to_set(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXPLAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/nobody")
    found = explain_all(job.model, job.data, "memory://no-home", methods="attention_rollout")
    with pytest.raises(StorageError, match="EXPLAIN_CACHE"):
        found[job.data.samples[0].id]


# ---- memory


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_passes_that_do_not_fit_are_halved_and_give_the_same_maps(
    largest: int, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: TunedModel, images: torch.Tensor) -> torch.Tensor:
        if len(images) > largest:
            raise torch.OutOfMemoryError("a GPU of a few bytes")
        return real(self, images)

    models, data, real = small_models(), pictures.select([one.id for one in pictures.samples[:8]]), TunedModel.forward
    expected = explain_all(models, data, tmp_path / "small", store_maps="fp16", batch_size=largest)
    monkeypatch.setattr(TunedModel, "forward", forward)
    found = explain_all(models, data, tmp_path / "maps", store_maps="fp16")
    assert set(found.to_pandas()["status"]) == {"ok"}
    for image, other in zip(found, expected, strict=True):
        for model in found.models:
            np.testing.assert_allclose(image.logits[model], other.logits[model], rtol=1e-5, atol=1e-5)
            for method, stored in image[model].items():
                scale = np.abs(stored.values).max()
                np.testing.assert_allclose(stored.values, other[model][method].values, atol=scale * (1e-5 + 2**-10))


Hurt = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def hurting(monkeypatch: pytest.MonkeyPatch, path: Path, hurt: Hurt) -> None:
    """Let forwards hurt one image: `hurt` is called with logits and which of the images are that one."""

    def forward(self: TunedModel, images: torch.Tensor) -> torch.Tensor:
        logits = real(self, images)
        if images.shape[1:] != marked.shape[1:]:  # points of a path, as tokens
            return logits
        return hurt(logits, (images == marked).flatten(1).all(1))

    transform, real = small_model().transform, TunedModel.forward
    marked = transform.normalise(transform.pixels(Image.open(path).convert("RGB"))[None])
    monkeypatch.setattr(TunedModel, "forward", forward)


@pytest.mark.parametrize("row", [0, 5, 7])
def test_an_image_that_never_fits_is_a_row_with_a_reason(
    row: int, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hurt(logits: torch.Tensor, marked: torch.Tensor) -> torch.Tensor:
        if marked.any():
            raise torch.OutOfMemoryError("no memory for this one")
        return logits

    data = pictures.select([one.id for one in pictures.samples[:8]])
    hurting(monkeypatch, data.samples[row].path, hurt)
    table = explain_all(small_model(), data, tmp_path / "maps").to_pandas()
    assert table["status"].tolist() == ["oom" if one == row else "ok" for one in range(8)]
    assert "no memory for this one" in table["detail"][row]


# ---- numbers that are none


def test_a_model_that_never_fits_is_refused_before_the_work(
    pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: TunedModel, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory for any")

    monkeypatch.setattr(TunedModel, "forward", forward)
    with pytest.raises(InputError, match="cannot explain any image: no memory for any"):
        explain_all({"vpt": small_model()}, pictures, tmp_path / "maps")
    assert not (tmp_path / "maps" / "job.json").exists()


@pytest.mark.parametrize("row", [0, 5])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_whose_logits_are_no_numbers_is_a_row_with_a_reason(
    row: int, value: float, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures.select([one.id for one in pictures.samples[:8]])
    hurting(monkeypatch, data.samples[row].path, lambda logits, marked: logits.masked_fill(marked[:, None], value))
    found = explain_all(small_models(), data, tmp_path / "maps")
    table = found.to_pandas()
    assert table["status"].tolist() == ["nonfinite_output" if one == row else "ok" for one in range(8)]
    assert table["detail"][row].startswith("logits of this image")
    assert table.loc[row].filter(like="vpt_").isna().all()
    assert dict(found[data.samples[row].id]) == {}
    assert found.finished is not None and found.finished.statuses == {"nonfinite_output": 1, "ok": 7}


def test_a_map_that_is_no_number_names_its_method(
    pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def each(self: AttentionRollout, trace: Any, targets: Any) -> Any:
        found = real(self, trace, targets)
        first = trace.images.flatten(1).sum(1)
        for maps in found:
            maps.values[first == marked] = torch.nan
        return found

    data, real, model = pictures.select([one.id for one in pictures.samples[:8]]), AttentionRollout.each, small_model()
    pixels = model.transform.pixels(Image.open(data.samples[6].path).convert("RGB"))
    marked = model.transform.normalise(pixels[None]).flatten(1).sum(1)
    monkeypatch.setattr(AttentionRollout, "each", each)
    table = explain_all(model, data, tmp_path / "maps").to_pandas()
    assert table["status"].tolist() == ["ok"] * 6 + ["nonfinite_output", "ok"]
    assert table["detail"][6].startswith(f"{AttentionRollout.label} maps of this image")


def test_a_model_that_gives_no_numbers_for_any_image_is_refused_before_the_work(
    pictures: Dataset, tmp_path: Path
) -> None:
    model = small_model()
    with torch.no_grad():
        model.vit.blocks[1].mlp.fc1.weight[:] = torch.nan
    with pytest.raises(InputError, match="cannot explain any image: logits .* weights finite"):
        explain_all({"vpt": model}, pictures, tmp_path / "maps")
    assert not (tmp_path / "maps" / "job.json").exists()


def test_a_map_that_is_the_same_everywhere_is_flagged_and_has_no_numbers_that_mean_nothing(
    pictures: Dataset, tmp_path: Path
) -> None:
    for number, sample in enumerate(pictures.samples[:2]):
        shutil.copyfile(sample.path, tmp_path / f"{number}.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")  # the baseline itself: nothing to split over its pixels
    paths = [tmp_path / name for name in ("0.png", "1.png", "black.png")]
    found = explain_all(small_models(), paths, tmp_path / "maps", store_maps="sample:1")
    table = found.to_pandas()
    assert set(table["status"]) == {"ok"}
    assert table["flags"].map(list).tolist() == [
        [], [], ["degenerate:vpt.integrated_gradients", "degenerate:ft.integrated_gradients"]
    ]  # fmt: skip
    black = table.iloc[2]
    assert black["vpt_integrated_gradients_low"] == black["vpt_integrated_gradients_high"] == 0
    assert np.isnan(black["vpt_integrated_gradients_gini"])
    assert np.isnan(black["agreement_integrated_gradients_vpt_ft"])
    assert table["vpt_integrated_gradients_gini"].notna().tolist() == [True, True, False]
    last = list(found)[2]["vpt"]["integrated_gradients"]
    assert last.shape == (24, 32) and not np.asarray(last).any()


# ---- images that change


@dataclass(frozen=True)
class After(Backend):
    """Something happens between the listing of images and the work."""

    what: Callable[[], object]

    def run(self, work: Work, shards: Iterator[int], done: Done, step: Step) -> None:
        """See `Backend.run`."""
        self.what()
        Inline().run(work, shards, done, step)


def test_images_that_change_after_they_were_listed_are_rows_with_a_reason(pictures: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, sample in enumerate(pictures.samples[:8]):
        shutil.copyfile(sample.path, folder / f"{number}.png")

    def happens() -> None:
        shutil.copyfile(folder / "0.png", folder / "1.png")
        (folder / "2.png").unlink()
        (folder / "3.png").unlink()
        (folder / "3.png").mkdir()
        with (folder / "4.png").open("ab") as stream:
            stream.write(b"\0")
        (folder / "5.png").unlink()
        (folder / "5.png").symlink_to(pictures.samples[5].path)

    found = explain_all(small_model(), folder, tmp_path / "maps", backend=After(happens))
    table = found.to_pandas()
    assert table["status"].tolist() == [
        "ok", "hash_mismatch", "missing", "not_a_file", "hash_mismatch", "outside_root", "ok", "ok"
    ]  # fmt: skip
    assert verify(found) == []
    for image in found:
        assert bool(image) == (image.status == "ok")


# ---- writers that meet


HOLDER = """
import sys
from explain.archive.lock import writing
from explain.archive.store import Store
with writing(Store.open(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes the archive."""
    command = [sys.executable, "-c", HOLDER, tmp_path / "maps"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_until_the_first_is_gone(
    holder: subprocess.Popen[str], job: Job, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    with pytest.raises(InputError, match=rf"process {holder.pid} on \S+ since .*wait for it") as refused:
        job.run(out)
    assert refused.value.exit_code == 2
    assert not (out / "job.json").exists()
    holder.kill()
    holder.wait()
    job.run(out)
    job.check(out)


def test_the_lock_is_given_back_when_the_work_fails(job: Job, tmp_path: Path) -> None:
    def failing() -> None:
        raise RuntimeError("a fault of another kind")

    with pytest.raises(RuntimeError, match="another kind"):
        job.run(tmp_path / "maps", backend=After(failing))
    job.run(tmp_path / "maps")
    job.check(tmp_path / "maps")


def test_events_are_lines_of_json(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path / "maps")
    lines = [json.loads(line) for line in (tmp_path / "maps" / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["working"]
    assert lines[0]["images"] == 4


def test_a_log_that_is_a_link_is_not_followed(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    out.mkdir()
    (tmp_path / "elsewhere").write_text("kept")
    (out / "events.jsonl").symlink_to(tmp_path / "elsewhere")
    job.run(out)
    assert (tmp_path / "elsewhere").read_text() == "kept"

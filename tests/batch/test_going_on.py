"""Interrupted and gone on with: nothing that was committed is lost, and nothing is computed twice."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_archive import METHODS, OPTIONS, explain_all, files_of, small_model, small_models

from explain.archive.archive import MapArchive
from explain.archive.paths import ATTEMPTS, key
from explain.archive.verify import verify
from explain.batch.base import Backend, Done, Work
from explain.batch.shard import Step
from explain.data.base import Dataset
from explain.errors import Cancelled, InputError, IntegrityError
from explain.model import TunedModel

KILLED = Path(__file__).with_name("killed_batch.py")
NOTHING = {name: [] for name in ("left_over", "missing", "other_bytes", "other_content", "problems")}


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_run_loses_nothing_and_computes_nothing_twice(kills: int, pictures: Dataset, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, KILLED, pictures.root, tmp_path, "0", str(kills)], check=True, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(KILLED.parents[1])},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["died"] >= kills and found["seen"] == 6 * found["jobs"]
    assert (found["lost"], found["recomputed"]) == (0, 0)
    assert {name: found[name] for name in NOTHING} == NOTHING


def few(pictures: Dataset, count: int = 8) -> Dataset:
    return pictures.select([sample.id for sample in pictures.samples[:count]])


def kept(folder: Path) -> dict[str, bytes]:
    """What must be equal whenever the same job is run."""
    parts = ("manifest", "maps", "metrics", "table")
    return {name: data for name, data in files_of(folder).items() if name.split("/")[0] in parts}


# ---- going on


@pytest.mark.parametrize("images", [1, 5, 12, 23])
def test_an_interrupted_run_goes_on_with_the_shards_that_are_left(
    images: int, pictures: Dataset, tmp_path: Path, computed: list[int]
) -> None:
    def interrupting(what: str, done: int, total: int) -> None:
        if what == "explaining" and done >= images:
            raise KeyboardInterrupt

    models = small_models()
    with pytest.raises(Cancelled, match="every committed shard is kept"):
        explain_all(models, pictures, tmp_path / "maps", progress=interrupting)
    before = MapArchive(tmp_path / "maps").committed()
    assert len(before) in (-(-images // 4) - 1, -(-images // 4))
    computed.clear()
    said: list[str] = []
    found = explain_all(models, pictures, tmp_path / "maps", say=said.append)
    assert computed == [shard for shard in range(6) if shard not in before]
    assert said[0].startswith("going on with the 24 images")
    whole = explain_all(models, pictures, tmp_path / "whole")
    assert kept(tmp_path / "maps") == kept(tmp_path / "whole")
    assert found.content_sha256 == whole.content_sha256
    assert verify(found) == []


def test_a_finished_archive_is_left_alone(pictures: Dataset, tmp_path: Path, computed: list[int]) -> None:
    model = small_model()
    explain_all(model, few(pictures), tmp_path / "maps")
    before = files_of(tmp_path / "maps")
    computed.clear()
    explain_all(model, few(pictures), tmp_path / "maps")
    explain_all(model, None, tmp_path / "maps")
    assert computed == []
    assert files_of(tmp_path / "maps") == before


def test_what_killed_processes_left_is_cleared_away(begun: "Begun", tmp_path: Path) -> None:
    folder = shutil.copytree(begun.folder, tmp_path / "maps")
    dead = "gone~4194303~0-0-1~0123abcd"
    left = [key(ATTEMPTS, 0), "probe-0123456789abcdef", "writer.lock.0123456789abcdef"]
    for name in left:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    elsewhere = folder / "maps/000" / f".000000.parquet~{dead}.tmp"
    elsewhere.write_text("of a machine that may be alive")
    begun.ask(out=folder)
    assert not [name for name in left if (folder / name).exists()]
    assert elsewhere.exists()
    assert verify(MapArchive(folder)) == []


@dataclass(frozen=True)
class Shuffled(Backend):
    """Shards in another order, each by models of its own."""

    seed: int

    def run(self, work: Work, shards: Iterator[int], done: Done, step: Step) -> None:
        """See `Backend.run`."""
        order = list(shards)
        random.Random(self.seed).shuffle(order)
        assert order != sorted(order)
        for shard in order:
            done(shard, work.open().run(shard, step=step).statuses)


def test_the_order_of_shards_changes_no_byte(pictures: Dataset, tmp_path: Path) -> None:
    models = small_models()
    one = explain_all(models, pictures, tmp_path / "one")
    other = explain_all(models, pictures, tmp_path / "other", backend=Shuffled(1))
    assert kept(tmp_path / "one") == kept(tmp_path / "other")
    assert one.content_sha256 == other.content_sha256


def test_a_shard_that_killed_its_process_twice_is_decoded_apart_and_gives_the_same_bytes(
    pictures: Dataset, tmp_path: Path
) -> None:
    model, data = small_model(), few(pictures)
    explain_all(model, data, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "maps")
    for name in ("receipts/000/000001.json", "finished.json"):
        (tmp_path / "maps" / name).unlink()
    attempts = tmp_path / "maps" / key(ATTEMPTS, 1)
    attempts.parent.mkdir(parents=True, exist_ok=True)
    attempts.write_text(json.dumps({"attempts": 2}))
    explain_all(model, data, tmp_path / "maps")
    assert "isolated" in (tmp_path / "maps" / "events.jsonl").read_text()
    assert kept(tmp_path / "maps") == kept(tmp_path / "whole")
    assert not attempts.exists()


def test_a_journal_of_attempts_that_cannot_be_read_counts_as_one(pictures: Dataset, tmp_path: Path) -> None:
    def interrupting(what: str, done: int, total: int) -> None:
        if what == "explaining":
            raise KeyboardInterrupt

    with pytest.raises(Cancelled):
        explain_all(small_model(), few(pictures), tmp_path / "maps", progress=interrupting)
    attempts = tmp_path / "maps" / key(ATTEMPTS, 0)
    attempts.parent.mkdir(parents=True, exist_ok=True)
    attempts.write_bytes(b"\xff torn")
    found = explain_all(small_model(), few(pictures), tmp_path / "maps")
    assert found.finished is not None and not attempts.exists()


# ---- going on with something else


@dataclass(frozen=True)
class Begun:
    """A job of eight images in two shards."""

    model: TunedModel
    data: Dataset
    folder: Path

    def ask(self, **changes: Any) -> MapArchive:
        """The same call, with changes."""
        wanted = {"models": {"vpt": self.model}, "data": self.data, "out": self.folder, "targets": "label"}
        given = wanted | changes
        return explain_all(given.pop("models"), given.pop("data"), given.pop("out"), **given)


@pytest.fixture(scope="module")
def begun(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """Finished but for its second shard; not to be changed."""
    found = Begun(small_model(), few(pictures), tmp_path_factory.mktemp("begun") / "maps")
    found.ask()
    for name in ("receipts/000/000001.json", "finished.json"):
        (found.folder / name).unlink()
    return found


def _other_weights() -> TunedModel:
    model = small_model()
    with torch.no_grad():
        model.vit.head.bias[0] += 1e-6
    return model


def _other_transform() -> TunedModel:
    model = small_model()
    model.transform = replace(model.transform, mean=(0.5, 0.5, 0.5))
    return model


def _renamed(data: Dataset, **changes: Any) -> Dataset:
    return replace(data, samples=(replace(data.samples[0], **changes), *data.samples[1:]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: {"methods": METHODS[:2], "options": OPTIONS}, "methods.attention_rollout"),
        (lambda one: {"methods": (*METHODS, "eigen_cam"), "options": OPTIONS}, "methods.eigen_cam"),
        (lambda one: {"options": {"integrated_gradients": {"n_steps": 3}}}, "methods.integrated_gradients.n_steps is 2 "
                                                                            "there and 3 now"),
        (lambda one: {"targets": "predicted"}, "targets is label there and predicted now"),
        (lambda one: {"targets": 1}, "targets is label there and 1 now"),
        (lambda one: {"store_maps": "fp16"}, "store_maps is int8 there and fp16 now"),
        (lambda one: {"precision": "bf16"}, "precision is fp32 there and bf16 now"),
        (lambda one: {"models": {"other": one.model}}, "models.other"),
        (lambda one: {"models": {"vpt": one.model, "ft": small_model(4)}}, "models.ft"),
        (lambda one: {"models": {"vpt": _other_weights()}}, "models.vpt.sha256"),
        (lambda one: {"models": {"vpt": _other_transform()}}, "models.vpt.sha256"),
        (lambda one: {"models": {"vpt": small_model(classes=("a", "b"))}, "targets": 1}, "models.vpt.class_names"),
        (lambda one: {"shard_size": 8}, "shard_size is 4 there and 8 now"),
        (lambda one: {"data": one.data.select([sample.id for sample in one.data.samples[:7]])}, "other images"),
        (lambda one: {"data": one.data.select([sample.id for sample in one.data.samples[::-1]])}, "other images"),
        (lambda one: {"data": _renamed(one.data, id="another")}, "other images"),
        (lambda one: {"data": _renamed(one.data, label=1)}, "other images"),
        (lambda one: {"data": replace(one.data, root=one.folder)}, "other images"),
        (lambda one: {"data": replace(one.data, class_names=("left", "up"))}, "in this order"),
        (lambda one: {"data": replace(one.data, class_names=("left", "up")), "targets": 1}, "class_names"),
        (lambda one: {"data": [sample.path for sample in one.data.samples], "targets": 1}, "other images"),
    ],
)  # fmt: skip
def test_going_on_with_something_else_is_refused_and_the_difference_named(
    change: Callable[[Begun], dict[str, Any]], words: str, begun: Begun, computed: list[int]
) -> None:
    before = files_of(begun.folder)
    with pytest.raises(InputError) as refused:
        begun.ask(**change(begun))
    assert words in str(refused.value)
    assert computed == [] and files_of(begun.folder) == before


def test_another_input_size_is_named(begun: Begun) -> None:
    from tiny_vits import tiny_vit

    import explain

    larger = explain.wrap(tiny_vit(dtype=torch.float32, num_classes=2, img_size=(32, 32)), ("left", "right"))
    with pytest.raises(InputError, match=r"models\.vpt\.grid is .*models\.vpt\.image_size is "):
        begun.ask(models={"vpt": larger})


def test_what_does_not_change_the_numbers_may_change(begun: Begun, tmp_path: Path, computed: list[int]) -> None:
    folder = shutil.copytree(begun.folder, tmp_path / "moved")
    found = begun.ask(out=folder, batch_size=2, memory_budget=10**9, threads=1)
    assert computed == [1]
    assert found.finished is not None and verify(found) == []


def test_a_model_that_changes_on_the_way_to_a_worker_is_refused(begun: Begun, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Meddling(Backend):
        def run(self, work: Work, shards: Iterator[int], done: Done, step: Step) -> None:
            given = {name: replace(source, given=_other_weights()) for name, source in work.sources.items()}
            replace(work, sources=given).open()

    folder = shutil.copytree(begun.folder, tmp_path / "maps")
    with pytest.raises(IntegrityError, match="is not the one this archive was begun with"):
        begun.ask(out=folder, backend=Meddling())

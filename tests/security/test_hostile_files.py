"""Manifests, cards, histories and tables from elsewhere: damaged in a thousand ways, or naming what they should not."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from damage import damage_bytes, damage_json
from safetensors.torch import load_file, save_file

from explain.data.base import Dataset, load_data
from explain.data.decode import ImageRejected, decode
from explain.engine import open_image
from explain.errors import ExplainError, IntegrityError
from explain.files import read_json, sha256_file, write_json
from explain.model import TunedModel
from explain.prompts.hub import pull, push
from explain.prompts.store import PromptStore
from explain.prompts.stored import Stored
from explain.report.panels import Panels
from explain.tensor_files import read_tensors
from explain.training.pair import MatchedPair
from explain.training.run import HASHED, Run

EXIT_CODES = {2, 3, 4, 5}
FEW, MANY = range(20), range(1_000, 1_500)


# Random damage


@dataclass(frozen=True)
class Place:
    """Copies of a pair and a store, where one file after the other is damaged, and a model to put weights into."""

    pair: Path
    prompts: Path
    model: TunedModel

    @property
    def version(self) -> Path:
        """The folder of the stored version."""
        return next((self.prompts / "objects").iterdir())

    def load_pair(self) -> None:
        """Read everything that lies in the pair's folder but weights."""
        pair = MatchedPair.load(self.pair)
        pair.data.counts()
        _ = pair.test, pair.data.manifest()
        for run in pair:
            _ = run.recipe, run.history, run.predictions.correct, run.manifest.chosen

    def load_weights(self) -> None:
        """Put a run's weights into a model."""
        Run.load(self.pair / "vpt")
        self.model.load_trained(read_tensors(self.pair / "vpt" / "weights.safetensors")[0])

    def load_prompts(self) -> None:
        """Ask a store for everything it says, and raise its first complaint."""
        store = PromptStore(self.prompts)
        for problem in store.verify():
            raise IntegrityError(problem)
        for reference in ("line-3", "line-3@staging", "line-3@audit", "line-3@v1"):
            stored: Stored = store.get(reference)
            _ = stored.tensors(), stored.predictions(), store.history("line-3").stack("staging")

    def agree(self) -> None:
        """Let the manifest of the VPT run record what its files are now."""
        manifest = read_json(self.pair / "vpt" / "manifest.json")
        manifest["files"] = {name: sha256_file(self.pair / "vpt" / name) for name in HASHED}
        write_json(self.pair / "vpt" / "manifest.json", manifest)


@pytest.fixture(scope="module")
def place(tiny_pair: MatchedPair, prompts: PromptStore, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("damaged")
    pair, store = (Path(shutil.copytree(source, folder / source.name)) for source in (tiny_pair.path, prompts.path))
    return Place(pair, store, tiny_pair.vpt.model)


Load = Callable[[Place], None]
TARGETS: dict[str, tuple[Callable[[Place], Path], Load]] = {
    "run manifest": (lambda place: place.pair / "vpt" / "manifest.json", Place.load_pair),
    "recipe": (lambda place: place.pair / "vpt" / "recipe.json", Place.load_pair),
    "history": (lambda place: place.pair / "vpt" / "history.jsonl", Place.load_pair),
    "predictions": (lambda place: place.pair / "vpt" / "predictions.parquet", Place.load_pair),
    "weights": (lambda place: place.pair / "vpt" / "weights.safetensors", Place.load_weights),
    "dataset": (lambda place: place.pair / "dataset.json", Place.load_pair),
    "split": (lambda place: place.pair / "split.json", Place.load_pair),
    "card": (lambda place: place.version / "card.json", Place.load_prompts),
    "history of a name": (lambda place: place.prompts / "names" / "line-3.json", Place.load_prompts),
    "weights of a prompt": (lambda place: place.version / "weights.safetensors", Place.load_prompts),
}
"""What is damaged -> its file, and what reads it."""


@pytest.mark.parametrize("what", TARGETS)
def test_a_damaged_file_is_read_or_refused_by_an_error_with_an_exit_code(what: str, place: Place) -> None:
    assert damaged(what, place, FEW) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("what", TARGETS)
def test_a_file_damaged_in_five_hundred_ways_likewise(what: str, place: Place) -> None:
    assert damaged(what, place, MANY) >= 100


def damaged(what: str, place: Place, seeds: range) -> int:
    """Damage a file by each seed and read it; how often that was refused."""
    find, load = TARGETS[what]
    path, manifest = find(place), place.pair / "vpt" / "manifest.json"
    sound, recorded, refused = path.read_bytes(), manifest.read_bytes(), 0
    load(place)
    for seed in seeds:
        path.write_bytes(damage_json(json.loads(sound), seed) if path.suffix == ".json" else damage_bytes(sound, seed))
        if path != manifest and path.is_relative_to(manifest.parent):
            place.agree()
        try:
            load(place)
        except ExplainError as error:
            refused += 1
            assert error.exit_code in EXIT_CODES and str(error), seed
        finally:
            path.write_bytes(sound)
            manifest.write_bytes(recorded)
    load(place)
    return refused


# S3: names that lead elsewhere

ELSEWHERE = ("../outside.safetensors", "/etc/passwd", "C:\\x", "..\\outside", "a\0b", "file:///etc/passwd", "s3://a/b",
             "vpt/../../x", "")  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside everything else; its file looks like what is wanted."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text("do not read this")
    return folder


def seen(opened: list[str], outside: Path) -> list[str]:
    return [name for name in opened if str(outside) in name or name.startswith("/etc/passwd")]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_run_manifest_names_the_files_of_a_run_and_no_others(
    name: str, tiny_pair: MatchedPair, tmp_path: Path, opened: list[str]
) -> None:
    copy = Path(shutil.copytree(tiny_pair.vpt.path, tmp_path / "pair" / "vpt"))
    manifest = read_json(copy / "manifest.json")
    for files in ({name: "0" * 64}, manifest["files"] | {name: "0" * 64}):
        write_json(copy / "manifest.json", manifest | {"files": files})
        opened.clear()
        with pytest.raises(IntegrityError, match="names a file that no run has|holds control characters"):
            Run.load(copy)
        ours = [path for path in opened if str(tmp_path) in path or path.startswith(("/etc", "C:", "file:", "s3:"))]
        assert [path for path in ours if not path.endswith("manifest.json")] == []


def test_a_run_manifest_has_the_hash_of_every_file(tiny_pair: MatchedPair, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_pair.vpt.path, tmp_path / "run"))
    manifest = read_json(copy / "manifest.json")
    del manifest["files"]["weights.safetensors"]
    write_json(copy / "manifest.json", manifest)
    with pytest.raises(IntegrityError, match=r"no hash of weights\.safetensors"):
        Run.load(copy)


@pytest.mark.parametrize("options", [{"class_names": "x"}, {"start": "../x"}, {"seed": 1}, {"backbone": "x.pt"},
                                     {"expect_sha256": ""}, {"num_tokens": "many"}, {"num_tokens": -1}])  # fmt: skip
def test_a_run_manifest_gives_its_tuning_options_and_nothing_else(
    options: dict[str, Any], tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_pair.vpt.path, tmp_path / "run"))
    manifest = read_json(copy / "manifest.json")
    write_json(copy / "manifest.json", manifest | {"tuning_options": manifest["tuning_options"] | options})
    with pytest.raises(ExplainError):
        _ = Run.load(copy).model


@pytest.mark.parametrize("id", ["../../outside", "/etc", "", "A" * 64, "a" * 63, "a" * 64 + "\n", "a\0" + "b" * 62])
def test_a_version_is_a_hash_before_it_is_a_folder(
    id: str, prompts: PromptStore, tmp_path: Path, outside: Path, opened: list[str]
) -> None:
    store = PromptStore(shutil.copytree(prompts.path, tmp_path / "prompts"))
    path = store.path / "names" / "line-3.json"
    history = read_json(path)
    history["versions"][0]["id"] = id
    write_json(path, history)
    opened.clear()
    for reference in ("line-3", "line-3@v1", "line-3@staging"):
        with pytest.raises(IntegrityError):
            store.get(reference)
    assert seen(opened, outside) == [] and not [name for name in opened if name.endswith("card.json")]


@pytest.mark.parametrize("change", [{"versions": []}, {"aliases": {"staging": "0" * 64}}, {"tags": {"audit": "../x"}}])
def test_a_history_without_its_versions_is_refused(
    change: dict[str, Any], prompts: PromptStore, tmp_path: Path
) -> None:
    store = PromptStore(shutil.copytree(prompts.path, tmp_path / "prompts"))
    path = store.path / "names" / "line-3.json"
    write_json(path, read_json(path) | change)
    with pytest.raises(IntegrityError):
        store.resolve("line-3")


@pytest.mark.parametrize("name", ["../outside/x", "/etc/x", "a/b", "a\\b", "nul\0", "http://x", "..", ".x", ""])
def test_a_card_that_is_pulled_is_written_under_a_safe_name_only(
    name: str, prompts: PromptStore, tmp_path: Path, outside: Path
) -> None:
    folder = Path(push(prompts, "line-3", str(tmp_path / "pushed")))
    write_json(folder / "card.json", read_json(folder / "card.json") | {"name": name})
    store = PromptStore(tmp_path / "prompts")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExplainError):
        pull(store, str(folder))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("files", [{"../../outside/secret.txt": "0" * 64}, {"weights.safetensors": "0" * 64}, {}])
def test_a_card_lists_its_two_files_and_no_others(
    files: dict[str, str], prompts: PromptStore, tmp_path: Path, outside: Path, opened: list[str]
) -> None:
    folder = Path(push(prompts, "line-3", str(tmp_path / "pushed")))
    write_json(folder / "card.json", read_json(folder / "card.json") | {"files": files})
    opened.clear()
    with pytest.raises(IntegrityError):
        pull(PromptStore(tmp_path / "prompts"), str(folder))
    assert seen(opened, outside) == []


def test_predictions_of_a_card_are_checked_before_they_are_taken_in(prompts: PromptStore, tmp_path: Path) -> None:
    folder = Path(push(prompts, "line-3", str(tmp_path / "pushed")))
    path = folder / "predictions.safetensors"
    tensors = load_file(path)
    for change, ids in (({"classes": tensors["classes"] + 7}, "[]"), ({}, "[" * 5_000), ({}, '{"a": 1}'),
                        ({"probabilities": torch.zeros(1)}, "[]")):  # fmt: skip
        save_file(tensors | change, path, {"ids": ids})
        card = read_json(folder / "card.json")
        card["files"]["predictions.safetensors"] = sha256_file(path)
        write_json(folder / "card.json", card)
        with pytest.raises(IntegrityError):
            pull(PromptStore(tmp_path / "prompts"), str(folder))
    assert PromptStore(tmp_path / "prompts").names() == []


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "vpt.grad_cam.safetensors/../../x"])
def test_the_maps_of_a_pair_lie_in_its_folder(name: str, fake_pair: MatchedPair, tmp_path: Path) -> None:
    shutil.copytree(fake_pair.path / "maps", tmp_path / "pair" / "maps")
    record = read_json(tmp_path / "pair" / "maps" / "panels.json")
    (tmp_path / "pair" / "secret.safetensors").write_bytes(b"x")
    record["files"][name] = sha256_file(tmp_path / "pair" / "secret.safetensors")
    write_json(tmp_path / "pair" / "maps" / "panels.json", record)
    with pytest.raises(IntegrityError, match="missing or changed"):
        Panels.load(tmp_path / "pair")


# A data set's record: its paths may lie anywhere, so what they name is an image or nothing.


@pytest.mark.parametrize("kind", ["text", "pipe", "device", "folder", "NUL", "URL", "loop"])
def test_a_path_in_a_record_is_opened_as_an_image_or_not_at_all(kind: str, pictures: Dataset, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("root:x:0:0")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    paths = {"text": str(secret), "pipe": str(tmp_path / "pipe"), "device": "/dev/zero", "folder": "/etc",
             "NUL": "a%00b", "URL": "http://127.0.0.1:9/x.png", "loop": str(tmp_path / "loop")}  # fmt: skip
    record = json.loads(json.dumps(pictures.manifest()))
    record["samples"][0]["path"] = record["samples"][1]["mask"] = paths[kind]
    data = Dataset.from_manifest(record)
    for read in (open_image, lambda sample: decode(sample.path)):
        with pytest.raises(ImageRejected) as caught:
            read(data.samples[0])
        assert "root:x" not in str(caught.value)


@pytest.mark.parametrize("change", [
    {"label": 2}, {"label": -1}, {"label": "x"}, {"sha256": None}, {"id": "left/01.png"}, {"path": None}, {"path": 3},
    {"flags": "x"}, {"other": 1}, {"label": 1},
])  # fmt: skip
def test_a_row_that_was_changed_is_found(change: dict[str, Any], pictures: Dataset) -> None:
    record = json.loads(json.dumps(pictures.manifest()))
    assert Dataset.from_manifest(record) == pictures
    record["samples"][0] |= change
    with pytest.raises(IntegrityError, match="record of (a )?data set"):
        Dataset.from_manifest(record)


def test_a_record_of_other_images_or_another_split_does_not_belong_to_the_runs(
    tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_pair.path, tmp_path / "pair"))
    data = tiny_pair.data
    write_json(copy / "dataset.json", data.select([sample.id for sample in data.samples[1:]]).manifest())
    with pytest.raises(IntegrityError, match="about other images"):
        _ = MatchedPair.load(copy).data
    split = tiny_pair.split
    moved = type(split)(split.train[1:], split.val, (*split.test, split.train[0]), split.seed)
    write_json(copy / "split.json", moved.to_json())
    with pytest.raises(IntegrityError, match="is another split"):
        _ = MatchedPair.load(copy).split


# Tables of images


@pytest.mark.parametrize("row", ["../outside/x.png", "a/../../outside/x.png", "{outside}/x.png", "C:\\x.png",
                                 "..\\outside\\x.png", "file:///etc/passwd", "https://127.0.0.1:9/x.png", "//host/x"])
def test_a_table_reads_nothing_outside_its_folder(
    row: str, pictures: Dataset, tmp_path: Path, outside: Path, opened: list[str]
) -> None:
    table = tmp_path / "table"
    table.mkdir()
    for number, sample in enumerate(pictures.samples[:2]):
        shutil.copyfile(sample.path, table / f"{number}.png")
    shutil.copyfile(pictures.samples[0].path, outside / "x.png")
    row = row.format(outside=outside)
    (table / "labels.csv").write_text(f"path,label,mask\n0.png,a,\n1.png,b,\n{row},a,\n0.png,b,{row}\n")
    opened.clear()
    found = load_data(table / "labels.csv")
    assert [sample.id for sample in found.samples] == ["0.png", "1.png"]
    assert {item.reason for item in found.rejected} == {"outside_root", "bad_mask"}
    assert seen(opened, outside) == []


def test_a_table_with_a_link_out_of_its_folder_rejects_it(pictures: Dataset, tmp_path: Path, outside: Path) -> None:
    table = tmp_path / "table"
    table.mkdir()
    for number, sample in enumerate(pictures.samples[:2]):
        shutil.copyfile(sample.path, table / f"{number}.png")
    shutil.copyfile(pictures.samples[0].path, outside / "x.png")
    (table / "2.png").symlink_to(outside / "x.png")
    (table / "labels.csv").write_text("path,label\n0.png,a\n1.png,b\n2.png,a\n")
    assert [item.reason for item in load_data(table / "labels.csv").rejected] == ["outside_root"]


def test_the_path_beside_the_bytes_of_an_image_may_be_no_text(
    pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    no_text = pa.Array.from_buffers(pa.string(), 2, [None, *pa.array([b"\xff\xfe", b"\x80"]).buffers()[1:]])
    content = pa.array([sample.path.read_bytes() for sample in pictures.samples[:2]])
    images = pa.StructArray.from_arrays([content, no_text], ["bytes", "path"])
    pq.write_table(pa.table({"image": images, "label": [0, 1]}), tmp_path / "data" / "train-0.parquet")
    assert len(load_data(tmp_path / "data")) == 2


def test_a_parquet_row_that_names_a_file_instead_of_bytes_is_not_read(
    pictures: Dataset, tmp_path: Path, outside: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))
    shutil.copyfile(pictures.samples[0].path, outside / "x.png")
    content = pictures.samples[0].path.read_bytes()
    images = [{"bytes": content, "path": "../../outside/escaped.png"}, {"bytes": content, "path": "/etc/x.png"},
              {"bytes": None, "path": str(outside / "x.png")}, {"bytes": b"", "path": "../outside/x.png"}]  # fmt: skip
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1]}), tmp_path / "data" / "train-0.parquet")
    opened.clear()
    found = load_data(tmp_path / "data")
    assert [sample.id for sample in found.samples] == ["train/0000000.png", "train/0000001.png"]
    assert [item.reason for item in found.rejected] == ["missing", "missing"]
    assert seen(opened, outside) == [] and sorted(path.name for path in outside.iterdir()) == ["secret.txt", "x.png"]

"""`explain train` and `explain search`, on every kind of data that training is promised for."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import yaml
from squares import TINY_RECIPE
from typer.testing import CliRunner

from explain.cli import app
from explain.data.base import Dataset
from explain.errors import InputError
from explain.files import read_json
from explain.training.run import Run
from explain.training.study import Study

FIELDS = {"backbone": "random:vit_tiny_patch16_224", "image_size": 64, "epochs": 1, "search_epochs": 1, "batch_size": 8,
          "test_per_class": 2, "val_per_class": 2, "train_per_class": 4}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(FIELDS))
    return str(path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def write_idx(folder: Path, part: str, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 255, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 2
    head = bytes([0, 0, 8, 3]) + b"".join(int(size).to_bytes(4, "big") for size in images.shape)
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    head = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big")
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))


def make_idx(folder: Path) -> str:
    folder.mkdir()
    write_idx(folder, "train", 16)
    write_idx(folder, "t10k", 6)
    return str(folder)


def make_vtab(folder: Path, pictures: Dataset) -> str:
    for part, start, stop in (("train800", 0, 8), ("val200", 8, 10), ("test", 10, 12)):
        (folder / "images" / part).mkdir(parents=True)
        lines = []
        of_class = [[sample for sample in pictures.samples if sample.label == label] for label in (0, 1)]
        for number, sample in enumerate(sample for samples in of_class for sample in samples[start:stop]):
            name = f"images/{part}/{number:06d}.jpg"
            (folder / name).write_bytes(sample.path.read_bytes())
            lines.append(f"{name} {sample.label}\n")
        (folder / f"{part}.txt").write_text("".join(lines))
    return str(folder)


@pytest.mark.parametrize("kind", ["image folder", "idx", "vtab", "synthetic"])
def test_two_seeds_of_two_tunings_train_on_every_kind_of_data(
    kind: str, pictures: Dataset, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))
    make = {"image folder": lambda: str(pictures.root), "idx": lambda: make_idx(tmp_path / "idx"),
            "vtab": lambda: make_vtab(tmp_path / "vtab", pictures),
            "synthetic": lambda: "synthetic:position:90"}  # fmt: skip
    data = make[kind]()
    said = run("train", data, "--out", str(tmp_path / "out"), "--recipe", recipe, "--tuning", "prompt:num_tokens=2",
               "--tuning", "linear", "--seeds", "2")  # fmt: skip
    study = Study.load(tmp_path / "out")
    assert study.seeds == (0, 1) and study.arms == ("vpt", "linear")
    said = " ".join(said.split())  # a long path folds the title
    assert "seeds 0, 1" in said and ("tie" in said or "is better" in said)
    if kind in ("vtab", "idx"):
        split = read_json(tmp_path / "out/seed0/split.json")
        assert all(name.startswith(("images/test", "test/")) for name in split["test"])


def test_training_goes_on_from_a_search_and_repeats_no_trial(pictures: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fields = [f"--set={name}={value}" for name, value in FIELDS.items()]
    said = run("search", str(pictures.root), "--out", str(out), "--tuning", "prompt", "--tuning", "full",
               "--how", "tpe", "--trials", "3", "--choose", "num_tokens=1,3", *fields)  # fmt: skip
    assert said.count("*") >= 2 and "searched.yaml" in said
    before = (out / "vpt/search.log").read_bytes()
    run("train", str(pictures.root), "--out", str(out), "--recipe", str(out / "searched.yaml"))
    assert (out / "vpt/search.log").read_bytes() == before
    runs = {arm: Run.load(out / arm).manifest for arm in ("vpt", "ft")}
    assert {len(manifest.trials) for manifest in runs.values()} == {3}
    assert len({sum(trial.steps for trial in manifest.trials) for manifest in runs.values()}) == 1
    assert runs["vpt"].tuning_options["num_tokens"] == runs["vpt"].chosen.options["num_tokens"]


def test_label_noise_is_on_record_and_kept_to_training_images(recipe: str, pictures: Dataset, tmp_path: Path) -> None:
    run("train", str(pictures.root), "--out", str(tmp_path / "out"), "--recipe", recipe, "--tuning", "linear",
        "--set", "label_noise=0.5")  # fmt: skip
    noise = read_json(tmp_path / "out/label_noise.json")
    split = read_json(tmp_path / "out/split.json")
    assert noise["rate"] == 0.5 and noise["changed"]
    assert {row["id"] for row in noise["changed"]} <= set(split["train"])
    assert all(row["old"] != row["new"] for row in noise["changed"])
    assert "pairs" in read_json(tmp_path / "out/leaks.json")


def test_what_cannot_be_trained_is_told_before_anything_is(pictures: Dataset, recipe: str, tmp_path: Path) -> None:
    order = ["train", str(pictures.root), "--out", str(tmp_path / "out"), "--recipe", recipe]
    for extra, words in (
        (["--seeds", "five"], "expected --seeds 5 or --seeds 42,44,82"),
        (["--seeds", "1"], "at least two different seeds"),
        (["--set", "epochs"], "expected --set field=value"),
        (["--tuning", "lora:rank=0"], "expected rank >= 1"),
    ):
        with pytest.raises(InputError, match=words):
            CliRunner().invoke(app, [*order, *extra], catch_exceptions=False)
    assert not list((tmp_path / "out").glob("*/*")) if (tmp_path / "out").exists() else True
    assert TINY_RECIPE.search == "grid"


def test_every_tuning_is_listed_and_explained() -> None:
    listed = CliRunner().invoke(app, ["tunings"]).output
    assert all(name in listed for name in ("prompt", "full", "lora", "bitfit", "mixed", "ft_then_pt", "layer_decay"))
    assert "num_tokens" in CliRunner().invoke(app, ["tunings", "prompt"]).output

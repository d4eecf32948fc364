"""Small archives to export: one that is whole and good, and one of images with every kind of name."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

import explain
from explain import MapArchive, MatchedPair
from explain.data.base import Dataset, Sample
from explain.files import sha256_file

ODD_IDS = (
    "=cmd()", "<img src=x>", "../../escaped", "/absolute", "C:\\windows", "reversed \u202egnp.exe", "two\nlines",
    "-rf", "~", "CASE", "case", "folder", "folder/inside", "e\u0301", "\u00e9", "nothing\0after", "trailing. ", ".",
    "n" * 10_000, "deep/" * 2_000, "織物/傷", "[x](javascript:alert)", "broken",
)  # fmt: skip
"""The last is a file that cannot be read."""


@pytest.fixture(scope="session")
def archive(tiny_pair: MatchedPair, pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MapArchive:
    """24 images in two shards, explained by both models of a pair with three methods; do not change it."""
    return explain.attribute_dataset(
        tiny_pair, pictures, out=tmp_path_factory.mktemp("archive") / "maps", shard_size=16,
        options={"integrated_gradients": {"n_steps": 3}}, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="session")
def odd(tiny_pair: MatchedPair, pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MapArchive:
    """One model, images with odd names, the last of them broken; pixel maps are kept of about every second image."""
    folder = tmp_path_factory.mktemp("odd")
    samples = []
    for index, name in enumerate(ODD_IDS):
        file = folder / f"{index}.png"
        if name == "broken":
            file.write_bytes(pictures.samples[0].path.read_bytes()[:100])
        else:
            Image.open(pictures.samples[index].path).save(file)
        samples.append(Sample(name, file, pictures.samples[index].label, sha256_file(file)))
    return explain.attribute_dataset(
        tiny_pair.path / "vpt", samples, out=folder / "maps", methods=("grad_cam", "integrated_gradients"),
        shard_size=8, options={"integrated_gradients": {"n_steps": 3}}, store_maps=f"sample:{len(ODD_IDS) // 2}",
        device="cpu",
    )  # fmt: skip


@pytest.fixture
def copied(archive: MapArchive, tmp_path: Path) -> Path:
    """A copy of the folder of `archive`, to be damaged."""
    return Path(shutil.copytree(archive.store.folder, tmp_path / "copied"))

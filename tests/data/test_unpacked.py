import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from explain.data.base import Dataset, Rejected, Sample
from explain.data.png import png_bytes
from explain.data.unpacked import RECORD, source_hash, unpack_once
from explain.errors import DatasetError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    return tmp_path / "datasets"


def write(folder: Path) -> Dataset:
    """Three images in two classes, one with a mask and a flag, one in each part; and one rejected file."""
    samples = []
    for number in range(3):
        content, path = png_bytes(np.full((8, 8), number, np.uint8)), folder / f"{number}.png"
        path.write_bytes(content)
        samples.append(Sample(path.name, path, number % 2, hashlib.sha256(content).hexdigest()))
    mask = folder / "mask.png"
    mask.write_bytes(png_bytes(np.eye(8, dtype=np.uint8)))
    samples[1] = Sample("1.png", samples[1].path, 1, samples[1].sha256, mask, ("multi_frame", "rotated"))
    rejected = (Rejected(folder / "bad.bin", "corrupt", "the data are damaged"),)
    parts = {"train": ("0.png", "1.png"), "test": ("2.png",)}
    return Dataset("three", folder, ("even", "odd"), tuple(samples), rejected, "drawn", "MIT", parts)


def refuse(folder: Path) -> Dataset:
    pytest.fail("unpacked again")


def test_data_set_is_the_one_written_with_its_files_in_the_cache(cache, tmp_path):
    (tmp_path / "plain").mkdir()
    expected = write(tmp_path / "plain")
    dataset = unpack_once("three", 1, write)
    assert dataset.root.parent == cache
    assert all(sample.path.is_file() and sample.path.parent == dataset.root for sample in dataset.samples)
    assert dataset.samples[1].mask == dataset.root / "mask.png"
    assert [sample.flags for sample in dataset.samples] == [(), ("multi_frame", "rotated"), ()]
    assert dataset.rejected[0].path == dataset.root / "bad.bin"
    assert dataset.fingerprint == expected.fingerprint
    assert dataset.parts == expected.parts
    assert (dataset.name, dataset.source, dataset.licence) == ("three", "drawn", "MIT")


def test_second_time_nothing_is_written_and_the_same_comes_back(cache):
    first = unpack_once("three", 1, write)
    assert unpack_once("three", 1, refuse) == first
    assert os.listdir(cache) == [first.root.name]


def test_another_key_is_another_folder(cache):
    assert unpack_once("three", 1, write).root != unpack_once("three", 2, write).root


@pytest.mark.parametrize("victim", ["0.png", "mask.png", RECORD])
@pytest.mark.parametrize("damage", ["changed", "deleted", "touched"])
def test_copy_that_was_changed_is_made_again(victim, damage, cache):
    first = unpack_once("three", 1, write)
    path, content = first.root / victim, (first.root / victim).read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(content[:-9])
    else:
        os.utime(path, ns=(0, 0))
    calls = []
    assert unpack_once("three", 1, lambda folder: calls.append(folder) or write(folder)) == first
    assert len(calls) == (0 if (victim, damage) == (RECORD, "touched") else 1)
    if victim != RECORD:
        assert path.read_bytes() == content
    assert os.listdir(cache) == [first.root.name]


def test_failure_leaves_nothing_behind_and_an_earlier_copy_alone(cache):
    def fail(folder: Path) -> Dataset:
        write(folder)
        raise DatasetError("cut short")

    with pytest.raises(DatasetError, match="cut short"):
        unpack_once("three", 1, fail)
    assert os.listdir(cache) == []


def test_process_that_comes_second_uses_what_the_first_one_made(cache):
    first = unpack_once("three", 1, write)
    kept = first.root.rename(cache / "aside")

    def overtaken(folder: Path) -> Dataset:
        dataset = write(folder)
        shutil.copytree(kept, first.root)  # the other process finishes here
        return dataset

    assert unpack_once("three", 1, overtaken) == first
    assert unpack_once("three", 1, refuse) == first
    assert sorted(os.listdir(cache)) == sorted(["aside", first.root.name])


def test_source_that_cannot_be_read_is_an_error_in_words(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        source_hash(tmp_path / "nothing")

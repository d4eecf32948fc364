import gzip
import hashlib
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from explain.data import idx
from explain.data.base import load_data
from explain.data.decode import decode
from explain.errors import DatasetError, IntegrityError

LABELS = {"train": [0, 1, 2, 2, 1, 0, 1], "t10k": [2, 1, 0, 0]}


def pixels(stem: str) -> np.ndarray:
    count = len(LABELS[stem])
    return np.random.default_rng(len(stem)).integers(0, 256, (count, 9, 10), dtype=np.uint8)


def images_file(stem: str) -> bytes:
    values = pixels(stem)
    return struct.pack(">IIII", 2051, *values.shape) + values.tobytes()


def labels_file(values: list[int]) -> bytes:
    return struct.pack(">II", 2049, len(values)) + bytes(values)


def write_files(folder: Path, end: str = ".gz", mark: str = "-", add: int = 0) -> Path:
    """The four files; `add` is added to every label."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, labels in LABELS.items():
        files = {"images-idx3": images_file(stem), "labels-idx1": labels_file([label + add for label in labels])}
        for kind, content in files.items():
            packed = gzip.compress(content, mtime=0) if end else content
            (folder / f"{stem}-{kind.replace('-', mark)}-ubyte{end}").write_bytes(packed)
    return folder


def contract_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, int], None]:
    monkeypatch.setenv("EXPLAIN_CACHE", str(folder / "cache"))
    return str(write_files(folder / "digits")), {"0": 4, "1": 4, "2": 3}, None


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))
    return write_files(tmp_path / "digits")


def test_pixels_labels_and_parts_are_those_of_the_files(digits):
    dataset = load_data(digits)
    for part, stem in (("train", "train"), ("test", "t10k")):
        assert dataset.parts[part] == tuple(f"{part}/{number:05}.png" for number in range(len(LABELS[stem])))
        for number, name in enumerate(dataset.parts[part]):
            grey = np.asarray(decode(dataset.by_id[name].path).image)[..., 0]
            np.testing.assert_array_equal(grey, pixels(stem)[number])
            assert dataset.by_id[name].label == LABELS[stem][number]
    assert set(dataset.parts) == {"train", "test"}
    assert dataset.name == "digits"


def test_packed_unpacked_and_renamed_files_are_one_data_set(digits, tmp_path):
    plain = load_data(write_files(tmp_path / "plain", end=""))
    dotted = load_data(write_files(tmp_path / "dotted", mark="."))
    assert load_data(digits).fingerprint == plain.fingerprint == dotted.fingerprint


def test_chunks_do_not_change_the_data_set(digits, tmp_path, monkeypatch):
    whole = load_data(digits)
    monkeypatch.setattr(idx, "_CHUNK", 2)
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "other"))
    assert load_data(digits).fingerprint == whole.fingerprint


def test_second_load_unpacks_nothing(digits, monkeypatch):
    first = load_data(digits)
    monkeypatch.setattr(idx, "_unpack", lambda *args: pytest.fail("unpacked again"))
    assert load_data(digits) == first


def test_classes_are_the_labels_that_occur(tmp_path, digits):
    dataset = load_data(write_files(tmp_path / "letters", add=5))
    assert dataset.class_names == ("5", "6", "7")
    assert list(dataset.counts().values()) == [4, 4, 3]


def test_one_part_alone_leaves_the_split_to_the_reader(digits):
    for path in digits.glob("t10k*"):
        path.unlink()
    dataset = load_data(digits)
    assert len(dataset) == len(LABELS["train"])
    assert dataset.parts == {}


TRAIN_IMAGES, TRAIN_LABELS, TEST_LABELS = (
    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
)  # fmt: skip


def zipped(content: bytes) -> bytes:
    """Gzip without the time, which would get into the names of the tests."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (TRAIN_IMAGES, zipped(labels_file([1, 2])), DatasetError, "expected 0x00000803, found 0x00000801"),
        (TRAIN_LABELS, zipped(b""), DatasetError, "does not begin like an idx file"),
        (TRAIN_LABELS, zipped(labels_file([0, 1])), DatasetError, "has 7 images, but .* has 2 labels"),
        (TRAIN_IMAGES, zipped(images_file("train"))[:-40], IntegrityError, "cut short or damaged"),
        (TRAIN_IMAGES, b"no gzip at all", IntegrityError, "cut short or damaged"),
        (TRAIN_IMAGES, zipped(images_file("train")[:-1]), IntegrityError, "announces 630 values and holds 629"),
        (TRAIN_IMAGES, zipped(images_file("train") + b"x"), IntegrityError, "630 values and holds more"),
        (TRAIN_IMAGES, zipped(struct.pack(">IIII", 2051, *[65535] * 3)), DatasetError, "65535x65535x65535"),
        (TRAIN_IMAGES, zipped(struct.pack(">IIII", 2051, 0, 9, 9)), DatasetError, "0x9x9 values"),
        (TRAIN_IMAGES, zipped(struct.pack(">IIII", 2051, 7, 4, 9) + bytes(252)), DatasetError, "9x4 pixels"),
        (TEST_LABELS, zipped(labels_file([0, 1, 9, 7])), DatasetError, "labels 7, 9, which no training"),
        (TRAIN_LABELS, zipped(labels_file([3] * 7)), DatasetError, "one label only"),
        (TRAIN_LABELS, None, DatasetError, "has no labels file of 'train'"),
        (TRAIN_IMAGES, None, DatasetError, "has no images file of 'train'"),
    ],
)
def test_file_that_does_not_fit_is_named_and_nothing_is_unpacked(digits, tmp_path, name, content, error, message):
    (digits / name).unlink()
    if content is not None:
        (digits / name).write_bytes(content)
    with pytest.raises(error, match=message):
        load_data(digits)
    assert list((tmp_path / "cache").glob("datasets/*")) == []


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Path) -> Path:
    """A small stand-in for the files of Debian's package."""
    folder = write_files(tmp_path / "share/fashion-mnist")
    monkeypatch.setattr(idx, "FASHION_MNIST", folder)
    monkeypatch.setattr(idx, "FASHION_LABELS", hashlib.sha256(bytes(LABELS["train"])).hexdigest())
    monkeypatch.setattr(idx, "FASHION_CLASSES", ("shirt", "shoe", "bag"))
    return folder


def test_fashion_mnist_comes_by_name_with_its_classes(installed):
    dataset = load_data("fashion_mnist")
    assert dataset.class_names == ("shirt", "shoe", "bag")
    assert (dataset.name, dataset.licence) == ("fashion_mnist", "MIT")
    assert "1708.07747" in dataset.source
    assert load_data(installed) == dataset


def test_copy_of_fashion_mnist_in_any_folder_has_its_classes(installed, digits):
    assert load_data(digits).class_names == ("shirt", "shoe", "bag")


def test_installed_files_with_other_labels_are_refused(installed, monkeypatch):
    monkeypatch.setattr(idx, "FASHION_LABELS", "0" * 64)
    with pytest.raises(IntegrityError, match="reinstall dataset-fashion-mnist"):
        load_data("fashion_mnist")


def test_missing_package_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="apt install dataset-fashion-mnist`; elsewhere pass the folder"):
        load_data("fashion_mnist")


@pytest.mark.slow
@pytest.mark.skipif(not idx.FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_published_garments_are_complete_and_load_again_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    dataset = load_data("fashion_mnist")
    assert dataset.counts() == dict.fromkeys(idx.FASHION_CLASSES, 7000)
    assert {part: len(ids) for part, ids in dataset.parts.items()} == {"train": 60_000, "test": 10_000}
    began = time.process_time()
    assert load_data("fashion_mnist") == dataset
    assert time.process_time() - began < 4
    assert len(os.listdir(tmp_path / "datasets")) == 1

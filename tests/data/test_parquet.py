import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from explain.data import parquet
from explain.data.base import FORMATS, load_data
from explain.errors import DatasetError, IntegrityError

NAMES = ("cat", "dog")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def write_table(
    path: Path, contents: Sequence[bytes | None], labels: Sequence[int | None], names: Sequence[str] | None = NAMES,
    image: str = "image", label: str = "label", others: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """A table as `datasets` writes it: image bytes in a struct, and the class names in the schema's metadata."""
    rows = [None if content is None else {"bytes": content, "path": "../../evil.png"} for content in contents]
    columns = {image: pa.array(rows, IMAGE), label: pa.array(labels, pa.int64()), **(others or {})}
    features: dict[str, Any] = {image: {"_type": "Image"}}
    if names is not None:
        features[label] = {"names": list(names), "_type": "ClassLabel"}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)


def contract_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, int], str]:
    monkeypatch.setenv("EXPLAIN_CACHE", str(folder / "cache"))
    monkeypatch.setattr(parquet, "_BATCH", 2)
    contents = [*map(picture, range(8)), picture(9)[:200]]
    write_table(folder / "pets/data/train-00000-of-00001.parquet", contents, [0, 1, 0, 1, 0, 1, 0, 1, 0])
    write_table(folder / "pets/data/test-00000-of-00001.parquet", [picture(10), picture(11)], [1, 0])
    return str(folder / "pets"), {"cat": 5, "dog": 5}, "0000008.png"


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for tables."""
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "pets"


def test_bytes_are_kept_as_they_are_under_the_suffix_of_their_content(pets):
    contents = [picture(0, "JPEG"), picture(1), picture(2, "WEBP"), picture(3, "BMP")]
    write_table(pets / "train.parquet", contents, [0, 1, 1, 0])
    dataset = load_data(pets)
    assert [sample.path.read_bytes() for sample in dataset.samples] == contents
    assert [sample.sha256 for sample in dataset.samples] == [hashlib.sha256(each).hexdigest() for each in contents]
    assert [sample.path.suffix for sample in dataset.samples] == [".jpg", ".png", ".webp", ".bmp"]
    assert [sample.label for sample in dataset.samples] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    "layout",
    ["{}-00000-of-00001.parquet", "data/{}-00000-of-00001.parquet", "{}.parquet", "{}/0.parquet", "data/{}/0.parquet"],
)
def test_splits_named_by_the_files_become_parts(pets, layout):
    for number, split in enumerate(("train", "validation", "test")):
        seeds = range(10 * number, 10 * number + 2 + number)
        write_table(pets / layout.format(split), list(map(picture, seeds)), [seed % 2 for seed in seeds])
    dataset = load_data(pets)
    assert {part: len(ids) for part, ids in dataset.parts.items()} == {"train": 2, "val": 3, "test": 4}
    digests = [hashlib.sha256(picture(seed)).hexdigest() for seed in range(20, 24)]
    assert [dataset.by_id[name].sha256 for name in dataset.parts["test"]] == digests


def test_rows_of_several_files_follow_each_other(pets):
    for shard in range(2):
        contents = [picture(seed) for seed in range(4 * shard, 4 * shard + 4)]
        write_table(pets / f"train-0000{shard}-of-00002.parquet", contents, [0, 1, 0, 1])
    dataset = load_data(pets)
    assert [sample.sha256 for sample in dataset.samples] == [hashlib.sha256(picture(k)).hexdigest() for k in range(8)]
    assert dataset.parts == {}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_do_not_change_the_data_set_and_hold_no_more_rows(pets, tmp_path, monkeypatch, size):
    write_table(pets / "a.parquet", list(map(picture, range(8))), [0, 1] * 4)
    whole = load_data(pets)
    monkeypatch.setattr(parquet, "_BATCH", size)
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "other"))
    lengths = []
    check = parquet.check_images
    monkeypatch.setattr(parquet, "check_images", lambda items, *rest: lengths.append(len(items)) or check(items, *rest))
    assert load_data(pets).fingerprint == whole.fingerprint
    assert max(lengths) <= size
    assert sum(lengths) == 8


def test_second_load_unpacks_nothing_and_another_table_does(pets, monkeypatch):
    write_table(pets / "a.parquet", list(map(picture, range(4))), [0, 1, 0, 1])
    first = load_data(pets)
    with monkeypatch.context() as patched:
        patched.setattr(parquet, "_unpack", lambda *args: pytest.fail("unpacked again"))
        assert load_data(pets) == first
    write_table(pets / "a.parquet", list(map(picture, range(4))), [1, 1, 0, 1])
    assert load_data(pets).counts() == {"cat": 1, "dog": 3}


def test_classes_without_names_are_the_numbers_that_occur(pets):
    write_table(pets / "a.parquet", list(map(picture, range(4))), [7, 3, 12, 7], names=None)
    dataset = load_data(pets)
    assert dataset.class_names == ("3", "7", "12")
    assert [sample.label for sample in dataset.samples] == [1, 0, 2, 1]


def test_plain_binary_column_without_metadata_holds_images(pets):
    pets.mkdir()
    table = pa.table({"id": ["a", "b"], "picture": [picture(0), picture(1)], "class": pa.array([0, 1], pa.int32())})
    pq.write_table(table, pets / "a.parquet")
    assert load_data(pets).counts() == {"0": 1, "1": 1}


def test_usual_name_decides_between_columns_of_one_type(pets):
    others = {"coarse_label": pa.array([1, 0], pa.int64()), "mask": pa.array([{"bytes": b"x", "path": ""}] * 2, IMAGE)}
    contents = [picture(0), picture(1)]
    write_table(pets / "a.parquet", contents, [0, 1], names=None, image="img", label="fine_label", others=others)
    dataset = load_data(pets)
    assert [sample.label for sample in dataset.samples] == [0, 1]
    assert dataset.rejected == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "a", "others": {"b": pa.array([0, 1])}}, "label .*a and b could be it.*b: int64"),
        ({"image": "a", "others": {"b": pa.array([b"x", b"y"])}}, "image .*a and b could be it"),
        ({"label": "label", "others": {"labels": pa.array([0, 1])}}, "label and labels could be it"),
    ],
)
def test_columns_that_leave_a_choice_are_an_error_that_lists_them(pets, options, message):
    write_table(pets / "a.parquet", [picture(0), picture(1)], [0, 1], names=None, **options)
    with pytest.raises(DatasetError, match=message):
        load_data(pets)


def test_table_without_images_is_an_error_that_lists_its_columns(pets):
    pets.mkdir()
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), pets / "a.parquet")
    with pytest.raises(DatasetError, match="none is of that type.*text: string, label: int64"):
        load_data(pets)


def test_rows_without_a_label_or_an_image_are_listed(pets):
    contents = [picture(0), picture(1), picture(2), picture(3), None, b"", b"no image"]
    write_table(pets / "train.parquet", contents, [0, -1, None, 1, 0, 1, 0])
    dataset = load_data(pets)
    found = [(item.path.name, item.reason) for item in dataset.rejected]
    assert found == [("0000001.png", "no_label"), ("0000002.png", "no_label"), ("0000004.bin", "missing"),
                     ("0000005.bin", "missing"), ("0000006.bin", "unsupported_format")]  # fmt: skip
    assert len(dataset) == 2


def test_test_split_without_labels_leaves_no_empty_part(pets):
    write_table(pets / "train.parquet", [picture(0), picture(1)], [0, 1])
    write_table(pets / "test.parquet", [picture(2), picture(3)], [-1, -1])
    assert load_data(pets).parts == {}


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"PAR1", lambda data: b""])
def test_damaged_table_is_named(pets, damage):
    path = pets / "train.parquet"
    write_table(path, [picture(0), picture(1)], [0, 1])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError, match=r"train\.parquet is not a readable Parquet file"):
        load_data(pets)


def test_table_whose_pages_are_damaged_is_named(pets, tmp_path):
    path = pets / "train.parquet"
    write_table(path, [picture(0), picture(1)], [0, 1])
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(200) + data[204:])
    with pytest.raises(IntegrityError, match=r"train\.parquet is not a readable Parquet file"):
        load_data(pets)
    assert list((tmp_path / "cache").glob("datasets/*")) == []


@pytest.mark.parametrize(
    ("stray", "names", "message"),
    [("more.parquet", NAMES, r"after the splits train, and beside them more\.parquet"),
     ("test.parquet", ("dog", "cat"), "other columns or class names")],
)  # fmt: skip
def test_files_of_two_data_sets_are_not_mixed(pets, stray, names, message):
    write_table(pets / "train.parquet", [picture(0), picture(1)], [0, 1])
    write_table(pets / stray, [picture(2), picture(3)], [0, 1], names=names)
    with pytest.raises(DatasetError, match=message):
        load_data(pets)


def test_image_folder_with_a_metadata_table_stays_an_image_folder(pets):
    write_table(pets / "metadata.parquet", [picture(0), picture(1)], [0, 1])
    assert not FORMATS.create("parquet").matches(str(pets))

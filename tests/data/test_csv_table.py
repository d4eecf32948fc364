import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explain.data.base import Dataset, load_data
from explain.errors import DatasetError

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"


def picture(seed: int = 0, size: tuple[int, int] = (16, 16)) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def contract_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, int], str]:
    rows = ["path,label"]
    for seed in (3, 1, 2, 6, 5, 4):
        (folder / f"{seed}.png").write_bytes(picture(seed))
        rows.append(f"{seed}.png,{'low' if seed < 4 else 'high'}")
    (folder / "cut.png").write_bytes(picture(7)[:300])
    (folder / "animals.csv").write_text("\n".join([*rows, "cut.png,low"]))
    return str(folder / "animals.csv"), {"high": 3, "low": 3}, "cut.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with 1.png to 4.png, a mask for the first, and one image outside of it."""
    folder = tmp_path / "root"
    folder.mkdir()
    for seed in range(1, 5):
        (folder / f"{seed}.png").write_bytes(picture(seed))
    (folder / "mask.png").write_bytes(picture(9))
    (folder / "small_mask.png").write_bytes(picture(9, (8, 8)))
    (tmp_path / "outside.png").write_bytes(picture(5))
    return folder


def read(root: Path, text: str | bytes) -> Dataset:
    content = text if isinstance(text, bytes) else text.encode()
    (root / "labels.csv").write_bytes(content)
    return load_data(root / "labels.csv")


def reasons(dataset: Dataset) -> list[tuple[str, str]]:
    return [(item.path.name, item.reason) for item in dataset.rejected]


def test_labels_are_sorted_into_indices_and_paths_are_relative_to_the_table(root):
    dataset = read(root, "path,label\n1.png,zebra\n2.png,ape\n./3.png,zebra\n")
    assert dataset.class_names == ("ape", "zebra")
    assert [sample.id for sample in dataset.samples] == ["1.png", "2.png", "3.png"]
    assert [sample.label for sample in dataset.samples] == [1, 0, 1]
    assert dataset.name == "labels"
    assert dataset.samples[0].path == root / "1.png"


def test_sample_data_reads_the_same_as_table_and_as_folder():
    table, folder = load_data(SAMPLE_DATA / "labels.csv"), load_data(SAMPLE_DATA)
    assert table.fingerprint == folder.fingerprint
    assert len(table) == 12


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_table_is_read_with_and_without_a_byte_order_mark(root, encoding):
    dataset = read(root, "path,label\r\n1.png,良品\r\n2.png,不良\r\n".encode(encoding))
    assert dataset.class_names == ("不良", "良品")
    assert len(dataset) == 2


def test_columns_may_come_in_any_order_beside_others(root):
    dataset = read(root, "note, label ,path\nx,a,1.png\n\ny,b,2.png\n")
    assert dataset.counts() == {"a": 1, "b": 1}


def test_backslashes_are_read_as_separators(root):
    (root / "sub").mkdir()
    (root / "sub/1.png").write_bytes(picture(7))
    assert read(root, "path,label\nsub\\1.png,a\n2.png,b\n").samples[1].id == "sub/1.png"


@pytest.mark.parametrize(
    "path",
    ["../outside.png", "a/../../outside.png", "..\\outside.png", "/etc/passwd", "\\\\server\\share.png",
     "C:\\x.png", "file:///etc/passwd", "https://example.org/x.png", ".."],
)  # fmt: skip
def test_path_that_leaves_the_folder_is_rejected_before_opening(root, path):
    dataset = read(root, f"path,label\n1.png,a\n2.png,b\n{path},a\n")
    assert [item.reason for item in dataset.rejected] == ["outside_root"]
    assert "line 4" in dataset.rejected[0].detail
    assert len(dataset) == 2


def test_link_that_leaves_the_folder_is_rejected(root):
    (root / "link.png").symlink_to("../outside.png")
    (root / "up").symlink_to("..")
    dataset = read(root, "path,label\n1.png,a\n2.png,b\nlink.png,a\nup/outside.png,a\n")
    assert reasons(dataset) == [("link.png", "outside_root"), ("outside.png", "outside_root")]


def test_bad_rows_are_listed_with_their_reason_and_the_good_ones_used(root):
    rows = ["1.png,a", "2.png,b", "none.png,a", "1.png,b", "./1.png,a", "3.png,", ",a", "nul\0.png,b", ".,a"]
    dataset = read(root, "\n".join(["path,label", *rows]))
    assert [sample.id for sample in dataset.samples] == ["1.png", "2.png"]
    assert sorted(reasons(dataset)) == [
        ("1.png", "duplicate_row"),
        ("1.png", "duplicate_row"),
        ("3.png", "no_label"),
        ("none.png", "missing"),
        ("nul\0.png", "missing"),
        ("root", "missing"),
        ("root", "not_a_file"),
    ]
    assert "line 5 names the image of line 2 again" in dataset.rejected[0].detail


def test_class_order_does_not_depend_on_which_images_are_good(root):
    assert read(root, "path,label\nnone.png,a\n1.png,b\n2.png,c\n").class_names == ("a", "b", "c")


def test_mask_travels_with_its_image(root):
    dataset = read(root, "path,label,mask\n1.png,a,mask.png\n2.png,b,\n")
    assert [sample.mask for sample in dataset.samples] == [root / "mask.png", None]
    assert Dataset.from_manifest(dataset.manifest()) == dataset


@pytest.mark.parametrize(
    "mask", ["none.png", "small_mask.png", "labels.csv", "../outside.png", "/etc/passwd"]
)
def test_image_with_a_bad_mask_is_rejected(root, mask):
    dataset = read(root, f"path,label,mask\n1.png,a,{mask}\n2.png,b,\n")
    assert reasons(dataset) == [("1.png", "bad_mask")]
    assert len(dataset) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\n1.png,a\n", "no column 'path' and no column 'label'.*found file, class"),
        ("path;label\n1.png;a\n", "no column 'path'.*separated by commas"),
        ("", "found nothing"),
        ("path,label\n", "0 label"),
        ("path,label\n1.png,a\n", "1 label"),
        ("path,label\n1.png,不良\n".encode("shift-jis"), "not UTF-8"),
        ("path,label\n" + "x" * 200_000 + ",a\n", "not a readable CSV table"),
        ("path,label\nnone.png,a\nnone2.png,b\n", "no usable image"),
    ],
)
def test_table_that_cannot_be_used_is_an_error_that_says_why(root, text, message):
    with pytest.raises(DatasetError, match=message):
        read(root, text)

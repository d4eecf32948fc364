import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explain.data.base import Dataset, load_data
from explain.data.split import make_split
from explain.data.vtab_tasks import VTAB_TASKS, task_of
from explain.errors import DatasetError

ONE_OF_EACH = range(8)
NAMES = [f"{count} objects" for count in range(3, 11)]


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, "JPEG")
    return buffer.getvalue()


def write_list(root: Path, split: str, labels: Iterable[int], first_seed: int) -> list[str]:
    """Images `images/<split>/000000.jpg` … and their list; the images are drawn from `first_seed` on."""
    lines = []
    (root / "images" / split).mkdir(parents=True)
    for number, label in enumerate(labels):
        name = f"images/{split}/{number:06}.jpg"
        (root / name).write_bytes(picture(first_seed + number))
        lines.append(f"{name} {label}\n")
    (root / f"{split}.txt").write_text("".join(lines))
    return lines


def write_task(root: Path, *, union: bool = True) -> Path:
    """A task as users have it: 16 train, 8 val and 8 test images in 8 classes, and copies of train and val."""
    train, val = [*ONE_OF_EACH, *ONE_OF_EACH], list(ONE_OF_EACH)
    write_list(root, "train800", train, 100)
    write_list(root, "val200", val, 200)
    write_list(root, "test", ONE_OF_EACH, 300)
    if union:
        lines = write_list(root, "train800val200", train, 100)
        for number, label in enumerate(val, start=len(train)):
            name = f"images/train800val200/{number:06}.jpg"
            (root / name).write_bytes(picture(200 + number - len(train)))
            lines.append(f"{name} {label}\n")
        (root / "train800val200.txt").write_text("".join(lines))
    return root


def contract_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, int], str]:
    root = write_task(folder / "clevr_count")
    with open(root / "test.txt", "a") as stream:
        stream.write("images/test/cut.jpg 3\n")
    (root / "images/test/cut.jpg").write_bytes(picture(1)[:300])
    return str(root), dict.fromkeys(NAMES, 4), "cut.jpg"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path / "clevr_count")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder of no known task with train.txt and test.txt: four and two images in two classes."""
    root = tmp_path / "parts"
    write_list(root, "train", [0, 1, 0, 1], 0)
    write_list(root, "test", [0, 1], 10)
    return root


def reasons(dataset: Dataset) -> list[tuple[str, str]]:
    return [(item.path.name, item.reason) for item in dataset.rejected]


def append(path: Path, *lines: str) -> None:
    with open(path, "a", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def test_the_lists_become_the_parts_and_the_copies_no_further_images(task):
    dataset = load_data(task)
    assert {part: len(ids) for part, ids in dataset.parts.items()} == {"train": 16, "val": 8, "test": 8}
    assert dataset.parts["val"] == tuple(f"images/val200/{number:06}.jpg" for number in range(8))
    assert len(dataset) == 32
    assert [dataset.by_id[f"images/train800/{number:06}.jpg"].label for number in (0, 7, 8)] == [0, 7, 0]
    assert dataset.rejected == ()


def test_a_known_task_gives_the_names_of_its_classes_and_says_where_it_is_from(task):
    dataset = load_data(task)
    assert list(dataset.class_names) == NAMES
    assert "VTAB-1k task clevr_count (Structured)" in dataset.source
    assert "lists train800.txt, val200.txt, test.txt, files .jpg" in dataset.source


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_is_the_published_one_whatever_the_seed(task, seed):
    dataset = load_data(task)
    split = make_split(dataset, seed=seed)
    assert {"train": split.train, "val": split.val, "test": split.test} == dataset.parts


def test_lists_with_general_names_are_read_and_val_may_be_missing(plain):
    dataset = load_data(plain)
    assert dataset.class_names == ("0", "1")
    assert {part: len(ids) for part, ids in dataset.parts.items()} == {"train": 4, "test": 2}
    write_list(plain, "val", [1, 0], 20)
    assert {part: len(ids) for part, ids in load_data(plain).parts.items()} == {"train": 4, "val": 2, "test": 2}


def test_a_copy_with_only_the_joint_list_trains_on_that(task):
    for name in ("train800.txt", "val200.txt"):
        (task / name).unlink()
    parts = load_data(task).parts
    assert {part: len(ids) for part, ids in parts.items()} == {"train": 24, "test": 8}


@pytest.mark.parametrize("file", ["classes.txt", "labels.txt"])
def test_class_names_of_the_folder_come_before_numbers(plain, file):
    (plain / file).write_text("猫\ndog \n\n", encoding="utf-8")
    assert load_data(plain).class_names == ("猫", "dog")


def test_more_names_than_labels_in_use_are_kept(plain):
    (plain / "classes.txt").write_text("a\nb\nc\n")
    assert load_data(plain).counts() == {"a": 3, "b": 3, "c": 0}


@pytest.mark.parametrize("names", ["a\n", "a\na\n", "a\n\nb\n", ""])
def test_class_names_that_do_not_fit_are_an_error_with_both_numbers(plain, names):
    (plain / "classes.txt").write_text(names)
    with pytest.raises(DatasetError, match=r"classes.txt has \d names, \d of them different; expected at least 2"):
        load_data(plain)


def test_a_known_task_needs_exactly_its_number_of_names(task):
    (task / "classes.txt").write_text("\n".join("abcdefghi"))
    with pytest.raises(DatasetError, match="has 9 names, 9 of them different; expected 8 different"):
        load_data(task)


def test_a_folder_called_like_a_task_with_other_labels_is_refused(task):
    odd = task.rename(task.with_name("cifar100"))
    with pytest.raises(DatasetError, match="task cifar, whose labels are 0 to 99, but its lists have 8 different"):
        load_data(odd)
    assert load_data(odd.rename(task.with_name("mine"))).class_names == tuple("01234567")


@pytest.mark.parametrize("file", ["val200.txt", "test.txt"])
def test_missing_list_is_an_error_that_names_it(task, file):
    (task / file).unlink()
    with pytest.raises(DatasetError, match=f"has no {file}; expected train800.txt, val200.txt and test.txt"):
        load_data(task)


def test_labels_with_a_gap_need_names(plain):
    append(plain / "train.txt", "images/train/000000.jpg 3")
    with pytest.raises(DatasetError, match=r"go up to 3, but none is 2; .* a classes.txt"):
        load_data(plain)


def test_one_label_is_not_enough(tmp_path):
    write_list(tmp_path / "one", "train", [0, 0], 0)
    write_list(tmp_path / "one", "test", [0], 5)
    with pytest.raises(DatasetError, match=r"have 1 label\(s\); at least two"):
        load_data(tmp_path / "one")


def test_list_that_is_not_utf8_is_an_error(task):
    (task / "test.txt").write_bytes("images/良品.jpg 0\n".encode("shift-jis"))
    with pytest.raises(DatasetError, match="test.txt is not UTF-8"):
        load_data(task)


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ("images/train/000000.jpg one", "bad_label", "line 5 of train.txt: .* got 'one'"),
        ("images/train/000000.jpg -1", "bad_label", "whole number from 0"),
        ("images/train/000000.jpg 1.0", "bad_label", "whole number"),
        ("images/train/000000.jpg ١", "bad_label", "whole number"),
        ("images/train/000000.jpg " + "1" * 5000, "bad_label", "whole number"),
        ("images/train/000000.jpg", "no_label", "line 5 of train.txt has no label"),
        ("../outside.jpg 0", "outside_root", "without leaving it"),
        ("images/../../outside.jpg 0", "outside_root", "without leaving it"),
        ("..\\outside.jpg 0", "outside_root", "without leaving it"),
        ("/etc/passwd 0", "outside_root", "without leaving it"),
        ("link.jpg 0", "outside_root", ""),
        ("images/train/none.jpg 0", "missing", ""),
        ("images/train/nul\0.jpg 0", "missing", ""),
        ("images 0", "not_a_file", ""),
        ("./images/train/000001.jpg 0", "duplicate_row", "line 5 .* the image of line 2 of train.txt again"),
        ("images/test/000001.jpg 1", "in_two_parts", "line 5 of train.txt .* line 2 of test.txt again"),
    ],
)
def test_bad_line_is_listed_and_every_good_one_used(plain, line, reason, detail):
    (plain.parent / "outside.jpg").write_bytes(picture(1))
    (plain / "link.jpg").symlink_to("../outside.jpg")
    good = load_data(plain)
    append(plain / "train.txt", line)
    dataset = load_data(plain)
    assert [item.reason for item in dataset.rejected] == [reason]
    assert re.search(detail, dataset.rejected[0].detail)
    assert dataset.parts == good.parts
    assert dataset.fingerprint == good.fingerprint


def test_spaces_tabs_windows_lines_and_a_byte_order_mark_are_read(plain):
    (plain / "my picture.jpg").write_bytes(picture(50))
    text = "images\\train\\000000.jpg 0\r\n\r\nmy picture.jpg\t1\r\n"
    (plain / "train.txt").write_bytes(text.encode("utf-8-sig"))
    assert load_data(plain).parts["train"] == ("images/train/000000.jpg", "my picture.jpg")


def test_a_bad_image_leaves_its_part_and_does_not_renumber_the_classes(task):
    (task / "images/train800/000000.jpg").write_bytes(b"")
    dataset = load_data(task)
    assert len(dataset.parts["train"]) == 15
    assert list(dataset.class_names) == NAMES
    assert ("000000.jpg", "empty") in reasons(dataset)


def test_joint_list_with_other_labels_is_reported_and_does_not_stop(task):
    lines = (task / "train800val200.txt").read_text().splitlines()
    (task / "train800val200.txt").write_text("\n".join(lines[:-1]))
    dataset = load_data(task)
    assert reasons(dataset) == [("train800val200.txt", "other_images")]
    assert "its 23 lines have other labels than the 24 of train800.txt and val200.txt" in dataset.rejected[0].detail
    assert len(dataset) == 32


def test_joint_list_with_other_pictures_is_reported_with_their_number(task):
    for number in (3, 20):
        (task / f"images/train800val200/{number:06}.jpg").write_bytes(picture(999 + number))
    dataset = load_data(task)
    assert reasons(dataset) == [("train800val200.txt", "other_images")]
    assert "2 of its 24 images have other content" in dataset.rejected[0].detail


def test_joint_list_may_name_the_same_files_or_files_that_were_deleted(task):
    for image in (task / "images/train800val200").iterdir():
        image.unlink()
    os.mkfifo(task / "images/train800val200/000000.jpg")
    assert load_data(task).rejected == ()
    both = (task / "train800.txt").read_text() + (task / "val200.txt").read_text()
    (task / "train800val200.txt").write_text(both)
    assert load_data(task).rejected == ()


def test_a_stray_train_txt_does_not_make_an_image_folder_a_vtab_folder(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(picture(len(name) + ord(name[0])))
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text("cats/1\ndogs/1\n")
    assert load_data(tmp_path).counts() == {"cats": 1, "dogs": 1}


def test_the_table_is_that_of_vtab():
    groups = {group: [task.classes for task in VTAB_TASKS if task.group == group]
              for group in ("Natural", "Specialized", "Structured")}  # fmt: skip
    assert groups == {
        "Natural": [100, 102, 47, 102, 37, 10, 397],
        "Specialized": [2, 10, 45, 5],
        "Structured": [8, 6, 6, 4, 16, 16, 18, 9],
    }
    assert all(len(set(task.class_names)) in (0, task.classes) for task in VTAB_TASKS)


def test_tasks_are_found_by_their_folder_and_cifar_by_both_names():
    assert [task_of(task.name) for task in VTAB_TASKS] == list(VTAB_TASKS)
    assert task_of("cifar100") == task_of("cifar")
    assert task_of("textile") is None


def test_the_page_on_data_names_every_task_with_its_classes():
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    for group in ("Natural", "Specialized", "Structured"):
        tasks = [f"`{task.name}` ({task.classes})" for task in VTAB_TASKS if task.group == group]
        row = next(line for line in page.splitlines() if line.startswith(f"| {group} |"))
        assert row.replace("`cifar` or `cifar100`", "`cifar`") == f"| {group} | {', '.join(tasks)} |"

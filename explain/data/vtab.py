"""VTAB-1k layout: a folder with one text file per part, each a list of images and their labels.

The lists decide the parts, so the split is the published one. `train800val200.txt` is never read as further images:
in most copies its files are the same pictures saved once more, and training on both parts takes those of the other
two lists. It is only compared with them.

Source: Zhai et al. 2019, arXiv 1910.04867.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from explain.data.base import FORMATS, Dataset, Progress, Rejected
from explain.data.names import printable
from explain.data.reading import Candidate, check_images
from explain.data.vtab_tasks import task_of
from explain.errors import DatasetError
from explain.files import sha256_file

UNION = "train800val200.txt"
LAYOUT = (
    "expected train800.txt, val200.txt and test.txt, or train.txt, test.txt and perhaps val.txt, "
    "with lines like images/train800/000000.jpg 3"
)
_NAME_LISTS = ("classes.txt", "labels.txt")
_LINE = re.compile(r"\S.*\s[0-9]{1,9}")


@FORMATS.register("vtab")
class Vtab:
    """A folder with lists `train800.txt`, `val200.txt`, `test.txt` whose lines are a path, a space and a label.

    Example:
        >>> load_data("vtab-1k/clevr_count").parts["train"][0]
        'images/train800/000000.jpg'

    Source: Zhai et al. 2019, arXiv 1910.04867.
    """

    name: ClassVar[str]
    label: ClassVar[str] = "VTAB-1k layout (train800.txt, val200.txt, test.txt)"

    def matches(self, location: str) -> bool:
        """True for a folder with the lists of VTAB-1k, or with a train.txt that reads like one beside another."""
        folder = Path(location)
        if any((folder / name).is_file() for name in ("train800.txt", UNION)):
            return True
        others = any((folder / name).is_file() for name in ("val.txt", "test.txt"))
        return others and _begins_like_a_list(folder / "train.txt")

    def read(self, location: str, progress: Progress | None = None) -> Dataset:
        """Read the lists and check every image they name.

        Raises:
            DatasetError: a list is missing or not UTF-8, or the labels are not those of the classes.
        """
        root = Path(location).resolve()
        lists = _lists(root)
        rows: list[_Row] = []
        refused: list[Rejected] = []
        for part in ("test", "val", "train"):  # an image in two lists stays with the first: it is not trained on
            if part in lists:
                found, bad = _read_list(root, lists[part], part)
                rows += found
                refused += bad
        class_names = _class_names(root, {row.label for row in rows})
        refused += _compare_union(root, [row for row in rows if row.part != "test"], lists)
        unique, repeated = _once_each(root, rows)
        candidates = [Candidate(root / row.path, printable(row.path), row.label) for row in unique]
        samples, rejected = check_images(candidates, root, progress)
        part_of = {printable(row.path): row.part for row in unique}
        parts = {part: tuple(one.id for one in samples if part_of[one.id] == part) for part in reversed(lists)}
        return Dataset(
            printable(root.name), root, class_names, tuple(samples), (*refused, *repeated, *rejected),
            _source(root, lists, rows), parts=parts,
        )  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One line of a list: the image's path below the root, its label, its part, and where it stands."""

    path: str
    label: int
    part: str
    file: str
    line: int


def _begins_like_a_list(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as stream:
            return _LINE.fullmatch(stream.readline(4096).strip()) is not None
    except OSError:
        return False


def _lists(root: Path) -> dict[str, str]:
    """The list of each part: test first, then val when there is one, and train last.

    Raises:
        DatasetError: one is missing.
    """
    if (root / "train800.txt").is_file():
        lists = {"test": "test.txt", "val": "val200.txt", "train": "train800.txt"}
    elif (root / UNION).is_file():
        lists = {"test": "test.txt", "train": UNION}
    else:
        val = {"val": "val.txt"} if (root / "val.txt").is_file() else {}
        lists = {"test": "test.txt", **val, "train": "train.txt"}
    missing = [name for name in lists.values() if not (root / name).is_file()]
    if missing:
        raise DatasetError(f"{printable(root)} has no {' and no '.join(missing)}; {LAYOUT}")
    return lists


def _lines(path: Path) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            return [line.strip() for line in stream]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{printable(path)} is not UTF-8 ({error}); save it as UTF-8") from None
    except OSError as error:
        raise DatasetError(f"{printable(path)} cannot be read: {error.strerror}") from None


def _read_list(root: Path, file: str, part: str) -> tuple[list[_Row], list[Rejected]]:
    """(rows of one list, lines refused without opening an image)."""
    rows: list[_Row] = []
    refused: list[Rejected] = []
    for line, text in enumerate(_lines(root / file), start=1):
        if not text:
            continue
        words = text.rsplit(maxsplit=1)  # a path may hold spaces
        path, label = posixpath.normpath(words[0].replace("\\", "/")), words[-1]  # lists are also written on Windows
        where = f"line {line} of {file}"
        if len(words) < 2:
            refused.append(Rejected(root / path, "no_label", f"{where} has no label; {LAYOUT}"))
        elif not re.fullmatch("[0-9]{1,9}", label):
            detail = f"{where}: expected a whole number from 0 as label, got {printable(label)!r}"
            refused.append(Rejected(root / path, "bad_label", detail))
        elif path.startswith("/") or path.split("/")[0] == "..":
            detail = f"{where}: expected a path relative to the lists' folder, without leaving it"
            refused.append(Rejected(root / path, "outside_root", detail))
        else:
            rows.append(_Row(path, int(label), part, file, line))
    return rows, refused


def _once_each(root: Path, rows: Sequence[_Row]) -> tuple[list[_Row], list[Rejected]]:
    """(the first row of every image, the later ones)."""
    first: dict[str, _Row] = {}
    repeated: list[Rejected] = []
    for row in rows:
        earlier = first.setdefault(row.path, row)
        if earlier is row:
            continue
        reason = "duplicate_row" if earlier.part == row.part else "in_two_parts"
        detail = (f"line {row.line} of {row.file} names the image of line {earlier.line} of {earlier.file} again; "
                  "that one counts")  # fmt: skip
        repeated.append(Rejected(root / row.path, reason, detail))
    return list(first.values()), repeated


def _class_names(root: Path, labels: set[int]) -> tuple[str, ...]:
    """The classes in label order: from the folder's own list of names, the task's definition, or as numbers.

    Raises:
        DatasetError: the labels that are in use do not fit.
    """
    if len(labels) < 2:
        raise DatasetError(f"the lists of {printable(root)} have {len(labels)} label(s); at least two are needed; "
                           f"{LAYOUT}")  # fmt: skip
    task, highest = task_of(root.name), max(labels)
    if task and (len(labels), highest) != (task.classes, task.classes - 1):
        raise DatasetError(
            f"{printable(root)} is called like the VTAB-1k task {task.name}, whose labels are 0 to {task.classes - 1}, "
            f"but its lists have {len(labels)} different labels, the highest {highest}; complete the lists, or rename "
            "the folder when it is another data set"
        )
    for file in _NAME_LISTS:
        if (root / file).is_file():
            return _own_names(root / file, task.classes if task else None, highest)
    if task:
        return task.class_names or tuple(map(str, range(task.classes)))
    if len(labels) <= highest:
        missing = next(label for label in range(highest) if label not in labels)
        raise DatasetError(
            f"the labels in {printable(root)} go up to {highest}, but none is {missing}; expected every whole number "
            f"from 0, or a {_NAME_LISTS[0]} with one class name per line, in label order"
        )
    return tuple(map(str, range(highest + 1)))


def _own_names(path: Path, count: int | None, highest: int) -> tuple[str, ...]:
    lines = _lines(path)
    while lines and not lines[-1]:
        lines.pop()
    names = tuple(map(printable, lines))
    if not all(names) or len(set(names)) < len(names) or len(names) <= highest or count not in (None, len(names)):
        wanted = count or f"at least {highest + 1}"
        raise DatasetError(
            f"{printable(path)} has {len(names)} names, {len(set(names))} of them different; expected {wanted} "
            "different names, one per line, in label order"
        )
    return names


def _compare_union(root: Path, rows: Sequence[_Row], lists: dict[str, str]) -> list[Rejected]:
    """One entry when the list of train and val together is there and does not say the same as the two.

    Its images may lie under other names, so they are compared by label and, where all are there, by content.
    """
    if lists["train"] != "train800.txt" or not (root / UNION).is_file():
        return []
    union, _ = _read_list(root, UNION, "train")
    both = f"{lists['train']} and {lists['val']} together"
    if Counter(row.label for row in union) != Counter(row.label for row in rows):
        problem = f"its {len(union)} lines have other labels than the {len(rows)} of {both}"
    elif {row.path for row in union} == {row.path for row in rows}:
        return []
    else:
        theirs, ours = ([(row.label, _digest(root / row.path)) for row in some] for some in (union, rows))
        if None in {digest for _, digest in theirs + ours}:
            return []
        more = (Counter(theirs) - Counter(ours)).total()
        if not more:
            return []
        problem = f"{more} of its {len(union)} images have other content, or another label, than those of {both}"
    detail = f"{problem}; it is not used: training on both takes the images of the two lists"
    return [Rejected(root / UNION, "other_images", detail)]


def _digest(path: Path) -> str | None:
    """SHA-256 of a file's bytes; None where there is no file that can be read."""
    try:
        return sha256_file(path) if path.is_file() else None
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None


def _source(root: Path, lists: dict[str, str], rows: Sequence[_Row]) -> str:
    """Where the images come from: results depend on how a copy of VTAB-1k was saved."""
    kinds = sorted({posixpath.splitext(row.path)[1].lower() or "no suffix" for row in rows})
    task = task_of(root.name)
    named = f", VTAB-1k task {task.name} ({task.group})" if task else ""
    return f"folder {printable(root)}{named}, lists {', '.join(reversed(lists.values()))}, files {', '.join(kinds)}"

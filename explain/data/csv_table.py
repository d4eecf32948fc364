"""CSV table: one row per image with its path, its label, and optionally a mask.

Paths are relative to the table's own folder and cannot leave it, so a table from elsewhere reads nothing it
should not. A bad row is rejected and listed; a table without the needed columns is an error.
"""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from explain.data.base import FORMATS, Dataset, Progress, Rejected
from explain.data.names import printable
from explain.data.reading import Candidate, check_images
from explain.errors import DatasetError

COLUMNS = ("path", "label")
_SCHEME_OR_DRIVE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@FORMATS.register("csv_table")
class CsvTable:
    """A table with the columns `path,label` and optionally `mask`, in UTF-8; labels are class names, sorted.

    Example:
        >>> load_data("photos/labels.csv")   # path,label\\ncats/001.jpg,cat\\n…
    """

    name: ClassVar[str]
    label: ClassVar[str] = "CSV table (columns path,label[,mask])"

    def matches(self, location: str) -> bool:
        """True for a file that ends in .csv."""
        return location.lower().endswith(".csv") and Path(location).is_file()

    def read(self, location: str, progress: Progress | None = None) -> Dataset:
        """Read the table and check every image and mask it names.

        Raises:
            DatasetError: not UTF-8, no such columns, or fewer than two labels.
        """
        table = Path(location).resolve()
        rows = list(_rows(table))
        # Every label counts, also where its image is bad: repairing a file must not renumber the classes.
        classes = sorted({label for _, label, _, _ in rows if label})
        if len(classes) < 2:
            raise DatasetError(f"{printable(table)} has {len(classes)} label(s); at least two are needed")
        labels = {label: index for index, label in enumerate(classes)}
        candidates, refused = _candidates(table.parent, rows, labels)
        samples, rejected = check_images(candidates, table.parent, progress)
        return Dataset(
            printable(table.stem), table.parent, tuple(map(printable, classes)), tuple(samples),
            (*refused, *rejected), f"table {printable(table)}",
        )  # fmt: skip


def _rows(table: Path) -> Iterator[tuple[str, str, str, int]]:
    """(path, label, mask or "", line number) of every row that is not blank."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="")
            found = [column.strip() for column in reader.fieldnames or ()]
            reader.fieldnames = found
            missing = [column for column in COLUMNS if column not in found]
            if missing:
                raise DatasetError(
                    f"{printable(table)} has no column {' and no column '.join(map(repr, missing))}; "
                    "expected the header path,label[,mask] separated by commas, "
                    f"found {', '.join(found) or 'nothing'}"
                )
            for row in reader:
                yield row["path"].strip(), row["label"].strip(), row.get("mask", "").strip(), reader.line_num
    except UnicodeDecodeError as error:
        raise DatasetError(f"{printable(table)} is not UTF-8 ({error}); save it as CSV UTF-8") from None
    except csv.Error as error:
        raise DatasetError(f"{printable(table)} is not a readable CSV table: {error}") from None
    except OSError as error:
        raise DatasetError(f"{printable(table)} cannot be read: {error.strerror}") from None


def _candidates(
    root: Path, rows: list[tuple[str, str, str, int]], labels: dict[str, int]
) -> tuple[list[Candidate], list[Rejected]]:
    """(files to check, rows refused without opening a file)."""
    candidates: list[Candidate] = []
    refused: list[Rejected] = []
    first_line: dict[PurePosixPath, int] = {}
    for text, label, mask_text, line in rows:
        relative = _inside(text)
        mask = _inside(mask_text) if mask_text else None
        path = root / (relative or text)
        if not text:
            refused.append(Rejected(path, "missing", f"line {line} has no path"))
        elif relative is None:
            detail = f"line {line}: expected a path relative to the table's folder, without leaving it"
            refused.append(Rejected(path, "outside_root", detail))
        elif not label:
            refused.append(Rejected(path, "no_label", f"line {line} has no label"))
        elif mask_text and mask is None:
            detail = f"line {line}: the mask's path leaves the table's folder"
            refused.append(Rejected(path, "bad_mask", detail))
        elif relative in first_line:
            detail = f"line {line} names the image of line {first_line[relative]} again; the first one counts"
            refused.append(Rejected(path, "duplicate_row", detail))
        else:
            first_line[relative] = line
            mask_path = None if mask is None else root / mask
            candidates.append(Candidate(path, printable(relative), labels[label], mask_path))
    return candidates, refused


def _inside(text: str) -> PurePosixPath | None:
    """The normalised relative path, or None where it is absolute, a URL, on a drive, or leaves the folder."""
    slashed = text.replace("\\", "/")  # tables are also written on Windows
    normal = os.path.normpath(slashed)
    if slashed.startswith("/") or _SCHEME_OR_DRIVE.match(slashed) or normal.split("/")[0] == "..":
        return None
    return PurePosixPath(normal)

"""Parquet: the tables that Hugging Face's `datasets` writes, images inside.

A folder, or its `data/` folder, holds files such as `train-00000-of-00002.parquet` with a column of encoded images
and a column of integer labels. The image bytes are written once as files into the user's cache, as they are, and
then checked like any other image. The tables are read in batches, so they may be larger than memory.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from explain.data.base import FORMATS, PARTS, Dataset, Progress, Rejected, Sample
from explain.data.decode import sniff_format
from explain.data.names import printable
from explain.data.reading import Candidate, check_images
from explain.data.unpacked import source_hash, unpack_once
from explain.errors import DatasetError, IntegrityError

_SPLIT_NAMES = {"train": "train", "training": "train", "validation": "val", "valid": "val", "val": "val",
                "dev": "val", "test": "test", "testing": "test"}  # fmt: skip
_SPLIT = re.compile(rf"({'|'.join(sorted(_SPLIT_NAMES, key=len, reverse=True))})(?![A-Za-z])")
_WHOLE = "images"
"""Folder of the images of files whose names say no split."""

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp"}
_BATCH = 512


@dataclass(frozen=True)
class _Columns:
    """Which columns hold image and label, and the class of each label value; no values: to be counted."""

    image: str
    label: str
    class_names: tuple[str, ...] = ()


@FORMATS.register("parquet")
class Parquet:
    """A folder of Parquet files with images inside; splits named in the file names are kept as parts.

    Example:
        >>> load_data("cifar10").parts.keys()   # cifar10/data/train-00000-of-00001.parquet, …/test-00000-of-…
        dict_keys(['test', 'train'])
    """

    name: ClassVar[str]
    label: ClassVar[str] = "folder of Hugging Face Parquet files with images inside"

    def matches(self, location: str) -> bool:
        """True for a folder with Parquet files in it, in its data folder, or in folders named like splits."""
        return bool(_tables(Path(location)))

    def read(self, location: str, progress: Progress | None = None) -> Dataset:
        """Read the tables; from the second time on, only hash them and compare the unpacked images' sizes and times.

        Raises:
            DatasetError: no column, or more than one, can be the image or the label; or files without a split
                lie beside files with one.
            IntegrityError: a file is cut short or damaged.
        """
        folder = Path(location).resolve()
        splits = _splits(folder)
        hashes = {split: [source_hash(path) for path in paths] for split, paths in splits.items()}
        key = {"format": "parquet", "version": 1, "folder": printable(folder), "files": hashes}
        return unpack_once("parquet", key, lambda fresh: _unpack(fresh, folder, splits, progress))


def _tables(folder: Path) -> list[Path]:
    """The Parquet files of a folder, sorted; a metadata.parquet describes an image folder and holds no images."""
    split_folders = [inner / name for inner in (folder, folder / "data") for name in _SPLIT_NAMES]
    places = [place for place in (folder, folder / "data", *split_folders) if place.is_dir()]
    paths = {path for place in places for path in place.glob("[!.]*.parquet") if path.is_file()}
    return sorted(path for path in paths if path.stem != "metadata")


def _splits(folder: Path) -> dict[str, list[Path]]:
    """The files of each part; of `_WHOLE` alone when no name says a split."""
    found: dict[str, list[Path]] = {}
    for path in _tables(folder):
        match = _SPLIT.match(path.name) or _SPLIT.fullmatch(path.parent.name if path.parent != folder else "")
        found.setdefault(_SPLIT_NAMES[match[1]] if match else _WHOLE, []).append(path)
    if _WHOLE in found and len(found) > 1:
        stray, known = found.pop(_WHOLE)[0], sorted(found)
        raise DatasetError(
            f"{printable(folder)} holds Parquet files named after the splits {', '.join(known)}, and beside them "
            f"{printable(stray.name)}, which is of none; name it train-…, validation-… or test-…, or move it away"
        )
    return found


def _open(path: Path) -> Any:
    try:
        table = pq.ParquetFile(path)
        _ = table.schema_arrow.names  # a name that is no text is found here
        return table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: BaseException) -> IntegrityError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return IntegrityError(f"{printable(path)} is not a readable Parquet file ({said}); fetch it again")


def _columns(path: Path) -> _Columns:
    """The image column and the label column of a table, by type, and by name where types leave a choice."""
    with _open(path) as table:
        schema = table.schema_arrow
    features = _features(schema)
    images = [field.name for field in schema if _holds_images(field.type, features.get(field.name))]
    labels = [name for name, feature in features.items() if _names(feature) and name in schema.names]
    labels = labels or [field.name for field in schema if pa.types.is_integer(field.type)]
    image = _choose(images, _IMAGE_NAMES, "image (a struct with bytes, or binary)", schema, path)
    label = _choose(labels, _LABEL_NAMES, "label (an integer)", schema, path)
    return _Columns(image, label, _names(features.get(label)))


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` wrote about each column, or nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (LookupError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _names(feature: Any) -> tuple[str, ...]:
    """The class names of a ClassLabel, else none."""
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return ()
    names = feature.get("names")
    return tuple(printable(str(name)) for name in names) if isinstance(names, list) else ()


def _holds_images(kind: Any, feature: Any) -> bool:
    if isinstance(feature, dict) and "_type" in feature:
        return bool(feature["_type"] == "Image")
    if pa.types.is_struct(kind):
        return any(inner.name == "bytes" and _is_binary(inner.type) for inner in kind)
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _choose(found: Sequence[str], names: Sequence[str], what: str, schema: Any, path: Path) -> str:
    usual = [name for name in found if name in names]
    for choice in (found, usual):
        if len(choice) == 1:
            return choice[0]
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    several = f"{' and '.join(found)} could be it" if found else "none is of that type"
    raise DatasetError(f"{printable(path)}: expected one column with the {what}; {several}. If there are several, call "
                       f"one of them {names[0]!r}. The columns are {columns}")  # fmt: skip


def _unpack(fresh: Path, folder: Path, splits: dict[str, list[Path]], progress: Progress | None) -> Dataset:
    """Write every image into `fresh` and check it."""
    first = next(iter(splits.values()))[0]
    columns = _columns(first)
    for path in (path for paths in splits.values() for path in paths):
        if _columns(path) != columns:
            raise DatasetError(f"{printable(path)} has other columns or class names than {printable(first)}; "
                               "are the files of one data set?")  # fmt: skip
    values = list(range(len(columns.class_names))) or _label_values(splits, columns)
    if len(values) < 2:
        raise DatasetError(f"column {columns.label!r} of {printable(folder)} has fewer than two classes: {values}")
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    total = sum(_row_count(path) for paths in splits.values() for path in paths)
    index_of = {value: index for index, value in enumerate(values)}
    for items in _written(fresh, splits, columns, index_of):
        before = len(samples) + len(rejected)
        refused = [item for item in items if isinstance(item, Rejected)]
        _tell(progress, before, len(refused), total)
        candidates = [item for item in items if isinstance(item, Candidate)]
        good, bad = check_images(candidates, fresh, _onward(progress, before + len(refused), total))
        samples += good
        rejected += [*refused, *bad]
    samples.sort(key=lambda sample: sample.id)
    rejected.sort(key=lambda item: item.path)
    return Dataset(
        printable(folder.name), fresh, columns.class_names or tuple(map(str, values)), tuple(samples), tuple(rejected),
        f"Parquet files in {printable(folder)}", parts=_ids_of_parts(samples),
    )  # fmt: skip


def _tell(progress: Progress | None, before: int, count: int, total: int) -> None:
    if progress is not None:
        for done in range(before + 1, before + count + 1):
            progress(done, total)


def _onward(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The same progress for a batch that begins after `before` others."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _ids_of_parts(samples: list[Sample]) -> dict[str, tuple[str, ...]]:
    """Ids by part; none unless there is something to train on and something else."""
    ids: dict[str, list[str]] = {}
    for sample in samples:
        ids.setdefault(sample.id.split("/")[0], []).append(sample.id)
    parts = {part: tuple(ids[part]) for part in PARTS if part in ids}
    return parts if "train" in parts and len(parts) > 1 else {}


def _row_count(path: Path) -> int:
    with _open(path) as table:
        return int(table.metadata.num_rows)


def _label_values(splits: dict[str, list[Path]], columns: _Columns) -> list[int]:
    """Every label value there is, sorted; a negative one means that an image has no label."""
    values: set[int] = set()
    for path in (path for paths in splits.values() for path in paths):
        for batch in _batches(path, [columns.label], 65_536):
            values.update(value for value in batch.column(0).unique().to_pylist() if value is not None and value >= 0)
    return sorted(values)


def _batches(path: Path, columns: list[str], size: int) -> Iterator[Any]:
    try:
        with _open(path) as table:
            yield from table.iter_batches(size, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _written(
    fresh: Path, splits: dict[str, list[Path]], columns: _Columns, index_of: dict[int, int]
) -> Iterator[list[Candidate | Rejected]]:
    """Write the images of one batch after the other."""
    for split, paths in splits.items():
        row = 0
        (fresh / split).mkdir()
        for path in paths:
            for batch in _batches(path, [columns.image, columns.label], _BATCH):
                column = batch.column(columns.image)
                if pa.types.is_struct(column.type):  # the path beside the bytes is not looked at, it may be no text
                    column = pc.struct_field(column, "bytes")
                images, labels = column.to_pylist(), batch.column(columns.label).to_pylist()
                yield [_write(fresh / split, row + number, image, index_of.get(label), label)
                       for number, (image, label) in enumerate(zip(images, labels, strict=True))]  # fmt: skip
                row += len(labels)


def _write(
    folder: Path, row: int, content: bytes | None, index: int | None, label: int | None
) -> Candidate | Rejected:
    """Write one image; its name is its row, since names inside a table are not to be trusted with a disk."""
    suffix = _SUFFIXES.get(sniff_format(content[:32]) or "", ".bin") if content else ".bin"
    path = folder / f"{row:07}{suffix}"
    if index is None:
        return Rejected(path, "no_label", f"row {row} of {folder.name!r} has the label {label}, which is no class")
    if not content:
        detail = f"row {row} of {folder.name!r} holds no image bytes; files beside a table are not read"
        return Rejected(path, "missing", detail)
    path.write_bytes(content)
    return Candidate(path, f"{folder.name}/{path.name}", index)

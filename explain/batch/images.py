"""The images of a batch: what a caller may give, as lines of a manifest.

A labelled data set keeps its labels and masks. Anything else (a folder, files, a list of paths) is a list of images
without labels, listed one by one so that it may be longer than memory. Files that cannot be used are listed too: they
become rows with a reason.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explain.archive.job import DataFacts
from explain.archive.manifest import Entry
from explain.data.base import FORMATS, Dataset, Rejected, Sample, is_fallback, load_data
from explain.data.decode import REASONS, ImageRejected, read_bytes
from explain.data.names import below, printable
from explain.data.reading import find_images, read_class_folders
from explain.errors import InputError
from explain.training.images import Progress

LISTING = "listing images"
CHECKING = "checking images"


@dataclass(frozen=True)
class Images:
    """Images to explain.

    Args:
        facts: where they come from.
        entries: called for the lines of the manifest; they may be made while they are asked for.
        labelled: every usable image has a label.
    """

    facts: DataFacts
    entries: Callable[[], Iterable[Entry]]
    labelled: bool


def find_batch(data: Any, class_names: Sequence[str], progress: Progress) -> Images:
    """The images that a caller means.

    Args:
        data: a data set; the name, table or folder of one; an image file or a folder of images; or a list of image
            files, folders and samples.
        class_names: the models' classes: a folder with one sub-folder for each of them is a labelled data set.
        progress: told as images are listed.

    Raises:
        InputError: none of these.
        DatasetError: a data set that cannot be read.
    """
    if isinstance(data, Dataset):
        return _labelled(data, None)
    if isinstance(data, str | Path):
        return _at(data, class_names, progress)
    if isinstance(data, Iterable) and not isinstance(data, bytes | dict):
        items = data if isinstance(data, Sequence) else list(data)
        wrong = next((item for item in items if not isinstance(item, str | Path | Sample)), None)
        if wrong is None:
            labelled = bool(items) and all(isinstance(item, Sample) for item in items)
            facts = _facts("images", None, None, class_names if labelled else (), any(map(_mask_of, items)))
            return Images(facts, lambda: _listed(items, None, progress), labelled)
        raise InputError(f"expected image files, got {type(wrong).__name__}; for images in memory use "
                         "explain.attribute")  # fmt: skip
    raise InputError("expected a data set, the path or name of one, or a list of image files; got "
                     f"{type(data).__name__}; for images in memory use explain.attribute")  # fmt: skip


def _at(location: str | Path, class_names: Sequence[str], progress: Progress) -> Images:
    """A data set where some format knows one, else whatever images lie there."""
    path = Path(location)

    def checking(done: int, total: int) -> None:
        progress(CHECKING, done, total)

    if any(FORMATS.create(name).matches(str(location)) for name in FORMATS if not is_fallback(name)):
        return _labelled(load_data(location, checking), str(location))
    if _has_folders(path, class_names):
        # folders have no order of their own, so they take the models'
        found = read_class_folders(path, name=path.name, class_folders=class_names, progress=checking)
        return _labelled(found, str(location))
    if not path.exists():
        raise InputError(f"there is no {printable(str(location))!r}; expected image files, a folder of images, or the "
                         "path or name of a data set")  # fmt: skip
    root = path.resolve() if path.is_dir() else None
    facts = _facts(printable(path.name), str(location), root, (), False)
    return Images(facts, lambda: _listed([path if root is None else root], root, progress), False)


def _has_folders(path: Path, class_names: Sequence[str]) -> bool:
    if not path.is_dir():
        return False
    shown = (child for child in path.iterdir() if not child.name.startswith("."))
    return {child.name for child in shown if child.is_dir()} == set(class_names)


def _labelled(data: Dataset, location: str | None) -> Images:
    has_masks = any(sample.mask is not None for sample in data.samples)
    facts = DataFacts(
        name=data.name, location=location, root=printable(data.root), class_names=data.class_names, has_masks=has_masks,
        source=data.source, licence=data.licence,
    )  # fmt: skip
    return Images(facts, lambda: _of_dataset(data), True)


def _of_dataset(data: Dataset) -> Iterator[Entry]:
    yield from map(_of_sample, data.samples)
    for item in data.rejected:
        if item.reason in REASONS:  # others are no images, or have no label: the data set itself left them out
            yield Entry(printable(below(item.path, data.root)), item.path)


def _of_sample(sample: Sample) -> Entry:
    return Entry(sample.id, sample.path, sample.label, sample.sha256, sample.mask)


def _facts(name: str, location: str | None, root: Path | None, classes: Sequence[str], has_masks: bool) -> DataFacts:
    return DataFacts(
        name=name, location=location, root=None if root is None else printable(root), class_names=tuple(classes),
        has_masks=has_masks, source="", licence="not stated",
    )  # fmt: skip


def _mask_of(item: Any) -> bool:
    return isinstance(item, Sample) and item.mask is not None


def _listed(items: Iterable[Any], root: Path | None, progress: Progress) -> Iterator[Entry]:
    """Files and those below folders, each hashed as it is listed; the number in all is not known before."""
    done = 0
    for item in items:
        for entry in (_of_sample(item),) if isinstance(item, Sample) else _below(Path(item), root):
            done += 1
            progress(LISTING, done, 0)
            yield entry


def _below(path: Path, root: Path | None) -> Iterator[Entry]:
    for found in find_images(path) if path.is_dir() else (path,):
        file = found.path if isinstance(found, Rejected) else found
        yield Entry(printable(below(file, root)), file.absolute(), None, _hash(file, root))


def _hash(file: Path, root: Path | None) -> str | None:
    try:
        return hashlib.sha256(read_bytes(file, root=root)).hexdigest()
    except ImageRejected:
        return None  # reading it again, when its turn comes, tells why

"""Reading: find the images under a folder, check each one in full, and keep the bad ones apart.

Formats say which files belong to which class; what happens to a file after that is the same for all of them
and lives here.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from explain.data.base import Dataset, Progress, Rejected, Sample
from explain.data.decode import ImageRejected, decode, load_mask, sniff_format
from explain.data.names import printable
from explain.errors import DatasetError
from explain.files import sha256_file

IMAGE_SUFFIXES = frozenset(
    ".apng .avif .bmp .dcm .dib .eps .gif .heic .heif .ico .j2k .jfif .jp2 .jpe .jpeg .jpg .jxl .pbm .pgm "
    ".png .pnm .ppm .psd .raw .svg .tga .tif .tiff .webp".split()
)
"""A file named so was meant as an image: it is used, or listed as rejected, but never passed over."""

LAYOUT = "expected one sub-folder per class with images inside, such as cats/001.jpg and dogs/001.jpg"
_SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True)
class Candidate:
    """A file that should become a sample: where it is, its id, its class index, and its mask file if any."""

    path: Path
    id: str
    label: int
    mask: Path | None = None


def check_images(
    candidates: Sequence[Candidate], root: Path, progress: Progress | None = None
) -> tuple[list[Sample], list[Rejected]]:
    """Hash and fully decode every candidate, on a few threads.

    Args:
        candidates: the files.
        root: folder that no file may leave by a link.
        progress: called with (done, total), in order, on the calling thread.

    Returns:
        The usable images in order of id, and the others in order of path.
    """
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decode") as pool:
        # Closing the iterator cancels what has not begun, so an interrupt does not wait for the whole set.
        with closing(_in_order(pool, lambda candidate: _check(candidate, root), candidates)) as results:
            for done, result in enumerate(results, start=1):
                if isinstance(result, Sample):
                    samples.append(result)
                else:
                    rejected.append(result)
                if progress is not None:
                    progress(done, len(candidates))
    samples.sort(key=lambda sample: sample.id)
    rejected.sort(key=lambda item: os.fsencode(item.path))
    return samples, rejected


def _in_order(
    pool: ThreadPoolExecutor, check: Callable[[Candidate], Sample | Rejected], candidates: Sequence[Candidate]
) -> Generator[Sample | Rejected, None, None]:
    yield from pool.map(check, candidates)


def _check(candidate: Candidate, root: Path) -> Sample | Rejected:
    try:
        decoded = decode(candidate.path, root=root)
        digest = sha256_file(candidate.path)
    except ImageRejected as rejection:
        return Rejected(candidate.path, rejection.reason, rejection.detail)
    except OSError as error:
        return Rejected(candidate.path, "unreadable", f"the system does not let it be read: {error.strerror}")
    if candidate.mask is not None:
        try:
            load_mask(candidate.mask, (decoded.image.height, decoded.image.width), root=root)
        except ImageRejected as rejection:
            detail = f"its mask {printable(candidate.mask.name)} cannot be used: {rejection.detail}"
            return Rejected(candidate.path, "bad_mask", detail)
    return Sample(candidate.id, candidate.path, candidate.label, digest, candidate.mask, decoded.flags)


def read_class_folders(
    folder: str | Path,
    *,
    name: str,
    class_folders: Sequence[str] | None = None,
    source: str = "",
    licence: str = "not stated",
    progress: Progress | None = None,
) -> Dataset:
    """Read a folder with one sub-folder per class; images may lie at any depth below it.

    Args:
        folder: the folder.
        name: the data set's name.
        class_folders: the sub-folders in label order; omitted: all of them, sorted by name.
        source: where the data comes from, in words.
        licence: its licence.
        progress: called with (done, total) while images are checked.

    Raises:
        DatasetError: the folder is not laid out like this.
    """
    root = Path(os.path.realpath(folder))
    found, strays = _class_folders(root)
    classes = list(found if class_folders is None else class_folders)
    _check_classes(root, classes, strays)
    candidates: list[Candidate] = []
    for label, class_folder in enumerate(classes):
        before = len(candidates)
        for item in find_images(root / class_folder):
            if isinstance(item, Rejected):
                strays.append(item)
            else:
                candidates.append(Candidate(item, printable(item.relative_to(root)), label))
        if len(candidates) == before:
            raise DatasetError(
                f"sub-folder {printable(class_folder)!r} of {printable(root)} holds no image; {LAYOUT}. "
                "Fill it, or move it elsewhere if it is not a class."
            )
    samples, rejected = check_images(candidates, root, progress)
    class_names = tuple(printable(class_folder) for class_folder in classes)
    return Dataset(name, root, class_names, tuple(samples), (*strays, *rejected), source, licence)


def _check_classes(root: Path, classes: Sequence[str], strays: Sequence[Rejected]) -> None:
    if not classes:
        loose = f"{len(strays)} images or links that lie loose" if strays else "no image"
        raise DatasetError(f"{printable(root)} has no class folders ({loose}); {LAYOUT}")
    if {name.lower() for name in classes} <= _SPLIT_FOLDERS:
        raise DatasetError(
            f"the sub-folders of {printable(root)} are {', '.join(sorted(classes))}: an existing split, not "
            f"classes. Load one of them ({LAYOUT}); the toolkit makes its own split."
        )
    if len(classes) == 1:
        only = printable(classes[0])
        raise DatasetError(f"{printable(root)} has one class only, {only!r}; at least two are needed")


def _class_folders(root: Path) -> tuple[list[str], list[Rejected]]:
    """(names of the sub-folders, sorted; images and folder links that lie beside them)."""
    folders: list[str] = []
    strays: list[Rejected] = []
    try:
        entries = _listed(root)
    except OSError as error:
        raise DatasetError(f"{printable(root)} cannot be listed: {error.strerror}; {LAYOUT}") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        elif os.path.isdir(entry.path):  # unlike entry.is_dir(), quiet about a link that leads to itself
            strays.append(_linked_folder(entry))
        elif _meant_as_image(entry):
            detail = f"it lies outside every class folder; {LAYOUT}"
            strays.append(Rejected(Path(entry.path), "no_class", detail))
    return folders, strays


def find_images(folder: Path) -> Iterator[Path | Rejected]:
    """Every file below a folder that is, or is named like, an image, in order; and the folders not entered.

    Hidden files and folders are passed over, and so are files that neither are named nor begin like an image.
    """
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            entries = _listed(current)
        except OSError as error:
            yield Rejected(current, "unreadable", f"the folder cannot be listed: {error.strerror}")
            continue
        inner: list[Path] = []
        for entry in entries:
            named_image = _suffix(entry.name) in IMAGE_SUFFIXES
            if entry.is_dir(follow_symlinks=False) and not named_image:
                inner.append(Path(entry.path))
            elif os.path.isdir(entry.path) and not named_image:
                yield _linked_folder(entry)
            elif _meant_as_image(entry):
                yield Path(entry.path)
        waiting.extend(reversed(inner))


def _listed(folder: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(shown, key=lambda entry: entry.name)


def _linked_folder(entry: "os.DirEntry[str]") -> Rejected:
    detail = "links to folders are not followed; load or copy their target"
    return Rejected(Path(entry.path), "linked_folder", detail)


def _meant_as_image(entry: "os.DirEntry[str]") -> bool:
    if _suffix(entry.name) in IMAGE_SUFFIXES:
        return True
    if not entry.is_file(follow_symlinks=False):
        return False
    try:
        with open(entry.path, "rb") as stream:
            return sniff_format(stream.read(32)) is not None
    except OSError:
        return False  # neither named like an image nor readable: nothing says that it is one


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()

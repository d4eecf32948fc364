"""Dataset: labelled images on disk that were all decoded once, and the formats they are read from.

A format is one file in this folder. `load_data` asks each format whether it knows a path or name, reads the
samples, and keeps apart the images that cannot be used: those are listed with a reason, never dropped in
silence.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from pydantic import Field, ValidationError, model_validator

from explain.data.names import find_obeyed, from_printable, printable
from explain.errors import DatasetError, IntegrityError, UnknownNameError
from explain.files import sha256_json
from explain.record import Record
from explain.registry import Registry


@dataclass(frozen=True)
class Sample:
    """One usable image.

    Args:
        id: unique, stable and printable name, such as "local/textile_0001.jpg".
        path: the file.
        label: class index into the data set's `class_names`.
        sha256: hash of the file's bytes.
        mask: file of the region that decides the label, when the data set has one.
        flags: what decoding had to decide, such as "multi_frame" or "alpha_composited".
    """

    id: str
    path: Path
    label: int
    sha256: str
    mask: Path | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """One file that cannot be used: its path, a one-word reason and one sentence of detail."""

    path: Path
    reason: str
    detail: str


PARTS = ("train", "val", "test")
"""What a data set's images can be set aside for."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    Args:
        name: short name used for run folders and titles.
        root: folder that the samples' ids are relative to.
        class_names: the classes, in label order.
        samples: the usable images, sorted by id.
        rejected: files left out, each with its reason.
        source: where the data comes from, in words.
        licence: its licence, or "not stated".
        parts: ids of the images that the data set itself sets aside as "train", "val" and "test"; empty when it
            leaves the split to its reader, else "train" is there and no id lies in two parts.

    Raises:
        DatasetError: the parts are not like that.
    """

    name: str
    root: Path
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...] = ()
    source: str = ""
    licence: str = "not stated"
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.parts:
            self._check_parts()

    def _check_parts(self) -> None:
        if "train" not in self.parts or not set(self.parts) <= set(PARTS):
            raise DatasetError(f"expected the parts train, val and test, at least train; data set {self.name!r} "
                               f"has {', '.join(sorted(self.parts))}")  # fmt: skip
        part_of: dict[str, str] = {}
        for part, ids in self.parts.items():
            for name in ids:
                if name not in self.by_id:
                    raise DatasetError(f"{name!r} of part {part!r} is no usable image of data set {self.name!r}")
                if name in part_of:
                    raise DatasetError(f"{name!r} lies in part {part_of[name]!r} and again in part {part!r} of data "
                                       f"set {self.name!r}; expected every image in one part, once")  # fmt: skip
                part_of[name] = part

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def by_id(self) -> dict[str, Sample]:
        """Samples by their id."""
        return {sample.id: sample for sample in self.samples}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every sample's id, content hash and label, and the class names; parts do not change it."""
        rows = sorted([sample.id, sample.sha256, sample.label] for sample in self.samples)
        return sha256_json({"classes": list(self.class_names), "samples": rows})

    def select(self, ids: Iterable[str]) -> "Dataset":
        """The data set of only these ids, in the order given and no longer in parts.

        Raises:
            UnknownNameError: an id that the data set does not hold.
        """
        wanted = list(ids)
        missing = [name for name in wanted if name not in self.by_id]
        if missing:
            raise UnknownNameError(
                f"{len(missing)} of {len(wanted)} image ids are not in data set {self.name!r}, "
                f"first {missing[0]!r}; was the data changed or moved since the split was made?"
            )
        return replace(self, samples=tuple(self.by_id[name] for name in wanted), rejected=(), parts={})

    def counts(self) -> dict[str, int]:
        """Usable images per class name."""
        totals = dict.fromkeys(self.class_names, 0)
        for sample in self.samples:
            totals[self.class_names[sample.label]] += 1
        return totals

    def manifest(self) -> dict[str, Any]:
        """Everything above as plain JSON data: one row per sample with its SHA-256, one per rejected file.

        Paths are written by `printable`, since a file name need not be text that JSON can hold.
        """
        return {
            "name": self.name,
            "root": printable(self.root),
            "source": self.source,
            "licence": self.licence,
            "class_names": list(self.class_names),
            "fingerprint": self.fingerprint,
            "samples": [
                {"id": s.id, "path": printable(s.path), "label": s.label, "sha256": s.sha256,
                 "mask": None if s.mask is None else printable(s.mask), "flags": list(s.flags)}
                for s in self.samples
            ],
            "rejected": [
                {"path": printable(r.path), "reason": r.reason, "detail": r.detail} for r in self.rejected
            ],
            "parts": {part: list(ids) for part, ids in self.parts.items()},
        }  # fmt: skip

    @classmethod
    def from_manifest(cls, manifest: Any) -> "Dataset":
        """The data set a manifest describes, without touching the images; one without parts may not name them.

        Paths may lie anywhere on this machine and are not covered by the fingerprint: whoever uses the data set opens
        them as images, by `explain.data.decode`, and as nothing else.

        Raises:
            IntegrityError: it is not what `manifest` gives, or ids, hashes, labels or classes are not those of its
                fingerprint.
        """
        try:
            record = _Manifest.model_validate(manifest)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "a data set"
            raise IntegrityError(f"the record of a data set is damaged: {where}: {first['msg']}") from None
        texts = {"name": record.name, "class_names": record.class_names, "source": record.source}
        obeyed = find_obeyed(texts | {"id": [row.id for row in record.samples]})
        if obeyed:
            raise IntegrityError(f"the record of a data set is damaged: {obeyed} holds control characters")
        samples = tuple(
            Sample(row.id, _path(row.path), row.label, row.sha256, None if row.mask is None else _path(row.mask),
                   row.flags)
            for row in record.samples
        )  # fmt: skip
        rejected = tuple(Rejected(_path(row.path), row.reason, row.detail) for row in record.rejected)
        try:
            dataset = cls(record.name, _path(record.root), record.class_names, samples, rejected, record.source,
                          record.licence, record.parts)  # fmt: skip
        except DatasetError as error:
            raise IntegrityError(f"the record of a data set is damaged: {error}") from None
        if dataset.fingerprint != record.fingerprint:
            raise IntegrityError(
                f"the record of data set {printable(record.name)!r} was changed: its images have the fingerprint "
                f"{dataset.fingerprint[:16]}…, recorded was {printable(record.fingerprint[:16])}…"
            )
        return dataset


class _SampleRow(Record):
    id: str
    path: str
    label: int = Field(ge=0)
    sha256: str
    mask: str | None
    flags: tuple[str, ...]


class _RejectedRow(Record):
    path: str
    reason: str
    detail: str


class _Manifest(Record):
    """What `Dataset.manifest` writes."""

    name: str
    root: str
    source: str
    licence: str
    class_names: tuple[str, ...]
    fingerprint: str
    samples: tuple[_SampleRow, ...]
    rejected: tuple[_RejectedRow, ...]
    parts: dict[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        ids = {row.id for row in self.samples}
        if len(ids) != len(self.samples):
            raise ValueError(f"{len(self.samples) - len(ids)} ids are there more than once")
        wrong = [row.id for row in self.samples if row.label >= len(self.class_names)]
        if wrong:
            raise ValueError(f"{len(wrong)} labels are of no class, first that of {wrong[0]!r}")
        return self


def _path(text: str) -> Path:
    return Path(from_printable(text))


Progress = Callable[[int, int], None]
"""Called with (done, total) as images are checked."""


class DatasetFormat(Protocol):
    """One way data sets lie on disk (or come by name).

    A format may set `fallback: ClassVar[bool] = True`: it is asked last, about what no other format knows.
    """

    name: ClassVar[str]
    label: ClassVar[str]

    def matches(self, location: str) -> bool:
        """True when this format knows what lies at the path, or knows the name."""

    def read(self, location: str, progress: Progress | None = None) -> Dataset:
        """Read and check every image; bad ones land in `Dataset.rejected`."""


FORMATS: Registry[DatasetFormat] = Registry("data format", "explain.data")


def is_fallback(name: str) -> bool:
    """True for a format that is asked only when no other format knows a location."""
    return bool(getattr(FORMATS[name], "fallback", False))


def load_data(location: str | Path, progress: Progress | None = None) -> Dataset:
    """Read a data set from a folder, a table or by name.

    Args:
        location: a folder or file in one of the formats of docs/data.md, or the name of a known data set.
        progress: called with (done, total) while images are checked.

    Raises:
        DatasetError: no format knows the location, or no usable image is left.
    """
    # A format that is called like the location comes first: "textile" is the data set, "./textile" a folder.
    for name in sorted(FORMATS, key=lambda name: (name != str(location), is_fallback(name))):
        plugin = FORMATS.create(name)
        if plugin.matches(str(location)):
            dataset = plugin.read(str(location), progress)
            if not dataset.samples:
                first = f"; first: {dataset.rejected[0].detail}" if dataset.rejected else ""
                raise DatasetError(f"no usable image in {location} ({len(dataset.rejected)} rejected{first})")
            return dataset
    known = "; ".join(FORMATS[name].label for name in FORMATS)
    raise DatasetError(f"no data format knows {str(location)!r}. Known: {known}. Does the path exist?")

"""Shard: the only unit of work, a pure function of (images, models, configuration) -> maps, numbers, receipt.

Whoever runs it, in whatever order, on whatever machine of one kind, the files are the same bytes. An image that cannot
be explained is a row with a reason; the others of its shard are not touched by it. All models and methods share one
decoding, and a loader thread decodes the next images while these are explained.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from explain.archive.archive import MapArchive
from explain.archive.commit import begin, commit, give_up
from explain.archive.job import Job
from explain.archive.manifest import Entry
from explain.archive.maps_file import MapsWriter, Row
from explain.archive.receipt import Receipt
from explain.attribution import Array
from explain.backbone import InputTransform
from explain.batch.isolated import IsolatedDecoder
from explain.batch.loading import Decode, Loaded, load_ahead, read_image
from explain.batch.numbers import Found, OnGrid, degenerate, numbers, table_schema
from explain.batch.settings import Settings
from explain.data.decode import ImageRejected, load_mask
from explain.engine import attribute
from explain.errors import NonFiniteError
from explain.model import TunedModel
from explain.passes import is_out_of_memory

CHUNK = 32
"""Images in one call of the engine at least, so that what a call costs beside its passes is shared by them."""

TRIES = 2
"""Times that a shard may be left by a killed process before its images are decoded in a process of their own."""

IMAGE_ERRORS = (NonFiniteError, RuntimeError, MemoryError)
"""What an image may bring about; `status_of` tells these from other faults."""

Step = Callable[[int], None]
"""Called with how many more images are done."""


def nothing(count: int) -> None:
    """A Step that says nothing."""


def run_shard(
    archive: MapArchive,
    models: Mapping[str, TunedModel],
    shard: int,
    *,
    settings: Settings,
    cancelled: Callable[[], bool] | None = None,
    step: Step = nothing,
) -> Receipt:
    """Compute one shard and commit it.

    Args:
        archive: where it goes; its job says what is computed.
        models: by name, on the device where they run.
        shard: its number.
        settings: how it is computed.
        cancelled: asked between passes; True drops the shard.
        step: called as images are done.

    Raises:
        Cancelled: `cancelled` said so.
        StorageError: the files could not be written.
        IntegrityError: the manifest is damaged.
    """
    started = time.perf_counter()
    entries = archive.manifest.shard(shard)
    tries = begin(archive.store, shard)
    try:
        with ExitStack() as stack:
            root = archive.job.data.folder
            decode: Decode = lambda entry, row: read_image(entry, row, root)  # noqa: E731
            if tries >= TRIES:
                archive.note("isolated", shard=shard, tries=tries)
                decode = stack.enter_context(IsolatedDecoder(root))
            explainer = Explainer(archive.job, models, settings, cancelled)
            maps, table = explainer.run(entries, decode, archive.manifest.facts.first_row(shard), step)
        return commit(archive, shard, entries, maps, table, time.perf_counter() - started)
    finally:
        give_up(archive.store, shard)  # only a killed process leaves its attempt behind


@dataclass(frozen=True)
class Ready(Loaded):
    """A decoded image as the models take it: uint8 (3, H, W) per input transform, its size (H, W), and its mask."""

    pixels: Mapping[InputTransform, Tensor] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    mask: Array | None = None


@dataclass(frozen=True)
class Explainer:
    """What turns images into maps and numbers, for one job in one process."""

    job: Job
    models: Mapping[str, TunedModel]
    settings: Settings
    cancelled: Callable[[], bool] | None = None

    def run(
        self, entries: Sequence[Entry], decode: Decode, first_row: int, step: Step
    ) -> tuple[MapsWriter, pa.Table]:
        """The maps of a shard, ready to be written, and its table of numbers."""
        writer = MapsWriter(self.job.columns, {one.name: len(one.class_names) for one in self.job.models})
        lines: list[dict[str, Any]] = []
        ready = load_ahead(entries, lambda entry, row: self.prepare(decode(entry, row)), ahead=2 * CHUNK,
                           threads=self.settings.decoders)  # fmt: skip
        with closing(ready) as images:
            while chunk := list(islice(images, max(CHUNK, self.settings.batch_size))):
                for line, row in self.explain(chunk):
                    lines.append({"row": first_row + len(lines)} | line)
                    writer.add(row)
                step(len(chunk))
        return writer, pa.Table.from_pylist(lines, table_schema(self.job))

    def prepare(self, loaded: Loaded) -> Ready:
        """Resize a decoded image for every model, on the thread that decoded it, and let go of the large one."""
        own = {part.name: getattr(loaded, part.name) for part in fields(Loaded)} | {"image": None}
        if loaded.image is None:
            return Ready(**own)
        size, entry = (loaded.image.height, loaded.image.width), loaded.entry
        classes = min(len(model.class_names) for model in self.models.values())
        if self.job.targets == "label" and (entry.label is None or not 0 <= entry.label < classes):
            detail = f"the maps explain labels, and its label is {entry.label}; the models have {classes} classes"
            return Ready(**own | {"status": "no_label", "detail": detail}, size=size)
        mask = None
        if entry.mask is not None and self.job.data.has_masks:
            try:
                mask = load_mask(entry.mask, size, root=self.job.data.folder)
            except ImageRejected as error:
                return Ready(**own | {"status": "bad_mask", "detail": error.detail}, size=size)
        transforms = {model.transform for model in self.models.values()}
        return Ready(**own, pixels={one: one.pixels(loaded.image) for one in transforms}, size=size, mask=mask)

    def explain(self, chunk: Sequence[Ready]) -> Iterator[tuple[dict[str, Any], Row]]:
        """(line of the table, maps) of each image in order."""
        good, found, failed = self._attribute([one for one in chunk if one.status == "ok"])
        cells = self._cells(good, found) if good else {}
        for one in chunk:
            status, detail = failed.get(one.row, (one.status, one.detail))
            height, width = one.size or (None, None)
            line = {"id": one.entry.id, "status": status, "detail": detail, "flags": list(one.flags),
                    "label": one.entry.label, "width": width, "height": height}  # fmt: skip
            numbers_of_it, row = cells.get(one.row, ({}, Row(one.entry.id, {}, {}, {})))
            yield line | numbers_of_it | {"flags": line["flags"] + numbers_of_it.get("flags", [])}, row

    def _attribute(self, ready: list[Ready]) -> tuple[list[Ready], Found, dict[int, tuple[str, str]]]:
        """(images that were explained, their maps, why the others were not by their row)."""
        if not ready:
            return [], {}, {}
        try:
            return ready, self._maps(ready), {}
        except IMAGE_ERRORS as error:
            status_of(error)
        failed: dict[int, tuple[str, str]] = {}
        for one in ready:  # which of them it is
            try:
                self._maps([one])
            except IMAGE_ERRORS as error:
                failed[one.row] = (status_of(error), str(error).replace("image(s) [0]", "this image"))
        good = [one for one in ready if one.row not in failed]
        return good, self._maps(good) if good else {}, failed

    def _maps(self, ready: Sequence[Ready]) -> Found:
        targets: Any = self.job.targets if isinstance(self.job.targets, int) else None
        if self.job.targets == "label":
            targets = [one.entry.label for one in ready]
        found: dict[str, Any] = {}
        for name, model in self.models.items():
            images = model.transform.normalise(torch.stack([one.pixels[model.transform] for one in ready]))
            found[name] = attribute(
                model, images, methods=self.job.method_names, targets=targets, options=self.job.methods,
                batch_size=self.settings.batch_size, memory_budget=self.settings.memory_budget,
                precision=self.job.precision, cancelled=self.cancelled,
            )  # fmt: skip
        return found

    def _cells(self, ready: Sequence[Ready], found: Found) -> dict[int, tuple[dict[str, Any], Row]]:
        """By row in the shard: numbers and maps of each image that was explained."""
        on_grid = OnGrid.of(self.job, found)
        columns = numbers(self.job, found, on_grid, [one.entry.label for one in ready], [one.mask for one in ready])
        flat = {f"{one.model}.{one.method}": degenerate(found[one.model][one.method]) for one in self.job.maps}
        cells: dict[int, tuple[dict[str, Any], Row]] = {}
        for index, one in enumerate(ready):
            line: dict[str, Any] = {name: values[index] for name, values in columns.items()}
            line["flags"] = [f"degenerate:{name}" for name, values in flat.items() if values[index]]
            answers = {line[f"{model.name}_prediction"] for model in self.job.models}
            pixels = self._kept(one.entry.id) or len(answers) > 1 or bool(line["flags"])
            maps = {
                column.name: on_grid.maps[column.model, column.method][index] if column.part == "grid"
                else found[column.model][column.method].values[index]
                for column in self.job.columns if column.part == "grid" or pixels
            }  # fmt: skip
            first = {name: next(iter(of_model.values())) for name, of_model in found.items()}
            cells[one.row] = line, Row(
                one.entry.id, maps, {name: of_model.logits[index] for name, of_model in first.items()},
                {name: int(of_model.targets[index]) for name, of_model in first.items()},
            )  # fmt: skip
        return cells

    def _kept(self, name: str) -> bool:
        """Whether this image's pixel maps are kept: a draw by its id, so the same on every machine and in any order."""
        if self.job.sampled is None:
            return True
        count, seed = self.job.sampled
        drawn = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64
        return drawn < count / self.job.manifest.count


def status_of(error: BaseException) -> str:
    """The status of an image that this error befell; raises the error again where it is not about images."""
    if isinstance(error, NonFiniteError):
        return "nonfinite_output"
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return "oom"
    raise error

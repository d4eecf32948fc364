"""Explained: one image of an archive, with its maps by model and method."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from explain.archive.manifest import Entry
from explain.archive.maps_file import Column, Row
from explain.attribution import Array, Attribution
from explain.errors import InputError, IntegrityError, UnknownNameError

if TYPE_CHECKING:
    from explain.archive.archive import MapArchive


@dataclass(frozen=True)
class StoredMap:
    """One map as it was kept; `numpy.asarray` gives its values.

    Args:
        model: name of the model.
        method: registered name of the method.
        values: float32 (h, w) on the patch grid, or (H, W) in pixels.
        on_grid: float32 (h, w), the same map on the patch grid; pixels are summed per patch.
        target: class that it explains.
        form: "fp16" or "int8", how the values were kept.
    """

    model: str
    method: str
    values: Array
    on_grid: Array
    target: int
    form: str

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    def resized(self, size: tuple[int, int]) -> Array:
        """The map at another resolution (H, W), bilinear between patch or pixel centres, float32."""
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"expected a size (H, W) of at least 1x1, got {size!r}")
        maps = torch.from_numpy(np.ascontiguousarray(self.values))[None, None]
        return np.asarray(interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)[0, 0].numpy())


class Explained(Mapping[str, Mapping[str, StoredMap]]):
    """One image: a mapping from model to a mapping from method to map. An image that failed has no models.

    Args:
        archive: where it comes from.
        row: in the manifest.
        stored: its row of the maps file.
    """

    def __init__(self, archive: "MapArchive", row: int, stored: Row) -> None:
        self.archive, self.row, self._stored = archive, row, stored

    @property
    def id(self) -> str:
        """Its name in the archive."""
        return self._stored.id

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Every number of it, by column; null is None."""
        return self.archive.metrics_of(self.row)

    @property
    def status(self) -> str:
        """"ok", or why there are no maps."""
        return str(self.metrics["status"])

    @property
    def label(self) -> int | None:
        """Its class, when it has one."""
        label: int | None = self.metrics["label"]
        return label

    @property
    def path(self) -> Path:
        """The image file."""
        return self.entry.path

    @property
    def entry(self) -> Entry:
        """What the manifest says of it."""
        return self.archive.entry(self.row)

    @property
    def logits(self) -> Mapping[str, Array]:
        """Model -> float32 (K,)."""
        return self._stored.logits

    def attribution(self, model: str, method: str) -> Attribution:
        """One map as an Attribution of one image, with its numbers as extras, as `explain.attribute` would give it.

        Raises:
            UnknownNameError: no such model or method, or the image has no maps.
        """
        found, job = self[model], self.archive.job
        if method not in found:
            raise UnknownNameError(f"no method {method!r} in this archive; it has {', '.join(self.archive.methods)}")
        facts = next(one for one in job.maps if (one.model, one.method) == (model, method))
        numbers = {name: self.metrics[f"{model}_{method}_{name}"] for name in facts.numbers}
        extras = {name: np.array([np.nan if value is None else value], np.float32) for name, value in numbers.items()}
        own = job.facts_of[model]
        provenance = {"archive": self.archive.store.url, "form": found[method].form, "tuning": own.tuning,
                      "tuning_options": own.tuning_options, "versions": job.versions} | facts.notes  # fmt: skip
        return Attribution(
            method, found[method].values[None], np.array([found[method].target]), self.logits[model][None],
            own.image_size, dict(job.methods[method]), extras, provenance,
        )  # fmt: skip

    def __getitem__(self, model: str) -> Mapping[str, StoredMap]:
        found = self._maps.get(model)
        if found is None:
            known = ", ".join(self.archive.models)
            if model in self.archive.models:
                raise UnknownNameError(f"image {self.id!r} has no maps: {self.status}: {self.metrics['detail']}")
            raise UnknownNameError(f"no model {model!r} in this archive; it has {known}")
        return found

    def __contains__(self, model: object) -> bool:
        return model in self._maps

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        return f"Explained({self.id!r}: {', '.join(self) or 'no maps'})"

    @cached_property
    def _maps(self) -> dict[str, dict[str, StoredMap]]:
        found: dict[str, dict[str, StoredMap]] = {}
        grids: dict[tuple[str, str], Array] = {}
        for column in self.archive.job.columns:  # the grid column of a map comes before that in pixels
            values = self._stored.maps.get(column.name)
            if values is None:
                continue
            if column.part == "grid":
                grids[column.model, column.method] = values
            found.setdefault(column.model, {})[column.method] = self._map(column, values, grids)
        return found

    def _map(self, column: Column, values: Array, grids: Mapping[tuple[str, str], Array]) -> StoredMap:
        grid, target = grids.get((column.model, column.method)), self._stored.targets.get(column.model)
        if grid is None or target is None:
            raise IntegrityError(f"image {self.id!r} has a map {column.name} without its target or its sums per patch; "
                                 "explain archive verify")  # fmt: skip
        return StoredMap(column.model, column.method, values, grid, target, column.form)

"""Zarr: one group of format 3, whose arrays are read a map at a time by xarray, dask and viewers of large arrays.

    MODEL/METHOD    float32 (image, y, x), one map a chunk, many maps a file; NaN where an image has none
    MODEL/target    int32 (image,), the class that the maps explain, -1 for none
    id, status      text (image,)
    row             int64 (image,), place in the archive

The attributes of the group say what was computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from explain.errors import InputError
from explain.export.base import EXPORTS, WRITING, Chosen, Export, about, check_switches, columns_of, maps_of
from explain.training.images import Progress

SHARD_BYTES = 2**28
"""A file of maps is made in memory; of large maps fewer are put into one than the archive's shards have."""

LEVEL = 3


@EXPORTS.register("zarr")
@dataclass(frozen=True)
class Zarr(Export):
    """A Zarr group.

    Args:
        grid: write every map on the patch grid, which also images have whose pixel maps were not kept.
    """

    grid: bool = False

    label = "Zarr group of format 3"

    def __post_init__(self) -> None:
        check_switches(grid=self.grid)

    def fill(self, chosen: Chosen, path: Path, progress: Progress) -> None:
        """Write the group.

        Raises:
            InputError: Zarr is not installed, or a model has the name of an array.
        """
        try:
            import zarr
        except ImportError:
            raise InputError("the format zarr needs another package: pip install explain-vit[zarr]") from None
        taken = {"id", "status", "row"} & set(chosen.archive.models)
        if taken:
            raise InputError(f"a Zarr group has an array {taken.pop()!r} of its own, so no model can have this name; "
                             "use another format")  # fmt: skip
        group = zarr.create_group(path, zarr_format=3, attributes=about(chosen.archive))
        _write_columns(group, chosen)
        shapes = chosen.shapes(self.grid)
        total = len(chosen) * len(shapes)
        for number, ((model, method), shape) in enumerate(shapes.items()):
            done = number * len(chosen)
            for end in _write_maps(group, chosen, model, method, shape):
                progress(WRITING, done + end, total)


def _write_columns(group: Any, chosen: Chosen) -> None:
    arrays: dict[str, Any] = {}
    start = 0
    for part in chosen.parts:
        end = start + len(part.rows)
        for name, values in columns_of(part).items():
            place = name.replace(".", "/")
            if place not in arrays:
                kind = str if values.dtype.kind == "U" else values.dtype
                arrays[place] = group.create_array(
                    place, shape=(len(chosen),), chunks=(_rows(chosen),), dtype=kind, dimension_names=("image",)
                )
            arrays[place][start:end] = values.astype(object) if values.dtype.kind == "U" else values
        start = end


def _write_maps(group: Any, chosen: Chosen, model: str, method: str, shape: tuple[int, int]) -> Iterator[int]:
    """Write the maps of one model and method; gives how many are written, file after file."""
    from zarr.codecs import ZstdCodec

    rows = max(1, min(_rows(chosen), SHARD_BYTES // (4 * shape[0] * shape[1])))
    array = group.create_array(
        f"{model}/{method}", shape=(len(chosen), *shape), dtype="float32", chunks=(1, *shape), shards=(rows, *shape),
        compressors=ZstdCodec(level=LEVEL, checksum=True), fill_value=float("nan"),
        dimension_names=("image", "y", "x"), attributes={"model": model, "method": method},
    )  # fmt: skip
    maps = (each for part in chosen.parts for each in maps_of(part, model, method, shape))
    block = np.empty((rows, *shape), np.float32)
    for start in range(0, len(chosen), rows):
        end = min(start + rows, len(chosen))
        for inner, values in enumerate(islice(maps, end - start)):
            block[inner] = values
        array[start:end] = block[: end - start]
        yield end


def _rows(chosen: Chosen) -> int:
    """Images of a shard, or all where these are fewer."""
    return min(chosen.archive.job.manifest.shard_size, len(chosen))


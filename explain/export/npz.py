"""NPZ: one file per shard, for numpy and whatever reads its arrays; no image is a file of its own.

    about.json                  what was computed
    maps_000000.npz             the images of shard 0: numpy.load(path)["vpt.grad_cam"]

Arrays of n images: "MODEL.METHOD" float32 (n, h, w), "MODEL.target" int32 (n,), the class that its maps explain, and
"id", "status" and "row" (n,). An image without such a map has NaN there and the target -1.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from explain.export.base import EXPORTS, WRITING, Chosen, Export, about, check_switches, columns_of, maps_of
from explain.files import write_json
from explain.training.images import Progress

LEVEL = 1
"""Of compression: six times as fast as the usual 6 on int8 maps of 224x224, for files a sixth larger."""


@EXPORTS.register("npz")
@dataclass(frozen=True)
class Npz(Export):
    """Compressed NPZ files.

    Args:
        grid: write every map on the patch grid, which also images have whose pixel maps were not kept.
    """

    grid: bool = False

    label = "NPZ files of numpy arrays, one per shard"

    def __post_init__(self) -> None:
        check_switches(grid=self.grid)

    def fill(self, chosen: Chosen, path: Path, progress: Progress) -> None:
        """Write the shards and what was computed."""
        write_json(path / "about.json", about(chosen.archive))
        shapes = chosen.shapes(self.grid)
        done, total = 0, len(chosen) * len(shapes)
        for part in chosen.parts:
            file = path / f"maps_{part.shard:06d}.npz"
            with zipfile.ZipFile(file, "w") as archive:
                for name, values in columns_of(part).items():
                    _add(archive, name, values.dtype, values.shape, iter([values]))
                for (model, method), shape in shapes.items():
                    maps = maps_of(part, model, method, shape)
                    _add(archive, f"{model}.{method}", np.dtype(np.float32), (len(part.rows), *shape), maps)
                    done += len(part.rows)
                    progress(WRITING, done, total)


def _add(
    archive: zipfile.ZipFile, name: str, kind: np.dtype[Any], shape: tuple[int, ...], rows: Iterator[npt.NDArray[Any]]
) -> None:
    """One array, as it comes: a shard of pixel maps is hundreds of megabytes."""
    member = zipfile.ZipInfo(f"{name}.npy")  # without the time of day: equal maps give equal files
    member.compress_type = zipfile.ZIP_DEFLATED
    setattr(member, "compress_level" if hasattr(member, "compress_level") else "_compresslevel", LEVEL)  # until 3.13
    with archive.open(member, "w", force_zip64=True) as stream:
        kind = kind.newbyteorder("<")
        np.lib.format.write_array_header_1_0(
            stream, {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        )
        for values in rows:
            stream.write(values.astype(kind).tobytes())

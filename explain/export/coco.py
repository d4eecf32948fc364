"""COCO: one JSON file of images, classes and regions, for tools that show or score detections.

Each image, model and method has one annotation: the region where the positive map is at least a share of its maximum,
as box and polygons in pixels of the image, with the class that the map explains and its probability. A map without
anything positive has none. Beside what COCO knows, an annotation names its `model` and `method`, an image its `status`
and its `name` in the archive, and `info` says what was computed. The file is written image by image, and takes no more
memory for more of them.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import numpy.typing as npt

from explain.archive.archive import MapArchive
from explain.archive.explained import StoredMap
from explain.archive.manifest import Entry
from explain.attribution import Array
from explain.data.names import below, printable
from explain.errors import InputError
from explain.export.base import EXPORTS, WRITING, Chosen, Export, about, all_maps, check_switches
from explain.render.heatmap import resize
from explain.training.images import Progress

LONGEST = 1024
"""Regions are found at up to so many pixels a side, and their corners scaled to the image."""

SMOOTH = 0.5
"""Pixels that a polygon may pass beside the outline: fewer corners, no visible difference."""


@EXPORTS.register("coco")
@dataclass(frozen=True)
class Coco(Export):
    """A COCO-like JSON file.

    Args:
        share: of a map's maximum that counts as inside its region, above 0 and up to 1.
        grid: find regions on the patch grid; off, in pixels where these are kept, which gives many small ones.
    """

    share: float = 0.5
    grid: bool = True

    label = "COCO-like JSON of regions"
    single = True

    def __post_init__(self) -> None:
        check_switches(grid=self.grid)
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share <= 1:
            raise InputError(f"expected share to be a number above 0 and up to 1, got {self.share!r}")

    def fill(self, chosen: Chosen, path: Path, progress: Progress) -> None:
        """Write the file."""
        info = {"description": f"Regions of saliency maps of {chosen.archive.job.data.name}",
                "options": {"share": self.share, "grid": self.grid}} | about(chosen.archive)  # fmt: skip
        categories = _categories(chosen.archive)
        with open(path, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(f'{{"info": {_json(info)}')
            _write_list(stream, "categories", ({"id": own, "name": name} for name, own in categories.items()))
            _write_list(stream, "images", _images(chosen))
            _write_list(stream, "annotations", self._annotations(chosen, categories, progress))
            stream.write("}\n")

    def _annotations(
        self, chosen: Chosen, categories: dict[str, int], progress: Progress
    ) -> Iterator[dict[str, Any]]:
        job = chosen.archive.job
        numbers, done, kinds = count(1), 0, len(job.maps)  # scorers take annotation 0 for "none"
        for part in chosen.parts:
            for image, line in zip(part.images(), part.lines(), strict=True):
                size = line["height"], line["width"]
                for each in all_maps(image):
                    region = Region.of(each.on_grid if self.grid else each.values, size, self.share)
                    if region is not None:
                        name = job.facts_of[each.model].class_names[each.target]
                        yield _annotation(next(numbers), image.row, categories[name], region, each, line)
                done += kinds
                progress(WRITING, done, kinds * len(chosen))


@dataclass(frozen=True)
class Region:
    """Where a map is high, in pixels of its image; pixel (0, 0) goes from 0 to 1.

    Args:
        box: x, y, width, height.
        area: of all pixels inside.
        polygons: x, y, x, y, … round each piece; holes in it are not cut out.
    """

    box: list[float]
    area: float
    polygons: list[list[float]]

    @classmethod
    def of(cls, values: Array, size: tuple[int, int], share: float) -> "Region | None":
        """The region of a map (h, w) on an image of size (H, W); None where nothing is positive."""
        scale = min(1.0, LONGEST / max(size))
        shape = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        large = resize(values, shape)
        top = float(large.max())
        if top <= 0:
            return None
        inside = (large >= share * top).astype(np.uint8)
        across, down = size[1] / shape[1], size[0] / shape[0]
        polygons = [
            [round(float(value), 2) for value in (points * (across, down)).ravel()] for points in _outlines(inside)
        ]
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        box = [columns[0] * across, rows[0] * down, (columns[-1] - columns[0] + 1) * across,
               (rows[-1] - rows[0] + 1) * down]  # fmt: skip
        return cls([round(float(value), 2) for value in box], round(int(inside.sum()) * across * down, 2), polygons)


def _outlines(inside: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float64]]:
    """Corners (n, 2) as x, y round each piece of a mask, along the outer edges of its pixels."""
    corners = np.zeros((inside.shape[0] + 1, inside.shape[1] + 1), np.uint8)
    for down in (0, 1):
        for across in (0, 1):  # a pixel has four corners; OpenCV follows points, so it is given these
            corners[down : down + inside.shape[0], across : across + inside.shape[1]] |= inside
    contours, _ = cv2.findContours(corners, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    simple = (cv2.approxPolyDP(contour, SMOOTH, True) for contour in contours)
    return [points[:, 0].astype(np.float64) for points in simple if len(points) >= 3]


def _annotation(
    number: int, image: int, category: int, region: Region, each: StoredMap, line: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": region.box, "area": region.area,
        "segmentation": region.polygons, "iscrowd": 0, "score": line[f"{each.model}_target_probability"],
        "model": each.model, "method": each.method,
    }  # fmt: skip


def _categories(archive: MapArchive) -> dict[str, int]:
    """Class name -> number: the index of the class, with those that only a later model has after them."""
    names = dict.fromkeys(name for model in archive.job.models for name in model.class_names)
    return {name: number for number, name in enumerate(names)}


def _images(chosen: Chosen) -> Iterator[dict[str, Any]]:
    for part in chosen.parts:
        for row, line, entry in zip(part.rows, part.lines(), part.entries(), strict=True):
            yield {"id": row, "file_name": _file_name(chosen.archive, entry), "width": line["width"],
                   "height": line["height"], "status": line["status"], "name": line["id"]}  # fmt: skip


def _file_name(archive: MapArchive, entry: Entry) -> str:
    """The file below the folder of the data, or its whole path where it lies elsewhere."""
    return printable(below(entry.path, archive.job.data.folder))


def _write_list(stream: TextIO, name: str, items: Iterable[dict[str, Any]]) -> None:
    stream.write(f',\n{_json(name)}: [')
    for number, item in enumerate(items):
        stream.write(f"{',' if number else ''}\n{_json(item)}")
    stream.write("\n]")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)

"""What the panel shows, and how it travels to the browser, see `app.block`."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from app.block import Blobs
from explain.errors import InputError
from explain.render.heatmap import (
    CLIP_PERCENTILE,
    NOT_UNIFORM,
    OPACITY,
    POSITIVE_COLORMAPS,
    SIGNED_COLORMAPS,
    colour_bar,
)

EXACT_SIDE = 64
"""Maps up to this many rows and columns travel as float32; larger ones as 16 bits between their ends."""

LEVELS = 65535

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MapCell:
    """One map of one model by one method, or why there is none.

    Args:
        model, method: the row and the column it stands in.
        values: the raw map as the method gave it, (h, w), on the patch grid or in pixels; None: see `message`.
        signed: both signs are drawn, symmetric about 0; False: values above 0 only.
        lines: text under the map, such as its raw range.
        flag: "" or a word for the badge's look ("failed", "passed", "not_tested", …); `flag_text` is what it says.
        message: why there is no map.
        pooled: means of a finer map over the patches, (h, w); shown unless the reader wants the pixels.
        dataset: (q, value) pairs, q in 0-100: quantiles of the shown magnitudes over the data set; None: not known.
        dataset_text: what that data set is, such as how many images.
    """

    model: str
    method: str
    values: Floats | None
    signed: bool = False
    lines: tuple[str, ...] = ()
    flag: str = ""
    flag_text: str = ""
    message: str = ""
    pooled: Floats | None = None
    dataset: tuple[tuple[float, float], ...] | None = None
    dataset_text: str = ""

    def __post_init__(self) -> None:
        for values in (self.values, self.pooled):
            if values is not None and (values.ndim != 2 or not values.size or not np.isfinite(values).all()):
                raise InputError(
                    f"the map of {self.model}, {self.method} must be finite (h, w), got shape {values.shape}; "
                    "give values=None and a message where there is no map"
                )


@dataclass(frozen=True)
class Row:
    """One model: its name, its colour (#rrggbb), its answer, the answer's probability as text, whether it is right."""

    model: str
    label: str
    colour: str
    answer: str = ""
    probability: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Column:
    """One method: its name, and whether its maps do not depend on the class."""

    method: str
    label: str
    agnostic: bool = False


Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as shares (0-1) of the original image's width and height."""


@dataclass(frozen=True)
class Panel:
    """Everything one panel shows.

    Args:
        sample: id of the image.
        image: the original as JPEG or PNG, at most about 1500 pixels a side.
        size: its (width, height) in pixels.
        grid: rows and columns of patches (h, w).
        rows, columns, cells: the models, the methods and their maps; the first two rows are those that are compared.
        texts: labels by name (`panel_texts`).
        crop: what of the original the models saw.
        mask: bool (H, W) over the whole original; its outline is drawn.
        boxes: outlined too.
        title: first line of the saved pictures.
        input_lines: text under the input.
    """

    sample: str
    image: bytes
    size: tuple[int, int]
    grid: tuple[int, int]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: tuple[MapCell, ...]
    texts: dict[str, str] = field(repr=False)
    crop: Box = (0.0, 0.0, 1.0, 1.0)
    mask: npt.NDArray[np.bool_] | None = None
    boxes: tuple[Box, ...] = ()
    title: str = ""
    input_lines: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The panel as the browser reads it."""
        blobs = Blobs()
        header = {
            "sample": self.sample, "title": self.title, "size": self.size, "grid": self.grid, "crop": self.crop,
            "boxes": self.boxes, "texts": self.texts, "inputLines": self.input_lines,
            "image": blobs.add(self.image),
            "outlines": [] if self.mask is None else [blobs.floats(line) for line in _outlines(self.mask)],
            "rows": [vars(row) for row in self.rows],
            "columns": [vars(column) for column in self.columns],
            "cells": [_cell(cell, blobs) for cell in self.cells],
            "colormaps": _colormaps(blobs),
            "defaults": {"opacity": OPACITY, "clip": CLIP_PERCENTILE},
        }  # fmt: skip
        return blobs.behind(header)


def _map(values: Floats | None, blobs: Blobs) -> dict[str, Any] | None:
    """A map exactly, or, where it is large, in 65536 steps between its ends."""
    if values is None:
        return None
    if max(values.shape) <= EXACT_SIDE:
        return blobs.floats(values)
    low, high = float(values.min()), float(values.max())
    steps = np.rint((values.astype(np.float64) - low) / ((high - low) or 1) * LEVELS)
    return blobs.add(steps.astype("<u2").tobytes(), type="u2", shape=values.shape, low=low, high=high)


def _cell(cell: MapCell, blobs: Blobs) -> dict[str, Any]:
    return {
        "model": cell.model, "method": cell.method, "signed": cell.signed, "lines": cell.lines, "flag": cell.flag,
        "flagText": cell.flag_text, "message": cell.message, "dataset": cell.dataset, "datasetText": cell.dataset_text,
        "values": _map(cell.values, blobs), "pooled": _map(cell.pooled, blobs),
    }  # fmt: skip


def _colormaps(blobs: Blobs) -> list[dict[str, Any]]:
    """Every colour table the reader may choose, 256 x 3 bytes each; the first of a kind is its default."""
    return [
        {"name": name, "signed": signed, "uniform": name not in NOT_UNIFORM,
         "table": blobs.add(colour_bar(name, signed=signed, size=(1, 256)).tobytes())}
        for signed, names in ((False, POSITIVE_COLORMAPS), (True, SIGNED_COLORMAPS)) for name in names
    ]  # fmt: skip


def _outlines(mask: npt.NDArray[np.bool_]) -> list[Floats]:
    """Closed lines (n, 2) of x, y as shares of the image, around every region of a mask and every hole in it."""
    # twice the pixels: the line then runs along the outer half of a region's edge pixels and not through their middle
    large = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    lines, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    size = np.array([large.shape[1], large.shape[0]], np.float32)
    return [((line[:, 0, :] + 0.5) / size).astype(np.float32) for line in lines]

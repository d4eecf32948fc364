"""What the attention grid shows, and how it travels to the browser, see `app.block`."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from app.block import Blobs
from explain.errors import InputError
from explain.render.heatmap import OPACITY, colour_bar

KINDS = ("cls", "registers", "prompts", "patches")
"""Kinds of tokens, in the order of `Model.shares`."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """The small maps of one model.

    Args:
        label: its name for readers.
        colour: of its name, #rrggbb.
        values: what patches get, (rows, columns, h, w).
        tops: value of the last colour of every map, (rows, columns); the first colour is 0.
        prompts: per row what each prompt gets, (columns, P); P is 0 where there are none or they are not shown.
        shares: what each of `KINDS` gets in all, (rows, columns, kinds); None: not known.
        notes: lines under the enlarged map.
    """

    label: str
    colour: str
    values: Floats
    tops: Floats
    prompts: tuple[Floats, ...]
    shares: Floats | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.tops.shape != self.values.shape[:2] or len(self.prompts) != len(self.values):
            raise InputError(
                f"expected maps (rows, columns, h, w) with a top each and prompts per row, got {self.values.shape}, "
                f"{self.tops.shape} and {len(self.prompts)} rows of prompts"
            )


@dataclass(frozen=True)
class Large:
    """What is enlarged and marked.

    Args:
        row, column: of the enlarged map, from 0.
        query: row and column of the patch that is the query, from 0; None for another query.
        asks: whether a click on a patch makes it the query.
    """

    row: int = 0
    column: int = 0
    query: tuple[int, int] | None = None
    asks: bool = False


@dataclass(frozen=True)
class Sheet:
    """Everything one grid shows.

    Args:
        picture: what the models saw, uint8 (H, W, 3).
        models: side by side; all have the same columns.
        rows, columns: labels of the small maps, short; `names` say them in full.
        names: of the columns in full.
        texts: labels by name, `viewer.attention.grid.` of the catalogue.
        large: what is enlarged.
        small: whether there are small maps, or the enlarged ones alone.
        over: the maps over the greyed picture, or alone.
        scope: what shares a scale: "map", "block" or "all"; says where numbers are printed.
        columns_set_off: how many of the last columns are no heads.
    """

    picture: npt.NDArray[np.uint8]
    models: tuple[Model, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    names: tuple[str, ...]
    texts: dict[str, str] = field(repr=False)
    large: Large = Large()
    small: bool = True
    over: bool = True
    scope: str = "map"
    columns_set_off: int = 0

    def encode(self) -> bytes:
        """The sheet as the browser reads it."""
        blobs = Blobs()
        grey = cv2.cvtColor(cv2.cvtColor(self.picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        header = {
            "rows": self.rows, "columns": self.columns, "names": self.names, "texts": self.texts, "kinds": KINDS,
            "large": vars(self.large), "small": self.small, "over": self.over, "scope": self.scope,
            "setOff": self.columns_set_off, "opacity": OPACITY, "size": self.picture.shape[:2],
            "picture": blobs.add(_png(self.picture)), "grey": blobs.add(_png(grey)),
            "table": blobs.add(colour_bar(size=(1, 256)).tobytes()),
            "models": [_model(model, blobs) for model in self.models],
        }  # fmt: skip
        return blobs.behind(header)


def _model(model: Model, blobs: Blobs) -> dict[str, Any]:
    return {
        "label": model.label, "colour": model.colour, "notes": model.notes,
        "values": blobs.floats(model.values), "tops": blobs.floats(model.tops),
        "prompts": [blobs.floats(part) for part in model.prompts],
        "shares": None if model.shares is None else blobs.floats(model.shares),
    }  # fmt: skip


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return data.tobytes()

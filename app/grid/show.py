"""What the grid shows, and how it travels to the browser, see `app.block`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from streamlit.components.v2.types import ComponentRenderer

from app.block import Blobs, component

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Answered:
    """A model's answer.

    Args:
        model: its label.
        colour: #rrggbb.
        right: None where that is not known.
        text: the class and how sure the model is.
    """

    model: str
    colour: str
    right: bool | None
    text: str


@dataclass(frozen=True)
class Cell:
    """One image.

    Args:
        name: its id.
        href: relative address of the page that it leads to.
        picture: JPEG; empty where there is none: `trouble` says why, or it is still to come.
        trouble: why there is no picture.
        badge: a word over the picture, such as "blank map".
        truth: its true class; "" where it has none.
        answers: of the models.
        value: what the images are sorted by; "" for nothing.
    """

    name: str
    href: str
    picture: bytes
    trouble: str
    badge: str
    truth: str
    answers: tuple[Answered, ...]
    value: str


@dataclass(frozen=True)
class Grid:
    """The images of a page.

    Args:
        cells: in order.
        label: what a screen reader calls the whole.
        right, wrong: words for the signs.
        lang: of the texts.
    """

    cells: tuple[Cell, ...]
    label: str
    right: str
    wrong: str
    lang: str

    def encode(self) -> bytes:
        """The grid as the browser reads it."""
        blobs = Blobs()
        cells = [
            vars(cell) | {"answers": [vars(one) for one in cell.answers], "picture": blobs.add(cell.picture)}
            for cell in self.cells
        ]  # fmt: skip
        return blobs.behind(
            {"cells": cells, "label": self.label, "right": self.right, "wrong": self.wrong, "lang": self.lang}
        )


def show_grid(grid: Grid, on_open: Callable[[], None], key: str = "grid") -> None:
    """Draw a grid.

    Args:
        grid: what it shows.
        on_open: called before the next run of the page when the reader opens an image.
        key: of the component; its session value's `opened` is the image's id.
    """
    _component()(data=grid.encode(), key=key, on_opened_change=on_open)


@cache
def _component() -> ComponentRenderer:
    return component("image_grid", FOLDER, ("grid",), "grid")

"""Synthetic: three structured tasks whose answer lies in geometry, with exact masks.

They ask what the tasks of VTAB's Structured group ask: how many, where, at what angle. A picture depends only on the
task and its number, so a smaller set is the beginning of a larger one, and every class has the same share. The mask
of a picture is what was drawn, to the pixel: of counting, all that are counted; else the one object.

Source: the tasks follow Zhai et al. 2019, arXiv 1910.04867 §2 (VTAB, Structured).
"""

import colorsys
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from explain.data.base import FORMATS, Dataset, Progress, Sample
from explain.data.png import png_bytes
from explain.data.unpacked import unpack_once
from explain.errors import DatasetError

SIDE_PX = 96
DEFAULT_SIZE = 300
LARGEST_SIZE = 100_000
_LOCATION = re.compile(r"synthetic:([a-z]*)(?::(\d{1,9}))?")

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """What is asked: the classes, and how a picture of one class is drawn (picture so far, class, draw -> mask)."""

    class_names: tuple[str, ...]
    draw: Callable[[Pixels, int, np.random.Generator], Mask]


@FORMATS.register("synthetic")
class Synthetic:
    """The tasks "synthetic:count", "synthetic:position" and "synthetic:orientation", with a number of images if wanted.

    Example:
        >>> load_data("synthetic:count:600").counts()
        {'1': 120, '2': 120, '3': 120, '4': 120, '5': 120}
    """

    name: ClassVar[str]
    label: ClassVar[str] = f"synthetic:{{{','.join(('count', 'orientation', 'position'))}}}[:images] (drawn once)"

    def matches(self, location: str) -> bool:
        """True for any name that begins with "synthetic:"."""
        return location.startswith("synthetic:")

    def read(self, location: str, progress: Progress | None = None) -> Dataset:
        """Draw the pictures; from the second time on, only compare sizes and times of the files.

        Raises:
            DatasetError: there is no such task, or not that many images can be made.
        """
        match = _LOCATION.fullmatch(location)
        if match is None or match[1] not in TASKS:
            raise DatasetError(f"expected synthetic:TASK or synthetic:TASK:IMAGES with a task of {', '.join(TASKS)}, "
                               f"got {location!r}")  # fmt: skip
        task, size = match[1], int(match[2] or DEFAULT_SIZE)
        least = len(TASKS[task].class_names)
        if not least <= size <= LARGEST_SIZE:
            raise DatasetError(f"synthetic:{task} can have {least} to {LARGEST_SIZE:,} images, got {size:,}")
        key = {"format": "synthetic", "version": 1, "task": task, "size": size, "opencv": cv2.__version__}
        return unpack_once(f"synthetic-{task}", key, lambda fresh: _draw_all(fresh, task, size, progress))


def draw_picture(task: str, number: int) -> tuple[Pixels, Mask, int]:
    """One picture of a task: (RGB (96, 96, 3) uint8, mask (96, 96), class index)."""
    label = number % len(TASKS[task].class_names)
    seed = hashlib.sha256(f"synthetic\n{task}\n{number}".encode()).digest()
    draw = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:16], "big")))
    picture = _background(draw)
    mask = TASKS[task].draw(picture, label, draw)
    grain = draw.normal(0, 5, picture.shape)  # over everything, or a flat patch of colour would give an object away
    return np.clip(picture + grain, 0, 255).astype(np.uint8), mask, label


def _draw_all(fresh: Path, task: str, size: int, progress: Progress | None) -> Dataset:
    (fresh / "masks").mkdir()
    (fresh / "images").mkdir()
    samples = []
    for number in range(size):
        pixels, mask, label = draw_picture(task, number)
        path, mask_path = (fresh / folder / f"{number:05}.png" for folder in ("images", "masks"))
        content = png_bytes(pixels)
        path.write_bytes(content)
        mask_path.write_bytes(png_bytes(mask.astype(np.uint8) * 255))
        digest = hashlib.sha256(content).hexdigest()
        samples.append(Sample(f"images/{path.name}", path, label, digest, mask_path))
        if progress is not None:
            progress(number + 1, size)
    return Dataset(
        f"synthetic-{task}", fresh, TASKS[task].class_names, tuple(samples), source=f"drawn: synthetic:{task}:{size}",
        licence="none needed, generated",
    )  # fmt: skip


def _background(draw: np.random.Generator) -> Pixels:
    """A cloudy texture of two muted colours: noise on four scales, so that no single frequency means background."""
    cloud = np.zeros((SIDE_PX, SIDE_PX), dtype=np.float64)
    for cells in (3, 6, 12, 32):
        noise = draw.random((cells, cells))
        cloud += cv2.resize(noise, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC) / cells**0.5
    cloud = (cloud - cloud.min()) / (cloud.max() - cloud.min())
    low, high = (_colour(draw.random(), draw.uniform(0.1, 0.4), draw.uniform(0.3, 0.7)) for _ in range(2))
    return np.asarray(low + cloud[..., None] * (high - low)).astype(np.uint8)


def _colour(hue: float, saturation: float, value: float) -> npt.NDArray[np.float64]:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _bright(draw: np.random.Generator, hue: float) -> npt.NDArray[np.float64]:
    return _colour(hue, draw.uniform(0.6, 1), draw.uniform(0.7, 1))


def _paint(picture: Pixels, shape: Mask, colour: npt.NDArray[np.float64], draw: np.random.Generator) -> None:
    """Fill a shape, darker towards a random side as if lit from the other."""
    down, right = np.mgrid[-1 : 1 : SIDE_PX * 1j, -1 : 1 : SIDE_PX * 1j]
    turn = draw.uniform(0, 2 * np.pi)
    light = 0.9 + 0.1 * (down * np.sin(turn) + right * np.cos(turn))
    picture[shape] = (light[..., None] * colour)[shape].astype(np.uint8)


def _disc(centre: tuple[float, float], radius: float) -> Mask:
    down, right = np.mgrid[:SIDE_PX, :SIDE_PX]
    return np.asarray((right - centre[0]) ** 2 + (down - centre[1]) ** 2 <= radius**2)


def _polygon(centre: tuple[float, float], radius: float, corners: int, turn: float) -> Mask:
    """A regular polygon; `turn` in radians."""
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    return _filled(np.array(centre) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _filled(corners: npt.NDArray[np.float64]) -> Mask:
    canvas = np.zeros((SIDE_PX, SIDE_PX), dtype=np.uint8)
    cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], (1,))
    return canvas.astype(bool)


def _apart(count: int, radius: float, draw: np.random.Generator) -> list[tuple[float, float]]:
    """Centres (x, y) at random places where objects of this radius neither touch each other nor the border."""
    places: list[tuple[float, float]] = []
    gap = 2 * radius + 3
    while len(places) < count:
        places = []
        for _ in range(200):  # a start that leaves no room for the last ones is given up
            x, y = draw.uniform(radius + 2, SIDE_PX - radius - 3, 2)
            if len(places) < count and all((x - u) ** 2 + (y - v) ** 2 >= gap**2 for u, v in places):
                places.append((float(x), float(y)))
    return places


def _draw_count(picture: Pixels, label: int, draw: np.random.Generator) -> Mask:
    """One to five reddish discs, among distractors that share either their shape or their colour, never both."""
    wanted, distractors, largest = label + 1, int(draw.integers(2, 6)), 8.0
    mask = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    for number, place in enumerate(_apart(wanted + distractors, largest, draw)):
        reddish, other = draw.uniform(-0.04, 0.06), draw.uniform(0.25, 0.8)
        radius, disc = draw.uniform(5, largest), number < wanted or draw.random() < 0.5
        shape = _disc(place, radius) if disc else _polygon(place, radius, 4, draw.uniform(0, np.pi))
        _paint(picture, shape, _bright(draw, other if number >= wanted and disc else reddish), draw)
        mask |= shape & (number < wanted)
    return mask


def _draw_position(picture: Pixels, label: int, draw: np.random.Generator) -> Mask:
    """A triangle, square or hexagon of any bright colour and size, wholly inside one of nine fields."""
    field, radius = SIDE_PX / 3, draw.uniform(4, 13)
    row, column = divmod(label, 3)
    x, y = (start * field + draw.uniform(radius + 1, field - radius - 2) for start in (column, row))
    shape = _polygon((x, y), radius, int(draw.choice([3, 4, 6])), draw.uniform(0, 2 * np.pi))
    _paint(picture, shape, _bright(draw, draw.random()), draw)
    return shape


def _draw_orientation(picture: Pixels, label: int, draw: np.random.Generator) -> Mask:
    """A bar of any place, length, width and colour, within 8 degrees of its class's angle."""
    angle = np.deg2rad(label * 180 / 8 + draw.uniform(-8, 8))
    half_length, half_width = draw.uniform(13, 24), draw.uniform(2.5, 5)
    along = np.array([np.cos(angle), -np.sin(angle)])  # counter-clockwise as seen, while rows count downwards
    across = np.array([along[1], -along[0]])
    reach = half_length * np.abs(along) + half_width * np.abs(across)
    centre = draw.uniform(reach + 2, SIDE_PX - reach - 3)
    signs = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    shape = _filled(np.array([centre + s * half_length * along + t * half_width * across for s, t in signs]))
    _paint(picture, shape, _bright(draw, draw.random()), draw)
    return shape


TASKS: dict[str, Task] = {
    "count": Task(("1", "2", "3", "4", "5"), _draw_count),
    "position": Task(
        ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right"),
        _draw_position,
    ),
    "orientation": Task(tuple(f"{22.5 * step:g}°" for step in range(8)), _draw_orientation),
}
"""Every task by name; class k of "orientation" is k × 22.5 degrees, counter-clockwise from the horizontal."""

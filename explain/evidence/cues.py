"""Cues: two small patterns put into every picture, each in one of two states that have nothing to do with the picture.

Cue A is a plus or a cross, cue B is horizontal or vertical stripes, both grey on grey. All four tiles consist of the
same two grey levels, half of the pixels each, so that they agree in mean, contrast and histogram, and their edges are
about as long: neither cue is more conspicuous than the other. No flip turns one state into the other. Neither level is
black, because a map that starts from a black picture gives nothing to what is black already.

    pictures.json        every picture: where its cues lie, their states, what it was made of, its hash; written last
    train/ val/ test/    the pictures, at the size of the model's input
    mask_a/ mask_b/      for each picture, the pixels of a cue
"""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from explain.backbone import InputTransform
from explain.data.base import PARTS, Dataset, Sample
from explain.data.decode import decode
from explain.data.png import png_bytes
from explain.data.split import Split
from explain.data.unpacked import move_in
from explain.errors import InputError
from explain.files import read_json, sha256_json, write_json
from explain.record import Record

Cue = Literal["a", "b"]
CUES: tuple[Cue, Cue] = ("a", "b")
STATES: dict[Cue, tuple[str, str]] = {"a": ("plus", "cross"), "b": ("horizontal", "vertical")}
"""Names of the two states of each cue; the index is the label of a model that is trained on the cue."""

DARK, BRIGHT = 64, 208
"""The two grey levels of every tile, 0-255."""

RECORD = "pictures.json"

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Place = tuple[int, int]
"""Row and column of a tile's upper left patch."""


def draw_tile(cue: Cue, state: int, side_px: int) -> Pixels:
    """One cue in one state, grey (side_px, side_px): the half of its pixels that lie nearest to its strokes is bright.

    The strokes are the two middle lines (plus), the two diagonals (cross), or two lines across (stripes).
    """
    down, right = np.mgrid[:side_px, :side_px] / side_px + 0.5 / side_px - 0.5
    radius = np.hypot(down, right)
    if cue == "a":
        lines = (down, right) if state == 0 else (down - right, down + right)
        distance, second = np.minimum(*np.abs(lines)), radius
    else:
        second = np.abs(down if state == 0 else right)
        distance = np.abs(second - 0.25)
    # of equally near pixels those nearer the middle come first, so that bars have straight ends where they can
    order = np.lexsort([values.round(9).ravel() for values in (radius, second, distance)])
    tile = np.full(side_px * side_px, DARK, dtype=np.uint8)
    tile[order[: len(order) // 2]] = BRIGHT
    return tile.reshape(side_px, side_px)


def tile_patches(grid: tuple[int, int]) -> int:
    """Patches along the side of a tile: about a quarter of the picture."""
    return max(1, round(min(grid) / 4))


def draw_places(rng: np.random.Generator, grid: tuple[int, int]) -> tuple[Place, Place]:
    """Two places where tiles lie apart from each other by a patch at least, any such two as likely as any other.

    Raises:
        InputError: a grid so small that there are none.
    """
    tile = tile_patches(grid)
    if max(grid) < 2 * tile + 1:
        raise InputError(f"two cues need a grid of 3 patches along one side, got {grid}; use larger images")
    while True:
        first, second = (tuple(int(rng.integers(0, side - tile + 1)) for side in grid) for _ in CUES)
        if max(abs(first[0] - second[0]), abs(first[1] - second[1])) > tile:
            return (first[0], first[1]), (second[0], second[1])


def draw_states(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """States of both cues, int64 (n, 2): within each class every combination equally often, as far as that goes.

    Args:
        labels: (n,) classes of the pictures, which the states must not tell.
    """
    states = np.empty((len(labels), 2), dtype=np.int64)
    turn = 0  # goes on from class to class, so that small classes do not all lack the same combination
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        both = (turn + np.arange(len(rows))) % 4
        states[rows] = np.stack([both // 2, both % 2], axis=1)
        turn += len(rows)
    return states


def put_cues(picture: Pixels, places: Sequence[Place], states: Sequence[int], patch_px: int, tile: int) -> Pixels:
    """A copy of a picture (H, W, 3) with both cues."""
    cued, side = picture.copy(), patch_px * tile
    for cue, (row, column), state in zip(CUES, places, states, strict=True):
        top, left = row * patch_px, column * patch_px
        cued[top : top + side, left : left + side] = draw_tile(cue, state, side)[..., None]
    return cued


class CuedPicture(Record):
    """One picture: its id is its path, `made_of` the id of the image below the cues."""

    id: str
    part: str
    made_of: str
    places: tuple[Place, Place]
    states: tuple[int, int]
    sha256: str


class _Content(Record):
    format: int = 1
    key: str
    name: str
    source: str
    licence: str
    grid: tuple[int, int]
    patch_px: int
    tile: int
    pictures: tuple[CuedPicture, ...]


@dataclass(frozen=True)
class CuedPictures:
    """Pictures with both cues, which two data sets label each by one of them.

    Args:
        folder: where they lie.
        content: what is known of them.
    """

    folder: Path
    content: _Content

    @cached_property
    def by_id(self) -> dict[str, CuedPicture]:
        """Every picture by its id."""
        return {picture.id: picture for picture in self.content.pictures}

    def labelled(self, cue: Cue) -> Dataset:
        """All pictures labelled by the state of one cue, in parts, with the cue's pixels as masks."""
        content, index = self.content, CUES.index(cue)
        samples = tuple(
            Sample(one.id, self.folder / one.id, one.states[index], one.sha256, self.folder / f"mask_{cue}" / one.id)
            for one in sorted(content.pictures, key=lambda picture: picture.id)
        )
        parts = {part: tuple(one.id for one in content.pictures if one.part == part) for part in PARTS}
        return Dataset(
            f"{content.name}-cue-{cue}", self.folder, STATES[cue], samples, source=f"{content.source}; with cues drawn "
            "into it", licence=content.licence, parts=parts,
        )  # fmt: skip

    def regions(self, ids: Sequence[str], cue: Cue) -> Mask:
        """The patches of a cue, bool (n, h, w)."""
        found = np.zeros((len(ids), *self.content.grid), dtype=bool)
        for region, name in zip(found, ids, strict=True):
            row, column = self.by_id[name].places[CUES.index(cue)]
            region[row : row + self.content.tile, column : column + self.content.tile] = True
        return found


def make_pictures(
    data: Dataset, split: Split, folder: Path, *, transform: InputTransform, patch_px: int, counts: dict[str, int],
    seed: int, progress: Callable[[int, int], None],
) -> CuedPictures:  # fmt: skip
    """Draw the pictures into a folder, or take them from there when they were drawn before.

    Args:
        data: the images below the cues; few of them are used several times, with other cues.
        split: which of them may be used in which part; an image is never in two.
        folder: appears whole or not at all.
        transform: of the model, whose input size the pictures have.
        patch_px: side of a patch.
        counts: pictures of each part.
        seed: of places and states.
        progress: called with (pictures done, pictures in all).

    Raises:
        InputError: the folder holds other pictures.
    """
    key = sha256_json([1, data.fingerprint, split.hash, list(transform.size), transform.interpolation, patch_px, counts,
                       seed])  # fmt: skip
    if (folder / RECORD).is_file():
        kept = _read(folder / RECORD)
        if kept.key != key:
            raise InputError(f"{folder} holds pictures of other data, size, number or seed; choose another output "
                             "folder, or move this one away")  # fmt: skip
        return CuedPictures(folder, kept)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        fresh, drawn, total = Path(temporary) / "fresh", [], sum(counts.values())
        grid = (transform.size[0] // patch_px, transform.size[1] // patch_px)
        for part, count in counts.items():
            images = _spread(data, getattr(split, part) or split.train, count)
            labels = np.array([sample.label for sample in images])
            rng = np.random.default_rng([seed, PARTS.index(part)])
            for number, states in enumerate(draw_states(labels, rng)):
                places, path = draw_places(rng, grid), f"{part}/{number:05}.png"
                pixels = transform.pixels(decode(images[number].path).image).permute(1, 2, 0).numpy()
                chosen = (int(states[0]), int(states[1]))
                digest = _write(fresh, path, pixels, places, chosen, patch_px)
                drawn.append(CuedPicture(id=path, part=part, made_of=images[number].id, places=places, states=chosen,
                                         sha256=digest))  # fmt: skip
                progress(len(drawn), total)
        content = _Content(key=key, name=data.name, source=data.source, licence=data.licence, grid=grid,
                           patch_px=patch_px, tile=tile_patches(grid), pictures=tuple(drawn))  # fmt: skip
        write_json(fresh / RECORD, content.model_dump(mode="json"))
        move_in(fresh, folder, Path(temporary) / "old")
    return CuedPictures(folder, content)


def _read(path: Path) -> _Content:
    try:
        return _Content.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path} is no record of this version ({error.error_count()} fields differ); choose another "
                         "output folder, or move this one away") from None  # fmt: skip


def _spread(data: Dataset, ids: Sequence[str], count: int) -> list[Sample]:
    """So many of the images, evenly over the classes; all of them in turn when there are fewer."""
    samples = sorted((data.by_id[name] for name in ids), key=lambda sample: (sample.label, sample.id))
    if count > len(samples):
        return [samples[number % len(samples)] for number in range(count)]
    return [samples[number * len(samples) // count] for number in range(count)]


def _write(
    folder: Path, path: str, pixels: Pixels, places: tuple[Place, Place], states: tuple[int, int], patch_px: int
) -> str:
    """Write one picture and its masks; the picture's hash."""
    tile = tile_patches((pixels.shape[0] // patch_px, pixels.shape[1] // patch_px))
    content, side = png_bytes(put_cues(pixels, places, states, patch_px, tile)), tile * patch_px
    for cue, (row, column) in zip(CUES, places, strict=True):
        mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
        mask[row * patch_px :, column * patch_px :][:side, :side] = 255
        _put(folder / f"mask_{cue}" / path, png_bytes(mask))
    _put(folder / path, content)
    return hashlib.sha256(content).hexdigest()


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class CueFacts(Record):
    """How conspicuous a cue is, without any model: means over pictures of its pixels' grey level, 0-1.

    Args:
        mean: of the grey level.
        contrast: its standard deviation (root mean square contrast).
        edges: mean length of the Sobel gradient per pixel, the tile's border included.
    """

    cue: Cue
    states: tuple[str, str]
    side_px: int
    area: float
    mean: float
    contrast: float
    edges: float


def cue_facts(pixels: Pixels, regions: Mask, cue: Cue, patch_px: int) -> CueFacts:
    """The facts of one cue.

    Args:
        pixels: (n, H, W, 3) pictures with their cues.
        regions: (n, h, w) patches of the cue.
        cue: which.
        patch_px: side of a patch.
    """
    means, contrasts, edges = [], [], []
    for picture, region in zip(pixels, regions, strict=True):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        inside = np.kron(region, np.ones((patch_px, patch_px))).astype(bool)
        slopes = np.hypot(*(cv2.Sobel(grey, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))))
        means.append(grey[inside].mean())
        contrasts.append(grey[inside].std())
        edges.append(slopes[inside].mean())
    area = float(regions[0].mean())
    return CueFacts(
        cue=cue, states=STATES[cue], side_px=patch_px * round((area * regions[0].size) ** 0.5), area=area,
        mean=float(np.mean(means)), contrast=float(np.mean(contrasts)), edges=float(np.mean(edges)),
    )  # fmt: skip

"""PNG: a picture of every map, laid over its image, to look at and to show.

The file of image "left/07.png" is "left/07.png.vpt.grad_cam.png": its id, the model and the method. Each picture also
says in its text which class it explains and which values the ends of its colours stand for.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from explain.archive.archive import MapArchive
from explain.archive.explained import StoredMap
from explain.archive.manifest import Entry
from explain.batch.loading import read_picture
from explain.data.decode import WHITE
from explain.data.names import printable
from explain.errors import InputError
from explain.export.base import EXPORTS, Chosen, Export, all_maps, check_switches
from explain.methods.base import METHODS, check_whole
from explain.render.heatmap import OPACITY, colour, is_blank, overlay, resize, scale_for
from explain.training.images import Progress

_UNSAFE = re.compile(r'[<>:"|?*\\\0]')
NAME_BYTES = 120
"""Of an id, so that a file's name with model and method has less than 255."""

BLANK = "blank map"


@EXPORTS.register("png")
@dataclass(frozen=True)
class Png(Export):
    """Pictures.

    Args:
        plain: the map alone, without the image under it.
        grid: draw every map on the patch grid; off, maps in pixels are drawn so, which is speckle on most pictures.
        longest: longest side of a picture in pixels; a larger image is made smaller.
        opacity: of the map over its image, 0 to 1.
    """

    plain: bool = False
    grid: bool = True
    longest: int = 1600
    opacity: float = OPACITY

    label = "PNG pictures, one per image, model and method"

    def __post_init__(self) -> None:
        check_switches(plain=self.plain, grid=self.grid)
        check_whole(1, longest=self.longest)
        if isinstance(self.opacity, bool) or not isinstance(self.opacity, int | float) or not 0 <= self.opacity <= 1:
            raise InputError(f"expected opacity to be a number from 0 to 1, got {self.opacity!r}")

    def fill(self, chosen: Chosen, path: Path, progress: Progress) -> None:
        """Draw every map.

        Raises:
            InputError: an image is not there any more, or not the one that was explained.
        """
        total, done = len(chosen.archive.job.maps) * len(chosen), 0
        for part in chosen.parts:
            for image, entry, line in zip(part.images(), part.entries(), part.lines(), strict=True):
                maps = all_maps(image)
                under = self._image(chosen.archive, entry) if maps and not self.plain else None
                size = self._size(line["height"], line["width"]) if maps else (1, 1)
                for each in maps:
                    picture, colours = self._draw(each, size, under)
                    with new_file(path, image.id, f".{each.model}.{each.method}.png") as stream:
                        text = _text(chosen.archive, image.id, each, colours)
                        picture.save(stream, format="PNG", pnginfo=text)
                done += len(chosen.archive.job.maps)
                progress("drawing", done, total)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of the pictures of an image."""
        share = min(1.0, self.longest / max(height, width))
        return max(1, round(height * share)), max(1, round(width * share))

    def _image(self, archive: MapArchive, entry: Entry) -> Image.Image:
        found = read_picture(entry.path, entry.sha256, archive.job.data.folder)
        if found.image is None:
            raise InputError(f"image {entry.id!r} cannot be drawn: {found.detail} ({found.status}). Put it back, leave "
                             "it out, or draw the maps alone with plain=true")  # fmt: skip
        size = self._size(found.image.height, found.image.width)[::-1]
        return found.image if found.image.size == size else found.image.resize(size, Image.Resampling.LANCZOS)

    def _draw(
        self, each: StoredMap, size: tuple[int, int], under: Image.Image | None
    ) -> tuple[Image.Image, str]:
        """A picture, and what its colours stand for."""
        signed = METHODS[each.method].picture == "signed"
        values = each.on_grid if self.grid else each.values
        scale = scale_for(values, signed)
        if is_blank(values, signed):  # coloured, it would read as "low everywhere"
            return _marked(Image.new("RGB", size[::-1], WHITE) if under is None else under), "the map is blank"
        text = f"a map of {values.shape[0]}x{values.shape[1]}, colours from {scale.low:.6g} to {scale.high:.6g}"
        if under is None:
            return Image.fromarray(colour(resize(values, size), scale, signed=signed)), text
        return Image.fromarray(overlay(np.asarray(under), values, self.opacity, scale, signed=signed)), text


def _marked(image: Image.Image) -> Image.Image:
    """The picture with words in its corner that say why no map is seen."""
    marked = image.copy()
    draw, size = ImageDraw.Draw(marked), max(9, image.height // 24)
    box = draw.textbbox((2, image.height - 2), BLANK, anchor="lb", font_size=size)
    draw.rectangle((0, box[1] - 2, box[2] + 2, image.height), fill=WHITE)
    draw.text((2, image.height - 2), BLANK, fill=(0, 0, 0), anchor="lb", font_size=size)
    return marked


def _text(archive: MapArchive, name: str, each: StoredMap, colours: str) -> PngInfo:
    """What stands in the file beside the picture."""
    classes = archive.job.facts_of[each.model].class_names
    info = PngInfo()
    info.add_itxt("Title", printable(name))
    what = f"{each.method} of {each.model} for class {printable(classes[each.target])!r}"
    info.add_itxt("Description", f"{what}; {colours}")
    return info


@contextmanager
def new_file(folder: Path, name: str, suffix: str) -> Iterator[BinaryIO]:
    """A new file inside a folder, called as an image is, as far as a file can be.

    Args:
        folder: where it goes.
        name: id of the image; slashes make folders.
        suffix: end of the file's name.
    """
    for place in (readable(name), readable(f"{name}-{_short_hash(name)}".replace("/", "_"))):
        path = folder / f"{place}{suffix}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = open(path, "xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # to this file system two names are one, or the folder of one is the file of another
        with stream:
            yield stream
        return
    raise InputError(f"two images are called {printable(name)!r}; write them one at a time, by their ids")


def readable(name: str) -> str:
    """An id as a relative path that stays inside its folder and that every system takes.

    What is not as it was gets a part of the id's hash, so that two ids do not become one.
    """
    parts = [_UNSAFE.sub("_", printable(part)).strip(" ") for part in name.split("/")]
    parts = [re.sub(r"^[-.~]+|[. ]+$", "_", part) for part in parts if part]
    safe = "/".join(parts)
    if name and safe == name and len(safe.encode()) <= NAME_BYTES:
        return safe
    cut = safe.encode()[: NAME_BYTES - 13].decode(errors="ignore").rstrip("/ .")
    return f"{cut or '_'}-{_short_hash(name)}"


def _short_hash(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]

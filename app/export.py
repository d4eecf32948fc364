"""What leaves the viewer by the server: the raw maps as numbers, and the lines of Python that make them again."""

import io
import json
import re
from collections.abc import Mapping

import numpy as np

from app.maps import Wanted, options_of
from app.opening import Opened
from explain.archive.manifest import Entry
from explain.attribution import Attribution
from explain.methods.base import METHODS


def file_stem(sample: str) -> str:
    """A file name for an image's id: letters, digits, dot, dash and underscore only."""
    return re.sub(r"[^\w.-]+", "_", sample)


def maps_npz(opened: Opened, image: Entry, found: Mapping[Wanted, Attribution]) -> bytes:
    """The raw maps, each as "<model>.<method>" (h, w) float32, and "about": what they are, as JSON text."""
    names = opened.class_names
    maps = {f"{one.model}.{one.method}": part for one, part in found.items()}
    about = {
        "data": opened.name, "sample": image.id, "sha256": image.sha256,
        "label": None if image.label is None else names[image.label],
        "target": {f"{one.model}.{one.method}": names[one.target] for one in found},
        "maps": {
            name: {
                "options": part.options, "provenance": part.provenance,
                "extras": {extra: values[0].tolist() for extra, values in part.extras.items()},
                "class_specific": METHODS[part.method].class_specific,
            }
            for name, part in maps.items()
        },
    }  # fmt: skip
    stream = io.BytesIO()
    text = np.array(json.dumps(about, ensure_ascii=False))
    np.savez_compressed(stream, about=text, **{name: part.values[0] for name, part in maps.items()})
    return stream.getvalue()


def snippet(opened: Opened, image: Entry, wanted: list[Wanted]) -> str:
    """Python that gives the same maps without the viewer."""
    models = list(dict.fromkeys(one.model for one in wanted))
    methods = tuple(dict.fromkeys(one.method for one in wanted))
    if opened.pair is None:
        archive = opened.archive.store.url if opened.archive else ""
        return "\n".join([
            "from explain.archive.archive import MapArchive", "",
            f"image = MapArchive({archive!r})[{image.id!r}]",
            *(f"{one.model}_{one.method} = image[{one.model!r}][{one.method!r}].values" for one in wanted), "",
        ])  # fmt: skip
    options = {method: options_of(opened, method) for method in methods if options_of(opened, method)}
    lines = [
        "import explain", "", f"pair = explain.load_pair({str(opened.pair.path)!r})",
        f"image = pair.data.by_id[{image.id!r}].path", f"targets = { {one.model: one.target for one in wanted}!r}",
        "maps = {",
        f"    name: explain.attribute(pair.runs[name].model, [image], methods={methods!r}, targets=target,",
        f"                            options={options!r})", "    for name, target in targets.items()", "}",
        f"maps[{models[0]!r}][{methods[0]!r}].values[0]  # float32 (h, w), raw", "",
    ]  # fmt: skip
    return "\n".join(lines)

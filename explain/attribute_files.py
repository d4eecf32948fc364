"""Image files in, maps and pictures out: what `explain attribute` does.

Good images are explained also when others are bad; the bad ones are returned by name with a reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from explain.attribution import Attribution
from explain.data.base import Rejected
from explain.data.decode import ImageRejected, decode
from explain.data.reading import find_images
from explain.engine import DEFAULT_METHODS, attribute
from explain.errors import InputError, UnknownNameError
from explain.files import write_atomically, write_json
from explain.methods.base import METHODS
from explain.model import TunedModel
from explain.render.heatmap import is_blank, overlay, scale_for
from explain.training.images import Progress
from explain.training.machine import Machine
from explain.training.run import load_model


@dataclass(frozen=True)
class Explained:
    """Images that were explained, in order, and files that could not be read."""

    done: list[Path]
    rejected: list[Rejected]


def attribute_files(
    run: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    methods: Sequence[str] | None,
    options: Mapping[str, Mapping[str, Any]],
    target: str | None,
    batch_size: int,
    memory_budget: int | str,
    precision: str,
    device: str | None,
    progress: Progress,
) -> Explained:
    """Explain image files with a trained run.

    Writes `<method>.safetensors` (an Attribution of all images), `images.json` (their paths, in the same order) and
    `<image>.<method>.png` for each image.

    Raises:
        InputError: no image among the inputs.
        UnknownNameError: a class the model does not know.
    """
    model = load_model(run)
    index = _class_index(model, target)
    good, rejected = _readable(inputs)
    if not good:
        raise InputError(f"no readable image among {len(inputs)} inputs; {len(rejected)} files were left out")
    model.to(Machine(device=device).torch_device)
    wanted = tuple(methods or DEFAULT_METHODS)
    maps = attribute(model, good, methods=wanted, targets=index, options=options, batch_size=batch_size,
                     memory_budget=memory_budget, precision=precision,
                     progress=lambda done, total: progress("explaining", done, total))  # fmt: skip
    write_json(out / "images.json", [str(path) for path in good])
    for name, attribution in maps.items():
        attribution.save(out / f"{name}.safetensors")
        for row, path in enumerate(good):
            _write_picture(attribution, row, path, model, out / f"{row:04d}_{path.stem}.{name}.png")
            progress(f"drawing {name}", row + 1, len(good))
    return Explained(good, rejected)


def _class_index(model: TunedModel, target: str | None) -> int | None:
    if target is None:
        return None
    if target not in model.class_names:
        raise UnknownNameError(f"the model has no class {target!r}; it knows {', '.join(model.class_names)}")
    return model.class_names.index(target)


def _readable(inputs: Sequence[Path]) -> tuple[list[Path], list[Rejected]]:
    good: list[Path] = []
    rejected: list[Rejected] = []
    for item in inputs:
        for found in find_images(item) if item.is_dir() else (item,):
            if isinstance(found, Rejected):
                rejected.append(found)
                continue
            try:
                decode(found)
            except ImageRejected as error:
                rejected.append(Rejected(found, error.reason, error.detail))
            else:
                good.append(found)
    return good, rejected


def _write_picture(attribution: Attribution, row: int, source: Path, model: TunedModel, path: Path) -> None:
    signed = METHODS[attribution.method].picture == "signed"
    values = attribution.values[row]
    image = np.asarray(decode(source).image)
    if is_blank(values, signed):
        picture = image  # nothing to lay over it; a coloured blank would read as "low everywhere"
    else:
        picture = overlay(image, values, scale=scale_for(values, signed), signed=signed)
    write_atomically(path, Image.fromarray(picture).save)

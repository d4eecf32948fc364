"""Attribution: one method's maps for a batch of images, and everything needed to repeat them.

Values are raw: not normalised, not clipped, at the method's own resolution. Turning them into a picture (a saliency
map) is `explain.render`'s work, and the scale it uses is a choice that stays visible there.
"""

import base64
import io
import json
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import interpolate, softmax

from explain.errors import InputError, IntegrityError
from explain.files import parse_json
from explain.record import Record
from explain.tensor_files import read_tensors, write_tensors

Array = npt.NDArray[Any]

_REAL = (torch.float32, torch.float64)
_STORED = (*_REAL, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)

MAPS_IN_NOTEBOOK = 6
"""Maps that `_repr_html_` shows; a notebook keeps every picture in its file."""


@dataclass(frozen=True)
class Attribution:
    """Maps of one method for B images.

    Args:
        method: registered name of the method.
        values: float32 (B, h, w) on the patch grid, or (B, H, W) in pixels; signed where the method is.
        targets: int64 (B,), the class each map explains (recorded, not used, by class-agnostic methods).
        logits: float32 (B, K), the model's output for the images.
        image_size: (H, W) of the model's input in pixels.
        options: every option of the method, defaults included.
        extras: what else the method measured, one entry per image, such as "completeness_gap" (B,).
        provenance: model, weights, library versions, device, seconds.
    """

    method: str
    values: Array
    targets: Array
    logits: Array
    image_size: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Array] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def predictions(self) -> Array:
        """int64 (B,), the model's own class."""
        return np.asarray(self.logits.argmax(axis=1))

    @property
    def probabilities(self) -> Array:
        """float32 (B, K), softmax of the logits."""
        return np.asarray(softmax(torch.from_numpy(self.logits), dim=1).numpy())

    def resized(self, size: tuple[int, int]) -> Array:
        """Maps at another resolution, by bilinear interpolation between patch or pixel centres.

        Args:
            size: (H, W) wanted.

        Returns:
            float32 (B, H, W).
        """
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"expected a size (H, W) of at least 1x1, got {size!r}")
        maps = torch.from_numpy(self.values)[:, None]
        return np.asarray(interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)[:, 0].numpy())

    def __getitem__(self, index: int | slice | list[int] | Array) -> "Attribution":
        """The attribution of some of the images; an int gives a batch of one."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        return Attribution(
            self.method, self.values[rows], self.targets[rows], self.logits[rows], self.image_size,
            self.options, {name: values[rows] for name, values in self.extras.items()}, self.provenance,
        )  # fmt: skip

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` with the maps as `values` (image, y, x), logits, targets and extras; needs xarray.

        Raises:
            InputError: xarray is not installed.
        """
        try:
            from xarray import Dataset
        except ImportError:
            raise InputError("to_xarray needs the package xarray: pip install xarray") from None
        own: dict[str, Any] = {
            "values": (("image", "y", "x"), self.values),
            "logits": (("image", "class"), self.logits),
            "targets": (("image",), self.targets),
        }
        for name, part in self.extras.items():
            own[name] = (("image", *(f"{name}_{axis}" for axis in range(1, part.ndim))), part)
        record = {"method": self.method, "image_size": self.image_size, "options": json.dumps(self.options),
                  "provenance": json.dumps(self.provenance)}  # fmt: skip
        return Dataset(own, attrs=record)

    def _repr_html_(self) -> str:
        """What a notebook shows: the maps as small pictures, each on a scale of its own, and their numbers."""
        shown = min(len(self), MAPS_IN_NOTEBOOK)
        cells = []
        for row in range(shown):
            numbers = [f"target {self.targets[row]}, predicted {self.predictions[row]}",
                       f"{self.values[row].min():.3g} to {self.values[row].max():.3g}"]  # fmt: skip
            numbers += [f"{name} {part[row]:.3g}" for name, part in self.extras.items() if part.ndim == 1]
            lines = "<br>".join(escape(number) for number in numbers)
            picture = f'<img width="160" alt="map {row}" src="{_small_picture(self.values[row])}">'
            cells.append(f'<td style="text-align:left;vertical-align:top">{picture}<br>{lines}</td>')
        more = f"<p>and {len(self) - shown} more</p>" if len(self) > shown else ""
        height, width = self.values.shape[1:]
        title = f"{self.method}: {len(self)} maps of {height}×{width}, red above zero, blue below"
        return f"<p>{escape(title)}</p><table><tr>{''.join(cells)}</tr></table>{more}"

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file (no pickle); `Attribution.load` reads it back equal."""
        arrays = {"values": self.values, "targets": self.targets, "logits": self.logits}
        arrays |= {f"extras.{name}": values for name, values in self.extras.items()}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        record = {"method": self.method, "image_size": list(self.image_size), "options": self.options,
                  "provenance": self.provenance}  # fmt: skip
        write_tensors(Path(path), tensors, {"attribution": json.dumps(record, allow_nan=False)})

    @classmethod
    def load(cls, path: str | Path) -> "Attribution":
        """Read what `save` wrote.

        Raises:
            InputError: a file of something else.
            IntegrityError: cut short or changed: arrays or their description are not those of an attribution.
        """
        tensors, metadata = read_tensors(Path(path))
        if "attribution" not in metadata:
            raise InputError(f"{path} holds no attribution; expected a file written by Attribution.save")
        record = parse_json(metadata["attribution"], f"the description in {path}")
        try:
            known = _Description.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the description"
            raise IntegrityError(f"{path}: {where}: {first['msg']}; it was changed, make the maps again") from None
        _check_arrays(tensors, Path(path))
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        extras = {name.removeprefix("extras."): arrays.pop(name) for name in list(arrays) if name.startswith("extras.")}
        return cls(**arrays, **dict(known), extras=extras)


class _Description(Record):
    """What a file of maps says beside its arrays."""

    method: str
    image_size: tuple[int, int]
    options: dict[str, Any]
    provenance: dict[str, Any]


def _check_arrays(tensors: dict[str, Tensor], path: Path) -> None:
    """Raise IntegrityError unless there are maps, targets and logits of the same images, and else only extras."""
    own = {name for name in tensors if not name.startswith("extras.")}
    if own != {"values", "targets", "logits"}:
        raise IntegrityError(f"{path} holds {', '.join(sorted(own)) or 'nothing'}; expected values, targets and logits")
    values, targets, logits = tensors["values"], tensors["targets"], tensors["logits"]
    floats = values.dtype in _REAL and logits.dtype in _REAL and targets.dtype == torch.int64
    counts = {part.shape[:1] for part in tensors.values()}
    numpy_knows = all(part.dtype in _STORED for part in tensors.values())
    if (values.ndim, targets.ndim, logits.ndim) != (3, 1, 2) or len(counts) != 1 or not floats or not numpy_knows:
        shapes = ", ".join(f"{name} {part.dtype} {tuple(part.shape)}" for name, part in sorted(tensors.items()))
        raise IntegrityError(f"{path} was changed: expected maps (B, h, w), targets (B,), logits (B, K) and extras "
                             f"(B, …) of the same B images, got {shapes}")  # fmt: skip


def _small_picture(values: Array) -> str:
    """A map (h, w) as a data URL: white at zero, red above, blue below."""
    strength = np.abs(values) / max(float(np.abs(values).max()), np.finfo(np.float32).tiny)
    fade = (255 * (1 - strength)).astype(np.uint8)
    full = np.full_like(fade, 255)
    colours = np.stack([np.where(values >= 0, full, fade), fade, np.where(values <= 0, full, fade)], axis=-1)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

"""Map -> picture: raw attribution values to RGB, with the scale as a visible choice.

A method says how its map is meant to be seen (`picture`): "positive" shows values above 0 only, from 0 to the top
of the scale; "signed" shows both signs, symmetric about 0, so that white is always "no evidence". Nothing is
stretched to the lowest value of a map: a nearly flat map has to look nearly flat. All arrays are RGB, never BGR.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt

from explain.attribution import Array, Attribution
from explain.errors import InputError
from explain.methods.base import METHODS
from explain.metrics.patch_grid import patch_means

Scope = Literal["map", "sample", "dataset"]
SCOPES: tuple[Scope, ...] = ("map", "sample", "dataset")

POSITIVE_COLORMAPS = ("cividis", "viridis", "magma", "jet")
SIGNED_COLORMAPS = ("RdBu_r", "PuOr_r", "coolwarm")
NOT_UNIFORM = frozenset({"jet"})
"""Colour tables whose steps do not look even: offered last and labelled "not perceptually uniform"."""


CLIP_PERCENTILE = 99.5
"""Percentile of the magnitudes that takes the last colour: high enough to keep the shape, deaf to one hot pixel."""

OPACITY = 0.6


@dataclass(frozen=True)
class Scale:
    """Which values the two ends of the colours stand for.

    Args:
        low: value of the first colour; 0 for a positive picture, -high for a signed one.
        high: value of the last colour; values beyond an end take the end's colour.
        scope: what shares this scale: one "map", the maps of one "sample", or the "dataset".
    """

    low: float
    high: float
    scope: Scope = "map"

    @property
    def ends(self) -> tuple[str, str]:
        """Both ends as text with three significant digits, for a legend."""
        return format_value(self.low), format_value(self.high)


def format_value(value: float) -> str:
    """A raw map value with three significant digits and a true minus sign."""
    return f"{value:.3g}".replace("-", "\u2212") if value else "0"


def scale_for(
    values: Array | Sequence[Array], signed: bool, scope: Scope = "map", *, clip_percentile: float = CLIP_PERCENTILE
) -> Scale:
    """The scale of one map, or of all maps that share it.

    The top is a high percentile rather than the largest value, because one hot pixel would otherwise leave a
    pixel-level map black; the raw range belongs in the caption. Zero is always an end
    (positive) or the middle (signed).

    Args:
        values: one map or several, any shape.
        signed: True for a picture of both signs, False for one of positive values only.
        scope: recorded in the scale: what the given maps are.
        clip_percentile: percentile of the shown magnitudes that takes the last colour, in (0, 100].

    Raises:
        InputError: an unknown scope, a percentile out of range, or values that are not finite.
    """
    if scope not in SCOPES or not 0 < clip_percentile <= 100:
        raise InputError(
            f"expected a scope of {SCOPES} and 0 < clip_percentile <= 100, got {scope!r}, {clip_percentile}"
        )
    flat = np.concatenate([_finite(part).ravel() for part in (values if isinstance(values, Sequence) else [values])])
    shown = np.abs(flat) if signed else np.maximum(flat, 0)
    top = float(np.percentile(shown, clip_percentile)) or float(shown.max())
    return Scale(-top if signed and top else 0.0, top, scope)


def is_blank(values: Array, signed: bool) -> bool:
    """True when a map has nothing to show: all zero, or no positive value in a positive picture.

    A blank map must be labelled as blank by whoever shows it; its picture alone looks like "low everywhere".
    """
    return not bool((values != 0).any() if signed else (values > 0).any())


def colour(values: Array, scale: Scale, colormap: str | None = None, *, signed: bool = False) -> npt.NDArray[np.uint8]:
    """Colours of a map at its own resolution.

    Args:
        values: (h, w) raw values.
        scale: values of the first and the last colour.
        colormap: name of a matplotlib table; None takes cividis, or RdBu_r when signed.
        signed: chooses the default table, and the colour of a blank map.

    Returns:
        uint8 (h, w, 3), RGB.
    """
    if values.ndim != 2:
        raise InputError(f"expected one map (h, w), got shape {values.shape}")
    return _table(colormap or _default(signed))[_indices(_finite(values), scale, signed)]


def overlay(
    image: npt.NDArray[np.uint8],
    values: Array,
    opacity: float = OPACITY,
    scale: Scale | None = None,
    colormap: str | None = None,
    *,
    signed: bool = False,
    grid: tuple[int, int] | None = None,
    grey: bool = True,
    fade: bool | None = None,
) -> npt.NDArray[np.uint8]:
    """A map over its image.

    Args:
        image: uint8 (H, W, 3), RGB, as the model saw it.
        values: (h, w) raw values at any resolution; enlarged bilinearly between patch centres.
        opacity: of the map, 0 to 1.
        scale: None: the map's own (`scale_for`).
        colormap, signed: as in `colour`.
        grid: average the map over this patch grid first; a pixel-level map is speckled and easier to read so. It
            changes the values shown, so say it in the caption.
        grey: show the image without its colours, so that every colour belongs to the map.
        fade: let the opacity follow the magnitude, so that "no evidence" leaves the image as it is; None: only for
            signed maps.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    _check_image(image)
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity goes from 0 to 1, got {opacity}")
    shown = pool(values, grid) if grid else _finite(values)
    scale = scale or scale_for(shown, signed)
    large = resize(shown, image.shape[:2])
    colours = colour(large, scale, colormap, signed=signed).astype(np.float32)
    under = image.astype(np.float32)
    if grey:
        under = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32), 3, axis=2)
    alpha: Array | float = opacity
    if signed if fade is None else fade:
        # a square root: linear fading would hide everything below half of the scale
        alpha = opacity * np.sqrt(np.clip(np.abs(large) / (scale.high or 1), 0, 1))[..., None]
    return np.asarray(np.rint(under * (1 - alpha) + colours * alpha), np.uint8)


@dataclass(frozen=True)
class View:
    """How one map is shown.

    Args:
        values: the values drawn, raw or averaged over the patch grid.
        scale: of the colours.
        signed: whether both signs are drawn.
        blank: True when there is nothing to draw; label it.
    """

    values: Array
    scale: Scale
    signed: bool
    blank: bool

    def draw(self, image: npt.NDArray[np.uint8], opacity: float = OPACITY) -> npt.NDArray[np.uint8]:
        """The map over its image, uint8 (H, W, 3)."""
        return overlay(image, self.values, opacity, self.scale, signed=self.signed)


def view_maps(
    maps: Mapping[str, Mapping[str, Attribution]], grid: tuple[int, int], scope: Scope = "map"
) -> dict[tuple[int, str, str], View]:
    """How the maps of several models are shown side by side, by (image, model, method).

    A pixel-level map is averaged over the patch grid, because single pixels are speckle at the size of a page.

    Args:
        maps: model -> method -> maps of the same images.
        grid: patch grid (h, w).
        scope: "map": each its own scale; "sample": one per image and method for all models; "dataset": one per method.
    """
    shown: dict[tuple[int, str, str], Array] = {}
    for model, by_method in maps.items():
        for method, attribution in by_method.items():
            for index, values in enumerate(attribution.values):
                finer = values.shape[0] > grid[0] and values.shape[1] > grid[1]
                shown[index, model, method] = pool(values, grid) if finer else values
    groups: dict[tuple[object, ...], list[Array]] = {}
    for key, values in shown.items():
        groups.setdefault(_group(key, scope), []).append(values)
    return {key: _view(values, groups[_group(key, scope)], key[2], scope) for key, values in shown.items()}


def _group(key: tuple[int, str, str], scope: Scope) -> tuple[object, ...]:
    """What shares one scale with a map."""
    index, _, method = key
    return {"map": key, "sample": (index, method), "dataset": (method,)}[scope]


def _view(values: Array, sharing: list[Array], method: str, scope: Scope) -> View:
    signed = METHODS[method].picture == "signed"
    return View(values, scale_for(sharing, signed, scope), signed, is_blank(values, signed))


def resize(values: Array, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A map (h, w) at size (H, W), bilinear with half-pixel centres; the same as `Attribution.resized`."""
    return np.asarray(cv2.resize(_finite(values), (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def pool(values: Array, grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A map (h, w) averaged over the cells of a coarser grid."""
    (means,) = patch_means(_finite(values)[None], grid)
    return np.asarray(means)


def colour_bar(
    colormap: str | None = None, *, signed: bool = False, size: tuple[int, int] = (12, 256)
) -> npt.NDArray[np.uint8]:
    """The colours from low (left) to high (right) as a strip, uint8 (H, W, 3); print `Scale.ends` beside it."""
    table = _table(colormap or _default(signed))
    row = table[np.linspace(0, 255, size[1]).round().astype(int)]
    return np.repeat(row[None], size[0], axis=0)


def _default(signed: bool) -> str:
    return SIGNED_COLORMAPS[0] if signed else POSITIVE_COLORMAPS[0]


def _indices(values: npt.NDArray[np.float32], scale: Scale, signed: bool) -> npt.NDArray[np.intp]:
    span = scale.high - scale.low
    if span <= 0:  # a blank map: the colour of 0, the middle of a signed table and the first of the others
        return np.full(values.shape, 128 if signed else 0, np.intp)
    return np.asarray(np.clip(np.rint((values - scale.low) / span * 255), 0, 255), np.intp)


@lru_cache(maxsize=32)
def _table(name: str) -> npt.NDArray[np.uint8]:
    if name not in matplotlib.colormaps:
        known = ", ".join(POSITIVE_COLORMAPS + SIGNED_COLORMAPS)
        raise InputError(f"unknown colour table {name!r}; use one of {known}, or another of matplotlib's")
    colours = matplotlib.colormaps[name](np.arange(256))[:, :3]
    return np.asarray(np.rint(colours * 255), np.uint8)  # matplotlib's own bytes are cut off, not rounded


def _finite(values: Array) -> npt.NDArray[np.float32]:
    array = np.ascontiguousarray(values, dtype=np.float32)
    if not array.size or not np.isfinite(array).all():
        raise InputError(f"a map of shape {array.shape} is empty or holds values that are not finite")
    return array


def _check_image(image: Array) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"expected an RGB image, uint8 (H, W, 3); got {image.dtype} {image.shape}")

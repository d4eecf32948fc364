"""From raw maps to what is on the screen: drawing choices, shared scales, what is said under a map."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.state import Opened
from explain.attribution import Array, Attribution
from explain.data.base import Sample
from explain.errors import ExplainError
from explain.i18n import Translator, placeholders
from explain.methods.base import METHODS
from explain.render.heatmap import Scale, Scope, colour, format_value, is_blank, overlay, pool, scale_for

SIDE = 448
"""Pictures are drawn at least this large (pixels), so that a map is smooth on a dense screen."""

Place = tuple[str, str]
"""(arm, method): where a map is in the comparison."""


@dataclass(frozen=True)
class Look:
    """How maps are drawn.

    Args:
        opacity: of the map over the image, 0-1.
        positive, signed: colour tables of the two kinds of picture.
        scope: "map", or "sample" for one scale over the models of a method.
        average: average maps that are finer than the patch grid over the patches.
    """

    opacity: float
    positive: str
    signed: str
    scope: Scope
    average: bool

    def colormap(self, *, signed: bool) -> str:
        """The colour table of a kind of picture."""
        return self.signed if signed else self.positive


@dataclass(frozen=True)
class Shown:
    """One map as it is drawn.

    Args:
        attribution: the raw map, a batch of one.
        values: what is drawn, (h, w).
        scale: of the colours.
        signed: whether both signs are drawn.
        averaged: whether `values` are averages over patches of a finer map.
    """

    attribution: Attribution
    values: Array
    scale: Scale
    signed: bool
    averaged: bool

    @property
    def blank(self) -> bool:
        """True when there is nothing to draw."""
        return is_blank(self.values, self.signed)

    @property
    def raw_range(self) -> tuple[str, str]:
        """Smallest and largest raw value as text."""
        values = self.attribution.values
        return format_value(float(values.min())), format_value(float(values.max()))


@dataclass(frozen=True)
class Comparison:
    """Everything one comparison shows, for the page and for its exports.

    Args:
        opened: the pair.
        sample: the image.
        target: class index that every map explains.
        arms, methods: rows and columns, in order.
        image: what the models saw, uint8 (H, W, 3), enlarged for the screen.
        shown: the maps that could be had.
        failed: why the others could not.
        look: the drawing choices.
    """

    opened: Opened
    sample: Sample
    target: int
    arms: tuple[str, ...]
    methods: tuple[str, ...]
    image: Array
    shown: dict[Place, Shown]
    failed: dict[Place, ExplainError]
    look: Look

    def draw(self, place: Place) -> npt.NDArray[np.uint8]:
        """The picture of one map."""
        return draw(self.shown[place], self.image, self.look)

    def answer(self, arm: str) -> tuple[str, str, bool]:
        """An arm's answer: class name, probability as text, whether it is right."""
        answer = self.opened.answer(arm, self.sample.id)
        share = float(self.opened.probabilities(arm, self.sample.id)[answer])
        return self.opened.class_names[answer], percent(share), answer == self.sample.label

    @property
    def truth(self) -> str:
        """Name of the true class."""
        return self.opened.class_names[self.sample.label]


def percent(share: float) -> str:
    """A share 0-1 with one decimal."""
    return f"{100 * share:.1f} %"


def arrange(maps: Mapping[Place, Attribution], look: Look, grid: tuple[int, int]) -> dict[Place, Shown]:
    """Every map with its scale.

    Args:
        maps: batches of one image.
        look: the drawing choices.
        grid: patch grid (h, w) of the models.
    """
    values = {place: _values(found, look, grid) for place, found in maps.items()}
    shown = {}
    for place, found in maps.items():
        signed = METHODS[found.method].picture == "signed"
        shared = [values[place]]
        if look.scope == "sample":
            shared = [part for (_, method), part in values.items() if method == found.method]
        averaged = values[place].shape != found.values.shape[1:]
        shown[place] = Shown(found, values[place], scale_for(shared, signed, look.scope), signed, averaged)
    return shown


def _values(found: Attribution, look: Look, grid: tuple[int, int]) -> Array:
    raw = found.values[0]
    finer = raw.shape[0] > grid[0] and raw.shape[1] > grid[1]
    return pool(raw, grid) if look.average and finer else raw


def enlarge(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An image at `SIDE` pixels or more, by a whole factor; nothing is added to what the model saw."""
    factor = -(-SIDE // min(image.shape[:2]))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def draw(shown: Shown, image: npt.NDArray[np.uint8], look: Look) -> npt.NDArray[np.uint8]:
    """The map over the image, uint8 (H, W, 3); a blank map leaves the image without any colour of the map."""
    opacity = 0.0 if shown.blank else look.opacity
    colormap = look.colormap(signed=shown.signed)
    return overlay(image, shown.values, opacity, shown.scale, colormap, signed=shown.signed)


def draw_tab_icon() -> Image.Image:
    """A small heatmap for the browser's tab."""
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    return Image.fromarray(colour(np.exp(-3 * ((rows + 0.3) ** 2 + (columns - 0.2) ** 2)), Scale(0, 1)))


def describe(shown: Shown, t: Translator) -> list[str]:
    """The lines under a map: its raw range, how it was changed for the picture, what it cannot say, measures."""
    low, high = shown.raw_range
    lines = [t("viewer.raw", low=low, high=high)]
    if shown.averaged:
        rows, columns = shown.values.shape
        lines.append(t("viewer.averaged", rows=rows, columns=columns))
    if not METHODS[shown.attribution.method].class_specific:
        lines.append(t("term.class_agnostic"))
    return lines + describe_measures(shown, t)


def describe_measures(shown: Shown, t: Translator) -> list[str]:
    """What a method measured beside its map, in words: every text of the catalogue whose values it has."""
    found = shown.attribution
    known = {name: value for name, value in found.options.items() if isinstance(value, str)}
    numbers = {name: float(values[0]) for name, values in found.extras.items() if values.ndim == 1}
    lines = []
    for name, text in t.section("viewer.measure.").items():
        wanted = placeholders(text)
        used = [numbers[key] for key in wanted if key in numbers]
        if wanted <= known.keys() | numbers.keys() and any(used):  # all zero: the model has no such tokens
            values = {key: known.get(key) or format_measure(key, numbers[key]) for key in wanted}
            lines.append(t(f"viewer.measure.{name}", **values))
    if numbers.get("converged", 1.0) == 0:
        lines.append(t("viewer.not_converged"))
    return lines


def format_measure(name: str, value: float) -> str:
    """A measurement as text: shares and gaps in percent, counts as whole numbers."""
    if name.endswith(("_share", "_null", "_gap")):
        return percent(value)
    return f"{value:.0f}" if value == int(value) else format_value(value)

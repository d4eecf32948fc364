"""Measure: one question put to a trained model's maps, as one file in `explain.evidence.measures`.

A measure is called with a `Subject` and yields rows: one number, for one image and one method, or null with a flag that
says why there is none. Everything is measured on the patch grid, so that a method that colours single pixels and one
that colours patches are asked the same thing. The formulas are pure functions in `explain.metrics`.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from explain.errors import ExplainError
from explain.registry import Registry

if TYPE_CHECKING:
    from explain.evidence.subject import Subject

Better = Literal["higher", "lower", "neither"]


class Metric(NamedTuple):
    """What one number is.

    Args:
        label: for tables and figures.
        better: which direction speaks for a map; "neither" for what only describes it.
        chance: what a map without information gets; None where that depends on the image or is not known.
    """

    label: str
    better: Better = "neither"
    chance: float | None = None


class Row(NamedTuple):
    """One line of the table: a number, or None with the reason why there is none.

    Args:
        image: id of the image; None for what is true of the model as a whole.
        method: registered method or control; None for what does not depend on a map.
        metric: name; "name/3" for block 3.
        value: a finite number, or None.
        flag: why there is no number, or what to know about it, such as "flat_map".
    """

    image: str | None
    method: str | None
    metric: str
    value: float | None
    flag: str | None = None


def row(image: str | None, method: str | None, metric: str, value: float, flag: str | None = None) -> Row:
    """A row from a computed number; what is not finite becomes None, and must come with its flag.

    Raises:
        ExplainError: a number that is not finite and no flag that says why.
    """
    if math.isfinite(value):
        return Row(image, method, metric, float(value), flag)
    if flag is None:
        raise ExplainError(f"{metric} of {method} on {image} is {value} and nothing says why; this is a bug")
    return Row(image, method, metric, None, flag)


class Measure:
    """One question put to a model's maps.

    Class attributes: `label` title; `source` paper; `metrics` what its rows may be called (without "/block");
    `images` how many images it looks at, at most, None for all, since some questions cost a hundred forwards per image;
    `every_seed` False: it is asked of the first seed only; `controls` True: it is asked of the random, centre and Sobel
    maps as well; `masks` True: its numbers depend on the images' masks.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    source: ClassVar[str]
    metrics: ClassVar[dict[str, Metric]]
    images: ClassVar[int | None] = None
    every_seed: ClassVar[bool] = True
    controls: ClassVar[bool] = True
    masks: ClassVar[bool] = False

    def __call__(self, subject: "Subject") -> Iterator[Row]:
        """The rows of one model; `subject` holds as many images as the measure asks for."""
        raise NotImplementedError


MEASURES: Registry[Any] = Registry("measure", "explain.evidence.measures")

"""From found maps to the panel: rows, columns, what is said under each map, and what speaks for or against it."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from app.legend import describe
from app.maps import Wanted
from app.opening import Answer
from app.panel import Column, MapCell, Panel, Row, panel_texts
from app.spread import Spread
from app.words import percent
from explain.attribution import Array, Attribution
from explain.errors import ExplainError
from explain.evidence.planted import PlantedResult
from explain.i18n import Translator
from explain.methods.base import METHODS
from explain.render import arm_colour
from explain.render.evidence_plots import status_key
from explain.render.heatmap import is_blank, pool
from explain.render.plots import arm_label

JPEG_QUALITY = 92

Found = Mapping[Wanted, Attribution | ExplainError | None]
"""Maps, why there is none, or None while it is computed."""


@dataclass(frozen=True)
class Shown:
    """One image on its way to the panel.

    Args:
        name: its id, or what it is called.
        picture: as the file shows it, uint8 (H, W, 3).
        answers: model -> what it says; None where that is not known.
        grid: rows and columns of patches.
        truth: name of the true class; "" where there is none.
        explained: name of the class that the maps explain.
        mask: bool (H, W) of the region that decides the label, at the picture's size.
    """

    name: str
    picture: npt.NDArray[np.uint8]
    answers: Mapping[str, Answer | None]
    grid: tuple[int, int]
    truth: str
    explained: str
    mask: Array | None = None


def panel_of(
    t: Translator, data: str, shown: Shown, found: Found, *, planted: PlantedResult | None = None,
    spreads: Mapping[str, Spread] | None = None,
) -> Panel:  # fmt: skip
    """The panel of one image.

    Args:
        t: texts.
        data: name of the data set, for the title of saved pictures.
        shown: the image.
        found: row by row and column by column, in the order in which they are drawn.
        planted: the planted-cue test of these models, where it was made.
        spreads: method -> how large its maps are over the data set.
    """
    models, methods = (list(dict.fromkeys(getattr(one, part) for one in found)) for part in ("model", "method"))
    title = t("viewer.panel_title", data=data, sample=shown.name, name=shown.explained)
    return Panel(
        sample=shown.name, image=encode(shown.picture), size=(shown.picture.shape[1], shown.picture.shape[0]),
        grid=shown.grid, mask=shown.mask, title=title, texts=panel_texts(t),
        rows=tuple(_row(t, model, shown.answers.get(model)) for model in models),
        columns=tuple(Column(method, METHODS[method].label, not METHODS[method].class_specific) for method in methods),
        cells=tuple(
            _cell(t, one, part, shown.grid, planted, (spreads or {}).get(one.method)) for one, part in found.items()
        ),
        input_lines=(t("viewer.truth", name=shown.truth),) if shown.truth else (),
    )  # fmt: skip


def encode(picture: npt.NDArray[np.uint8]) -> bytes:
    """A picture as JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def _row(t: Translator, model: str, answer: Answer | None) -> Row:
    label, colour = arm_label(model, t), arm_colour(model)
    if answer is None:
        return Row(model, label, colour)
    return Row(model, label, colour, answer.name, percent(answer.share), answer.right)


def _cell(
    t: Translator, wanted: Wanted, found: Attribution | ExplainError | None, grid: tuple[int, int],
    planted: PlantedResult | None, spread: Spread | None,
) -> MapCell:  # fmt: skip
    signed = METHODS[wanted.method].picture == "signed"
    if not isinstance(found, Attribution):
        message = t("viewer.computing") if found is None else str(found)
        return MapCell(wanted.model, wanted.method, None, signed, message=message)
    flag, flag_text, why = _flag(t, planted, wanted)
    values = found.values[0]
    finer = values.shape[0] > grid[0] and values.shape[1] > grid[1]
    lines = [*describe(found, t), *([why] if why else [])]
    if is_blank(values, signed):
        lines.append(t("viewer.blank"))
    return MapCell(
        wanted.model, wanted.method, values, signed, tuple(lines), flag, flag_text,
        pooled=pool(values, grid) if finer else None,
        dataset=None if spread is None else spread.quantiles,
        dataset_text="" if spread is None else t("viewer.spread", count=spread.count, total=f"{spread.total:,}"),
    )  # fmt: skip


def _flag(t: Translator, planted: PlantedResult | None, wanted: Wanted) -> tuple[str, str, str]:
    """What the planted-cue test says of a method on a model: look of the badge, its word, and why."""
    trust = planted.trust(wanted.model, wanted.method) if planted else None
    if trust is None:
        return "not_tested", t("viewer.flag.not_run"), ""
    word = t(status_key(trust.status))
    name = arm_label(wanted.model, t)
    if trust.status == "PASSED":
        return "passed", word, ""
    if trust.status == "NOT TESTED":
        return "not_tested", word, t("viewer.planted.not_tested", arm=name)
    difference, low, high = (
        "–" if value is None else f"{value:.2f}".replace("-", "\u2212")
        for value in (trust.difference, trust.low, trust.high)
    )
    return "failed", word, t("viewer.planted.failed", arm=name, difference=difference, low=low, high=high)

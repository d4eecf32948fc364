"""One picture of a pair: how accurate VPT and FT are, and what each looks at, for the README and the demo.

Rows are the panels' images; columns are the input and both models' maps. Right and wrong are said by a mark as well
as a colour. Figures are made without pyplot, so nothing global changes.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from explain.attribution import Attribution
from explain.errors import InputError
from explain.files import write_atomically
from explain.i18n import Translator, translate
from explain.methods.base import METHODS
from explain.render import arm_colour
from explain.render.heatmap import Scope, View, colour_bar, view_maps
from explain.render.plots import arm_label
from explain.training.pair import MatchedPair
from explain.training.run import Run

INK, SOFT, HAIR = "#1b2733", "#566472", "#d5dbe1"
RIGHT, WRONG = "#0b6b3a", "#a3211b"
MAX_ROWS = 4
DPI = 130
LEFT, TOP, TILE, GAP, NOTE = 0.35, 2.72, 1.55, 0.12, 0.44
"""Inches: left margin, height of the head, side of a picture, space between pictures, height of a row's captions."""


class Shown(Protocol):
    """What the overview needs of the panels: `explain.report.panels.Panels` fits."""

    @property
    def panels(self) -> Sequence[Any]:
        """The images shown, each with `id` and `rule`."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patch grid (h, w)."""

    @property
    def maps(self) -> Mapping[str, Mapping[str, Attribution]]:
        """Arm -> method -> maps."""

    @property
    def inputs(self) -> npt.NDArray[np.uint8]:
        """The images (B, H, W, 3)."""


def write_overview(
    pair: MatchedPair,
    panels: Shown,
    out_png: str | Path,
    *,
    lang: str = "en",
    scope: Scope = "map",
    rows: int = MAX_ROWS,
) -> Path:
    """Draw the overview as a PNG, about 1,650 pixels wide.

    Args:
        pair: the runs.
        panels: their maps, from `make_panels`.
        out_png: the file; appears whole or not at all.
        lang: "en" or "ja".
        scope: what shares a colour scale.
        rows: images at most; one per rule first, then the second of each.

    Returns:
        The path written.

    Raises:
        InputError: there is no panel to show, or `out_png` does not end in .png.
    """
    target = Path(out_png)
    if target.suffix.lower() != ".png" or not len(panels.panels):
        raise InputError(
            f"expected a name ending in .png and at least one panel, got {str(out_png)!r} and {len(panels.panels)}"
        )
    t = translate(lang)
    figure = _Overview(pair, panels, t, scope, _choose(panels.panels, rows)).draw()
    write_atomically(target, lambda path: figure.savefig(path, dpi=DPI, metadata={"Software": None}))
    return target


def _choose(panels: Sequence[Any], rows: int) -> list[int]:
    """Panel indices, the first of every rule before any second; shown in the panels' order."""
    seen: dict[str, int] = {}
    ranks = []
    for index, panel in enumerate(panels):
        seen[panel.rule] = seen.get(panel.rule, 0) + 1
        ranks.append((seen[panel.rule], index))
    return sorted(index for _, index in sorted(ranks)[:rows])


def _font(size: float) -> FontProperties:
    """A font with Japanese letters, found without importing the package that carries it; else matplotlib's own."""
    spec = find_spec("matplotlib_fontja")
    if spec is None or spec.origin is None:
        return FontProperties(size=size)
    return FontProperties(fname=Path(spec.origin).parent / "fonts" / "ipaexg.ttf", size=size)


def _marks() -> FontProperties:
    """DejaVu Sans, which comes with matplotlib and has ✓ and ✗."""
    return FontProperties(fname=Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf", size=9)


class _Overview:
    """The figure while it is drawn; positions are inches from the upper left corner."""

    def __init__(self, pair: MatchedPair, panels: Shown, t: Translator, scope: Scope, shown: list[int]) -> None:
        self.pair, self.panels, self.t, self.scope, self.shown = pair, panels, t, scope, shown
        self.arms, self.methods = list(panels.maps), list(next(iter(panels.maps.values())))
        self.views = view_maps(panels.maps, panels.grid, scope)
        self.width = 2 * LEFT + self._column(len(self.arms), 0) - LEFT - GAP * 2
        self.height = TOP + len(shown) * (TILE + NOTE) + 0.75
        self.figure = Figure(figsize=(self.width, self.height), facecolor="white")
        FigureCanvasAgg(self.figure)

    def draw(self) -> Figure:
        """Everything, from top to bottom."""
        self._text(LEFT, 0.42, self.t("overview.title", data=self.pair.data.name), 19, INK)
        self._accuracy(LEFT, 0.62, 6.9, 1.2)
        self._costs(LEFT + 7.2, 0.62)
        self._heads(TOP - 0.12)
        for row, index in enumerate(self.shown):
            self._row(index, TOP + row * (TILE + NOTE))
        self._legend(self.height - 0.42)
        return self.figure

    def _column(self, arm: int, method: int) -> float:
        """Left edge of a map; a wider gap parts the input and the arms."""
        return LEFT + TILE + 2.5 * GAP + arm * (len(self.methods) * (TILE + GAP) + 1.5 * GAP) + method * (TILE + GAP)

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        return self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )

    def _text(self, left: float, top: float, text: str, size: float, colour: str, **options: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, fontproperties=_font(size), color=colour,
                         parse_math=False, **options)  # fmt: skip

    def _accuracy(self, left: float, top: float, width: float, height: float) -> None:
        axes = self._axes(left + 1.05, top + 0.28, width - 1.05, height - 0.45)
        runs = self.pair.runs
        count = self.pair.vpt.manifest.test.count
        self._text(left, top + 0.16, self.t("overview.accuracy", count=count), 10, SOFT)
        for row, (arm, run) in enumerate(runs.items()):
            test, colour = run.manifest.test, arm_colour(arm)
            axes.plot([100 * test.low, 100 * test.high], [row, row], color=colour, lw=3, solid_capstyle="round")
            axes.plot(100 * test.accuracy, row, "o", color=colour, ms=9, mec="white", mew=1.2, clip_on=False)
            axes.text(100 * test.high + 1.6, row, f"{100 * test.accuracy:.1f} %", color=colour, va="center",
                      fontproperties=_font(11))  # fmt: skip
        axes.set(xlim=(0, 108), ylim=(len(runs) - 0.4, -0.6))
        axes.set_xticks(
            range(0, 101, 20), [str(tick) for tick in range(0, 101, 20)], fontproperties=_font(8), color=SOFT
        )
        axes.set_yticks(range(len(runs)), [arm_label(arm, self.t) for arm in runs], fontproperties=_font(11))
        for label, arm in zip(axes.get_yticklabels(), runs, strict=True):
            label.set_color(arm_colour(arm))
        axes.grid(axis="x", color=HAIR, lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    def _costs(self, left: float, top: float) -> None:
        """How many parameters each arm trained."""
        self._text(left, top + 0.16, self.t("report.models.trained"), 10, SOFT)
        for row, (arm, run) in enumerate(self.pair.runs.items()):
            at = top + 0.50 + 0.26 * row
            self._text(left, at, arm_label(arm, self.t), 11, arm_colour(arm))
            self._text(left + 2.5, at, f"{run.manifest.trained_parameters:,}", 11, arm_colour(arm), ha="right")

    def _heads(self, top: float) -> None:
        self._text(LEFT, top, self.t("term.input"), 10, INK)
        for number, arm in enumerate(self.arms):
            start = self._column(number, 0)
            span = len(self.methods) * (TILE + GAP) - GAP
            bar = self._axes(start, top - 0.36, span, 0.03)
            bar.set_facecolor(arm_colour(arm))
            bar.set(xticks=[], yticks=[])
            bar.spines[:].set_visible(False)
            self._text(start, top - 0.42, arm_label(arm, self.t), 13, arm_colour(arm))
            for column, method in enumerate(self.methods):
                self._text(self._column(number, column), top, METHODS[method].label, 10, INK)

    def _row(self, index: int, top: float) -> None:
        panel = self.panels.panels[index]
        sample = self.pair.data.by_id[panel.id]
        image = self.panels.inputs[index]
        self._picture(LEFT, top, image, HAIR)
        self._text(LEFT, top + TILE + 0.15, self.pair.data.class_names[sample.label], 9.5, INK)
        self._text(LEFT, top + TILE + 0.30, self.t(f"term.rule.{panel.rule}"), 7.5, SOFT)
        for number, arm in enumerate(self.arms):
            self._answer(self._column(number, 0), top + TILE + 0.15, self.pair.runs[arm], panel.id)
            for column, method in enumerate(self.methods):
                view, left = self.views[index, arm, method], self._column(number, column)
                self._picture(left, top, view.draw(image), HAIR)
                self._range(left, top, view, below_answer=column == 0)

    def _picture(self, left: float, top: float, image: npt.NDArray[np.uint8], edge: str) -> None:
        axes = self._axes(left, top, TILE, TILE)
        axes.imshow(image, interpolation="lanczos", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=edge, linewidth=0.6)

    def _answer(self, left: float, top: float, run: Run, name: str) -> None:
        row = run.predictions.ids.index(name)
        answer = int(run.predictions.classes[row])
        right = bool(run.predictions.correct[row])
        colour = RIGHT if right else WRONG
        self.figure.text(left / self.width, 1 - top / self.height, "\u2713" if right else "\u2717", color=colour,
                         fontproperties=_marks())  # fmt: skip
        probability = 100 * float(run.predictions.probabilities[row, answer])
        self._text(left + 0.15, top, f"{run.manifest.class_names[answer]}  {probability:.0f} %", 9.5, colour)

    def _range(self, left: float, top: float, view: View, *, below_answer: bool) -> None:
        text = (
            self.t("term.blank")
            if view.blank
            else self.t("term.range", low=view.scale.ends[0], high=view.scale.ends[1])
        )
        self._text(left, top + TILE + (0.30 if below_answer else 0.15), text, 7.5, WRONG if view.blank else SOFT)

    def _legend(self, top: float) -> None:
        left = LEFT
        for picture in ("positive", "signed"):
            labels = [METHODS[name].label for name in self.methods if METHODS[name].picture == picture]
            if labels:
                axes = self._axes(left, top - 0.12, 1.3, 0.14)
                axes.imshow(colour_bar(signed=picture == "signed"), aspect="auto")
                axes.set_axis_off()
                self._text(left + 1.38, top, ", ".join(labels), 9, INK)
                left += 1.38 + 0.078 * len(", ".join(labels)) + 0.5
        self._text(LEFT, top + 0.24, self.t("overview.legend", scope=self.t(f"term.scope.{self.scope}")), 8.5, SOFT)

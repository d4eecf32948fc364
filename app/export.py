"""What leaves the viewer: the comparison as one picture, and the raw maps as numbers."""

import io
import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from app.picture import Comparison, Place, describe
from explain.attribution import Array
from explain.i18n import Translator
from explain.methods.base import METHODS
from explain.render import arm_colour
from explain.render.heatmap import colour_bar
from explain.render.plots import arm_label

SIDE_IN, HEAD_IN, LEGEND_IN, TITLE_IN = 2.55, 0.75, 0.95, 0.25
"""Inches of a picture's side, of the head, of the legend under a map and of the title above it."""


def file_stem(sample: str) -> str:
    """A file name for a sample's id: letters, digits, dot, dash and underscore only."""
    return re.sub(r"[^\w.-]+", "_", sample)


def maps_npz(comparison: Comparison) -> bytes:
    """The raw maps, each as "<arm>.<method>" (h, w) float32, and "about": what they are, as JSON text."""
    names, sample = comparison.opened.class_names, comparison.sample
    maps = {f"{arm}.{method}": part.attribution for (arm, method), part in comparison.shown.items()}
    about = {
        "data": comparison.opened.pair.data.name, "sample": sample.id, "sha256": sample.sha256,
        "label": comparison.truth, "target": names[comparison.target],
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


def comparison_png(t: Translator, comparison: Comparison) -> bytes:
    """The input and every map as on the screen, with legends, as PNG."""
    rows, columns = len(comparison.arms), 1 + len(comparison.methods)
    between = LEGEND_IN + TITLE_IN
    height = HEAD_IN + SIDE_IN * rows + between * (rows - 1) + LEGEND_IN
    figure = Figure(figsize=(1.07 * SIDE_IN * columns, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.02, LEGEND_IN / height, 0.98, 1 - HEAD_IN / height, 0.08, between / SIDE_IN)
    names, sample = comparison.opened.class_names, comparison.sample
    title = t("viewer.png_title", data=comparison.opened.pair.data.name, sample=sample.id,
              name=names[comparison.target],
              scope=t(f"term.scope.{comparison.look.scope}"))  # fmt: skip
    figure.text(0.02, 1 - 0.35 / height, _plain(title), fontproperties=_font(13))
    for row, arm in enumerate(comparison.arms):
        _draw_input(axes[row][0], t, comparison, arm)
        for column, method in enumerate(comparison.methods, start=1):
            _draw_map(axes[row][column], t, comparison, (arm, method))
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_input(axes: Axes, t: Translator, comparison: Comparison, arm: str) -> None:
    name, share, right = comparison.answer(arm)
    mark = f"✓ {t('term.right')}" if right else f"✗ {t('term.wrong')}"
    _frame(axes, comparison.image, arm_label(arm, t), colour=arm_colour(arm))
    said = t("viewer.answer", name=name, probability=share)
    _below(axes, f"{said}\n{mark}\n{t('viewer.truth', name=comparison.truth)}")


def _draw_map(axes: Axes, t: Translator, comparison: Comparison, place: Place) -> None:
    method = METHODS[place[1]]
    if place in comparison.failed:
        axes.axis("off")
        axes.set_title(_plain(method.label), fontproperties=_font(11), loc="left")
        _below(axes, t("viewer.no_map"), y=0.9)
        return
    shown, look = comparison.shown[place], comparison.look
    _frame(axes, comparison.draw(place), method.label)
    if shown.blank:
        _below(axes, t("term.blank"))
        return
    bar = axes.inset_axes((0.29, -0.075, 0.42, 0.035))
    bar.imshow(colour_bar(look.colormap(signed=shown.signed), signed=shown.signed), aspect="auto")
    bar.axis("off")
    for x, end, side in zip((0, 1), shown.scale.ends, ("left", "right"), strict=True):
        axes.text(x, -0.06, end, transform=axes.transAxes, ha=side, va="center", fontproperties=_font(8))
    _below(axes, "\n".join(describe(shown, t)), y=-0.11)


def _frame(axes: Axes, picture: Array, title: str, colour: str = "black") -> None:
    axes.imshow(picture)
    axes.axis("off")
    axes.set_title(_plain(title), fontproperties=_font(11), color=colour, loc="left")


def _below(axes: Axes, text: str, y: float = -0.04) -> None:
    axes.text(0, y, _plain(text), transform=axes.transAxes, va="top", fontproperties=_font(8), linespacing=1.4)


def _plain(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def _font(size: float) -> FontProperties:
    """A font with Japanese letters; its package is not imported, which would change global settings."""
    spec = find_spec("matplotlib_fontja")
    files = sorted(Path(spec.origin).parent.glob("fonts/*.ttf")) if spec and spec.origin else []
    return FontProperties(fname=files[0], size=size) if files else FontProperties(size=size)

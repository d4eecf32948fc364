"""A panel of seeded numbers, for the tests of the panel and for the small page they open."""

import io

import numpy as np
from PIL import Image

from app.panel import Column, MapCell, Panel, Row, panel_texts
from explain.i18n import translate
from explain.render.heatmap import pool

GRID = (8, 8)
SIZE = 320
HOSTILE = '<script>alert(1)</script> & "quoted" <img src=x onerror=alert(2)>'
MODELS = ("vpt", "ft")
METHODS = ("grad_cam", "integrated_gradients", "attention_rollout")
SIGNED = {"integrated_gradients"}
BROKEN = 3
"""Number of the sample whose picture is no picture."""


def pixels(number: int) -> np.ndarray:
    """A smooth picture, uint8 (SIZE, SIZE, 3): enlarging it makes no difference worth a colour step."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    channels = (60 + 120 * columns, 70 + 90 * rows + 10 * number, 200 - 130 * rows * columns)
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def values(number: int, model: str, method: str) -> np.ndarray:
    """The raw map, float32: on the patch grid, or in 96 x 96 pixels where the method gives pixels."""
    rng = np.random.default_rng([number, MODELS.index(model), METHODS.index(method)])
    coarse = rng.normal(0.3, 1.0, GRID) * (1 + 2 * MODELS.index(model)) * 1e-2
    if method in SIGNED:
        coarse = np.repeat(np.repeat(coarse, 12, axis=0), 12, axis=1) * rng.uniform(0.5, 1.5, (96, 96))
    return coarse.astype(np.float32)


def pooled(raw: np.ndarray) -> np.ndarray | None:
    return pool(raw, GRID) if raw.shape != GRID else None


def make_panel(number: int, lang: str = "en") -> Panel:
    """Sample 0 is plain; 1 has a marked region, and one map is missing and one blank; 3 has no readable picture."""
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, "PNG")
    cells = []
    for model in MODELS:
        for method in METHODS:
            raw = values(number, model, method)
            cells.append(MapCell(model, method, raw, method in SIGNED, ("raw range",), pooled=pooled(raw)))
    if number == 1:
        cells[0] = MapCell("vpt", "grad_cam", None, message="GradCAM had no gradient.")
        cells[3] = MapCell("ft", "grad_cam", np.full(GRID, -1, np.float32), flag="failed", flag_text="FAILED")
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:30] = True
    return Panel(
        sample=f"folder/{number} {HOSTILE}.png", image=b"no picture" if number == BROKEN else stream.getvalue(),
        size=(SIZE, SIZE), grid=GRID,
        rows=(Row("vpt", "VPT", "#0072B2", HOSTILE, "97.1 %", True),
              Row("ft", "FT", "#D55E00", "left", "61.0 %", False)),
        columns=(Column("grad_cam", "GradCAM"), Column("integrated_gradients", "Integrated Gradients"),
                 Column("attention_rollout", "Attention rollout", agnostic=True)),
        cells=tuple(cells), texts=panel_texts(translate(lang)), mask=mask if number == 1 else None,
        title=f"Explained for {HOSTILE}", input_lines=("True class: left",),
    )  # fmt: skip

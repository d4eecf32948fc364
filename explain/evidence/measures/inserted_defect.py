"""Inserted defect: a small spot is put into the image; does the map change where the spot is?"""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from explain.attribution import Array
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.subject import Subject
from explain.metrics.localisation import relevance_mass

CONTRAST = 0.5
"""Height of the spot, for pixels in 0-1: it is darker where the picture is bright, else brighter."""

SIGMA = 0.25
"""Width of the spot, a share of the patch's side; it ends at one patch from its centre."""

LEAST_CHANGE = 0.01
"""Change of the target's logit, a share of the range of the image's logits, under which the model did not react."""


@MEASURES.register("inserted_defect")
class InsertedDefect(Measure):
    """Share of the map's absolute change that lies in the spot's patch and its eight neighbours; chance is their area.

    The place is drawn per image and the same for every model. The patches near the spot are the only ones whose pixels
    change, but attention spreads a change, and a coarse method may rightly move as a whole. A model whose logit hardly
    moves has nothing to show ("no_score_change").
    """

    label: ClassVar[str] = "Inserted defect"
    source: ClassVar[str] = "after Yang and Kim 2019, arXiv 1907.09701, who paste objects and compare maps"
    metrics: ClassVar[dict[str, Metric]] = {
        "defect_change_inside": Metric("Change inside the defect", "higher"),
        "defect_area": Metric("Area of the defect and its neighbours"),
        "defect_score_change": Metric("Change of the logit by the defect"),
    }
    images: ClassVar[int | None] = 16
    every_seed: ClassVar[bool] = False
    controls: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        spots = np.array([_draw_spot(subject, name) for name in subject.ids])
        images, near = with_spots(subject, spots), nearby(spots, subject.grid)
        before, after = (subject.logits(len(shown), lambda rows, shown=shown: shown[rows])  # type: ignore[misc]
                         for shown in (subject.images, images))  # fmt: skip
        at = np.arange(len(subject)), np.asarray(subject.labels)
        change = (after - before)[at].astype(np.float64)
        reacts = np.abs(change) >= LEAST_CHANGE * np.maximum(np.ptp(before, axis=1), 1e-12)
        for index, image in enumerate(subject.ids):
            yield row(image, None, "defect_area", float(near[index].mean()))
            yield row(image, None, "defect_score_change", float(change[index]))
        for method, maps in subject.explain(images).items():
            moved = np.abs(maps.astype(np.float64) - subject.maps[method])
            for index, value in enumerate(relevance_mass(moved, near)):
                if not reacts[index]:
                    yield Row(subject.ids[index], method, "defect_change_inside", None, "no_score_change")
                    continue
                missing = "full_mask" if near[index].all() else "no_map_change"
                flag = None if np.isfinite(value) else missing
                yield row(subject.ids[index], method, "defect_change_inside", float(value), flag)


def with_spots(subject: Subject, spots: Array) -> Tensor:
    """The subject's images with a spot in the middle of a patch each, in model space.

    Args:
        subject: whose images.
        spots: (n, 2) row and column of the patch.
    """
    transform = subject.model.transform
    pixels = transform.denormalise(subject.images)
    rows, columns = (
        (torch.arange(length, dtype=pixels.dtype) + 0.5) / (length / cells) - 0.5  # in patches; 0 is the first's middle
        for length, cells in zip(pixels.shape[2:], subject.grid, strict=True)
    )
    places = torch.from_numpy(spots).to(pixels)
    squared = (rows - places[:, :1])[:, :, None] ** 2 + (columns - places[:, 1:])[:, None] ** 2
    spot = torch.exp(-squared / (2 * SIGMA**2)) * (squared < 1)
    bright = (pixels.mean(1) * spot).sum((1, 2)) > 0.5 * spot.sum((1, 2))
    sign = torch.where(bright, -1.0, 1.0).to(pixels)[:, None, None]
    changed = (pixels + (CONTRAST * sign * spot)[:, None]).clamp(0, 1)
    # what the spot does not reach stays as it is, to the last bit
    return torch.where(spot[:, None] > 0, transform.normalise(changed), subject.images)


def nearby(spots: Array, grid: tuple[int, int]) -> Array:
    """Patches at most one row and one column from the spot's, bool (n, h, w)."""
    rows, columns = np.arange(grid[0])[:, None], np.arange(grid[1])
    return np.asarray((np.abs(rows - spots[:, :1, None]) <= 1) & (np.abs(columns - spots[:, 1:, None]) <= 1))


def _draw_spot(subject: Subject, image: str) -> tuple[int, int]:
    draw = subject.rng("inserted_defect", image)
    return int(draw.integers(subject.grid[0])), int(draw.integers(subject.grid[1]))

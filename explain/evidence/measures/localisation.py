"""Localisation: how much of a map lies in the region that decides the label, where the data know that region."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from explain.attribution import Array
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.subject import Subject
from explain.metrics.localisation import (
    equal_area_iou,
    mask_on_grid,
    patches_inside,
    pixel_auroc,
    pointing_game,
    relevance_mass,
    relevance_rank,
)

SCORES = {
    "relevance_mass": relevance_mass,
    "relevance_rank": relevance_rank,
    "pixel_auroc": pixel_auroc,
    "equal_area_iou": equal_area_iou,
    "pointing_game": pointing_game,
}


@MEASURES.register("localisation")
class Localisation(Measure):
    """Rows for the images that have a mask, and for each the share of patches inside, which is chance."""

    label: ClassVar[str] = "Localisation"
    source: ClassVar[str] = "Arras et al. 2022, arXiv 2003.07258; Zhang et al. 2016, arXiv 1608.00507"
    masks: ClassVar[bool] = True
    metrics: ClassVar[dict[str, Metric]] = {
        "relevance_mass": Metric("Relevance inside", "higher"),
        "relevance_rank": Metric("Highest patches inside", "higher"),
        "pixel_auroc": Metric("AUROC of the region", "higher", 0.5),
        "equal_area_iou": Metric("IoU at equal area", "higher"),
        "pointing_game": Metric("Pointing game", "higher"),
        "area_share": Metric("Area of the region"),
    }

    def __call__(self, subject: Subject) -> Iterator[Row]:
        chosen = np.flatnonzero(subject.masks.any(axis=(1, 2)))
        if not len(chosen):
            return
        shares = mask_on_grid(subject.masks[chosen], subject.grid)
        areas = patches_inside(shares).mean(axis=(1, 2))
        ids = [subject.ids[index] for index in chosen]
        for image, area in zip(ids, areas, strict=True):
            yield row(image, None, "area_share", area)
        for method, values in subject.maps.items():
            maps = values[chosen]
            for metric, score in SCORES.items():
                found = score(maps, shares)
                for image, number, one, area in zip(ids, found, maps, areas, strict=True):
                    yield row(image, method, metric, number, _flag(metric, one, area))


def _flag(metric: str, values: Array, area: float) -> str | None:
    if area == 1:
        return "full_mask"
    if metric == "relevance_mass" and values.max() <= 0:
        return "blank_map"
    return "flat_map" if values.max() == values.min() else None

"""Across models: how alike two models' maps and features are, beside what other seeds and other images give.

An agreement says nothing by itself. Its ceiling is what two seeds of one arm reach, its floor what the maps of two
different images reach; every row here is one of these three.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from explain.attribution import Array
from explain.evidence.base import Metric, Row, row
from explain.metrics.agreement import emd, pearson, spearman, ssim, top_iou
from explain.metrics.randomisation import label_randomisation
from explain.metrics.representation import ENOUGH_FOR_CKA, FEWEST_FOR_CKA, linear_cka_debiased

OTHER_IMAGE = "_other_image"
"""Ending of a metric that compares the maps of two different images: the floor."""

COMPARISONS: dict[str, tuple[Metric, Callable[[Array, Array], Array]]] = {
    "pearson": (Metric("Pearson correlation", "neither"), pearson),
    "spearman": (Metric("Spearman correlation", "neither"), spearman),
    "top_iou": (Metric("IoU of the top 10 %", "neither"), top_iou),
    "ssim": (Metric("SSIM", "neither"), ssim),
    "emd": (Metric("earth mover's distance (patches)", "neither"), emd),
}
RANDOM_LABELS = {
    "label_signed": Metric("similarity to the map of a model trained on random labels", chance=0.0),
    "label_absolute": Metric("the same without signs", chance=0.0),
}
CKA = Metric("debiased linear CKA", "neither")

WHY_NOT = {"top_iou": "ties", "emd": "blank_map"}
"""Why a comparison has no number, where it is not that a map is flat."""


class Seen(NamedTuple):
    """What one trained model shows on n images: maps by method (n, h, w), and features (L, n, D) after each block."""

    arm: str
    seed: int
    weights_sha256: str
    ids: tuple[str, ...]
    maps: Mapping[str, Array]
    features: Array


class Pairing(NamedTuple):
    """Two models that are compared: as "vpt~ft" under one seed, or as "vpt~vpt" under two."""

    first: Seen
    second: Seen

    @property
    def model(self) -> str:
        """Both arms in one word."""
        return f"{self.first.arm}~{self.second.arm}"

    @property
    def seed(self) -> str:
        """The seed they share, or both."""
        one, other = self.first.seed, self.second.seed
        return str(one) if one == other else f"{one}~{other}"

    @property
    def ids(self) -> tuple[str, ...]:
        """The images both were shown."""
        both = set(self.second.ids)
        return tuple(name for name in self.first.ids if name in both)


def pairings(seen: Sequence[Seen], arms: Sequence[str]) -> list[Pairing]:
    """Every two arms under each seed, and every two seeds of each arm."""
    found = []
    for one, other in combinations(seen, 2):
        first, second = sorted((one, other), key=lambda model: (arms.index(model.arm), model.seed))
        if (first.arm == second.arm) != (first.seed == second.seed):
            found.append(Pairing(first, second))
    return sorted(found, key=lambda pair: (arms.index(pair.first.arm), arms.index(pair.second.arm), pair.seed))


def compare(pair: Pairing) -> Iterator[Row]:
    """Agreement of the maps image by image, of arms also with another image's map, and CKA block by block."""
    ids = pair.ids
    one, other = ([model.ids.index(name) for name in ids] for model in pair[:2])
    for method in pair.first.maps:
        a, b = pair.first.maps[method][one], pair.second.maps[method][other]
        for metric, (_, function) in COMPARISONS.items():
            yield from _rows(ids, method, metric, function(a, b))
            if pair.first.arm != pair.second.arm and len(ids) > 1:
                yield from _rows(ids, method, metric + OTHER_IMAGE, function(a, np.roll(b, 1, axis=0)))
    if len(ids) >= FEWEST_FOR_CKA:
        few = "few_images" if len(ids) < ENOUGH_FOR_CKA else None
        for block, (x, y) in enumerate(zip(pair.first.features, pair.second.features, strict=True)):
            value = float(linear_cka_debiased(x[one], y[other]))
            yield row(None, None, f"cka/{block}", value, few if np.isfinite(value) else "constant_features")


def compare_labels(own: Seen, random_labels: Seen) -> Iterator[Row]:
    """How alike the maps are of a model trained on the labels and of one trained alike on random ones."""
    for method in own.maps:
        found = label_randomisation(own.maps[method], random_labels.maps[method])
        for metric, values in zip(RANDOM_LABELS, found, strict=True):
            yield from _rows(own.ids, method, metric, values)


def _rows(ids: Sequence[str], method: str, metric: str, values: Array) -> Iterator[Row]:
    why_not = WHY_NOT.get(metric.removesuffix(OTHER_IMAGE), "flat_map")
    for name, value in zip(ids, values, strict=True):
        yield row(name, method, metric, float(value), None if np.isfinite(value) else why_not)

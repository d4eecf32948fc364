"""Grid game: of four images in one, how much of the map for a class lies on the image of that class?

The mosaics depend on the images and the draw seed alone, so every model is shown the same ones.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from explain.attribution import Array
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.scorer import probabilities
from explain.evidence.subject import Subject
from explain.evidence.truth import mosaic
from explain.metrics.controls import control_maps
from explain.metrics.localisation import grid_game

LEAST_CONFIDENCE = 0.5
"""Probability of its class that an image has to have on its own before a map can be expected to find it."""

CELLS = np.arange(4)

Quad = tuple[int, int, int, int]


@MEASURES.register("grid_game")
class GridGame(Measure):
    """Share of the positive relevance in the own cell, one row for each image in a mosaic; chance is a quarter.

    With fewer than four classes two images of each of two classes lie on the diagonals (flag "two_classes"): the two
    cells of a class are equally right, so a perfect map has a half in each. A map that does not depend on the class has
    the same four shares whatever is asked for, which is a quarter on average: that is its row (flag "class_agnostic").
    An image that the model does not recognise on its own (flag "not_recognised") has no number.
    """

    label: ClassVar[str] = "Grid game"
    source: ClassVar[str] = "Boehle et al. 2021, arXiv 2104.00032; Rao et al. 2022, arXiv 2205.10435"
    metrics: ClassVar[dict[str, Metric]] = {"grid_game": Metric("Grid game, own cell", "higher", 0.25)}
    images: ClassVar[int | None] = 16
    every_seed: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        labels = np.asarray(subject.labels)
        quads = quads_of(labels, subject.rng("grid_game"))
        if not quads:
            return
        pictures = torch.stack([mosaic(subject.images[list(quad)]) for quad in quads])
        order = np.array(quads).ravel()
        known, two = _recognised(subject, order), len(np.unique(labels)) < 4
        for name, specific in subject.class_specific.items():
            if not specific:
                maps = subject.explain(pictures, labels[order[::4]], methods=[name])[name]
                yield from _agnostic_rows(subject, name, maps, order)
                continue
            maps = subject.explain(pictures.repeat_interleave(4, 0), labels[order], methods=[name])[name]
            for position, index in enumerate(order):
                image, value = subject.ids[index], grid_game(maps[position][None], CELLS[[position % 4]])[0]
                if not known[position]:
                    yield Row(image, name, "grid_game", None, "not_recognised")
                else:
                    yield row(image, name, "grid_game", value, _flag(value, "two_classes" if two else None))
        for name, maps in _controls(subject, pictures, quads).items():
            yield from _agnostic_rows(subject, name, maps, order)


def quads_of(labels: Array, rng: np.random.Generator) -> list[Quad]:
    """Which images share a mosaic, row by row; each image is in one at most, and some may be in none.

    Four of different classes where there are four classes, else two each of two classes, on the diagonals. The classes
    with most images left are taken first, which leaves the fewest images over.

    Args:
        labels: (n,) classes.
        rng: the order of images and cells.
    """
    left = {int(label): list(rng.permutation(np.flatnonzero(labels == label))) for label in np.unique(labels)}
    found: list[Quad] = []
    while True:
        fullest = sorted(left, key=lambda label: (-len(left[label]), label))
        if len(left) >= 4:
            if not left[fullest[3]]:
                return found
            cells = [left[label].pop() for label in rng.permutation(fullest[:4])]
        else:
            if len(fullest) < 2 or len(left[fullest[1]]) < 2:
                return found
            first, second = (int(label) for label in rng.permutation(fullest[:2]))
            cells = [left[label].pop() for label in (first, second, second, first)]
        found.append((int(cells[0]), int(cells[1]), int(cells[2]), int(cells[3])))


def _recognised(subject: Subject, order: Array) -> Array:
    """Whether the model gives each image, on its own, to its class; bool (m,)."""
    logits = subject.logits(len(order), lambda rows: subject.images[torch.from_numpy(order[rows])])
    return np.asarray(probabilities(logits, subject.labels[order]) >= LEAST_CONFIDENCE)


def _controls(subject: Subject, pictures: Tensor, quads: Sequence[Quad]) -> dict[str, Array]:
    seeds = [f"{subject.draw_seed}\nmosaic\n" + "\n".join(subject.ids[index] for index in quad) for quad in quads]
    found = control_maps(subject.model.transform.pictures(pictures), subject.grid, seeds)
    return {name: maps for name, maps in found.items() if name in subject.controls}


def _agnostic_rows(subject: Subject, name: str, maps: Array, order: Array) -> Iterator[Row]:
    """One map per mosaic: the mean of its four shares, for each of the four images."""
    shares = grid_game(np.repeat(maps, 4, axis=0), np.tile(CELLS, len(maps))).reshape(-1, 4).mean(1)
    for position, index in enumerate(order):
        value = shares[position // 4]
        yield row(subject.ids[index], name, "grid_game", value, _flag(value, "class_agnostic"))


def _flag(value: float, otherwise: str | None) -> str | None:
    return otherwise if np.isfinite(value) else "blank_map"

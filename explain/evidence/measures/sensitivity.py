"""Sensitivity: how much a map changes when the picture changes by less than anyone can see."""

from collections.abc import Iterator

import numpy as np
import torch

from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.subject import Subject
from explain.metrics.faithfulness import max_sensitivity

RADIUS, DRAWS = 0.02, 6
"""Largest change of a pixel in model space (about one grey level of 255), and how many changed pictures are tried."""


@MEASURES.register("max_sensitivity")
class MaxSensitivity(Measure):
    """Largest relative change of the map over six draws from a small ball round the image.

    A map that never changes is perfectly robust and may be perfectly wrong: read it beside a measure of faithfulness.
    The draws are the same for every method and model of an image.
    """

    label = "Largest sensitivity"
    source = "Yeh et al. 2019, arXiv 1901.09392"
    images = 8
    every_seed = False
    controls = False
    metrics = {"max_sensitivity": Metric("largest sensitivity", "lower")}

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        shape = (DRAWS, *subject.images.shape[1:])
        noise = [subject.rng("sensitivity", image).uniform(-RADIUS, RADIUS, shape) for image in subject.ids]
        changed = [subject.explain(subject.images + torch.from_numpy(np.stack(draw)).to(subject.images))
                   for draw in zip(*noise, strict=True)]  # fmt: skip
        for name in subject.methods:
            found = max_sensitivity(subject.maps[name], [maps[name] for maps in changed])
            for index, image in enumerate(subject.ids):
                yield row(image, name, "max_sensitivity", found[index], "blank_map" if np.isnan(found[index]) else None)

"""ROAD: patches are removed and filled in from their neighbours, so that the hole itself says little.

Filling in is work of the processor, one sparse system per picture: about as long as the forward of a small transformer
on a CPU, and far longer than one on a GPU.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from explain.attribution import Array
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.scorer import on_pixels, probabilities
from explain.evidence.subject import Subject
from explain.metrics.faithfulness import is_flat, linear_imputation, patch_order, road_combined

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the patches, removed."""

NOISE = 0.01
"""Standard deviation of what is added to a filled-in pixel, in model space."""


@MEASURES.register("road")
class Road(Measure):
    """The true class's probability after the most relevant patches are gone, and after the least relevant are.

    Whole patches are removed, as all maps have the resolution of the patch grid. The noise is drawn per image and is
    the same for every method and model.
    """

    label = "Remove and debias (ROAD)"
    source = "Rong et al. 2022, arXiv 2202.00449"
    images = 32
    metrics = {
        "road_morf": Metric("probability, most relevant removed first", "lower"),
        "road_lerf": Metric("probability, least relevant removed first", "higher"),
        "road_combined": Metric("ROAD combined", "higher", 0.0),
    }

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        names = tuple(subject.maps)
        flat = np.stack([is_flat(subject.maps[name]) for name in names], axis=1)
        removed = np.stack([_removed(subject, name) for name in names], axis=1)
        image, method, job, share = np.nonzero(np.broadcast_to(~flat[:, :, None, None], removed.shape[:4]))
        make = _imputer(subject, image, removed[image, method, job, share])
        scores = np.full(removed.shape[:4], np.nan)
        scores[image, method, job, share] = probabilities(subject.logits(len(image), make), subject.labels[image])
        most, least = scores[:, :, 0], scores[:, :, 1]
        found = {"road_morf": most.mean(-1), "road_lerf": least.mean(-1), "road_combined": road_combined(most, least)}
        for index, name in enumerate(subject.ids):
            for at, one in enumerate(names):
                flag = "flat_map" if flat[index, at] else None
                for metric, values in found.items():
                    yield row(name, one, metric, values[index, at], flag)


def _removed(subject: Subject, name: str) -> Array:
    """Patches that are gone, bool (n, most or least relevant first, shares, h, w)."""
    patches = int(np.prod(subject.grid))
    counts = np.clip(np.rint(np.multiply(SHARES, patches)), 1, patches - 1)[:, None]  # something must be left to see
    order = np.stack([patch_order(maps, subject.rng("ties of road", image))
                      for maps, image in zip(subject.maps[name], subject.ids, strict=True)])  # fmt: skip
    ranks = np.argsort(order, axis=-1)[:, None]
    gone = np.stack([ranks < counts, ranks >= patches - counts], axis=1)
    return gone.reshape(*gone.shape[:3], *subject.grid)


def _imputer(subject: Subject, image: Array, removed: Array) -> Callable[[slice], Tensor]:
    """Makes any slice of the list of pictures from the index of the image and the patches (h, w) that are gone."""

    def fill(at: int) -> Tensor:
        picture = subject.images[image[at]]
        # drawn again for every picture, as the noise of all images together would take as much memory as they do
        noise = subject.rng("noise of road", subject.ids[image[at]]).normal(0, NOISE, tuple(picture.shape))
        gone = on_pixels(removed[at], subject.images)
        return torch.from_numpy(linear_imputation(picture.numpy(), gone, noise)).to(picture.dtype)

    return lambda part: torch.stack([fill(at) for at in range(part.start, part.stop)])

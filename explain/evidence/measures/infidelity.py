"""Infidelity: every patch is moved a little towards black, each by its own amount; does the map foretell the change?

The forwards do not depend on the maps, so all methods share them.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from explain.attribution import Array
from explain.baselines import baseline_images
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.scorer import on_pixels
from explain.evidence.subject import Subject
from explain.metrics.faithfulness import scaled_infidelity

SIGMA, DRAWS = 0.2, 16
"""Standard deviation of the share of the way to black, and how often all patches are moved."""

SMALLEST_CHANGE = 1e-5
"""Root mean square change of the logit under which rounding is all there is to foretell."""


@MEASURES.register("infidelity")
class Infidelity(Measure):
    """Share of the logit's changes that a map does not foretell when patches move towards the baseline, 1 for useless.

    Patch p moves by m_p (x - x'), with m_p from N(0, 0.2) and x' black; the map foretells the sum of m_p · phi_p. That
    is exact for a linear model when phi_p is the patch's share of F(x) - F(x'), as of Integrated Gradients. On the grid
    a map is a mean over the patch instead of a sum, and other methods know no unit at all: the best scale, beta, takes
    up both. The draws are the same for every method and model of an image.
    """

    label = "Infidelity"
    source = "Yeh et al. 2019, arXiv 1901.09392"
    metrics = {"infidelity": Metric("scaled infidelity", "lower", 1.0)}

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        shape = (DRAWS, *subject.grid)
        moves = np.stack([subject.rng("infidelity", image).normal(0, SIGMA, shape) for image in subject.ids])
        changes = _changes(subject, moves)
        still = np.sqrt((changes**2).mean(axis=1)) < SMALLEST_CHANGE
        for name, maps in subject.maps.items():
            found, beta = scaled_infidelity(np.einsum("ndhw,nhw->nd", moves, maps.astype(np.float64)), changes)
            for index, image in enumerate(subject.ids):
                if still[index]:
                    yield Row(image, name, "infidelity", None, "no_score_change")
                else:
                    flag = "opposite_sign" if beta[index] < 0 else "blank_map" if np.isnan(beta[index]) else None
                    yield row(image, name, "infidelity", found[index], flag)


def _changes(subject: Subject, moves: Array) -> Array:
    """F(x) - F(x moved towards black) of the true class's logit, (n, draws), for moves (n, draws, h, w)."""
    count, draws = moves.shape[:2]
    with_image = np.concatenate([np.zeros_like(moves[:, :1]), moves], axis=1)
    image = np.repeat(np.arange(count), draws + 1)
    make = _mover(subject, image, with_image.reshape(-1, *subject.grid))
    logits = subject.logits(len(image), make).astype(np.float64)
    scores = logits[np.arange(len(image)), subject.labels[image]].reshape(count, draws + 1)
    return np.asarray(scores[:, :1] - scores[:, 1:])


def _mover(subject: Subject, image: Array, moves: Array) -> Callable[[slice], Tensor]:
    """Makes any slice of the list of pictures from the index of the image and how far patches (h, w) move to black."""
    images, device = subject.images, subject.model.device
    black = baseline_images("black", images[:1].to(device), subject.model.transform)[0]

    def make(part: slice) -> Tensor:
        pictures = images[torch.from_numpy(image[part])].to(device)
        share = torch.from_numpy(on_pixels(moves[part][:, None], images)).to(pictures)
        return torch.lerp(pictures, black.expand_as(pictures), share)

    return make

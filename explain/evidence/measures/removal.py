"""Deletion and insertion: patches vanish into black, or appear out of a blur, in the order a map gives them.

Every perturbed image of a model (all methods, steps and images) is one row of a single list, sorted by image, and is
made when its turn comes. The ends of the curves do not depend on the order, so they are computed once per image.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from explain.attribution import Array
from explain.baselines import baseline_images
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.scorer import on_pixels, probabilities
from explain.evidence.subject import Subject
from explain.metrics.faithfulness import curve_area, gain, is_flat, patch_order, removal_counts

STEPS = 8
"""Parts into which the patches are divided."""

ENDS = ("score_full", "score_black", "score_blur")
"""Probability of the true class on the image, on black and on the blurred image."""

BLUR_CHUNK = 16
"""Images blurred at once."""


@MEASURES.register("removal")
class Removal(Measure):
    """Areas under the deletion and insertion curves of the true class's probability, and the gain over a random order.

    The random order is drawn per image and is the same for every method and model. The control "random" is another
    draw, so its gain is 0 on average.
    """

    label = "Deletion and insertion"
    source = "Petsiuk et al. 2018, arXiv 1806.07421"
    metrics = {
        "insertion": Metric("area under insertion", "higher"),
        "deletion": Metric("area under deletion", "lower"),
        "gain": Metric("gain over a random order", "higher", 0.0),
        "score_full": Metric("probability of the true class"),
        "score_black": Metric("probability on black"),
        "score_blur": Metric("probability on the blurred image"),
        "random_insertion": Metric("area under insertion, random order"),
        "random_deletion": Metric("area under deletion, random order"),
    }

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        names, patches = tuple(subject.maps), int(np.prod(subject.grid))
        counts = removal_counts(patches, min(STEPS, patches))
        flat = np.stack([is_flat(subject.maps[name]) for name in names] + [np.zeros(len(subject), bool)], axis=1)
        ends, curves = _scores(subject, _ranks(subject, names), counts, ~flat)
        deletion = curve_area(_between(ends[:, 0], curves[:, :, 0], ends[:, 1]))
        insertion = curve_area(_between(ends[:, 2], curves[:, :, 1], ends[:, 0]))
        gained = gain(insertion, deletion, insertion[:, -1:], deletion[:, -1:])
        for index, image in enumerate(subject.ids):
            for end, metric in enumerate(ENDS):
                yield row(image, None, metric, ends[index, end])
            yield row(image, None, "random_insertion", insertion[index, -1])
            yield row(image, None, "random_deletion", deletion[index, -1])
            for at, name in enumerate(names):
                flag = "flat_map" if flat[index, at] else None
                yield row(image, name, "insertion", insertion[index, at], flag)
                yield row(image, name, "deletion", deletion[index, at], flag)
                yield row(image, name, "gain", gained[index, at], flag)


def _ranks(subject: Subject, names: Sequence[str]) -> Array:
    """Place of every patch in the order of each map, and last in the random order, (n, maps + 1, patches)."""
    orders = []
    for index, image in enumerate(subject.ids):
        # the same for every map, so that two maps with the same ties are compared on the same draw
        found = [patch_order(subject.maps[name][index], subject.rng("ties of removal", image)) for name in names]
        orders.append([*found, subject.rng("reference of removal", image).permutation(int(np.prod(subject.grid)))])
    return np.argsort(np.array(orders), axis=-1)


def _scores(subject: Subject, ranks: Array, counts: Array, wanted: Array) -> tuple[Array, Array]:
    """Probabilities at the ends, (n, 3), and in between, (n, orders, deletion and insertion, steps - 1).

    Args:
        subject: the model and its images.
        ranks: (n, orders, patches).
        counts: patches gone, or back, at each point.
        wanted: (n, orders), False for orders that are not worth a forward: NaN.
    """
    inner = counts[1:-1, None]
    kept = np.stack([ranks[:, :, None] >= inner, ranks[:, :, None] < inner], axis=2)  # deletion, insertion
    images, orders, _, points, patches = kept.shape
    ends = np.broadcast_to(np.array([True, False, False])[:, None], (images, 3, patches))  # as in ENDS
    masks = np.concatenate([ends, kept.reshape(images, -1, patches)], axis=1)
    blurred = np.concatenate([[False, False, True], np.tile(np.repeat([False, True], points), orders)])
    use = np.concatenate([np.ones((images, 3), bool), np.repeat(wanted, 2 * points, axis=1)], axis=1)
    image, job = np.nonzero(use)
    make = _composer(subject, image, masks[use].reshape(-1, *subject.grid), blurred[job])
    found = np.full(use.shape, np.nan)
    found[use] = probabilities(subject.logits(len(image), make), subject.labels[image])
    return found[:, :3], found[:, 3:].reshape(images, orders, 2, points)


def _composer(subject: Subject, image: Array, kept: Array, blurred: Array) -> Callable[[slice], Tensor]:
    """Makes any slice of a list of pictures: the image where patches are kept, else black or the blurred image.

    Args:
        subject: whose images they are.
        image: (count,) index of the image, ascending.
        kept: bool (count, h, w).
        blurred: bool (count,), what fills the rest.
    """
    images, device = subject.images, subject.model.device
    transform = subject.model.transform
    black = baseline_images("black", images[:1].to(device), transform)[0]
    blur = torch.cat([baseline_images("blur", part, transform)[0] for part in images.split(BLUR_CHUNK)])

    def make(part: slice) -> Tensor:
        near = slice(image[part][0], image[part][-1] + 1)  # few images lie in a slice: send each to the device once
        at = torch.from_numpy(image[part] - near.start).to(device)
        fill = torch.where(
            torch.from_numpy(blurred[part]).to(device)[:, None, None, None], blur[near].to(device)[at], black
        )
        mask = torch.from_numpy(on_pixels(kept[part][:, None], images)).to(device)
        return torch.where(mask, images[near].to(device)[at], fill)

    return make


def _between(first: Array, inner: Array, last: Array) -> Array:
    """Curves (n, orders, points) from their common ends (n,) and what lies between."""
    start, stop = (np.broadcast_to(end[:, None, None], (*inner.shape[:2], 1)) for end in (first, last))
    return np.concatenate([start, inner, stop], axis=-1)

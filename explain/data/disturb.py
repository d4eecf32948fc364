"""Disturb: label noise and class imbalance, put on training images on purpose and on record.

Both are decided by a hash of a seed and the image's bytes, like the split: they need no random generator, and what
is disturbed a little is part of what is disturbed more. Validation and test images are never touched: the caller
passes the ids of the training part, and nothing but those can change.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from explain.data.base import Dataset, Sample
from explain.errors import InputError
from explain.record import Record


class ChangedLabel(Record):
    """One image whose label was changed: its id, and the class indices before and after."""

    id: str
    old: int
    new: int


class LabelNoise(Record):
    """What label noise did.

    Args:
        rate: share asked for, 0-1.
        seed: draws another noise.
        images: number of images that could be changed.
        changed: those that were, sorted by id.
    """

    rate: float
    seed: int
    images: int
    changed: tuple[ChangedLabel, ...]


@dataclass(frozen=True)
class Disturbed:
    """A data set with changed labels, and the record of the change."""

    data: Dataset
    noise: LabelNoise


def noisy_labels(data: Dataset, ids: Iterable[str], rate: float, seed: int) -> Disturbed:
    """Give each of these images, with probability `rate`, another label, each other one equally likely.

    The images that are noisy at a rate are noisy at every higher one, with the same wrong label. Files with the
    same bytes share their fate.

    Args:
        data: the labelled images.
        ids: the training part.
        rate: probability, 0-1; 0 changes nothing, 1 every label.
        seed: draws another noise.

    Raises:
        InputError: the rate is no probability.
        UnknownNameError: an id that the data set does not hold.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"expected a label noise rate from 0 to 1, got {rate}")
    chosen = data.select(ids)
    others = len(data.class_names) - 1
    if others < 1:
        raise InputError(f"label noise needs at least two classes; data set {data.name!r} has {len(data.class_names)}")
    new_labels = {
        sample.id: (sample.label + 1 + math.floor(_share("label", seed, sample) * others)) % (others + 1)
        for sample in chosen.samples
        if _share("noise", seed, sample) < rate
    }
    samples = tuple(
        replace(sample, label=new_labels[sample.id]) if sample.id in new_labels else sample for sample in data.samples
    )
    changed = tuple(
        ChangedLabel(id=name, old=data.by_id[name].label, new=new_labels[name]) for name in sorted(new_labels)
    )
    noise = LabelNoise(rate=rate, seed=seed, images=len(chosen), changed=changed)
    return Disturbed(replace(data, samples=samples), noise)


def imbalanced(data: Dataset, ids: Iterable[str], ratio: float, seed: int) -> tuple[str, ...]:
    """Thin these images out to a long tail: class k of K keeps n_max * ratio**(-k / (K - 1)) of them.

    n_max is the number in the largest class. A class that has fewer than its share keeps all it has, and each keeps
    at least one. What is left at a ratio is part of what is left at every lower one.

    Args:
        data: the labelled images.
        ids: the training part.
        ratio: first class over last, 1 or more; 1 changes nothing.
        seed: draws which images stay.

    Returns:
        The ids that stay, in the order given.

    Raises:
        InputError: the ratio is below 1 or not finite.
        UnknownNameError: an id that the data set does not hold.

    Source: Cui et al. 2019, arXiv 1901.05555, §5.1 (exponential profile).
    """
    if not (math.isfinite(ratio) and ratio >= 1):
        raise InputError(f"expected an imbalance ratio of 1 or more, got {ratio}")
    chosen = data.select(ids)
    of_class: dict[int, list[Sample]] = defaultdict(list)
    for sample in chosen.samples:
        of_class[sample.label].append(sample)
    most = max((len(samples) for samples in of_class.values()), default=0)
    steps = max(len(data.class_names) - 1, 1)
    kept: set[str] = set()
    for label, samples in of_class.items():
        target = math.floor(most * ratio ** (-label / steps) + 0.5)
        order = sorted(samples, key=lambda sample: (_share("imbalance", seed, sample), sample.id))
        kept.update(sample.id for sample in order[: max(target, 1)])
    return tuple(sample.id for sample in chosen.samples if sample.id in kept)


def _share(purpose: str, seed: int, sample: Sample) -> float:
    """A number in [0, 1) drawn from the image's bytes; another one for each purpose and seed."""
    digest = hashlib.sha256(f"{purpose}\n{seed}\n{sample.sha256}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # 48 bits are exact in a float, so this never rounds up to 1

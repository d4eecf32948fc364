"""Two models on the same images, known by four counts alone: how far their difference could have been another one.

It is the bootstrap of `explain.metrics.statistics.paired_difference` without the images: drawing n pairs again is
drawing four counts, which takes no longer for a million images than for a hundred.
"""

import numpy as np

from explain.errors import InputError
from explain.metrics.statistics import Difference


def counted_difference(
    only_a: int, only_b: int, alike: int, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Accuracy of a minus accuracy of b, with its bootstrap interval.

    Args:
        only_a: images that a alone answered right.
        only_b: images that b alone answered right.
        alike: images that both answered right, or both wrong.
        resamples: how often the images are drawn again, as pairs.
        seed: of the draws.
        level: share of the resampled differences inside the interval, in (0, 1).

    Raises:
        InputError: no image, a negative count, or arguments out of range.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; percentile method.
    """
    counts = np.array([only_a, only_b, alike])
    total = int(counts.sum())
    if total < 1 or counts.min() < 0 or resamples < 1 or not 0 < level < 1:
        raise InputError(f"expected at least one image, no negative count, resamples >= 1 and 0 < level < 1; got "
                         f"{counts.tolist()}, {resamples} and {level}")  # fmt: skip
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=resamples)
    differences = (drawn[:, 0] - drawn[:, 1]) / total
    low, high = np.quantile(differences, ((1 - level) / 2, (1 + level) / 2))
    return Difference((only_a - only_b) / total, float(low), float(high))

"""The counted bootstrap against that of the images themselves."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.metrics.paired_counts import counted_difference
from explain.metrics.statistics import paired_difference


def test_it_agrees_with_the_bootstrap_of_the_images() -> None:
    a = np.repeat([1, 0, 1, 0], [40, 90, 200, 70])
    b = np.repeat([0, 1, 1, 0], [40, 90, 200, 70])
    images, counted = paired_difference(a, b, resamples=20_000), counted_difference(40, 90, 270, resamples=20_000)
    assert counted.mean == images.mean
    assert (counted.low, counted.high) == pytest.approx((images.low, images.high), abs=0.006)


def test_a_million_images_take_no_time_and_narrow_the_interval() -> None:
    found = counted_difference(100_000, 101_000, 799_000)
    assert found.mean == pytest.approx(-0.001) and found.low < found.mean < found.high
    assert found.high - found.low < 0.003


def test_the_seed_decides_the_draws() -> None:
    assert counted_difference(4, 6, 90, seed=1) == counted_difference(4, 6, 90, seed=1)
    assert counted_difference(0, 0, 5) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 3, 4)])
def test_counts_of_nothing_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="at least one image"):
        counted_difference(*counts)

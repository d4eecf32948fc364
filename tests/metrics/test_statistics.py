"""Intervals against what theory says."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.metrics import statistics
from explain.metrics.statistics import bootstrap_interval, largest_unseen_rate, paired_difference


def test_interval_matches_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    low, high = bootstrap_interval(values, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_interval_of_equal_values_has_no_width() -> None:
    assert bootstrap_interval([1, 1, 1, 1]) == (1.0, 1.0)


def test_interval_repeats_with_its_seed_and_widens_with_its_level() -> None:
    values = np.random.default_rng(9).normal(size=50)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)
    low, high = bootstrap_interval(values, level=0.8)
    wide_low, wide_high = bootstrap_interval(values, level=0.99)
    assert wide_low < low < high < wide_high


def test_resampling_in_chunks_gives_as_many_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK", 70)
    means = statistics._resampled_means(np.arange(20.0), 11, np.random.default_rng(0))
    assert means.shape == (11,)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = [
        low <= 0.7 <= high
        for low, high in (bootstrap_interval(rng.random(200) < 0.7, resamples=400) for _ in range(200))
    ]
    assert 0.89 <= np.mean(hits) <= 0.99


def test_paired_difference_keeps_pairs_together() -> None:
    a = np.random.default_rng(2).normal(size=100)
    difference = paired_difference(a + 0.5, a)
    assert difference.mean == pytest.approx(0.5)
    assert difference.low == pytest.approx(0.5) and difference.high == pytest.approx(0.5)
    assert difference.beyond_chance
    assert not paired_difference(a > 0, a < 0).beyond_chance


def test_largest_unseen_rate_is_the_exact_bound() -> None:
    rate = largest_unseen_rate(100)
    assert (1 - rate) ** 100 == pytest.approx(0.05)
    assert rate == pytest.approx(3 / 100, rel=0.02)


@pytest.mark.parametrize(
    ("values", "options"),
    [([], {}), ([[1.0]], {}), ([float("nan")], {}), ([1.0], {"level": 1.0}), ([1.0], {"resamples": 0})],
)
def test_wrong_input_is_refused(values: list[float], options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        bootstrap_interval(values, **options)  # type: ignore[arg-type]


def test_unpaired_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="2 and 3"):
        paired_difference([0, 1], [0, 1, 1])
    with pytest.raises(InputError):
        largest_unseen_rate(0)

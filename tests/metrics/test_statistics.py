"""Intervals against what theory says."""

import numpy as np
import pytest
from scipy import stats

from explain.errors import InputError
from explain.metrics import statistics
from explain.metrics.statistics import (
    bootstrap_interval,
    largest_unseen_rate,
    mcnemar,
    paired_difference,
    paired_seeds,
    seed_interval,
    two_way_bootstrap,
    wilson_interval,
)


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


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 9), (12, 12), (20, 4), (5, 20), (30, 31), (80, 40), (50, 50)])
def test_mcnemar_agrees_with_scipy(b: int, c: int) -> None:
    first = np.array([1] * b + [0] * c + [1] * 7 + [0] * 5, bool)
    second = np.array([0] * b + [1] * c + [1] * 7 + [0] * 5, bool)
    result = mcnemar(first, second)
    assert (result.b, result.c, result.exact) == (b, c, b + c < 25)
    if b + c == 0:
        expected = 1.0
    elif result.exact:
        expected = stats.binomtest(b, b + c, 0.5).pvalue
    else:
        expected = stats.chi2.sf(max(0, abs(b - c) - 1) ** 2 / (b + c), df=1)
    assert result.p_value == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second, first).p_value == result.p_value


def test_mcnemar_takes_only_right_and_wrong_on_the_same_images() -> None:
    with pytest.raises(InputError, match="one length"):
        mcnemar([True], [True, False])
    with pytest.raises(InputError, match="paired_difference"):
        mcnemar([0.5, 1], [1, 0])


def test_paired_seeds_is_the_paired_t_interval() -> None:
    a, b = np.array([0.81, 0.79, 0.84, 0.80, 0.83]), np.array([0.78, 0.80, 0.79, 0.77, 0.80])
    result = paired_seeds(a, b)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert result.per_seed == pytest.approx(tuple(a - b)) and result.mean == pytest.approx(0.026)
    # by hand: t(0.975, 4) = 2.776, the deviations' root mean square is 0.0230
    assert result.high - result.mean == pytest.approx(2.776 * (a - b).std(ddof=1) / np.sqrt(5), rel=1e-3)


def test_pairing_removes_what_seeds_share() -> None:
    shared = np.array([0.6, 0.7, 0.8, 0.9])
    result = paired_seeds(shared + [0.02, 0.03, 0.02, 0.03], shared)
    low, high = seed_interval(shared)
    assert not result.tie and high - low > 20 * (result.high - result.low)


def test_a_tie_is_an_interval_that_includes_0() -> None:
    assert paired_seeds([0.5, 0.6], [0.6, 0.5]).tie
    assert paired_seeds([0.5, 0.5], [0.5, 0.5]).tie
    assert paired_difference([1, 0, 1, 0], [0, 1, 1, 0]).tie
    assert not paired_difference([1, 1, 1, 1], [0, 0, 0, 0]).tie


def test_one_seed_gives_no_interval() -> None:
    with pytest.raises(InputError, match="at least two"):
        paired_seeds([0.5], [0.6])
    with pytest.raises(InputError, match="two seeds"):
        two_way_bootstrap([[1, 0]], [[0, 1]])
    with pytest.raises(InputError, match="one length"):
        paired_seeds([0.5, 0.6], [0.5, 0.6, 0.7])


def test_two_way_bootstrap_covers_seeds_and_images() -> None:
    """Seeds that differ and images that differ: the variance is the sum of both parts', images resampled or not."""
    generator = np.random.default_rng(3)
    of_seed, of_image = generator.normal(0, 0.3, (30, 1)), generator.normal(0, 1.0, (1, 200))
    result = two_way_bootstrap(of_seed + of_image, np.zeros((30, 200)), resamples=4000)
    expected = np.sqrt(of_seed.var() / 30 + of_image.var() / 200)
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * expected, rel=0.06)
    assert result.mean == pytest.approx((of_seed + of_image).mean())


def test_two_way_bootstrap_of_like_seeds_is_the_bootstrap_over_images() -> None:
    row = np.random.default_rng(4).random(300) < 0.7
    other = np.random.default_rng(5).random(300) < 0.6
    both = two_way_bootstrap([row] * 3, [other] * 3, resamples=4000)
    one = paired_difference(row, other, resamples=4000)
    assert both == pytest.approx(one, abs=0.006)


def test_two_way_bootstrap_does_not_depend_on_how_its_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).random((3, 40))
    whole = two_way_bootstrap(values, values[::-1] * 0.5, resamples=500)
    monkeypatch.setattr(statistics, "CHUNK", 1000)
    assert two_way_bootstrap(values, values[::-1] * 0.5, resamples=500) == pytest.approx(whole, abs=0.02)


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (0, 60), (60, 60), (7, 20), (199, 1000)])
def test_wilson_interval_agrees_with_scipy(hits: int, count: int) -> None:
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_has_a_width_where_all_went_one_way() -> None:
    low, high = wilson_interval(20, 20)
    assert high == 1.0 and 0.8 < low < 0.9
    with pytest.raises(InputError, match="hits"):
        wilson_interval(5, 4)

"""Tests and intervals against scipy, exhaustive counts, and simulated truth."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from explain.errors import InputError
from explain.metrics import significance
from explain.metrics.significance import (
    hierarchical_bootstrap,
    holm,
    mean_interval,
    minimum_detectable_difference,
    wilcoxon_signed_rank,
)


@pytest.mark.parametrize("count", [6, 30, 200])
def test_signed_rank_agrees_with_scipy(count: int) -> None:
    a, b = np.random.default_rng(count).normal(size=(2, count))
    assert wilcoxon_signed_rank(a + 0.3, b).p == pytest.approx(stats.wilcoxon(a + 0.3, b).pvalue)


def test_signed_rank_of_few_pairs_counts_all_signs() -> None:
    gaps = np.array([1.0, -2, 3, 4, 5.5])
    sums = [np.dot(signs, range(1, 6)) for signs in product((-1, 1), repeat=5)]
    found = wilcoxon_signed_rank(gaps, np.zeros(5))
    assert found.p == pytest.approx(np.mean(np.abs(sums) >= 11))
    assert found.effect == pytest.approx((13 - 2) / 15)


def test_the_effect_is_one_when_every_pair_says_the_same_and_changes_sign_with_the_order() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20))
    assert wilcoxon_signed_rank(b + 9, b).effect == 1 and wilcoxon_signed_rank(b, b + 9).effect == -1
    assert wilcoxon_signed_rank(a, b).effect == -wilcoxon_signed_rank(b, a).effect
    assert wilcoxon_signed_rank(a, b).p == wilcoxon_signed_rank(b, a).p


def test_equal_pairs_and_missing_ones_are_left_out() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 12))
    more_a, more_b = np.concatenate([a, [1, 2, np.nan, 5]]), np.concatenate([b, [1, 2, 3, np.nan]])
    assert wilcoxon_signed_rank(more_a, more_b) == wilcoxon_signed_rank(a, b)
    assert wilcoxon_signed_rank(a, b).pairs == 12
    nothing = wilcoxon_signed_rank(a, a)
    assert np.isnan(nothing.p) and np.isnan(nothing.effect) and nothing.pairs == 0


def test_ties_and_single_pairs_give_a_probability_without_a_warning() -> None:
    for count in (1, 2, 5, 12, 60):
        found = wilcoxon_signed_rank(np.tile([1.0, 1, -1], count)[:count], np.zeros(count))
        assert 0 < found.p <= 1


def test_signed_rank_rejects_a_true_null_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(2)
    low = [wilcoxon_signed_rank(*rng.normal(size=(2, 20))).p < 0.05 for _ in range(200)]
    assert 0.01 < np.mean(low) < 0.1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.4]).tolist() == [1, 1, 1]
    assert holm([0.03]).tolist() == [0.03] and holm([]).shape == (0,)


def test_holm_lies_between_the_raw_and_the_bonferroni_values_and_keeps_their_order() -> None:
    raw = np.random.default_rng(3).random(20) ** 4
    found = holm(raw)
    assert (found >= raw).all() and (found <= np.minimum(20 * raw, 1)).all()
    assert (np.diff(found[np.argsort(raw)]) >= 0).all()


def test_holm_allows_one_false_alarm_in_twenty_families() -> None:
    rng = np.random.default_rng(4)
    assert np.mean([(holm(rng.random(10)) < 0.05).any() for _ in range(1000)]) == pytest.approx(0.05, abs=0.02)


def test_detectable_difference_of_known_sizes() -> None:
    assert minimum_detectable_difference(0.35, 94) == pytest.approx(0.10, abs=0.0015)
    assert minimum_detectable_difference(0.35, 375) == pytest.approx(0.05, abs=0.001)
    assert minimum_detectable_difference(1, 1, power=0.5) == pytest.approx(1.959964, abs=1e-6)


def test_the_detectable_difference_is_found_as_often_as_promised() -> None:
    rng, size = np.random.default_rng(5), minimum_detectable_difference(1, 100)
    found = [stats.ttest_1samp(rng.normal(size, 1, 100), 0).pvalue < 0.05 for _ in range(500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_interval_of_one_seed_matches_the_normal_approximation() -> None:
    values = np.random.default_rng(6).normal(3, 2, 300)
    found = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(300)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert found == hierarchical_bootstrap(values[None])


def test_interval_repeats_with_its_seed_and_widens_with_its_level() -> None:
    table = np.random.default_rng(7).normal(size=(3, 20))
    assert hierarchical_bootstrap(table, seed=1) == hierarchical_bootstrap(table, seed=1)
    assert hierarchical_bootstrap(table, seed=1) != hierarchical_bootstrap(table, seed=2)
    narrow, wide = (hierarchical_bootstrap(table, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_images_that_every_seed_finds_alike_do_not_count_once_per_seed() -> None:
    images = np.random.default_rng(8).normal(size=200)
    one, five = mean_interval(images), hierarchical_bootstrap(np.tile(images, (5, 1)))
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.05)


def test_seeds_that_differ_widen_the_interval_however_many_images() -> None:
    seeds = np.array([-1.0, 0, 0.5, 1, 2])
    found = hierarchical_bootstrap(np.tile(seeds[:, None], (1, 500)))
    # images are alike, so only the 5 ** 5 draws of seeds move the mean
    means = [np.mean(draw) for draw in product(seeds, repeat=5)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.1)


def test_interval_covers_the_truth_when_both_seeds_and_images_vary() -> None:
    rng, hits = np.random.default_rng(9), []
    for _ in range(150):
        table = rng.normal(0, 0.2, (10, 1)) + rng.normal(0, 1, 60) + rng.normal(0, 0.5, (10, 60))
        found = hierarchical_bootstrap(table, resamples=400)
        hits.append(found.low <= 0 <= found.high)
    assert 0.88 <= np.mean(hits) <= 0.99


def test_missing_cells_are_left_out_and_each_seed_counts_the_same() -> None:
    table = np.array([[1.0, 3, np.nan, np.nan], [5, np.nan, np.nan, np.nan], [np.nan] * 4])
    found = hierarchical_bootstrap(table)
    assert found.mean == (2 + 5) / 2
    assert (found.low, found.high) == (1, 5)
    assert mean_interval([1.0, np.nan, 3]) == mean_interval([1.0, 3])


def test_too_few_numbers_have_no_interval() -> None:
    assert np.isnan(hierarchical_bootstrap(np.full((2, 3), np.nan))).all()
    assert np.isnan(mean_interval([])).all()
    lone = mean_interval([np.nan, 4.0])
    assert lone.mean == 4 and np.isnan(lone.low) and np.isnan(lone.high)
    two_seeds = hierarchical_bootstrap([[1.0, np.nan], [2.0, np.nan]])
    assert two_seeds == (1.5, 1, 2)


def test_chunks_draw_as_many_means(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(10).normal(size=(2, 20))
    monkeypatch.setattr(significance, "CHUNK", 70)
    assert significance._resampled_means(table, 11, np.random.default_rng(0)).shape == (11,)


def test_wrong_numbers_are_refused() -> None:
    for call in (
        lambda: wilcoxon_signed_rank([1, 2], [1]),
        lambda: wilcoxon_signed_rank([1, np.inf], [1, 2]),
        lambda: holm([0.1, np.nan]),
        lambda: holm([1.1]),
        lambda: holm([[0.1]]),
        lambda: minimum_detectable_difference(-1, 10),
        lambda: minimum_detectable_difference(float("nan"), 10),
        lambda: minimum_detectable_difference(1, 0),
        lambda: minimum_detectable_difference(1, 10, power=1),
        lambda: hierarchical_bootstrap([1.0, 2]),
        lambda: hierarchical_bootstrap([[1.0, np.inf]]),
        lambda: hierarchical_bootstrap([[1.0, 2]], level=0),
        lambda: hierarchical_bootstrap([[1.0, 2]], resamples=0),
        lambda: mean_interval(np.ones((2, 3))),
    ):
        with pytest.raises(InputError):
            call()

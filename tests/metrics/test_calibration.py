"""Calibration against numbers worked out by hand and models whose calibration is known."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.metrics.calibration import calibration_error_interval, expected_calibration_error, reliability_curve


def two_classes(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 2) that answer class 0 with a confidence, and the labels that make it right or wrong."""
    return np.stack([confidence, 1 - confidence], axis=1), np.where(right, 0, 1)


def calibrated(count: int, seed: int, overconfidence: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A model that is right as often as it says, less a constant."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.6, 0.99, count)
    return two_classes(confidence, generator.random(count) < confidence - overconfidence)


def test_error_of_two_bins_by_hand() -> None:
    probabilities, labels = two_classes(np.array([0.6, 0.6, 0.9, 0.9, 0.9]), np.array([1, 0, 1, 1, 0], bool))
    # |0.5 - 0.6| of 2 answers and |2/3 - 0.9| of 3: (2 * 0.1 + 3 * 0.2333) / 5
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx((0.2 + 0.7) / 5)
    first, second = reliability_curve(probabilities, labels, bins=10)
    assert (first.images, first.accuracy, second.images) == (2, 0.5, 3)
    assert (first.start, first.end) == pytest.approx((0.5, 0.6))  # closed above
    assert second.confidence == pytest.approx(0.9) and second.low < 2 / 3 < second.high


def test_one_bin_is_mean_confidence_against_accuracy() -> None:
    probabilities, labels = calibrated(500, 1, overconfidence=0.2)
    expected = abs(probabilities[:, 0].mean() - (labels == 0).mean())
    for binning in ("width", "mass"):
        assert expected_calibration_error(probabilities, labels, bins=1, binning=binning) == pytest.approx(expected)


def test_bins_of_equal_mass_hold_equally_many() -> None:
    probabilities, labels = calibrated(600, 2)
    assert [row.images for row in reliability_curve(probabilities, labels, bins=15, binning="mass")] == [40] * 15


def test_a_model_that_is_always_sure_has_one_bin_and_no_nan() -> None:
    probabilities, labels = two_classes(np.ones(10), np.arange(10) < 7)
    for binning in ("width", "mass"):
        (row,) = reliability_curve(probabilities, labels, binning=binning)
        assert (row.images, row.confidence, row.accuracy) == (10, 1.0, 0.7)
        assert expected_calibration_error(probabilities, labels, binning=binning) == pytest.approx(0.3)


def test_the_error_is_the_overconfidence_of_a_large_sample() -> None:
    for binning in ("width", "mass"):
        result = calibration_error_interval(*calibrated(20_000, 3, overconfidence=0.15), binning=binning, resamples=100)
        assert result.error == pytest.approx(0.15, abs=0.01)
        assert result.low < result.error < result.high and result.floor < 0.02


def test_a_calibrated_model_measures_its_floor_on_average() -> None:
    results = [calibration_error_interval(*calibrated(60, seed), resamples=200) for seed in range(60)]
    assert np.mean([result.error for result in results]) == pytest.approx(
        np.mean([result.floor for result in results]), rel=0.1
    )
    assert np.mean([result.floor for result in results]) > 0.05  # 60 images: far from 0 by chance alone
    assert sum(result.p_value < 0.1 for result in results) == pytest.approx(6, abs=6)
    assert np.mean([result.p_value for result in results]) == pytest.approx(0.5, abs=0.1)


def test_overconfidence_is_not_taken_for_chance() -> None:
    results = [calibration_error_interval(*calibrated(60, seed, 0.3), resamples=200) for seed in range(20)]
    assert max(result.p_value for result in results) < 0.05


def test_the_interval_is_as_wide_as_samples_spread() -> None:
    errors = [expected_calibration_error(*calibrated(400, seed, 0.2), bins=5) for seed in range(300)]
    result = calibration_error_interval(*calibrated(400, 999, 0.2), bins=5)
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * np.std(errors), rel=0.2)


def test_the_interval_repeats_and_keeps_to_what_is_possible() -> None:
    sample = calibrated(50, 4)
    result = calibration_error_interval(*sample)
    assert result == calibration_error_interval(*sample)
    assert result.error == pytest.approx(expected_calibration_error(*sample))
    assert 0 <= result.low <= result.error <= result.high <= 1


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        ([[2.0, -1.0]], [0], "softmax"),
        ([[0.5, 0.4]], [0], "softmax"),
        ([[np.nan, 1.0]], [0], "softmax"),
        ([[0.5, 0.5]], [2], "class indices"),
        ([[0.5, 0.5]], [0.0], "class indices"),
        ([[0.5, 0.5]], [0, 1], "labels"),
        (np.zeros((0, 2)), np.zeros(0, int), "labels"),
    ],
)
def test_what_is_no_probability_or_label_is_refused(probabilities: object, labels: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        expected_calibration_error(probabilities, labels)  # type: ignore[arg-type]


def test_bins_and_binning_are_checked() -> None:
    sample = calibrated(20, 5)
    with pytest.raises(InputError, match="bins >= 1"):
        reliability_curve(*sample, bins=0)
    with pytest.raises(InputError, match="binning"):
        reliability_curve(*sample, binning="other")  # type: ignore[arg-type]

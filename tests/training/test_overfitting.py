"""When a watched loss turns, on curves made by hand."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.training.overfitting import (
    Gap,
    describe,
    generalisation_gaps,
    judge_overfitting,
    turning_index,
    watched_part,
)
from explain.training.run import Epoch

STEPS = np.arange(60)
FALLING = 0.4 + np.exp(-STEPS / 10)
TURNING = np.where(STEPS < 20, 1.5 - 0.04 * STEPS, 0.7 + 0.03 * (STEPS - 20))


def history_of(test: np.ndarray | None, val: np.ndarray | None = None, train_loss: float = 0.1) -> list[Epoch]:
    curves = [curve for curve in (test, val) if curve is not None]
    return [
        Epoch(
            epoch=n + 1, learning_rate=1e-3, train_loss=train_loss, train_accuracy=0.95,
            val_loss=None if val is None else float(val[n]), val_accuracy=None if val is None else 0.7,
            test_loss=None if test is None else float(test[n]), test_accuracy=None if test is None else 0.6,
            gradient_norm=1.0, gradient_norm_max=2.0, seconds=1.0, peak_mib=100.0, energy_j=None,
        )
        for n in range(len(curves[0]) if curves else 4)
    ]  # fmt: skip


def test_a_clean_curve_turns_at_its_minimum() -> None:
    assert turning_index(TURNING) == 20
    # a parabola, whose minimum is known: the running mean is symmetric and does not move it
    assert turning_index(0.5 + (np.arange(41) - 13.0) ** 2 / 400) == 13


def test_a_curve_that_falls_or_levels_off_never_turns() -> None:
    assert turning_index(FALLING) is None
    assert turning_index(np.full(50, 0.3)) is None


@pytest.mark.parametrize("deviation", [0.01, 0.05, 0.2])
def test_noise_alone_is_hardly_ever_a_turn(deviation: float) -> None:
    generator = np.random.default_rng(0)
    flat = [0.8 + generator.normal(0, deviation, 60) for _ in range(300)]
    falling = [FALLING + generator.normal(0, deviation, 60) for _ in range(300)]
    for curves in (flat, falling):
        assert sum(turning_index(curve) is not None for curve in curves) <= 6  # 2 %


def test_a_turn_is_found_through_noise() -> None:
    generator = np.random.default_rng(1)
    found = [turning_index(TURNING + generator.normal(0, 0.05, 60)) for _ in range(100)]
    assert None not in found
    assert np.mean([abs(index - 20) <= 4 for index in found if index is not None]) > 0.95


def test_a_rise_within_the_last_epochs_is_too_early_to_call() -> None:
    curve = np.concatenate([np.linspace(1.5, 0.5, 30), [0.6, 0.7, 0.8]])
    assert turning_index(curve, patience=5) is None
    assert turning_index(curve, patience=3) in (28, 29)  # the steeper rise moves the running mean by one


def test_one_bad_epoch_and_a_hill_that_is_left_again_are_no_turn() -> None:
    spike = FALLING.copy()
    spike[30] += 2
    assert turning_index(spike) is None
    hill = FALLING + 0.5 * np.exp(-((STEPS - 30) ** 2) / 20)
    assert turning_index(hill) is None


def test_a_rise_too_small_to_matter_is_no_turn() -> None:
    assert turning_index(np.where(STEPS < 20, 1.5 - 0.04 * STEPS, 0.7 + 0.0002 * (STEPS - 20))) is None


def test_a_short_or_broken_curve() -> None:
    assert turning_index([0.5, 0.9]) is None
    assert turning_index([]) is None
    with pytest.raises(InputError, match="finite"):
        turning_index([0.5, float("nan")])
    with pytest.raises(InputError, match="patience"):
        turning_index([0.5, 0.6], patience=0)


def test_the_gap_is_training_against_test() -> None:
    history = history_of(np.array([0.5, 0.7]), train_loss=0.2)
    first, second = generalisation_gaps(history)
    assert first == pytest.approx(Gap(1, 0.35, 0.3)) and second == pytest.approx(Gap(2, 0.35, 0.5))
    assert generalisation_gaps(history, part="val") == ()


def test_a_turn_comes_with_its_epoch_and_rise() -> None:
    result = judge_overfitting(history_of(TURNING))
    assert result.turning_epoch == 21  # epochs count from 1
    assert result.rise == pytest.approx(TURNING[-5:].mean() - TURNING[18:23].mean())
    assert "epoch 21 of 60" in describe(result) and "35.0 points" in describe(result)
    assert "21" in describe(result, "ja") and "過学習" in describe(result, "ja")


def test_no_turn_and_nothing_watched_are_said_too() -> None:
    never = judge_overfitting(history_of(FALLING))
    assert never.turning_epoch is None and never.rise is None
    assert "did not turn" in describe(never)
    unwatched = judge_overfitting(history_of(None))
    assert unwatched.part is None and unwatched.gaps == ()
    assert "No held-out images" in describe(unwatched)


def test_validation_images_stand_in_for_test_images_unless_they_were_trained_on() -> None:
    both, only_val = history_of(TURNING, FALLING), history_of(None, TURNING)
    assert watched_part(both) == watched_part(both, train_on_val=True) == "test"
    assert watched_part(only_val) == "val"
    assert watched_part(only_val, train_on_val=True) is None
    assert watched_part(history_of(None)) is None
    assert "validation" in describe(judge_overfitting(only_val, part="val"))

"""Trial: one point of a search, what it cost and what it came to on the validation images."""

import math
from collections.abc import Sequence

from explain.errors import InputError
from explain.record import Record
from explain.training.recipe import Value


class Point(Record):
    """Settings to train with.

    Args:
        learning_rate: peak of the schedule.
        weight_decay: the optimiser's decay.
        options: all options of the arm's tuning, the searched ones filled in.
    """

    learning_rate: float
    weight_decay: float
    options: dict[str, Value]


class Trial(Point):
    """One point tried in a search: what it cost, and the validation result at its end.

    A training whose loss became NaN or infinite has no result: its accuracy is 0 and its loss None.
    """

    epochs: int
    steps: int
    val_accuracy: float
    val_loss: float | None
    seconds: float


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The best of the longest trials: by validation accuracy, then by validation loss, then the smaller rate.

    Raises:
        InputError: no trials, or each of the longest came to nothing.
    """
    if not trials:
        raise InputError("expected at least one trial, got none")
    longest = max(trial.epochs for trial in trials)
    if all(trial.val_loss is None for trial in trials if trial.epochs == longest):
        raise InputError("the loss became NaN or infinite in every trial; search smaller learning rates")
    return max((trial for trial in trials if trial.epochs == longest), key=merit)


def merit(trial: Trial) -> tuple[float, float, float]:
    """What trials are ranked by, the better one larger."""
    loss = math.inf if trial.val_loss is None else trial.val_loss
    return trial.val_accuracy, -loss, -trial.learning_rate

"""Schema of how training went."""

from explain.record import Record
from explain.training.epoch import Epoch


class Trial(Record):
    """One point of the search; accuracy 0-1. One of an arm's trials is the chosen one."""

    learning_rate: float
    weight_decay: float
    options: dict[str, str]
    epochs: int
    steps: int
    val_accuracy: float
    val_loss: float | None
    seconds: float
    chosen: bool


class Training(Record):
    """One arm's search and final training.

    Args:
        trials, trial_steps: of the search.
        steps: of the final training; `total_steps` with those of the search.
        epochs: its history, as recorded.
        watched: part whose curve tells of overfitting, "test" or "val"; None when no images were held out.
        accuracy_gap, loss_gap: after the last epoch, training - watched accuracy (0-1) and watched - training loss.
        turning_epoch: where the watched loss turned; None when it never did.
        sentence: what the curves say, in the report's language.
        gradient_norm, gradient_norm_max: mean and largest over all steps.
        seconds, peak_mib, energy_j: of the final training; energy is None where the machine does not tell.
        search_seconds: of all trials.
    """

    trials: tuple[Trial, ...]
    trial_steps: int
    steps: int
    total_steps: int
    epochs: tuple[Epoch, ...]
    watched: str | None
    accuracy_gap: float | None
    loss_gap: float | None
    turning_epoch: int | None
    sentence: str
    gradient_norm: float
    gradient_norm_max: float
    seconds: float
    peak_mib: float
    energy_j: float | None
    search_seconds: float

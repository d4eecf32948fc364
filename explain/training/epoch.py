"""Epoch: what one pass over the training images recorded."""

from explain.record import Record


class Epoch(Record):
    """One pass over the training images; accuracies are 0-1, losses are cross-entropy in nats.

    Validation figures are None where there are no validation images left, test figures where none are watched, energy
    where the machine does not tell. Gradient norms are of all trained parameters together, per step.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    gradient_norm: float
    gradient_norm_max: float
    seconds: float
    peak_mib: float
    energy_j: float | None

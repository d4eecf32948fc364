"""Overfitting: what the curves of a training say of it, in numbers and in one sentence.

Watched is the loss on images that decide nothing. When it falls and then rises for good while the training loss still
falls, the model has begun to learn its training images by heart; the epoch of the minimum is the turn.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from explain.errors import InputError
from explain.i18n import translate
from explain.training.run import Epoch

WINDOW = 5
"""Epochs in the running mean that the minimum is looked for in."""

NOISES = 3.0
"""A rise counts when it is this many standard deviations of the curve's own jitter; flat noise stays below."""

SHARE = 0.02
"""A rise also has to be this share of the minimum, so that a smooth curve's last wiggle is no turn."""

Part = Literal["test", "val"]


class Gap(NamedTuple):
    """Generalisation gap after one epoch: accuracy training - watched (0-1), loss watched - training (nats)."""

    epoch: int
    accuracy: float
    loss: float


class Overfitting(NamedTuple):
    """What a history says: the part watched (None when none was), the gaps, the turn, and the rise since then (nats).

    `turning_epoch` and `rise` are None where the watched loss never turns.
    """

    part: Part | None
    epochs: int
    gaps: tuple[Gap, ...]
    turning_epoch: int | None
    rise: float | None


def generalisation_gaps(history: Sequence[Epoch], *, part: Part = "test") -> tuple[Gap, ...]:
    """The gap of every epoch whose part was watched.

    Args:
        history: one record per epoch.
        part: "test" or "val".

    Source: Han et al. 2024, arXiv 2401.12902, §5.1.
    """
    gaps = []
    for epoch in history:
        accuracy, loss = getattr(epoch, f"{part}_accuracy"), getattr(epoch, f"{part}_loss")
        if accuracy is not None and loss is not None:
            gaps.append(Gap(epoch.epoch, epoch.train_accuracy - accuracy, loss - epoch.train_loss))
    return tuple(gaps)


def turning_index(losses: npt.ArrayLike, *, patience: int = 5) -> int | None:
    """Where a loss curve turns: the minimum of its running mean, when a rise follows that is no noise.

    The curve turns when three things hold: the minimum lies at least `patience` epochs before the end; the mean of
    the last `patience` epochs, so not one bad epoch and not a hill that was left again, lies above it; and it lies
    above by more than `NOISES` standard deviations of the jitter and by more than `SHARE` of the minimum. The jitter
    is the median absolute second difference, which neither a slope nor a single spike changes.

    Args:
        losses: (n,) one loss per epoch.
        patience: epochs that have to follow the minimum, at least 1.

    Returns:
        The index of the minimum, or None when the curve never turns or is too short to tell.

    Raises:
        InputError: a loss that is not finite, or patience below 1.
    """
    curve = np.asarray(losses, dtype=np.float64)
    if curve.ndim != 1 or not np.isfinite(curve).all() or patience < 1:
        raise InputError("expected finite losses (n,) and patience >= 1")
    if len(curve) < patience + 1:
        return None
    smooth = _running_mean(curve)
    lowest = int(smooth.argmin())
    if len(curve) - 1 - lowest < patience:
        return None
    rise = float(curve[len(curve) - patience :].mean() - smooth[lowest])
    return lowest if rise > max(NOISES * _jitter(curve), SHARE * abs(float(smooth[lowest]))) else None


def judge_overfitting(history: Sequence[Epoch], *, part: Part | None = "test", patience: int = 5) -> Overfitting:
    """Gaps, turning epoch and rise of one training.

    Args:
        history: one record per epoch.
        part: whose curve is watched; None when no images were held out.
        patience: as in `turning_index`.

    Source: Han et al. 2024, arXiv 2401.12902, §5.1, which calls a training overfitted when its test loss rises.
    """
    gaps = generalisation_gaps(history, part=part) if part is not None else ()
    if not gaps:
        return Overfitting(None, len(history), (), None, None)
    watched = {gap.epoch: getattr(epoch, f"{part}_loss") for gap in gaps for epoch in history
               if epoch.epoch == gap.epoch}  # fmt: skip
    losses = np.array(list(watched.values()))
    turn = turning_index(losses, patience=patience)
    if turn is None:
        return Overfitting(part, len(history), gaps, None, None)
    rise = float(losses[-patience:].mean() - _running_mean(losses)[turn])
    return Overfitting(part, len(history), gaps, gaps[turn].epoch, rise)


def watched_part(history: Sequence[Epoch], *, train_on_val: bool = False) -> Part | None:
    """The part whose curve tells of overfitting: test images where they were watched, else held-out validation ones."""
    if any(epoch.test_loss is not None for epoch in history):
        return "test"
    held_out = not train_on_val and any(epoch.val_loss is not None for epoch in history)
    return "val" if held_out else None


def describe(overfitting: Overfitting, lang: str = "en") -> str:
    """One sentence on a training, in English or Japanese."""
    t = translate(lang)
    if overfitting.part is None:
        return t("overfitting.unwatched")
    gap = f"{100 * overfitting.gaps[-1].accuracy:.1f}".replace("-", "\u2212")
    words = {"part": t(f"overfitting.{overfitting.part}"), "gap": gap, "epochs": overfitting.epochs}
    if overfitting.turning_epoch is None or overfitting.rise is None:
        return t("overfitting.never", **words)
    return t("overfitting.turned", **words, epoch=overfitting.turning_epoch, rise=f"{overfitting.rise:.2f}")


def _running_mean(curve: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over `WINDOW` epochs around each one; narrower but symmetric at the ends, so that no slope shifts it."""
    last, half = len(curve) - 1, WINDOW // 2
    reach = [min(half, index, last - index) for index in range(len(curve))]
    return np.array([curve[index - r : index + r + 1].mean() for index, r in enumerate(reach)])


def _jitter(curve: npt.NDArray[np.float64]) -> float:
    """Standard deviation of a curve's noise: white noise of deviation s has second differences of deviation s √6."""
    if len(curve) < 3:
        return 0.0
    return 1.4826 * float(np.median(np.abs(np.diff(curve, n=2)))) / 6**0.5

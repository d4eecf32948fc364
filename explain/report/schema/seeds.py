"""Schema of several seeds of one comparison."""

from explain.record import Record


class SeedArm(Record):
    """One arm over the seeds: test accuracy of each (0-1), their mean and its interval."""

    name: str
    label: str
    accuracies: tuple[float, ...]
    mean: float
    low: float
    high: float


class Seeds(Record):
    """VPT and FT over the seeds of a study.

    Args:
        seeds: in the order of every list below.
        arms: those that every seed trained.
        mean, low, high: VPT - FT, paired by seed, with its t interval.
        per_seed: the difference of each seed.
        both_low, both_high: interval over seeds and test images; None where the seeds were tested on other images.
        tie: the interval over seeds holds 0, or the one over seeds and images does.
        statement: what it says.
    """

    seeds: tuple[int, ...]
    arms: tuple[SeedArm, ...]
    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    both_low: float | None
    both_high: float | None
    tie: bool
    statement: str

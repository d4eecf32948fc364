"""Schema of rates: numbers of a kind that inspection speaks of, each with its interval and its count."""

from explain.record import Record


class Rate(Record):
    """A share 0-1 of `count` images with its 95 % interval; `hits` of them for a plain share, None for an area."""

    value: float
    low: float
    high: float
    hits: int | None
    count: int


class Rates(Record):
    """One arm as an inspection sees it.

    Args:
        miss: defective images answered as good, of the defective ones; None without a declared good class.
        overkill: good images answered as defective, of the good ones; likewise.
        auroc: area under the ROC curve of defective against good; without a declared good class the mean over the
            classes, one against the rest.
        balanced: mean of the classes' recalls.
    """

    arm: str
    balanced: Rate
    miss: Rate | None
    overkill: Rate | None
    auroc: Rate


class ArmDifference(Record):
    """Accuracy of one arm less that of another on the same images, with its interval."""

    first: str
    second: str
    mean: float
    low: float
    high: float


class Slice(Record):
    """A part of the test images: what it is split by, which part, and every arm's accuracy on it."""

    by: str
    part: str
    count: int
    accuracies: dict[str, Rate]


class Disturbed(Record):
    """The test images changed in one way: every arm's accuracy, and its change from the unchanged images.

    Args:
        name: key of the change, such as "brightness".
        label: in words, with its size.
        accuracies: by arm.
        changes: by arm, disturbed - unchanged, paired by image; `hits` is None.
    """

    name: str
    label: str
    accuracies: dict[str, Rate]
    changes: dict[str, Rate]

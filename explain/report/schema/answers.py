"""Schema of the answers on the test images."""

from explain.record import Record


class ClassRecall(Record):
    """Recall of one class, 0-1, with its interval, over `count` images."""

    name: str
    recall: float
    low: float
    high: float
    count: int


class ReliabilityBin(Record):
    """Answers with a confidence in (start, end]: how many, mean confidence, accuracy and its interval, all 0-1."""

    start: float
    end: float
    count: int
    confidence: float
    accuracy: float
    low: float
    high: float


class Calibration(Record):
    """How far a model's probabilities can be taken at their word.

    Args:
        confidence: mean probability of the answers, to hold against the accuracy.
        error, low, high: expected calibration error over bins of equal width, with its interval.
        floor: what a perfectly calibrated model would measure on as many images, on average.
        p_value: how often such a model would measure at least the error found.
        adaptive: the error over bins of equal mass.
        bins: the reliability curve.
        sentence: what the numbers say.
    """

    confidence: float
    error: float
    low: float
    high: float
    floor: float
    p_value: float
    adaptive: float
    bins: tuple[ReliabilityBin, ...]
    sentence: str


class PairedResult(Record):
    """VPT minus FT in accuracy, image by image; the four counts sum to the test images.

    `p_value` is McNemar's, `exact` when it is the binomial test; `tie` when the interval holds 0.
    """

    mean: float
    low: float
    high: float
    tie: bool
    both_right: int
    only_vpt: int
    only_ft: int
    both_wrong: int
    p_value: float
    exact: bool
    statement: str
    test_statement: str

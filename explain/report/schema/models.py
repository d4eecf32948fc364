"""Schema of the trained models and of the proof that they were trained alike."""

from explain.record import Record
from explain.report.schema.answers import Calibration, ClassRecall
from explain.report.schema.training import Training
from explain.report.schema.words import Named, PerArm


class Arm(Record):
    """One trained model: what it is, what it cost, how it does on the test images; `trained_share` is 0-1."""

    name: str
    label: str
    tuning: str
    options: tuple[Named, ...]
    trained_parameters: int
    trained_share: float
    total_parameters: int
    weights_bytes: int
    seconds_per_epoch: float
    peak_mib: float
    learning_rate: float
    device: str
    precision: str
    accuracy: float
    low: float
    high: float
    count: int
    loss: float
    recalls: tuple[ClassRecall, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    training: Training


class MatchedRow(PerArm):
    """A field that must agree; `set_apart` where the recipe's protocol says that it does not."""

    set_apart: bool

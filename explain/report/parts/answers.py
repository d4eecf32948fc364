"""The answers on the test images, for the evidence: which classes are found, how far to trust a probability, and
whether the disagreements of two models are more than chance."""

import numpy as np

from explain.i18n import Translator
from explain.metrics.calibration import calibration_error_interval, expected_calibration_error, reliability_curve
from explain.metrics.classification import confusion, per_class_recall
from explain.metrics.statistics import mcnemar, paired_difference
from explain.report.schema.answers import Calibration, ClassRecall, PairedResult, ReliabilityBin
from explain.training.run import Predictions, Run

RESAMPLES = 2000
SEED = 0
SIGNIFICANT = 0.05


def percent(value: float) -> str:
    """A share 0-1 as percent with one decimal and a true minus sign."""
    return f"{100 * value:.1f}".replace("-", "\u2212")


def recalls_of(run: Run) -> tuple[ClassRecall, ...]:
    """Recall of every class with a test image."""
    rows = per_class_recall(run.predictions.labels, run.predictions.classes, run.manifest.class_names)
    return tuple(
        ClassRecall(name=row.name, recall=row.recall, low=row.low, high=row.high, count=row.images) for row in rows
    )


def confusion_of(run: Run) -> tuple[tuple[int, ...], ...]:
    """Counts, row the true class, column the answer."""
    counts = confusion(run.predictions.labels, run.predictions.classes, len(run.manifest.class_names))
    return tuple(tuple(int(cell) for cell in row) for row in counts)


def calibration_of(predictions: Predictions, t: Translator) -> Calibration:
    """Calibration of a run's answers."""
    sample = predictions.probabilities, predictions.labels
    result = calibration_error_interval(*sample, resamples=RESAMPLES, seed=SEED)
    confidence, accuracy = float(predictions.probabilities.max(axis=1).mean()), float(predictions.correct.mean())
    key = "too_sure" if confidence > accuracy else "too_unsure"
    if result.p_value >= SIGNIFICANT:
        key = "calibrated"
    bins = tuple(
        ReliabilityBin(start=row.start, end=row.end, count=row.images, confidence=row.confidence,
                       accuracy=row.accuracy, low=row.low, high=row.high)
        for row in reliability_curve(*sample)
    )  # fmt: skip
    return Calibration(
        confidence=confidence, error=result.error, low=result.low, high=result.high, floor=result.floor,
        p_value=result.p_value, adaptive=expected_calibration_error(*sample, binning="mass"), bins=bins,
        sentence=t(f"report.calibration.{key}", confidence=percent(confidence), accuracy=percent(accuracy)),
    )  # fmt: skip


def paired_result(vpt: Predictions, ft: Predictions, t: Translator) -> PairedResult:
    """VPT against FT on the same images."""
    a, b = np.asarray(vpt.correct), np.asarray(ft.correct)
    result, test = paired_difference(a, b, resamples=RESAMPLES, seed=SEED), mcnemar(a, b)
    mean, low, high = (percent(value) for value in result)
    verdict = "even" if test.p_value >= SIGNIFICANT else "uneven"
    return PairedResult(
        mean=result.mean, low=result.low, high=result.high, tie=result.tie,
        both_right=int((a & b).sum()), only_vpt=test.b, only_ft=test.c, both_wrong=int((~a & ~b).sum()),
        p_value=test.p_value, exact=test.exact,
        statement=t(f"report.statement.{'open' if result.tie else 'clear'}", mean=mean, low=low, high=high),
        test_statement=t(
            f"report.mcnemar.{verdict}", only_vpt=test.b, only_ft=test.c, p=_probability(test.p_value),
            kind=t(f"report.mcnemar.{'exact' if test.exact else 'corrected'}"),
        ),
    )  # fmt: skip


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"

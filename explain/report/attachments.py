"""Attachments: files inside the PDF that follow from the evidence, for whoever wants to calculate with it."""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import Any

from explain.report.schema.evidence import Evidence

METRICS, CONFIG, CRITERIA, SUMS = "metrics.csv", "config_difference.csv", "criteria.yaml", "SHA256SUMS"

NUMBER = str | float | int | None
COLUMNS = ("section", "model", "method", "metric", "value", "low", "high", "images")


def attachments_of(evidence: Evidence) -> dict[str, bytes]:
    """Every attachment but `evidence.json` by name; the same evidence gives the same bytes."""
    found = {METRICS: _csv(COLUMNS, metrics_of(evidence)), CONFIG: _config(evidence)}
    if evidence.decision.criteria_text:
        found[CRITERIA] = evidence.decision.criteria_text.encode()
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(found.items()))
    return found | {SUMS: sums.encode()}


def metrics_of(evidence: Evidence) -> Iterator[tuple[NUMBER, ...]]:
    """Every number with its interval, in the order of `COLUMNS`."""
    for arm in evidence.arms:
        yield "performance", arm.name, "", "accuracy", arm.accuracy, arm.low, arm.high, arm.count
        yield "performance", arm.name, "", "cross_entropy", arm.loss, None, None, arm.count
        for one in arm.recalls:
            yield "performance", arm.name, "", f"recall of {one.name}", one.recall, one.low, one.high, one.count
        it = arm.calibration
        yield "performance", arm.name, "", "ece", it.error, it.low, it.high, arm.count
    for rates in evidence.rates:
        for name in ("balanced", "miss", "overkill", "auroc"):
            rate = getattr(rates, name)
            if rate is not None:
                yield "performance", rates.arm, "", name, rate.value, rate.low, rate.high, rate.count
    for two in evidence.differences:
        yield "performance", f"{two.first}-{two.second}", "", "accuracy", two.mean, two.low, two.high, None
    for part in evidence.slices:
        for name, rate in part.accuracies.items():
            metric = f"accuracy, {part.by}: {part.part}"
            yield "performance", name, "", metric, rate.value, rate.low, rate.high, rate.count
    for cell in evidence.measured.cells if evidence.measured else ():
        mean = cell.estimate
        yield "evaluation", cell.model, cell.method or "", cell.metric, mean.mean, mean.low, mean.high, mean.images
    for line in evidence.dissociation.lines if evidence.dissociation else ():
        metric = "planted test" if line.method else "planted test, gate"
        yield "planted", line.arm, line.method, metric, line.difference, line.low, line.high, line.images
    for change in evidence.disturbed:
        for name, rate in change.accuracies.items():
            yield "robustness", name, "", f"accuracy, {change.name}", rate.value, rate.low, rate.high, rate.count


def _config(evidence: Evidence) -> bytes:
    arms = [arm.name for arm in evidence.arms]
    rows = ((row.name, *(row.values.get(arm, "") for arm in arms), "yes" if row.allowed else "no", row.why)
            for row in evidence.config)  # fmt: skip
    return _csv(("setting", *arms, "may differ", "why"), rows)


def _csv(heading: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_cell(value) for value in heading])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue().encode()


def _cell(value: NUMBER) -> NUMBER:
    """A spreadsheet calculates what begins like a formula; a quote before it keeps a name a name."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value

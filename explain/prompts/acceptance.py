"""Acceptance: what a version must fulfil before an alias may move onto it, and the promotion that checks it.

A criterion is one line: a metric, a comparison and a number, plain or in percent.

    accuracy >= 0.95                lower bound of accuracy >= 93 %     recall of defect >= 0.98
    balanced accuracy >= 95 %       ece <= 0.05                         completeness gap <= 2 %
    trained bytes < 1000000         any other metric that was supplied, such as  minutes per roll <= 3

"lower bound of accuracy" is the lower end of its 95 % interval over the test images; "ece" is the expected calibration
error in 15 bins; "completeness gap" is the largest gap of Integrated Gradients over a folder of probe images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from explain.criteria import Criterion, metric_name
from explain.data.base import Rejected
from explain.data.reading import find_images
from explain.engine import attribute
from explain.errors import ExplainError, InputError, UnknownNameError
from explain.metrics.calibration import expected_calibration_error
from explain.prompts.bank import PromptBank
from explain.prompts.card import Card
from explain.prompts.history import History
from explain.prompts.naming import PRODUCTION, parse_reference
from explain.prompts.store import PromptStore, check_alias
from explain.prompts.stored import Stored

GAP = "completeness gap"
RECALL = "recall of "
MEASURES: dict[str, Callable[[Stored], float]] = {
    "accuracy": lambda stored: stored.card.test.accuracy,
    "lower bound of accuracy": lambda stored: stored.card.test.low,
    "balanced accuracy": lambda stored: sum(stored.card.recall.values()) / len(stored.card.recall),
    "ece": lambda stored: _calibration_error(stored),
    "trained bytes": lambda stored: float(stored.card.weights_bytes),
}
"""What is measured from what a version stores; nobody can supply these."""


class PromotionRefusedError(ExplainError):
    """A version that does not fulfil the criteria of its name; `outcomes` holds every line."""

    def __init__(self, message: str, outcomes: "Sequence[Outcome]") -> None:
        super().__init__(message)
        self.outcomes = tuple(outcomes)


@dataclass(frozen=True)
class Outcome:
    """A criterion and what was measured; `value` is None where nothing was, and `how` says how to measure it."""

    criterion: Criterion
    value: float | None
    how: str = ""

    @property
    def passed(self) -> bool:
        """True when it was measured and is good enough."""
        return self.value is not None and self.criterion.fulfilled(self.value)

    def __str__(self) -> str:
        if self.value is None:
            return f"not measured  {self.criterion}: {self.how}"
        return f"{'pass' if self.passed else 'FAIL'}  {self.criterion}: {self.criterion.shown(self.value)}"


def set_criteria(store: PromptStore, name: str, lines: Sequence[str], *, who: str | None = None) -> tuple[str, ...]:
    """Declare what a promotion under this name must fulfil; replaces what was declared before.

    Raises:
        InputError: a line is no criterion.
        UnknownNameError: no such name, or a recall of a class that the name does not know.
    """
    criteria = [Criterion.parse(line) for line in lines]
    newest = store.get(parse_reference(name).name)
    for criterion in criteria:
        _check_class(criterion.metric, newest.card)
    written = tuple(map(str, criteria))

    def change(history: History | None) -> History:
        history = history or store.history(name)
        before = "; ".join(history.criteria)
        history = history.model_copy(update={"criteria": written})
        return history.with_entry("criteria", who=who, before=before, after="; ".join(written))

    return store.change(newest.card.name, change).criteria


def judge(lines: Sequence[str], stored: Stored, measured: Mapping[str, float]) -> list[Outcome]:
    """Hold a version against criteria.

    Args:
        lines: the criteria.
        stored: the version.
        measured: metrics that were measured or supplied after it was registered.
    """
    given = {metric_name(name): value for name, value in (stored.card.metrics | dict(measured)).items()}
    outcomes = []
    for criterion in map(Criterion.parse, lines):
        metric = criterion.metric
        if metric in MEASURES:
            outcomes.append(Outcome(criterion, MEASURES[metric](stored)))
        elif metric.startswith(RECALL):
            _check_class(metric, stored.card)
            how = "the run has no test image of this class; train it with some"
            outcomes.append(Outcome(criterion, stored.card.recall.get(metric.removeprefix(RECALL)), how))
        else:
            how = f'supply it: --metric "{metric}=VALUE"'
            how = f"give probe images: --images FOLDER; or {how}" if metric == GAP else how
            outcomes.append(Outcome(criterion, given.get(metric), how))
    return outcomes


def promote(
    store: PromptStore, reference: str, *, to: str = PRODUCTION, approver: str = "", who: str | None = None,
    supplied: Mapping[str, float] | None = None, probe: Sequence[Path] = (),
) -> list[Outcome]:  # fmt: skip
    """Point an alias at a version that fulfils the criteria of its name; a refused attempt stays in the log.

    Args:
        store: where it is.
        reference: the version.
        to: the alias.
        approver: who answers for it; needed for "production".
        who: for the log; None for the account.
        supplied: metrics measured elsewhere.
        probe: image files on which the completeness gap is measured when a criterion asks for it.

    Raises:
        PromotionRefusedError: a criterion fails or was not measured.
        InputError: no approver, a supplied metric that the store measures itself, or criteria that changed meanwhile.
    """
    if to == PRODUCTION and not approver.strip():
        raise InputError(f"a promotion to {PRODUCTION} needs somebody who answers for it: --approver NAME")
    name, stored = parse_reference(reference).name, store.get(reference)
    lines, new = store.history(name).criteria, check_supplied(supplied or {})
    if probe and any(Criterion.parse(line).metric == GAP for line in lines):
        new[GAP] = measure_gap(stored, probe)
    id = stored.version.id
    outcomes: list[Outcome] = []

    def change(history: History | None) -> History:
        history = history or store.history(name)
        check_alias(history, to)
        if history.criteria != lines:
            raise InputError(f"the criteria of {name!r} changed in this moment; run the command again")
        values = history.measured.get(id, {}) | new
        outcomes[:] = judge(lines, stored, values)
        if values:
            history = history.model_copy(update={"measured": history.measured | {id: values}})
        passed = all(outcome.passed for outcome in outcomes)
        before, notes = history.aliases.get(to), tuple(map(str, outcomes))
        if passed:
            history = history.pointing(to, id)
        return history.with_entry("promote" if passed else "refuse", who=who, label=to, before=before, after=id,
                                  approver=approver, notes=notes)  # fmt: skip

    store.change(name, change)
    if not all(outcome.passed for outcome in outcomes):
        table = "\n".join(f"  {outcome}" for outcome in outcomes)
        raise PromotionRefusedError(f"{name}@v{stored.version.number} was not promoted to {to}:\n{table}", outcomes)
    return outcomes


def record_measured(
    store: PromptStore, reference: str, supplied: Mapping[str, float], *, probe: Sequence[Path] = (),
    who: str | None = None,
) -> dict[str, float]:  # fmt: skip
    """Measure the completeness gap of a version on probe images, or take in metrics from elsewhere, for later.

    Raises:
        InputError: neither, or a supplied metric that the store measures itself.
    """
    name, stored = parse_reference(reference).name, store.get(reference)
    new = check_supplied(supplied)
    if probe:
        new[GAP] = measure_gap(stored, probe)
    if not new:
        raise InputError('nothing to measure; give --images FOLDER, or --metric "NAME=VALUE"')

    def change(history: History | None) -> History:
        history = history or store.history(name)
        values = history.measured.get(stored.version.id, {}) | new
        history = history.model_copy(update={"measured": history.measured | {stored.version.id: values}})
        notes = tuple(f"{metric} = {value:.6g}" for metric, value in new.items())
        return history.with_entry("measure", who=who, after=stored.version.id, notes=notes)

    return store.change(name, change).measured[stored.version.id]


def check_supplied(supplied: Mapping[str, float]) -> dict[str, float]:
    """Supplied metrics by their one spelling.

    Raises:
        InputError: a value that is not finite, or a metric that follows from what the version stores.
    """
    checked = {metric_name(name): float(value) for name, value in supplied.items()}
    for metric, value in checked.items():
        if metric in MEASURES or metric.startswith(RECALL):
            raise InputError(f"{metric!r} is measured from the run's own test predictions and cannot be supplied; "
                             "leave it out")  # fmt: skip
        if not math.isfinite(value):
            raise InputError(f"expected a finite value of {metric!r}, got {value}; measure it again")
    return checked


def measure_gap(stored: Stored, probe: Sequence[Path]) -> float:
    """Largest relative completeness gap of Integrated Gradients over probe images, for the predicted class."""
    model = PromptBank(stored.card.backbone.spec).model_of(stored)
    maps = attribute(model, list(probe), methods="integrated_gradients")["integrated_gradients"]
    return float(maps.extras["completeness_gap"].max())


def probe_images(folder: Path) -> list[Path]:
    """Every image below a folder, or the one image file.

    Raises:
        InputError: there is none, or a part of the folder cannot be read.
    """
    found = list(find_images(folder)) if folder.is_dir() else [folder] if folder.is_file() else []
    unread = [item for item in found if isinstance(item, Rejected)]
    if unread or not found:
        what = unread[0].detail if unread else "there is none"
        raise InputError(f"expected a folder of probe images at {folder}: {what}")
    return [item for item in found if isinstance(item, Path)]


def _check_class(metric: str, card: Card) -> None:
    wanted = metric.removeprefix(RECALL)
    if metric.startswith(RECALL) and wanted not in card.class_names:
        raise UnknownNameError(f"{card.name!r} has no class {wanted!r}; it knows {', '.join(card.class_names)}")


def _calibration_error(stored: Stored) -> float:
    predictions = stored.predictions()
    return expected_calibration_error(predictions.probabilities, predictions.labels)

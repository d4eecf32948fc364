"""Criteria: what a model must fulfil, declared before it is trained, one line each.

A criterion is a metric, a comparison and a number, plain or in percent:

    accuracy >= 90 %              recall of local defect >= 95 %        accuracy over ft >= -2 %
    miss rate <= 5 %              accuracy under blur >= 85 %           gain of integrated_gradients >= 0

In a report a bound counts, not a point: the lower end of the 95 % interval where more is better, the upper end where
less is better. `METRICS` lists what can be asked for.
"""

import difflib
import hashlib
import math
import operator
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from explain.data.names import find_obeyed
from explain.errors import InputError
from explain.plain_yaml import parse_record
from explain.record import Record

Comparison = Literal[">=", "<=", ">", "<"]
COMPARISONS: dict[Comparison, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip

METRICS = {
    "accuracy": "share of the test images answered right",
    "balanced accuracy": "mean of the classes' recalls",
    "miss rate": "defective images answered as good, of the defective ones; needs good_classes",
    "overkill rate": "good images answered as defective, of the good ones; needs good_classes",
    "auroc": "area under the ROC curve, of defective against good where good_classes are declared",
    "ece": "expected calibration error",
    "test images": "how many there are",
    "leaked images": "validation and test images that are copies of training images",
    "unmatched fields": "settings that had to be equal in every arm and are not",
    "reviewed failures": "share of the wrong answers that a person looked at in the viewer",
}
"""Metrics with a name of their own -> what they are."""

PATTERNS = {
    "recall of ": "CLASS: share of its test images answered right",
    "accuracy over ": "ARM: difference to another arm on the same images",
    "accuracy under ": "CHANGE: on changed images; brightness, blur, shift or jpeg",
    "planted test of ": "METHOD: how much more of its map lies on the cue that the model was trained on",
}
"""Beginnings of the metrics of something -> of what, and what that is."""

EVALUATED = {
    "gain": "insertion area less deletion area; 0 for a random map",
    "insertion": "insertion area",
    "deletion": "deletion area",
    "road_combined": "ROAD, both orders; 0 for a random map",
    "infidelity": "scaled infidelity",
    "max_sensitivity": "change of the map under small noise",
    "completeness_gap": "relative, of Integrated Gradients",
    "emprt": "rise of the map's entropy under random weights",
    "cascade_signed/all": "likeness to the map of a randomised model",
    "cascade_absolute/all": "the same without signs",
    "relevance_mass": "share of the map inside the mask",
    "relevance_rank": "share of its top pixels inside the mask",
    "pixel_auroc": "of the map against the mask; 0.5 for a random map",
    "pointing_game": "peak inside the mask",
    "equal_area_iou": "overlap of the mask with as large a part of the map",
    "grid_game": "share of the map in its own picture of four",
    "drift_brightness": "likeness of the maps with and without more light",
    "drift_blur": "with and without blur",
    "drift_shift": "with and without a shift",
    "drift_jpeg": "with and without JPEG compression",
    "defect_change_inside": "share of the map's change that lies inside an inserted defect",
    "gini": "how concentrated the map is",
    "entropy": "how spread it is",
    "effective_area": "area that it covers",
}
"""What `explain evaluate` measures of a method's maps, asked for as "gain of integrated_gradients"."""

SHARES = {"accuracy", "balanced accuracy", "miss rate", "overkill rate", "auroc", "ece", "reviewed failures"}
COUNTS = {"test images", "leaked images", "unmatched fields"}

CHANGES = ("brightness", "blur", "shift", "jpeg")
"""What `accuracy under` knows."""

AS_WRITTEN = ("recall of ", "accuracy over ")
"""Behind these a name keeps its capital letters."""

_LINE = re.compile(r"\s*(.+?)\s*(>=|<=|>|<)\s*([-\u2212]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*")

MOST = 100
"""Criteria that one file may hold."""

FILE = "criteria.yaml"
"""Name of the file in a run's folder."""


class Criterion(Record):
    """One line: the metric must compare like this with the limit."""

    metric: str
    comparison: Comparison
    bound: float
    percent: bool

    @classmethod
    def parse(cls, line: str) -> "Criterion":
        """Read a line such as "recall of defect >= 95 %".

        Raises:
            InputError: it is no criterion.
        """
        found = _LINE.fullmatch(line)
        metric = metric_name(found[1]) if found else ""
        never_negative = metric in METRICS or metric.startswith("recall of ")
        if found is None or (never_negative and found[3][0] in "-\u2212"):
            raise InputError(f"expected METRIC, one of >= <= > <, and a number, such as 'recall of defect >= 0.95' or "
                             f"'completeness gap <= 2 %'; got {line!r}")  # fmt: skip
        bound = float(found[3].replace("\u2212", "-")) / (100 if found[4] else 1)
        if not math.isfinite(bound):
            raise InputError(f"expected a finite bound, got {found[3]} in {line!r}")
        return cls(metric=metric, comparison=cast(Comparison, found[2]), bound=bound, percent=bool(found[4]))

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.shown(self.bound, digits=12)}"

    def shown(self, value: float, digits: int = 6) -> str:
        """A value in the unit of the line."""
        return f"{value * 100:.{digits}g} %" if self.percent else f"{value:.{digits}g}"

    def fulfilled(self, value: float) -> bool:
        """True when the value is good enough."""
        return COMPARISONS[self.comparison](value, self.bound)

    @property
    def more_is_better(self) -> bool:
        """True where the lower end of an interval counts."""
        return self.comparison in (">=", ">")


class Entry(Record):
    """A declared criterion.

    Args:
        criterion: the line.
        required: without it the decision is "reject" when this is not met, else "conditional".
        why: the reason, for the reader.
    """

    criterion: str
    required: bool = True
    why: Annotated[str, Field(max_length=1000)] = ""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        return _without_empty(values)

    @field_validator("criterion")
    @classmethod
    def _is_criterion(cls, value: str) -> str:
        criterion = Criterion.parse(value)
        _check_limit(criterion)
        return str(criterion)


class Criteria(Record):
    """The declared criteria.

    Args:
        model: arm that is decided on.
        good_classes: classes that are no defect, which miss and overkill rates need.
        declared_by, declared_on: who, and on which day.
        criteria: at least one.
    """

    model: str = "vpt"
    good_classes: tuple[str, ...] = ()
    declared_by: Annotated[str, Field(max_length=200)] = ""
    declared_on: Annotated[str, Field(max_length=40)] = ""
    criteria: tuple[Entry, ...] = Field(min_length=1, max_length=MOST)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        return _without_empty(values)

    @field_validator("criteria", mode="before")
    @classmethod
    def _lines_are_entries(cls, value: Any) -> Any:
        return [{"criterion": one} if isinstance(one, str) else one for one in value] if _listed(value) else value

    @field_validator("declared_on", mode="before")
    @classmethod
    def _date_is_text(cls, value: Any) -> Any:
        return value if isinstance(value, str) else str(value)  # YAML reads 2026-11-27 as a date

    @field_validator("criteria")
    @classmethod
    def _differ(cls, value: tuple[Entry, ...]) -> tuple[Entry, ...]:
        seen: set[Criterion] = set()
        for entry in value:
            criterion = Criterion.parse(entry.criterion).model_copy(update={"percent": False})
            if criterion in seen:
                raise ValueError(f"{entry.criterion!r} is there twice")
            seen.add(criterion)
        return value

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that are asked for."""
        return tuple(Criterion.parse(entry.criterion).metric for entry in self.criteria)


class Declaration(Record):
    """Criteria with the text and the SHA-256 of the file that they were read from."""

    criteria: Criteria
    text: str
    sha256: str


def metric_name(text: str) -> str:
    """One spelling of a metric: single spaces, small letters; a class or an arm stays as it is written."""
    words = " ".join(text.split())
    prefix = next((prefix for prefix in AS_WRITTEN if words.lower().startswith(prefix)), None)
    return words.lower() if prefix is None else prefix + words[len(prefix) :]


def read_criteria(path: str | Path) -> Declaration:
    """The criteria of a YAML file.

    Raises:
        InputError: it cannot be read, or a field of it is wrong, named with its line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the criteria {path}: {error.strerror}; `explain declare` writes a file to begin "
                         "with") from None  # fmt: skip
    return parse_criteria(content, str(path))


def parse_criteria(content: bytes, what: str) -> Declaration:
    """The criteria of a YAML file's bytes; `what` is the file in words.

    Raises:
        InputError: see `read_criteria`.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8 ({error}); save it as UTF-8") from None
    criteria = parse_record(text, what, Criteria)
    obeyed = find_obeyed(criteria.model_dump(mode="json"))
    if obeyed:
        raise InputError(f"{what}: {obeyed} holds control characters; write it without them")
    return Declaration(criteria=criteria, text=text, sha256=hashlib.sha256(content).hexdigest())


def check_criteria(criteria: Criteria, class_names: Iterable[str], arms: Iterable[str]) -> None:
    """Refuse criteria that no run on these classes with these arms could be held against.

    Raises:
        InputError: an arm, a class, a method or a metric that there is not, with the nearest name.
    """
    classes, arms = tuple(class_names), tuple(arms)
    _check_known(criteria.model, arms, "model: the arm")
    for name in criteria.good_classes:
        _check_known(name, classes, "good_classes: the class")
    for entry in criteria.criteria:
        metric, line = Criterion.parse(entry.criterion).metric, repr(entry.criterion)
        if metric in ("miss rate", "overkill rate") and not 0 < len(set(criteria.good_classes)) < len(classes):
            raise InputError(f"the criterion {line} needs good_classes: the classes, some of {', '.join(classes)} but "
                             "not all, that are no defect")  # fmt: skip
        _check_metric(metric, line, classes, [arm for arm in arms if arm != criteria.model])


def evaluated_name(text: str) -> str:
    """A number of an evaluation as the evaluation calls it: "completeness gap" is completeness_gap."""
    return text.replace(" ", "_")


def _check_metric(metric: str, line: str, classes: tuple[str, ...], others: list[str]) -> None:
    from explain.methods.base import METHODS  # with torch, which reading criteria does not need

    prefix = next((prefix for prefix in PATTERNS if metric.startswith(prefix)), "")
    name = metric.removeprefix(prefix)
    if metric in METRICS:
        return
    if prefix == "recall of ":
        _check_known(name, classes, f"{line}: the class")
    elif prefix == "accuracy over ":
        _check_known(name, others, f"{line}: the other arm")
    elif prefix == "accuracy under ":
        _check_known(name, CHANGES, f"{line}: the change")
    elif prefix:
        _check_known(name, METHODS, f"{line}: the method")
    else:
        known = [*METRICS, *(f"{beginning}…" for beginning in PATTERNS), *(f"{one} of METHOD" for one in EVALUATED)]
        number, of, method = metric.rpartition(" of ")
        if evaluated_name(number) not in EVALUATED:
            _check_known(f"{number} of METHOD" if of else metric, known, f"{line}: the metric")
        _check_known(method, METHODS, f"{line}: the method")


def _check_known(name: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"the criteria name something that there is not, {what} {name!r}; {hint}known: "
                     f"{', '.join(names) or 'none'}")  # fmt: skip


def _check_limit(criterion: Criterion) -> None:
    """Refuse a limit that every model meets or that none can meet, most often a forgotten "%"."""
    metric, limit, line = criterion.metric, criterion.bound, str(criterion)
    if metric in COUNTS and (criterion.percent or limit != int(limit)):
        raise InputError(f"{line!r} is about a number of things; give a whole number without %")
    difference = metric.startswith(("accuracy over ", "planted test of "))
    share = difference or metric in SHARES or metric.startswith(("recall of ", "accuracy under "))
    least = -1.0 if difference else 0.0
    if share and not least <= limit <= 1:
        form = f"{metric} {criterion.comparison} {limit:g} %"
        hint = f"; did you mean {form!r}?" if least * 100 <= limit <= 100 and not criterion.percent else ""
        raise InputError(f"{line!r} can never decide: {metric} lies between {least:.0%} and 100 %{hint}")
    out_of_reach = [("<", least)] + ([(">", 1.0)] if share else [])
    if (share or metric in COUNTS) and (criterion.comparison, limit) in out_of_reach:
        raise InputError(f"{line!r} can never be met; use {criterion.comparison}=")


def _without_empty(values: Any) -> Any:
    """The fields that say something: YAML reads `why:` with nothing behind it as null."""
    return {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)

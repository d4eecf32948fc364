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

from pydantic import Field, field_validator

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
    "recall of ": "of a class: recall of local defect",
    "accuracy over ": "difference to another arm on the same images: accuracy over ft",
    "accuracy under ": "on changed images: accuracy under brightness, blur, shift or jpeg",
    "planted test of ": "of a method: how much more of its map lies on the cue that the model was trained on",
}
"""Metrics of something -> what that is. Any number of an evaluation can be asked for as well: gain of grad_cam."""

CHANGES = ("brightness", "blur", "shift", "jpeg")
"""What `accuracy under` knows."""

_LINE = re.compile(r"\s*(.+?)\s*(>=|<=|>|<)\s*([-\u2212]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*")

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

    @field_validator("criterion")
    @classmethod
    def _is_criterion(cls, value: str) -> str:
        return str(Criterion.parse(value))


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
    criteria: tuple[Entry, ...] = Field(min_length=1)

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
        seen: set[str] = set()
        for entry in value:
            if entry.criterion in seen:
                raise ValueError(f"{entry.criterion!r} is there twice")
            seen.add(entry.criterion)
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
    """One spelling of a metric: single spaces, small letters; the name behind "recall of" stays as it is written."""
    words = " ".join(text.split())
    prefix = "recall of "
    return prefix + words[len(prefix) :] if words.lower().startswith(prefix) else words.lower()


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
    from explain.methods.base import METHODS  # with torch, which reading criteria does not need

    classes, arms = tuple(class_names), tuple(arms)
    _check_known(criteria.model, arms, "arm")
    for name in criteria.good_classes:
        _check_known(name, classes, "class")
    for metric in criteria.metrics:
        if metric in ("miss rate", "overkill rate") and not 0 < len(set(criteria.good_classes)) < len(classes):
            raise InputError(f"{metric!r} needs good_classes: the classes, some but not all, that are no defect")
        prefix = next((prefix for prefix in PATTERNS if metric.startswith(prefix)), "")
        rest = metric.removeprefix(prefix)
        if prefix == "recall of ":
            _check_known(rest, classes, "class")
        elif prefix == "accuracy over ":
            _check_known(rest, [arm for arm in arms if arm != criteria.model], "other arm")
        elif prefix == "accuracy under ":
            _check_known(rest, CHANGES, "change")
        elif prefix or " of " in metric:
            _check_known(metric.rpartition(" of ")[2], tuple(METHODS), "method")
        elif metric not in METRICS:
            _check_known(metric, (*METRICS, *(f"{prefix}…" for prefix in PATTERNS)), "metric")


def _check_known(name: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, 1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    raise InputError(f"the criteria name the {what} {name!r}, which there is not;{hint} known: {', '.join(names)}")


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)

"""Audit: what people state of a model's use, of the document and of the decision, in a YAML file of theirs.

No program can know these things. What is not stated is printed as "not evaluated".
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from explain.data.names import find_obeyed
from explain.errors import InputError
from explain.plain_yaml import parse_record
from explain.record import Record

FILE = "audit.yaml"
"""Name of the file in a run's folder."""


MOST = 200
"""Entries that a list may hold."""


def _as_text(value: Any) -> Any:
    """YAML reads 2026-11-27 as a date and 3 as a number; both are text here.

    Raises:
        ValueError: a number or a yes or no that was written in another way than it would be printed, such as 1.10.
    """
    if isinstance(value, bool | float):
        raise ValueError("write it in quotes; YAML reads 1.10 as the number 1.1, and yes as true")
    return str(value) if isinstance(value, int | date) else value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("it must say something")
    return value


Short = Annotated[str, BeforeValidator(_as_text), Field(max_length=300)]
Long = Annotated[str, BeforeValidator(_as_text), Field(max_length=4000)]
NeededShort = Annotated[Short, AfterValidator(_not_blank)]
NeededLong = Annotated[Long, AfterValidator(_not_blank)]


class Stated(Record):
    """A part of the file; a field that is left empty states nothing."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None}


class Signer(Stated):
    """Who prepared, checked or approved the document, and on which day."""

    name: Short = ""
    date: Short = ""


class IntendedUse(Stated):
    """What the model is for, who uses it, what it is not for, and what a miss and an overkill lead to."""

    task: Long = ""
    users: Long = ""
    out_of_scope: Long = ""
    miss: Long = ""
    overkill: Long = ""


class Operation(Stated):
    """Who decides in daily use, when to override the model, what tells of drift, and when to audit again."""

    decides: Long = ""
    override: Long = ""
    drift: Long = ""
    reaudit: Long = ""


class Override(Stated):
    """A person's decision instead of the computed one; without a name and a reason there is none."""

    decision: Literal["approve", "conditional", "reject"]
    name: NeededShort
    reason: NeededLong
    date: Short = ""


class Change(Stated):
    """A line of the document's history."""

    revision: Short = ""
    date: Short = ""
    who: Short = ""
    what: Long = ""


class Audit(Stated):
    """Everything that people state; an empty one states nothing.

    Args:
        product, line, revision, owner: of the document.
        valid_until: day on which the decision expires.
        prepared, checked, approved: signature boxes.
        capture: how the images are taken.
        known_gaps: what the images do not cover.
        conditions: what has to be done or kept for the decision to hold.
    """

    product: Short = ""
    line: Short = ""
    revision: Short = ""
    owner: Short = ""
    valid_until: Short = ""
    prepared: Signer = Signer()
    checked: Signer = Signer()
    approved: Signer = Signer()
    intended_use: IntendedUse = IntendedUse()
    capture: Long = ""
    known_gaps: tuple[Long, ...] = Field(default=(), max_length=MOST)
    operation: Operation = Operation()
    conditions: tuple[Long, ...] = Field(default=(), max_length=MOST)
    override: Override | None = None
    history: tuple[Change, ...] = Field(default=(), max_length=MOST)


def read_audit(path: str | Path) -> Audit:
    """The statements of a YAML file.

    Raises:
        InputError: it cannot be read, or a field of it is wrong, named with its line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the statements {path}: {error.strerror}; `explain declare` writes a file to "
                         "begin with") from None  # fmt: skip
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from None
    audit = parse_record(text, str(path), Audit)
    obeyed = find_obeyed(audit.model_dump(mode="json"))
    if obeyed:
        raise InputError(f"{path}: {obeyed} holds control characters; write it without them")
    return audit

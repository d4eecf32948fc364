"""Sealed: a record whose file carries its own hash and can be written in one way only.

A reader writes what it read once more and compares, so every changed byte is found: one that changes a value by the
hash, one that does not, such as a space, by the comparison.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn, Self

from pydantic import ConfigDict, ValidationError

from explain.errors import IntegrityError
from explain.record import Record

_DIGEST = "digest"


class Sealed(Record):
    """Base of the records that say what an archive holds; numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)
    max_bytes: ClassVar[int] = 1 << 20
    """Larger files are refused before they are read as JSON."""

    @property
    def digest(self) -> str:
        """SHA-256 over everything in the record."""
        return hashlib.sha256(_canonical(self.model_dump(mode="json"))).hexdigest()

    def to_bytes(self) -> bytes:
        """The file: readable JSON with sorted keys, and the hash over the rest under "digest"."""
        return _canonical(self.model_dump(mode="json") | {_DIGEST: self.digest})

    @classmethod
    def from_bytes(cls, data: bytes, what: str) -> Self:
        """Read what `to_bytes` gave.

        Args:
            data: the whole file.
            what: the file's name for messages.

        Raises:
            IntegrityError: a byte differs, or it is no such record.
        """
        if len(data) > cls.max_bytes:
            _refuse(what, f"expected at most {cls.max_bytes:,} bytes, got {len(data):,}")
        try:
            value = json.loads(data, object_pairs_hook=_without_twins, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:  # JSON and Unicode errors are values' errors
            _refuse(what, f"not valid JSON: {error}")
        if not isinstance(value, dict):
            _refuse(what, f"expected a JSON object, got {type(value).__name__}")
        found = value.pop(_DIGEST, None)
        try:
            record = cls.model_validate(value)
            whole = record.to_bytes()
        except ValidationError as error:
            first = error.errors()[0]
            _refuse(what, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except ValueError as error:  # a number or text that JSON cannot hold
            _refuse(what, str(error))
        if whole != data:
            _refuse(what, "its hash is another" if found != record.digest else "it is not written as it was")
        return record


def _canonical(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    return value


def _no_number(token: str) -> NoReturn:
    raise ValueError(f"{token} is no number")


def _refuse(what: str, why: str) -> NoReturn:
    raise IntegrityError(f"{what} was changed or cut short ({why})")

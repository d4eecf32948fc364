"""Record: the base of everything that is written as JSON and read back checked."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen record: unknown fields are errors, nothing changes after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def differences(there: Any, asked: Any, path: str = "") -> Iterator[str]:
    """One clause for each value that differs between two pieces of plain data, named by its place."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for name in sorted(there.keys() | asked.keys()):
            yield from differences(there.get(name), asked.get(name), f"{path}.{name}" if path else name)
    elif there != asked:
        yield f"{path} is {_short(there)} there and {_short(asked)} now"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"

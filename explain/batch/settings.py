"""Settings: how a batch is computed, which must not change what comes out of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from pydantic import Field, ValidationError

from explain.errors import InputError
from explain.record import Record


class Settings(Record):
    """How shards are computed.

    Args:
        device: "cpu", "cuda", or None for a GPU when there is one.
        batch_size: images per pass at most.
        memory_budget: bytes that a pass may take, or "auto".
        threads: of torch in each process; None leaves torch's own number.
        decoders: threads that decode images ahead of the models.
    """

    device: str | None = None
    batch_size: int = Field(default=8, ge=1)
    memory_budget: int | str = "auto"
    threads: int | None = Field(default=None, ge=1)
    decoders: int = Field(default=1, ge=1)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Settings as a caller gave them.

        Raises:
            InputError: one clause per value that cannot be one.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            clauses = [f"{one['loc'][0]}: {one['msg']}, got {one['input']!r}" for one in error.errors()]
            raise InputError("; ".join(clauses)) from None


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads, and as many as before when it ends; None changes nothing."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)

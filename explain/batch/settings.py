"""Settings: how a batch is computed, which must not change what comes out of it."""

from pydantic import Field

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

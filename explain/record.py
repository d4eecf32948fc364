"""Record: the base of everything that is written as JSON and read back checked."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen record: unknown fields are errors, nothing changes after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

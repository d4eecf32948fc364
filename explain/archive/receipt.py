"""Receipt: the commit of one shard, written last. What no receipt vouches for is not there."""

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Buffer

from explain.archive.sealed import Sealed
from explain.errors import IntegrityError
from explain.files import sha256_json
from explain.record import Record

Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]

_MAY_DIFFER = {"host", "seconds", "finished", "versions"}


class StoredFile(Record):
    """A file that a receipt vouches for.

    Args:
        bytes: its size.
        sha256: over all its bytes.
        footer_sha256: of a maps file, over its footer, so that one map can be checked without reading all.
    """

    bytes: Count
    sha256: Sha256
    footer_sha256: Sha256 | None = None

    @classmethod
    def of(cls, data: Buffer, footer_sha256: str | None = None) -> "StoredFile":
        """The facts of a file with these bytes."""
        return cls(bytes=memoryview(data).nbytes, sha256=hashlib.sha256(data).hexdigest(), footer_sha256=footer_sha256)

    def check(self, data: Buffer, what: str) -> None:
        """Compare a whole file with what was recorded.

        Args:
            data: all its bytes.
            what: the file's name for messages.

        Raises:
            IntegrityError: it is another one.
        """
        size = memoryview(data).nbytes
        if size != self.bytes:
            raise IntegrityError(f"{what} is damaged: expected {self.bytes:,} bytes, got {size:,}")
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise IntegrityError(f"{what} is damaged: its SHA-256 is not the one in its receipt")


class Receipt(Sealed):
    """A shard whose files are whole.

    Args:
        format: of the archive.
        shard: its number.
        first_row: of its images in the manifest.
        count: its images.
        job: hash of the configuration.
        manifest_slice: SHA-256 over its entries in the manifest.
        maps: the file of maps.
        metrics: the file of numbers.
        statuses: images per status; they add up to `count`.
        versions: of the libraries that computed it.
        host: where.
        seconds: how long.
        finished: when, in UTC.
    """

    format: Literal[1] = 1
    shard: Count
    first_row: Count
    count: Annotated[int, Field(ge=1)]
    job: Sha256
    manifest_slice: Sha256
    maps: StoredFile
    metrics: StoredFile
    statuses: dict[str, Count]
    versions: dict[str, str]
    host: str
    seconds: Annotated[float, Field(ge=0)]
    finished: str

    @model_validator(mode="after")
    def _adds_up(self) -> "Receipt":
        if sum(self.statuses.values()) != self.count:
            raise ValueError(f"expected statuses of {self.count} images, got {self.statuses}")
        return self

    @property
    def content(self) -> str:
        """SHA-256 over what is equal whenever the same shard is computed again: not when, where and how fast."""
        return sha256_json(self.model_dump(mode="json", exclude=_MAY_DIFFER))

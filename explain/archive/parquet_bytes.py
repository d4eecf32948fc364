"""Parquet bytes: hashed as they are written, and compared with those hashes before they are parsed.

A Parquet file is "PAR1", the groups of rows one after the other, the footer, its length in four bytes, and "PAR1".
"""

import hashlib
import io
from typing import Any, BinaryIO

import pyarrow as pa

from explain.archive.receipt import StoredFile
from explain.errors import IntegrityError, StorageError

MAGIC = b"PAR1"
TAIL_BYTES = 1 << 18
"""Read at once from the end: most often the whole footer."""


class HashedSink(io.RawIOBase):
    """Where the Parquet writer writes to: keeps the bytes, and hashes them part by part."""

    def __init__(self) -> None:
        self._kept = pa.BufferOutputStream()
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes so far."""
        return int(self._kept.tell())

    def write(self, data: Any) -> int:
        """Keep and hash more bytes."""
        self._digest.update(data)
        return int(self._kept.write(data))

    def start_part(self) -> None:
        """Hash from here on."""
        self._digest = hashlib.sha256()

    def part_sha256(self) -> str:
        """SHA-256 over the bytes since the part began."""
        return self._digest.hexdigest()

    def data(self) -> pa.Buffer:
        """All bytes; nothing can be written after."""
        return self._kept.getvalue()


class Stretch(io.RawIOBase):
    """A file of which only one stretch is there.

    Args:
        data: its bytes.
        start: where they lie in the file.
        size: bytes of the file that a reader is told of.
    """

    def __init__(self, data: bytes, start: int, size: int) -> None:
        self._data, self._start, self._size, self._at = data, start, size, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, as in any file."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        """Bytes from the place on, which must all lie in the stretch."""
        end = self._size if count is None or count < 0 else self._at + count
        if self._at < self._start or end > self._size:
            raise ValueError(f"bytes {self._at} to {end} lie outside of what was checked")
        found = self._data[self._at - self._start : end - self._start]
        self._at = end
        return found


def read_range(stream: BinaryIO, start: int, end: int, what: str) -> bytes:
    """Bytes of an opened file, fewer where it ends.

    Raises:
        StorageError: they cannot be read.
    """
    try:
        stream.seek(start)
        return stream.read(end - start)
    except OSError as error:
        raise StorageError(f"{what} cannot be read: {error.strerror or error}") from error


def read_footer(stream: BinaryIO, stored: StoredFile, what: str) -> bytes:
    """The end of a Parquet file from its footer on, compared with the receipt.

    Raises:
        IntegrityError: the file is not the one of the receipt.
        StorageError: it cannot be read.
    """
    try:
        there = stream.seek(0, io.SEEK_END)
    except OSError as error:
        raise StorageError(f"{what} cannot be read: {error.strerror or error}") from error
    if there != stored.bytes:
        raise IntegrityError(f"{what} is damaged: expected {stored.bytes:,} bytes, got {there:,}")
    tail = read_range(stream, max(0, there - TAIL_BYTES), there, what)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if len(tail) < length <= there:
        tail = read_range(stream, there - length, there, what)
    if hashlib.sha256(tail[-length:]).hexdigest() != stored.footer_sha256:
        raise IntegrityError(f"{what} is damaged: its footer is not the one in its receipt")
    return tail[-length:]

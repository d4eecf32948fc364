"""Store: the bytes of an archive by key, in a local folder or in a bucket.

A key is a relative name such as "maps/000/000012.parquet". Whatever is written is whole or absent: a folder by a
temporary file that is flushed to the disk and renamed, a bucket by the nature of an upload.
"""

import errno
import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import unquote

from pyarrow.dataset import Dataset, FileFormat
from typing_extensions import Buffer

from explain.archive.bucket import Bucket
from explain.archive.folder import Folder
from explain.data.names import printable
from explain.errors import InputError, IntegrityError, StorageError

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
PART_BYTES = 1 << 24
"""Of a file that is hashed, in memory at once."""

_DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})


class Store:
    """Bytes by key. Another process opens the same by `Store.open(store.url)`.

    Args:
        place: where they lie.
    """

    def __init__(self, place: Folder | Bucket) -> None:
        self._place = place

    @classmethod
    def open(cls, location: str | Path) -> "Store":
        """The store at a place, which need not be there yet.

        Args:
            location: a folder, or a URL: s3://bucket/prefix, file:///folder, memory://name.

        Raises:
            InputError: no such kind of place, or its library is not installed.
        """
        text = str(location)
        if text.startswith("file://"):
            path = unquote(text.removeprefix("file://"))
            if not path.startswith("/"):
                raise InputError(f"expected file:/// and an absolute path, got {printable(text)!r}")
            return cls(Folder(Path(path)))
        if isinstance(location, str) and _URL.match(text):
            if "::" in text:
                raise InputError(f"expected one URL, got a chain of them: {printable(text)!r}")
            return cls(Bucket(text))
        if not text or "\0" in text:
            raise InputError(f"expected a folder or a URL, got {printable(text)!r}")
        return cls(Folder(Path(location).absolute()))

    @property
    def url(self) -> str:
        """What opens the same store in another process: an absolute path, or a URL."""
        return self._place.url

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a bucket."""
        return self._place.root if isinstance(self._place, Folder) else None

    def name(self, key: str) -> str:
        """A key with its place in front, for messages."""
        return printable(f"{self.url}/{key}" if key else self.url)

    def put(self, key: str, data: Buffer) -> None:
        """Write a file, in place of the one that was there.

        Raises:
            StorageError: it cannot be written; what was there is as it was.
        """
        check_key(key)
        with self._failures_named("written", key):
            self._place.put(key, memoryview(data).cast("B"))

    def create(self, key: str, data: Buffer) -> bool:
        """Write a file, unless there is one; of several that try at the same time, one succeeds.

        Returns:
            Whether it was written.

        Raises:
            StorageError: it cannot be written.
        """
        check_key(key)
        with self._failures_named("written", key):
            return self._place.create(key, memoryview(data).cast("B"))

    def read(self, key: str) -> bytes:
        """All bytes of a file.

        Raises:
            IntegrityError: there is none.
            StorageError: it cannot be read.
        """
        check_key(key)
        with self._failures_named("read", key):
            return self._place.read(key)

    def sha256(self, key: str) -> str:
        """SHA-256 of a file, read part by part.

        Raises:
            IntegrityError: there is none.
            StorageError: it cannot be read.
        """
        digest = hashlib.sha256()
        with self.stream(key) as stream, self._failures_named("read", key):
            while part := stream.read(PART_BYTES):
                digest.update(part)
        return digest.hexdigest()

    def stream(self, key: str) -> BinaryIO:
        """A file opened for reading here and there.

        Raises:
            IntegrityError: there is none.
            StorageError: it cannot be read.
        """
        check_key(key)
        with self._failures_named("read", key):
            return self._place.stream(key)

    def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes of a file, None when there is none."""
        check_key(key)
        with self._failures_named("read", key):
            return self._place.size(key)

    def list(self, folder: str = "") -> Iterator[str]:
        """Keys of the files below a folder, in order, without those that are only being written."""
        if folder:
            check_key(folder)
        with self._failures_named("listed", folder):
            yield from filter(_KEY.fullmatch, self._place.list(folder))

    def delete(self, key: str) -> None:
        """Take a file away, if it is there.

        Raises:
            StorageError: it cannot be taken away.
        """
        check_key(key)
        with self._failures_named("removed", key):
            self._place.delete(key)

    def clean(self) -> int:
        """Take away what writers left half written that have surely ended; how many files."""
        with self._failures_named("cleaned up", ""):
            return self._place.clean()

    def check_writable(self) -> None:
        """Make the folder and write a first byte, before work begins that would be lost.

        Raises:
            InputError: nothing can be written there.
            StorageError: it could, but the disk is full or broken.
        """
        probe = f"probe-{secrets.token_hex(8)}"
        try:
            self._place.make()
            self._place.put(probe, memoryview(b"1"))
            self._place.delete(probe)
        except self._place.failures as error:
            if getattr(error, "errno", None) in _DISK_TROUBLE:
                self._refuse("written", probe, error)
            raise InputError(f"nothing can be written in {self.name('')}: {_reason(error)}; "
                             "choose another place, or let this user write there") from error  # fmt: skip

    def dataset(self, keys: Sequence[str], form: FileFormat) -> Dataset:
        """Files read as one table.

        Args:
            keys: of files with the same columns, at least one.
            form: how they are read.
        """
        for key in keys:
            check_key(key)
        with self._failures_named("read", ""):
            return self._place.dataset(keys, form)

    def free_bytes(self) -> int | None:
        """Room on the disk; None for a bucket and where the system does not say."""
        return self._place.free_bytes()

    @contextmanager
    def _failures_named(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except self._place.failures as error:
            if verb == "read" and isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
                raise IntegrityError(f"{self.name(key)} is missing; the archive is not complete") from None
            self._refuse(verb, key, error)

    def _refuse(self, verb: str, key: str, error: BaseException) -> NoReturn:
        text = f"{self.name(key)} cannot be {verb}: {_reason(error)}"
        if verb == "written":
            free = self.free_bytes()
            text += "" if free is None else f"; {free / 1e6:,.1f} MB are free there"
            text += ". Finished shards are kept; the same command goes on from there"
        raise StorageError(text) from error


def check_key(key: str) -> None:
    """Refuse what could name a file outside the archive, or one that is only being written.

    Raises:
        InputError: the key is absolute, goes up, or has other characters than letters, digits, ".", "_", "-", "/".
    """
    if not _KEY.fullmatch(key):
        raise InputError(f"expected a relative name of letters, digits, '.', '_', '-' and '/', got {printable(key)!r}")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""Bucket: files of an archive in an object store, such as S3, whose every upload is whole or absent by itself."""

import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow.dataset as ds
from fsspec.core import url_to_fs

from explain.errors import InputError

_OTHER_FAILURES = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
                   ("aiohttp", "ClientError"))  # fmt: skip
"""What S3 libraries raise that is no OSError. They are looked up where they were loaded, never loaded for it."""


class Bucket:
    """A prefix of an object store; raises what its library raises.

    Args:
        url: such as s3://bucket/prefix.

    Raises:
        InputError: no library for it, or the URL is none.
    """

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0]
        try:
            filesystem, root = url_to_fs(url)
        except ImportError as error:
            need = "pip install explain-vit[s3]" if scheme in ("s3", "s3a") else str(error)
            raise InputError(f"{url}: the library for {scheme}:// is missing; {need}") from None
        except ValueError as error:
            raise InputError(f"expected a folder or a URL such as s3://bucket/prefix, got {url!r} ({error})") from None
        if not root.strip("/"):
            raise InputError(f"expected a bucket or folder in the URL, such as {scheme}://name/prefix, got {url!r}")
        self.url = url.rstrip("/")
        self._files: fsspec.AbstractFileSystem = filesystem
        self._root: str = root.rstrip("/")

    @property
    def failures(self) -> tuple[type[BaseException], ...]:
        """What goes wrong while reading or writing."""
        loaded = [getattr(sys.modules[module], name) for module, name in _OTHER_FAILURES if module in sys.modules]
        return (OSError, *loaded)

    def put(self, key: str, data: memoryview) -> None:
        """Upload a file in place of the one that was there."""
        self._files.pipe_file(self._path(key), bytes(data))

    def create(self, key: str, data: memoryview) -> bool:
        """Upload a file unless there is one; whether it was uploaded."""
        try:
            self._files.pipe_file(self._path(key), bytes(data), mode="create")
        except FileExistsError:
            return False
        except self.failures:
            # a server that does not say which condition failed; what is there now was not there when this began
            if self.size(key) is None:
                raise
            return False
        return True

    def read(self, key: str) -> bytes:
        """All bytes of a file."""
        return cast(bytes, self._files.cat_file(self._path(key)))

    def stream(self, key: str) -> BinaryIO:
        """A file opened for reading; each read is one request."""
        size = self.size(key)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path(key))
        return cast(BinaryIO, _Remote(self, key, size))

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """Some bytes of a file."""
        return cast(bytes, self._files.cat_file(self._path(key), start=start, end=end))

    def size(self, key: str) -> int | None:
        """Bytes of a file, None when there is none."""
        self._files.invalidate_cache()  # others write too
        try:
            facts = self._files.info(self._path(key))
        except FileNotFoundError:
            return None
        return int(facts["size"]) if facts["type"] == "file" else None

    def list(self, folder: str) -> Iterator[str]:
        """Files below, in the order of their names."""
        self._files.invalidate_cache()
        start = len(self._path(""))
        try:
            found = self._files.find(self._path(folder))
        except FileNotFoundError:
            return
        yield from sorted(name[start:] for name in found)

    def dataset(self, keys: Sequence[str], form: ds.FileFormat) -> ds.Dataset:
        """Files read as one table."""
        return ds.dataset([self._path(key) for key in keys], filesystem=self._files, format=form)

    def delete(self, key: str) -> None:
        """Take a file away, if it is there."""
        if self.size(key) is not None:
            self._files.rm_file(self._path(key))

    def clean(self) -> int:
        """Nothing is left over by an upload that was broken off."""
        return 0

    def free_bytes(self) -> int | None:
        """There is always room."""
        return None

    def make(self) -> None:
        """A prefix needs no making."""

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


class _Remote(io.RawIOBase):
    """A stored file read by ranges, without the read-ahead of megabytes that the library's own files do."""

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        self._bucket, self._key, self._size, self._at = bucket, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readall(self) -> bytes:
        return self.read(-1)

    def read(self, count: int | None = -1) -> bytes:
        end = self._size if count is None or count < 0 else min(self._size, self._at + count)
        if end <= self._at:
            return b""
        try:
            found = self._bucket.read_range(self._key, self._at, end)
        except self._bucket.failures as error:
            raise OSError(errno.EIO, str(error)) from error  # what readers of files expect
        self._at += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

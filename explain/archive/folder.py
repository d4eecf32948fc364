"""Folder: files of an archive in a local folder, each whole or absent whenever the power goes."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow.dataset as ds

from explain.archive.writer import Writer
from explain.data.names import printable
from explain.errors import IntegrityError
from explain.files import flush_folder

TEMPORARY = re.compile(r"\..+~(?P<host>[A-Za-z0-9-]+)~(?P<pid>[0-9]+)~(?P<started>[A-Za-z0-9-]+)~[0-9a-f]{8}\.tmp")
"""Names of files that are being written. They say by whom, so that those of dead writers can be told."""

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Folder:
    """A local folder; raises what the system raises.

    Args:
        root: the folder, which need not be there yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    failures: tuple[type[BaseException], ...] = (OSError,)
    """What goes wrong while reading or writing."""

    def path(self, key: str) -> Path:
        """The file of a key, unless there is a link below the folder that leads to it.

        Raises:
            IntegrityError: there is one; nothing was opened.
        """
        path = self.root / key
        if os.path.realpath(path) != os.path.join(os.path.realpath(self.root), key):
            raise IntegrityError(f"{printable(path)} is a link or lies behind one; in an archive there are none")
        return path

    def put(self, key: str, data: memoryview) -> None:
        """Write a file, whole, in place of the one that was there."""
        path = self.path(key)
        temporary = self._write(path, data)
        try:
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)

    def create(self, key: str, data: memoryview) -> bool:
        """Write a file, whole, unless there is one; whether it was written."""
        path = self.path(key)
        temporary = self._write(path, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if not _claim(temporary, path):
                return False
        finally:
            temporary.unlink(missing_ok=True)
        flush_folder(path.parent)
        return True

    def read(self, key: str) -> bytes:
        """All bytes of a file."""
        with self.stream(key) as stream:
            return stream.read()

    def stream(self, key: str) -> BinaryIO:
        """A file opened for reading; a folder or a pipe is no file."""
        path = self.path(key)
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return open(path, "rb")

    def size(self, key: str) -> int | None:
        """Bytes of a file, None when there is none."""
        try:
            path = self.path(key)
            return path.stat().st_size if path.is_file() else None
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> Iterator[str]:
        """Files below, in the order of their names; links are not followed."""
        try:
            with os.scandir(self.path(folder) if folder else self.root) as entries:
                found = sorted((f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)
                               for entry in entries)  # fmt: skip
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in found:
            key = f"{folder}/{name}" if folder else name
            if name.endswith("/"):
                yield from self.list(key.removesuffix("/"))
            else:
                yield key

    def dataset(self, keys: Sequence[str], form: ds.FileFormat) -> ds.Dataset:
        """Files read as one table."""
        return ds.dataset([str(self.path(key)) for key in keys], format=form)

    def delete(self, key: str) -> None:
        """Take a file away, if it is there."""
        path = self.path(key)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        flush_folder(path.parent)

    def clean(self) -> int:
        """Take away what writers left that have surely ended; how many files."""
        left = [path for path in map(self.root.joinpath, self.list("")) if _is_left_over(path.name)]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def free_bytes(self) -> int | None:
        """Room on the disk, None where the system does not say."""
        there = next(path for path in (self.root, *self.root.parents) if path.exists())
        try:
            return shutil.disk_usage(there).free
        except OSError:
            return None

    def make(self) -> None:
        """Make the folder, if it is not there."""
        _make_folder(self.root)

    def _write(self, path: Path, data: memoryview) -> Path:
        """The bytes, safe on the disk, in a file beside `path` under a name of this process."""
        _make_folder(path.parent)
        writer = Writer.here()
        name = f".{path.name}~{writer.host}~{writer.pid}~{writer.started}~{secrets.token_hex(4)}.tmp"
        temporary = path.with_name(name)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        try:
            try:
                while len(data):
                    data = data[os.write(handle, data) :]
                os.fsync(handle)
            finally:
                os.close(handle)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


def _claim(temporary: Path, path: Path) -> bool:
    """Rename unless there is such a file, on file systems without hard links (FAT): an empty file holds the name."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        return False
    try:
        os.replace(temporary, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def _is_left_over(name: str) -> bool:
    found = TEMPORARY.fullmatch(name)
    if found is None:
        return False
    return Writer(host=found["host"], pid=int(found["pid"]), started=found["started"]).is_gone

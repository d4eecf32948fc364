"""Files that are whole or absent: hashes, atomic writes and the user's cache folder.

Everything is written under a temporary name, flushed to the disk and renamed, so a reader never meets half a file.
"""

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from explain.errors import IntegrityError


def cache_folder(*parts: str) -> Path:
    """A folder in the user's cache, made when missing; $EXPLAIN_CACHE or $XDG_CACHE_HOME move it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("EXPLAIN_CACHE") or Path(home) / "explain").joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def flush_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, without which a new name may not survive a power failure.

    File systems that cannot do that for a folder, such as some network drives, are left alone.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        with open(name, "rb+") as stream:
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        flush_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically; NaN is an error, not a token that other readers refuse."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        IntegrityError: the file is missing or is not JSON; see `parse_json`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing; the folder is not complete") from None
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is not valid JSON ({error}); it was changed or cut short") from None
    return parse_json(text, str(path))


def parse_json(text: str, what: str) -> Any:
    """The value of a JSON text from anywhere: what `write_json` could not have written is refused here, once.

    Args:
        text: the JSON.
        what: where it comes from, for the message.

    Raises:
        IntegrityError: not JSON, NaN or a number beyond floating point, half a character, or nested too deep.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if "\\u" in text:  # an escape may be half of a character, which no file, hash or page can hold
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what} is not valid JSON ({error}); it was changed or cut short") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no finite number")
    return number


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet atomically, with a checksum on every page."""
    write_atomically(path, lambda to: pq.write_table(table, to, compression="zstd", write_page_checksum=True))


def read_table(path: Path) -> pa.Table:
    """Read Parquet whose pages have checksums, and check them.

    Raises:
        IntegrityError: the file is missing, cut short, damaged or not Parquet.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        _ = table.schema.names  # a name that is no text is found here
        return table
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing; the folder is not complete") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise IntegrityError(f"{path} is not a readable Parquet file ({said}); it was changed or cut short") from None

"""Opened: a report read back from its PDF, whatever was done to the file.

Nothing in the file is trusted: streams are unpacked up to a limit, and whatever the reader stumbles over is a finding,
not a crash.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import pikepdf
from pydantic import ValidationError

from explain.errors import IntegrityError
from explain.report.schema.evidence import Evidence

LARGEST_BYTES = 256 << 20
"""Of one attachment or picture, unpacked."""

MOST_STREAMS = 100_000


@dataclass(frozen=True)
class Opened:
    """What a PDF holds of a report.

    Args:
        content: the file's bytes.
        evidence: the record attached.
        pictures: JPEG streams by the name that the evidence gives them.
        attachments: every attached file by name.
    """

    content: bytes
    evidence: Evidence
    pictures: dict[str, bytes]
    attachments: dict[str, bytes]


class Untrusted:
    """`with Untrusted("the file"):` turns whatever damage makes a library raise into an IntegrityError.

    Args:
        what: is read, in words.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> "Untrusted":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, IntegrityError | MemoryError):
            said = " ".join(str(error).split())[:200]
            raise IntegrityError(f"{self.what} cannot be read ({type(error).__name__}: {said})") from None


def open_report(content: bytes) -> Opened:
    """A report from the bytes of its PDF.

    Raises:
        IntegrityError: no PDF, no evidence attached, or evidence of another form.
    """
    with Untrusted("the file"):
        attachments, streams = _contents(content)
    if "evidence.json" not in attachments:
        raise IntegrityError("the file holds no evidence.json; it is no report of this tool, or was changed")
    evidence = _evidence(attachments["evidence.json"])
    pictures = {picture.file: streams[picture.sha256] for picture in evidence.pictures if picture.sha256 in streams}
    return Opened(content, evidence, pictures, attachments)


def _contents(content: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Attached files by name, and JPEG streams by SHA-256."""
    with pikepdf.open(io.BytesIO(content)) as pdf:
        attachments = {name: _unpacked(pdf.attachments[name].get_file().obj) for name in pdf.attachments}
        return attachments, {hashlib.sha256(raw).hexdigest(): raw for raw in _jpegs(pdf)}


def _jpegs(pdf: pikepdf.Pdf) -> Iterator[bytes]:
    for number, found in enumerate(pdf.objects):
        if number > MOST_STREAMS:
            raise IntegrityError(f"the file has more than {MOST_STREAMS} objects")
        if isinstance(found, pikepdf.Stream) and found.get("/Filter") == "/DCTDecode":
            yield bytes(found.read_raw_bytes())


def _unpacked(stream: pikepdf.Object) -> bytes:
    """A stream's bytes, up to `LARGEST_BYTES`."""
    raw, packing = bytes(stream.read_raw_bytes()), stream.get("/Filter")
    if packing is None:
        return raw
    if packing != "/FlateDecode":
        raise IntegrityError(f"an attachment is packed with {packing}, which this tool does not write")
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(raw, LARGEST_BYTES)
    if unpacker.unconsumed_tail:
        raise IntegrityError(f"an attachment unpacks to more than {LARGEST_BYTES >> 20} MiB")
    if not unpacker.eof:
        raise IntegrityError("an attachment is cut short")
    return found


def _evidence(content: bytes) -> Evidence:
    try:
        return Evidence.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise IntegrityError(f"evidence.json: {where}: {first['msg']}; it was changed, or another version of this tool "
                             "wrote it") from None  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"evidence.json is not JSON ({str(error)[:200]}); it was changed") from None

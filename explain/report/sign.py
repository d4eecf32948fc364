"""Sign: a signed copy of a report as a second file, and the check of such a signature.

The unsigned file stays the canonical one: a signature holds the time of signing and cannot be made again, and an
invisible signature field cannot satisfy PDF/A and PDF/UA together. The signed file is the unsigned one, byte for byte,
with the signature after its end.
"""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pikepdf

from explain.errors import InputError, IntegrityError
from explain.files import write_atomically
from explain.report.opened import Untrusted

FIELD = "Signature"
READABLE = "Electronic signature of the report"
ADDED_TO_CATALOG, ADDED_TO_PAGE = ("/AcroForm", "/Perms", "/Extensions", "/Version"), ("/Annots",)
FORM_KEYS = {"/Fields", "/SigFlags"}
RENEWED = ("/ModDate", "/Producer")
"""What a signature may add to a report, and what it may replace."""

HINT = 'signatures need pyHanko; install it with: pip install "explain-vit[sign]"'


def signed_name(pdf: Path) -> Path:
    """Where the signed copy of a report goes."""
    return pdf.with_name(f"{pdf.stem}.signed.pdf")


def sign_report(pdf: str | Path, key: str | Path, passphrase: str, out: str | Path | None = None) -> Path:
    """Write a signed copy of a report (PAdES B-B, certified: no change is allowed afterwards).

    Args:
        pdf: the report.
        key: PKCS #12 file with the private key and its certificates.
        passphrase: of the key; may be "".
        out: the copy; None is beside the report, with ".signed" in its name.

    Returns:
        The signed file.

    Raises:
        InputError: pyHanko is not installed, or the key cannot be read.
    """
    _check_installed()
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import fields, signers

    if not Path(key).is_file():
        raise InputError(f"cannot read the key {key}; expected a PKCS #12 file (.p12 or .pfx)")
    signer = signers.SimpleSigner.load_pkcs12(str(key), passphrase=passphrase.encode() or None)
    if signer is None:
        raise InputError(f"{key} cannot be opened: it is no PKCS #12 file, or has another passphrase, which is read "
                         "from $EXPLAIN_SIGN_PASSPHRASE or asked for")  # fmt: skip
    content = Path(pdf).read_bytes()
    stream = io.BytesIO(content)
    signers.PdfSigner(
        signers.PdfSignatureMetadata(
            field_name=FIELD, md_algorithm="sha256", certify=True, docmdp_permissions=fields.MDPPerm.NO_CHANGES,
            subfilter=fields.SigSeedSubFilter.PADES,
        ),
        signer=signer,
        new_field_spec=fields.SigFieldSpec(
            FIELD, readable_field_name=READABLE, invis_sig_settings=fields.InvisSigSettings(box_out_of_bounds=True)
        ),
    ).sign_pdf(IncrementalPdfFileWriter(stream), in_place=True)  # fmt: skip
    signed = stream.getvalue()
    if not signed.startswith(content):
        raise IntegrityError("the signer changed the report instead of adding to it; the signed copy was not written")
    target = Path(out) if out is not None else signed_name(Path(pdf))
    write_atomically(target, lambda temporary: temporary.write_bytes(signed))
    return target


def check_signature(content: bytes, size: int, trust: tuple[Path, ...] = ()) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong with the signature of a signed report, and what to know of it.

    Args:
        content: the signed file.
        size: bytes of the report that it begins with.
        trust: certificates (PEM) of signers that are trusted.

    Returns:
        (what is wrong, who signed and whether that certificate is trusted).
    """
    if find_spec("pyhanko") is None:
        return [f"the file goes on after the report, as with a signature, which cannot be checked here: {HINT}"], ()
    try:
        with Untrusted("the signature"), _without_log():
            return _signature_findings(content, size, trust)
    except IntegrityError as error:
        return [str(error)], ()


def _signature_findings(content: bytes, size: int, trust: tuple[Path, ...]) -> tuple[list[str], tuple[str, ...]]:
    from pyhanko.keys import load_certs_from_pemder
    from pyhanko.pdf_utils.reader import PdfFileReader
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko_certvalidator import ValidationContext

    problems = [*_changed_besides(content[:size], content), *_loose_bytes(content)]
    found = PdfFileReader(io.BytesIO(content)).embedded_signatures
    if len(found) != 1:
        return [f"the file goes on after the report with {len(found)} signatures; expected one"], ()
    roots = list(load_certs_from_pemder([str(path) for path in trust]))
    status = validate_pdf_signature(
        found[0], signer_validation_context=ValidationContext(trust_roots=roots, allow_fetching=False)
    )
    if not status.intact:
        problems.append("the signed bytes were changed after signing")
    if not status.valid:
        problems.append("the signature does not belong to its certificate")
    if not status.coverage or status.coverage.name != "ENTIRE_FILE" or not status.docmdp_ok:
        problems.append("the signature does not cover the whole file: something was added after signing")
    who = status.signing_cert.subject.human_friendly
    when = f", {status.signer_reported_dt:%Y-%m-%d %H:%M %Z} by the signer's clock" if status.signer_reported_dt else ""
    trusted = "a trusted certificate" if status.trusted else "a certificate that is not among the trusted ones"
    return problems, (f"signed by {who}{when}, with {trusted}",)


def _changed_besides(report: bytes, signed: bytes) -> Iterator[str]:
    """Objects of the report that the signature's update replaced by others, beyond adding the signature itself."""
    with pikepdf.open(io.BytesIO(report)) as before, pikepdf.open(io.BytesIO(signed)) as after:
        added = {page.objgen: ADDED_TO_PAGE for page in before.pages}
        added |= {before.Root.objgen: ADDED_TO_CATALOG, before.docinfo.objgen: RENEWED}
        renewed = {before.Root.Metadata.objgen, (0, 0)}  # date and name of the program that wrote last
        for number in (found.objgen for found in before.objects):
            without = added.get(number, ())
            old, new = (_plain(pdf.get_object(number), without) for pdf in (before, after))
            if number not in renewed and old != new:
                yield f"object {number[0]} of the report was replaced when it was signed"
        notes = [note for page in after.pages for note in page.get("/Annots", ())]
        if len(notes) != 1 or not _is_invisible_field(notes[0]) or set(after.Root.AcroForm.keys()) - FORM_KEYS:
            yield "something besides the signature was laid over the pages when the report was signed"


def _is_invisible_field(note: Any) -> bool:
    """Whether an annotation is a signature's field that covers nothing of its page."""
    left, bottom, right, top = (float(side) for side in note.Rect)
    covers = right > left and top > bottom and right > 0 and top > 0
    return note.get("/Subtype") == "/Widget" and note.get("/FT") == "/Sig" and not covers


def _plain(found: Any, without: tuple[str, ...]) -> tuple[bytes, bytes]:
    """An object as bytes: its value, but for some keys, and its stream."""
    if isinstance(found, pikepdf.Stream):
        return bytes(found.stream_dict.unparse(resolved=True)), bytes(found.read_raw_bytes())
    if isinstance(found, pikepdf.Dictionary) and any(key in found for key in without):
        found = pikepdf.Dictionary({key: value for key, value in found.items() if key not in without})
    return bytes(found.unparse(resolved=True)), b""


def _loose_bytes(content: bytes) -> Iterator[str]:
    """Bytes that no signature can cover, those around itself, have to be what the signer wrote."""
    found = re.findall(rb"/ByteRange\s*\[\s*0\s+(\d+)\s+(\d+)\s+\d+\s*\]", content)
    if len(found) != 1:
        yield f"the file has {len(found)} signed ranges; expected one"
        return
    gap = content[int(found[0][0]) : int(found[0][1])]
    digits = gap[1:-1].decode("ascii", "replace")
    written = bytes.fromhex(digits) if re.fullmatch("(?:[0-9A-F]{2})+", digits) else b""
    length = _der_length(written)
    if gap[:1] + gap[-1:] != b"<>" or not written or any(written[length:]):
        yield "bytes beside the signature were changed"


def _der_length(value: bytes) -> int:
    """Bytes of the first element of a DER value, its head included."""
    if len(value) < 2 or value[1] < 0x80:
        return 2 + (value[1] if len(value) > 1 else 0)
    count = value[1] & 0x7F
    return 2 + count + int.from_bytes(value[2 : 2 + count], "big")


@contextmanager
def _without_log() -> Iterator[None]:
    """The library logs what is wrong with a signature as well as returning it."""
    log = logging.getLogger("pyhanko")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def _check_installed() -> None:
    if find_spec("pyhanko") is None:
        raise InputError(HINT)

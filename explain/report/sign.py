"""Sign: a signed copy of a report as a second file, and the check of such a signature.

The unsigned file stays the canonical one: a signature holds the time of signing and cannot be made again, and an
invisible signature field cannot satisfy PDF/A and PDF/UA together. The signed file is the unsigned one, byte for byte,
with the signature after its end.
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from explain.errors import InputError, IntegrityError
from explain.files import write_atomically
from explain.report.opened import Untrusted

FIELD = "Signature"
READABLE = "Electronic signature of the report"
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


def check_signature(content: bytes, trust: tuple[Path, ...] = ()) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong with the signature of a signed report, and what to know of it.

    Args:
        content: the signed file.
        trust: certificates (PEM) of signers that are trusted.

    Returns:
        (what is wrong, who signed and whether that certificate is trusted).
    """
    if find_spec("pyhanko") is None:
        return [f"the file goes on after the report, as with a signature, which cannot be checked here: {HINT}"], ()
    try:
        with Untrusted("the signature"), _without_log():
            return _signature_findings(content, trust)
    except IntegrityError as error:
        return [str(error)], ()


def _signature_findings(content: bytes, trust: tuple[Path, ...]) -> tuple[list[str], tuple[str, ...]]:
    from pyhanko.keys import load_certs_from_pemder
    from pyhanko.pdf_utils.reader import PdfFileReader
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko_certvalidator import ValidationContext

    found = PdfFileReader(io.BytesIO(content)).embedded_signatures
    if len(found) != 1:
        return [f"the file goes on after the report with {len(found)} signatures; expected one"], ()
    roots = list(load_certs_from_pemder([str(path) for path in trust]))
    status = validate_pdf_signature(
        found[0], signer_validation_context=ValidationContext(trust_roots=roots, allow_fetching=False)
    )
    problems = []
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

"""A signed copy is the report byte for byte with a signature after it, and any change to either is found."""

import io
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_report import make_fake_report

from explain.errors import InputError, IntegrityError
from explain.report import sign
from explain.report.pdf import render_pdf
from explain.report.sign import check_signature, sign_report
from explain.report.verify import verify_report

pytest.importorskip("pyhanko")
x509 = pytest.importorskip("cryptography.x509")

SECRET = "a passphrase of three words"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key with a certificate of its own, beside it as PEM."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import pkcs12

    folder, private = tmp_path_factory.mktemp("key"), rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A. Sato")])
    now = datetime.now(UTC)
    uses = dict.fromkeys(("key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only",
                          "decipher_only"), False)  # fmt: skip
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        .serial_number(7).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
        .add_extension(x509.KeyUsage(digital_signature=True, content_commitment=True, key_cert_sign=True, **uses), True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(private, hashes.SHA256())
    )  # fmt: skip
    locked = serialization.BestAvailableEncryption(SECRET.encode())
    (folder / "key.p12").write_bytes(pkcs12.serialize_key_and_certificates(b"key", private, certificate, None, locked))
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "key.p12"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    made = make_fake_report(folder / "pair")
    (folder / "audit.pdf").write_bytes(render_pdf(made.evidence(length="brief"), made.pictures))
    return folder / "audit.pdf"


@pytest.fixture(scope="module")
def signed(report: Path, key: Path) -> Path:
    return sign_report(report, key, SECRET)


def test_the_signed_copy_begins_with_the_report(report: Path, signed: Path) -> None:
    assert signed.name == "audit.signed.pdf" and signed.read_bytes().startswith(report.read_bytes())
    assert verify_report(report).passed  # the report itself stays as it was


def test_a_signature_is_checked_and_says_who(signed: Path, key: Path) -> None:
    result = verify_report(signed)
    assert result.passed, result.findings
    assert [step.name for step in result.steps][-1] == "signature"
    (note,) = result.notes
    assert "A. Sato" in note and "not among the trusted ones" in note and "by the signer's clock" in note
    (trusted,) = verify_report(signed, trust=[key.with_name("certificate.pem")]).notes
    assert trusted.endswith("with a trusted certificate")


def test_every_changed_byte_of_report_and_signature_is_found(signed: Path, report: Path, tmp_path: Path) -> None:
    content, size, rng = signed.read_bytes(), report.stat().st_size, random.Random(3)
    places = [rng.randrange(size) for _ in range(10)] + [rng.randrange(size, len(content)) for _ in range(30)]
    missed = []
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        (tmp_path / "changed.pdf").write_bytes(changed)
        missed += [] if not verify_report(tmp_path / "changed.pdf").passed else [place - size]
    assert missed == []


def test_a_note_laid_over_a_page_before_signing_is_found(report: Path, key: Path, tmp_path: Path) -> None:
    import pikepdf
    from pyhanko.pdf_utils import generic
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter

    stream = io.BytesIO(report.read_bytes())
    writer = IncrementalPdfFileWriter(stream)
    note = generic.DictionaryObject({
        generic.pdf_name("/Type"): generic.pdf_name("/Annot"),
        generic.pdf_name("/Subtype"): generic.pdf_name("/FreeText"),
        generic.pdf_name("/Rect"): generic.ArrayObject(map(generic.NumberObject, (50, 50, 500, 700))),
        generic.pdf_name("/Contents"): generic.pdf_string("APPROVED"),
    })  # fmt: skip
    page = writer.root["/Pages"]["/Kids"][0]
    page["/Annots"] = generic.ArrayObject([writer.add_object(note)])
    writer.mark_update(writer.root["/Pages"]["/Kids"].raw_get(0))
    writer.write_in_place()
    (tmp_path / "noted.pdf").write_bytes(stream.getvalue())
    signed = sign_report(tmp_path / "noted.pdf", key, SECRET, tmp_path / "noted.signed.pdf")
    with pikepdf.open(signed) as pdf:
        assert len(pdf.pages[0].Annots) == 2
    assert "laid over the pages" in " ".join(verify_report(signed).findings)


def test_what_is_added_after_signing_is_found(signed: Path, report: Path, tmp_path: Path) -> None:
    for number, rest in enumerate((b"\n", b"% a note\n", signed.read_bytes()[report.stat().st_size :])):
        file = tmp_path / f"{number}.pdf"
        file.write_bytes(signed.read_bytes() + rest)
        assert not verify_report(file).passed, rest[:20]
    (tmp_path / "plain.pdf").write_bytes(report.read_bytes() + b"% a note\n")
    assert not verify_report(tmp_path / "plain.pdf").passed


def test_a_wrong_key_or_passphrase_is_said_in_words(report: Path, key: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="EXPLAIN_SIGN_PASSPHRASE"):
        sign_report(report, key, "another", tmp_path / "x.pdf")
    with pytest.raises(InputError, match=r"PKCS #12"):
        sign_report(report, tmp_path / "nothing.p12", SECRET)
    (tmp_path / "text.p12").write_text("no key")
    with pytest.raises(InputError, match=r"PKCS #12"):
        sign_report(report, tmp_path / "text.p12", SECRET)
    assert not (tmp_path / "x.pdf").exists()


def test_without_the_library_the_message_says_what_to_install(
    report: Path, key: Path, signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install .*explain-vit\[sign\]"):
        sign_report(report, key, SECRET)
    problems, notes = check_signature(signed.read_bytes(), report.stat().st_size)
    assert "pip install" in problems[0] and notes == ()


def test_a_signer_that_changes_the_report_is_refused(
    report: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyhanko.sign import signers

    class Careless:
        def __init__(self, *args: object, **options: object) -> None: ...

        def sign_pdf(self, writer: object, in_place: bool) -> None:
            writer.prev.stream.seek(0)  # type: ignore[attr-defined]
            writer.prev.stream.write(b"XX")  # type: ignore[attr-defined]

    monkeypatch.setattr(signers, "PdfSigner", Careless)
    with pytest.raises(IntegrityError, match="instead of adding"):
        sign_report(report, key, SECRET, tmp_path / "x.pdf")
    assert not (tmp_path / "x.pdf").exists() and "pyhanko" in sys.modules

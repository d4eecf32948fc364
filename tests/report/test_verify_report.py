"""Verifying a report: what nobody touched passes, and whatever was changed is found and named."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pikepdf
import pytest
import yaml
from fake_report import AUDIT, FakeReport, make_fake_report

from explain import cli
from explain.errors import InputError, IntegrityError
from explain.report import opened, verify
from explain.report.parts.reproducing import environment
from explain.report.pdf import render_pdf
from explain.report.schema.evidence import Evidence, Length, with_id
from explain.report.schema.words import Named
from explain.report.sign import sign_report
from explain.report.verify import Verification, verify_report

IN_FILE, IN_EVIDENCE = 150, 50
"""Changes of one byte: 200 in all."""

STEPS = ("read", "id", "pictures", "attachments", "criteria", "rebuild")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    """A pair with everything, and with what people state in its folder; do not change the folder."""
    found = make_fake_report(tmp_path_factory.mktemp("verified") / "pair")
    (found.pair.path / "audit.yaml").write_text(yaml.safe_dump(AUDIT.model_dump(mode="json")), encoding="utf-8")
    return found


def evidence_of(report: FakeReport, lang: str = "en", length: Length = "brief") -> Evidence:
    """The pair was trained without criteria, so that they come late."""
    return report.evidence(lang, length, before=False)


@pytest.fixture(scope="module")
def evidence(report: FakeReport) -> Evidence:
    return evidence_of(report)


@pytest.fixture(scope="module")
def content(report: FakeReport, evidence: Evidence) -> bytes:
    """A report of two pages, which is quick to build."""
    return render_pdf(evidence, report.pictures)


@pytest.fixture
def built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same evidence and pictures are typeset once: another test asserts that they give the same bytes."""
    @lru_cache(maxsize=2)
    def built(record: str, pictures: tuple[tuple[str, bytes], ...]) -> bytes:
        return render_pdf(Evidence.model_validate_json(record), dict(pictures))

    monkeypatch.setattr(verify, "render_pdf", lambda evidence, pictures: built(
        evidence.model_dump_json(), tuple(sorted(pictures.items()))))  # fmt: skip


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Verification]:
    """Verify a file with this content."""
    def called(content: bytes, *arguments: Any) -> Verification:
        path = tmp_path / "audit.pdf"
        path.write_bytes(content)
        return verify_report(path, *arguments)

    return called


def failed(result: Verification) -> list[str]:
    """Names of the steps that did not pass."""
    assert bool(result) == result.passed == (not result.findings)
    return [step.name for step in result.steps if not step.passed]


def rewritten(content: bytes, change: Callable[[pikepdf.Pdf], None]) -> bytes:
    """The file after a change of its objects, written anew."""
    stream = io.BytesIO()
    with pikepdf.open(io.BytesIO(content)) as pdf:
        change(pdf)
        pdf.save(stream, stream_decode_level=pikepdf.StreamDecodeLevel.none)
    return stream.getvalue()


def with_attachment(content: bytes, name: str, data: bytes) -> bytes:
    """The file with other bytes in one of its attachments."""
    return rewritten(content, lambda pdf: pdf.attachments[name].get_file().obj.write(data))


def attached(content: bytes, name: str) -> bytes:
    with pikepdf.open(io.BytesIO(content)) as pdf:
        return bytes(pdf.attachments[name].get_file().read_bytes())


def remade(evidence: Evidence, change: Callable[[dict[str, Any]], None]) -> Evidence:
    """Other evidence under an id of its own, as a forger with this tool would make it."""
    record = evidence.model_dump(mode="json")
    change(record)
    return with_id(Evidence.model_validate(record))


# What nobody touched


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("length", ["full", "brief"])
def test_a_report_is_verified_by_itself_and_with_its_run(
    report: FakeReport, lang: str, length: Length, check: Callable[..., Verification]
) -> None:
    made = evidence_of(report, lang, length)
    content = render_pdf(made, report.pictures)
    assert render_pdf(made, report.pictures) == content
    alone = check(content)
    assert [step.name for step in alone.steps] == [*STEPS] and failed(alone) == [] and alone.notes == ()
    assert alone.document == made.id and alone.sha256 == hashlib.sha256(content).hexdigest()
    before = {path: path.stat().st_mtime_ns for path in report.pair.path.rglob("*")}
    both = check(content, report.pair.path)
    assert [step.name for step in both.steps] == [*STEPS, "run"] and both.findings == ()
    assert {path: path.stat().st_mtime_ns for path in report.pair.path.rglob("*")} == before


def test_another_folder_time_zone_and_process_build_the_same_bytes_without_torch(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "audit.pdf").write_bytes(content)
    code = ("import sys, explain; found = explain.verify_report('audit.pdf'); "
            "print(found.findings, 'torch' in sys.modules); sys.exit(0 if found else 5)")  # fmt: skip
    for zone in ("Asia/Tokyo", "America/St_Johns"):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"TZ": zone},
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "() False\n", "")


# One byte


@pytest.mark.usefixtures("built_once")
def test_every_change_of_one_byte_is_found(content: bytes, check: Callable[..., Verification]) -> None:
    rng, missed = random.Random(1), []
    assert check(content).passed
    for place in rng.sample(range(len(content)), IN_FILE):
        changed = bytearray(content)
        changed[place] ^= rng.randrange(1, 256)
        result = check(bytes(changed))
        if result.passed or not all(result.findings):
            missed.append(place)
    assert missed == []


@pytest.mark.usefixtures("built_once")
def test_every_change_of_one_byte_inside_the_evidence_is_found(
    content: bytes, check: Callable[..., Verification]
) -> None:
    """The attachment is packed again, so that the file itself is sound."""
    plain, rng = attached(content, "evidence.json"), random.Random(2)
    assert json.loads(plain) == json.loads(attached(with_attachment(content, "evidence.json", plain), "evidence.json"))
    meaning = 0
    for place in rng.sample(range(len(plain)), IN_EVIDENCE):
        changed = bytearray(plain)
        changed[place] ^= rng.randrange(1, 256)
        result = check(with_attachment(content, "evidence.json", bytes(changed)))
        assert not result.passed, place
        try:
            same = json.loads(bytes(changed)) == json.loads(plain)
        except ValueError:
            same = False
        if not same:
            meaning += 1
            assert set(failed(result)) & {"read", "id"}, place
    assert meaning > IN_EVIDENCE / 2


def test_it_says_where_the_file_differs(content: bytes, check: Callable[..., Verification]) -> None:
    place = content.rindex(b"/Title") + 12
    changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    (finding,) = check(changed).findings
    number = int(content[: content.rindex(b" 0 obj", 0, place)].rsplit(b"\n", 1)[1])
    assert finding == f"1 byte differs, at {place:,}, in object {number}"


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize("change", ["cut", "empty", "longer", "shorter", "before"])
def test_a_file_of_another_length_is_found(
    content: bytes, change: str, check: Callable[..., Verification]
) -> None:
    other = {"cut": content[: len(content) // 2], "empty": b"", "longer": content + b"\n% and more\n",
             "shorter": content[:-1], "before": b"\n" + content}[change]  # fmt: skip
    assert failed(check(other))


# What is inside


def test_each_changed_part_is_named(
    report: FakeReport, evidence: Evidence, content: bytes, check: Callable[..., Verification]
) -> None:
    metrics = attached(content, "metrics.csv")
    result = check(with_attachment(content, "metrics.csv", metrics.replace(b"accuracy", b"Accuracy", 1)))
    assert "attachments" in failed(result) and "metrics.csv is not what the evidence gives" in result.findings

    def drop(pdf: pikepdf.Pdf) -> None:
        del pdf.attachments["SHA256SUMS"]

    assert "SHA256SUMS is missing" in check(rewritten(content, drop)).findings

    def add(pdf: pikepdf.Pdf) -> None:
        pdf.attachments["run.exe"] = pikepdf.AttachedFileSpec(pdf, b"MZ")

    assert "'run.exe' is attached, which no report has" in check(rewritten(content, add)).findings

    first = evidence.panels.samples[0].maps[0].picture

    def paint(pdf: pikepdf.Pdf) -> None:
        for stream in pdf.objects:
            if isinstance(stream, pikepdf.Stream) and stream.get("/Filter") == "/DCTDecode":
                raw = bytes(stream.read_raw_bytes())
                if hashlib.sha256(raw).hexdigest() == first.sha256:
                    stream.write(raw[:-2] + b"\x00" + raw[-2:], filter=pikepdf.Name.DCTDecode)

    result = check(rewritten(content, paint))
    assert "pictures" in failed(result)
    assert f"{first.file}: no picture in the file has the SHA-256 {first.sha256}" in result.findings


def test_evidence_that_was_changed_and_packed_again_does_not_have_its_id(
    content: bytes, evidence: Evidence, check: Callable[..., Verification]
) -> None:
    record = json.loads(attached(content, "evidence.json"))
    record["arms"][0]["accuracy"] = 0.999
    result = check(with_attachment(content, "evidence.json", json.dumps(record).encode()))
    assert {"id", "attachments", "criteria", "rebuild"} <= set(failed(result))
    assert result.document == evidence.id and any(evidence.id in finding for finding in result.findings)


@pytest.mark.parametrize("forged", ["decision", "status", "value", "text"])
def test_a_decision_that_does_not_follow_is_found_in_a_file_that_is_sound_otherwise(
    report: FakeReport, evidence: Evidence, forged: str, check: Callable[..., Verification]
) -> None:
    assert evidence.decision.final != "approve"

    def change(record: dict[str, Any]) -> None:
        said = record["decision"]
        if forged == "decision":
            said |= {"computed": "approve", "final": "approve"}
        elif forged == "status":
            for one in said["judged"]:
                one["status"] = "pass"
        elif forged == "value":
            said["judged"][0] |= {"value": 0.99}
        else:
            said["criteria_text"] = said["criteria_text"].replace("accuracy >= 50 %", "accuracy >= 5 %")

    other = remade(evidence, change)
    assert "criteria" in failed(check(render_pdf(other, report.pictures)))


# Another engine, another tool


def test_another_typesetter_is_said_and_counts_as_not_verified(
    content: bytes, evidence: Evidence, check: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "engine_version", lambda: "9.9.9")
    result = check(content)
    assert failed(result) == ["rebuild"]
    assert f"typst {evidence.versions['typst']} (here 9.9.9)" in result.findings[0]
    assert "cannot be built again here" in result.findings[0]


def test_another_font_is_said_and_counts_as_not_verified(
    content: bytes, check: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(versions: dict[str, str]) -> tuple[Named, ...]:
        return tuple(one if one.name == "typst" else Named(name=one.name, value="0" * 64) for one in real(versions))

    real = environment
    monkeypatch.setattr(verify, "environment", other)
    result = check(content)
    assert failed(result) == ["rebuild"] and "ipaexg.ttf" in result.findings[0]


# With the run


@pytest.fixture
def copied(report: FakeReport, tmp_path: Path) -> Path:
    """The run's folder, to be changed."""
    return Path(shutil.copytree(report.pair.path, tmp_path / report.pair.path.name))


def test_a_number_that_the_run_does_not_have_is_found_with_the_run_only(
    report: FakeReport, evidence: Evidence, check: Callable[..., Verification]
) -> None:
    def change(record: dict[str, Any]) -> None:
        record["arms"][0]["training"]["seconds"] = 1.0  # nothing else in the record follows from it

    forged = render_pdf(remade(evidence, change), report.pictures)
    assert failed(check(forged)) == []  # the file agrees with itself
    result = check(forged, report.pair.path)
    assert failed(result) == ["run"] and len(result.findings) == 1
    assert result.findings[0].startswith("arms.0.training.seconds is 1.0 there and ")


@pytest.mark.parametrize("file", ["vpt/weights.safetensors", "ft/predictions.parquet", "linear/history.jsonl",
                                  "maps/vpt.grad_cam.safetensors"])  # fmt: skip
def test_a_changed_file_of_the_run_is_found(
    content: bytes, copied: Path, file: str, check: Callable[..., Verification]
) -> None:
    assert check(content, copied).passed
    changed = bytearray((copied / file).read_bytes())
    changed[-1] ^= 1
    (copied / file).write_bytes(changed)
    result = check(content, copied)
    assert failed(result) == ["run"] and Path(file).name in " ".join(result.findings)


def test_what_changed_in_the_run_since_is_named(
    content: bytes, copied: Path, check: Callable[..., Verification]
) -> None:
    stated = AUDIT.model_dump(mode="json") | {"owner": "Somebody else"}
    (copied / "audit.yaml").write_text(yaml.safe_dump(stated), encoding="utf-8")
    result = check(content, copied)
    assert "control.owner is Quality, 2nd factory there and Somebody else now" in result.findings
    shutil.rmtree(copied / "maps")
    (finding,) = check(content, copied).findings
    assert "explain report" in finding and "--per-rule 2" in finding and not (copied / "maps").exists()


def test_what_people_state_may_lie_elsewhere(
    content: bytes, copied: Path, check: Callable[..., Verification], tmp_path: Path
) -> None:
    (copied / "audit.yaml").rename(tmp_path / "said.yaml")
    assert not check(content, copied).passed
    assert verify_report(tmp_path / "audit.pdf", copied, audit=tmp_path / "said.yaml").findings == ()


def test_a_folder_that_is_no_run_is_a_finding(
    content: bytes, tmp_path: Path, check: Callable[..., Verification]
) -> None:
    assert failed(check(content, tmp_path / "nowhere")) == ["run"]


# Other files, and hostile ones


def test_what_is_no_report_is_said_in_one_finding(check: Callable[..., Verification], tmp_path: Path) -> None:
    stream, sheet = io.BytesIO(), pikepdf.new()
    sheet.add_blank_page()
    sheet.save(stream)
    for other, expected in ((b"hello", "cannot be read"), (b"%PDF-1.7\n", "cannot be read"),
                            (stream.getvalue(), "holds no evidence.json")):  # fmt: skip
        result = check(other)
        assert failed(result) == ["read"] and len(result.steps) == 1 and result.document == ""
        assert expected in result.findings[0] and "\n" not in result.findings[0]
    for path in (tmp_path / "missing.pdf", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            verify_report(path)


@pytest.mark.parametrize("data", [b" ", b"[]", b"null", b"{}", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"1e999",
                                  b'{"format": 3}', b"NaN"])  # fmt: skip
def test_evidence_of_another_form_is_a_finding(
    content: bytes, data: bytes, check: Callable[..., Verification]
) -> None:
    result = check(with_attachment(content, "evidence.json", data))
    assert failed(result) == ["read"] and "evidence.json" in result.findings[0] and len(result.findings[0]) < 600


def test_what_unpacks_to_too_much_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "LARGEST_BYTES", 1 << 20)
    bomb = zlib.compress(bytes(8 << 20))

    def arm(pdf: pikepdf.Pdf) -> None:
        pdf.attachments["evidence.json"].get_file().obj.write(bomb, filter=pikepdf.Name.FlateDecode)

    with pytest.raises(IntegrityError, match="unpacks to more than 1 MiB"):
        opened.open_report(rewritten(content, arm))


def test_odd_packing_and_too_many_objects_are_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(pdf: pikepdf.Pdf) -> None:
        pdf.attachments["evidence.json"].get_file().obj.write(b"x", filter=pikepdf.Name.DCTDecode)

    def short(pdf: pikepdf.Pdf) -> None:
        pdf.attachments["evidence.json"].get_file().obj.write(zlib.compress(b"{}" * 99)[:-5],
                                                              filter=pikepdf.Name.FlateDecode)  # fmt: skip

    for change, expected in ((odd, "DCTDecode"), (short, "cut short")):
        with pytest.raises(IntegrityError, match=expected):
            opened.open_report(rewritten(content, change))
    monkeypatch.setattr(opened, "MOST_STREAMS", 10)
    with pytest.raises(IntegrityError, match="more than 10 objects"):
        opened.open_report(content)


# Signed


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key with a certificate that it signed itself, and beside it that certificate as `key.pem`."""
    pytest.importorskip("pyhanko")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import pkcs12

    secret = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A. Sato")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(True, True, False, False, False, True, False, False, False)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(secret.public_key())
            .serial_number(7).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
            .add_extension(usage, critical=True).add_extension(x509.BasicConstraints(True, None), critical=True)
            .sign(secret, hashes.SHA256()))  # fmt: skip
    path = tmp_path_factory.mktemp("keys") / "key.p12"
    path.write_bytes(pkcs12.serialize_key_and_certificates(
        b"key", secret, made, None, serialization.BestAvailableEncryption(b"open")))  # fmt: skip
    path.with_suffix(".pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def signed(content: bytes, key: Path, tmp_path: Path) -> Path:
    (tmp_path / "audit.pdf").write_bytes(content)
    return sign_report(tmp_path / "audit.pdf", key, "open")


def test_a_signed_copy_is_verified_and_says_who_signed(signed: Path, content: bytes, key: Path) -> None:
    assert signed.name == "audit.signed.pdf" and signed.read_bytes().startswith(content)
    result = verify_report(signed)
    assert [step.name for step in result.steps] == [*STEPS, "signature"] and result.findings == ()
    assert "A. Sato" in result.notes[0] and "not among the trusted" in result.notes[0]
    trusting = verify_report(signed, trust=[key.with_suffix(".pem")])
    assert trusting.passed and "with a trusted certificate" in trusting.notes[0]


@pytest.mark.usefixtures("built_once")
def test_a_signed_copy_that_was_changed_is_found(
    signed: Path, content: bytes, check: Callable[..., Verification]
) -> None:
    whole = signed.read_bytes()
    assert "signature" in failed(check(whole + b"\n% and more\n"))
    start, end = whole.rindex(b"/Contents <") + 11, whole.rindex(b"/ByteRange")
    places = [place for place in range(len(content), len(whole)) if not start <= place < whole.index(b">", start)]
    rng = random.Random(3)
    for place in (*rng.sample(places, 10), start + 200, end + 12, rng.randrange(len(content))):
        changed = bytearray(whole)
        changed[place] ^= 1
        assert not check(bytes(changed)).passed, place


def test_pages_replaced_before_signing_are_found(
    content: bytes, key: Path, check: Callable[..., Verification]
) -> None:
    """The bytes of the report are all there, but a reader shows what was added after them."""
    from pyhanko.pdf_utils import generic
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import fields, signers

    stream = io.BytesIO(content)
    writer = IncrementalPdfFileWriter(stream)
    page = writer.root["/Pages"]["/Kids"][0].get_object()
    page["/Contents"] = writer.add_object(generic.StreamObject(stream_data=b"0 0 500 500 re f"))
    writer.update_container(page)
    signers.PdfSigner(
        signers.PdfSignatureMetadata(field_name="Signature", md_algorithm="sha256", certify=True,
                                     docmdp_permissions=fields.MDPPerm.NO_CHANGES),
        signer=signers.SimpleSigner.load_pkcs12(str(key), passphrase=b"open"),
    ).sign_pdf(writer, in_place=True)  # fmt: skip
    forged = stream.getvalue()
    assert forged.startswith(content) and len(forged) > len(content)
    assert failed(check(forged))


# The command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["explain", "verify", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_leaves_with_what_it_found(
    content: bytes, evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole, damaged = tmp_path / "whole.pdf", tmp_path / "damaged.pdf"
    whole.write_bytes(content)
    damaged.write_bytes(content[:-40])
    assert run(monkeypatch, whole) == 0
    said = capsys.readouterr()
    assert "verified" in said.out + said.err and evidence.id in said.out + said.err
    assert run(monkeypatch, whole, damaged, "--json") == 5
    first, second = json.loads(capsys.readouterr().out)
    assert first["passed"] and first["document"] == evidence.id
    assert first["sha256"] == hashlib.sha256(content).hexdigest()
    assert [step["name"] for step in first["steps"]] == [*STEPS] and not second["passed"]
    assert run(monkeypatch, tmp_path / "missing.pdf") == 2

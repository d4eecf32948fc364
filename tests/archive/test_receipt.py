import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from explain.archive.receipt import Receipt, StoredFile
from explain.archive.sealed import Sealed
from explain.errors import IntegrityError

WHAT = "receipts/000/000012.json"
FACTS: dict[str, Any] = {
    "shard": 12, "first_row": 12_288, "count": 1024, "job": "1" * 64, "manifest_slice": "2" * 64,
    "maps": StoredFile(bytes=5, sha256="3" * 64, footer_sha256="4" * 64),
    "metrics": StoredFile(bytes=7, sha256="5" * 64),
    "statuses": {"ok": 1020, "truncated": 4}, "versions": {"torch": "2.8"}, "host": "計算機", "seconds": 12.5,
    "finished": "2026-01-02T03:04:05+00:00",
}  # fmt: skip
RECEIPT = Receipt(**FACTS)


def sealed(changes: dict[str, Any]) -> bytes:
    """The file of a receipt with other values, and a hash that is right for them."""
    plain = {name: value for name, value in json.loads(RECEIPT.to_bytes()).items() if name != "digest"} | changes
    text = json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return (json.dumps(plain | {"digest": digest}, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def refused(data: bytes, text: str = "was changed or cut short") -> None:
    with pytest.raises(IntegrityError, match=text) as error:
        Receipt.from_bytes(data, WHAT)
    assert str(error.value).startswith(WHAT)


def test_a_receipt_comes_back_as_it_was_written() -> None:
    assert Receipt.from_bytes(RECEIPT.to_bytes(), WHAT) == RECEIPT
    assert sealed({}) == RECEIPT.to_bytes()
    assert "計算機".encode() in RECEIPT.to_bytes()


def test_any_changed_byte_is_found() -> None:
    data = RECEIPT.to_bytes()
    for place in range(len(data)):
        for change in (*(1 << bit for bit in range(8)), 0xFF):
            changed = bytearray(data)
            changed[place] ^= change
            with pytest.raises(IntegrityError):
                Receipt.from_bytes(bytes(changed), WHAT)


def test_anything_missing_or_added_is_found() -> None:
    data = RECEIPT.to_bytes()
    for length in range(len(data)):
        refused(data[:length])
    for addition in (b" ", b"\n", b"\0", b"{}"):
        refused(data + addition)
        refused(addition + data)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shard": -1}, "shard: .*greater than or equal to 0"),
        ({"count": -1024}, "count: "),
        ({"count": 0, "statuses": {}}, "count: "),
        ({"count": 1023}, "expected statuses of 1023 images"),
        ({"statuses": {"ok": 1025, "lost": -1}}, "statuses.lost: "),
        ({"seconds": -0.5}, "seconds: "),
        ({"shard": "12"}, "its hash is another|not written as it was"),
        ({"shard": 12.0}, "its hash is another|not written as it was"),
        ({"shard": True}, "shard|hash|written"),
        ({"shard": None}, "shard: "),
        ({"maps": []}, "maps: "),
        ({"job": "../" + "1" * 61}, "job: "),
        ({"job": "1" * 64 + "\n"}, "job: "),
        ({"format": 2}, "format: "),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"maps": {"bytes": -1, "sha256": "3" * 64, "footer_sha256": None}}, "maps.bytes: "),
        ({"maps": {"bytes": 1, "sha256": "3" * 64, "path": "/etc/passwd"}}, "maps.path: "),
    ],
)
def test_values_that_cannot_be_are_refused_even_with_the_right_hash(change: dict[str, Any], text: str) -> None:
    refused(sealed(change), text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b"null", "expected a JSON object"),
        (b'"text"', "expected a JSON object"),
        (b"{}", "Field required"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 200_000, "recursion"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "recursion"),
        (b" " * (1 << 20) + b"{}", "expected at most 1,048,576 bytes"),
        (b'{"shard": 1, "shard": 2}', "a key is there twice"),
        (b'{"seconds": NaN}', "NaN is no number"),
        (b'{"seconds": -Infinity}', "-Infinity is no number"),
        (b'{"shard": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_what_is_no_receipt_at_all_is_refused(data: bytes, text: str) -> None:
    refused(data, text)


def test_numbers_beyond_floating_point_and_half_characters_are_refused() -> None:
    data = RECEIPT.to_bytes()
    refused(data.replace(b"12.5", b"1e999"), "seconds: ")
    refused(data.replace("計算機".encode(), b"\\ud800"))


def test_the_same_values_written_in_another_way_are_refused() -> None:
    value = json.loads(RECEIPT.to_bytes())
    refused(json.dumps(value).encode(), "not written as it was")
    refused(json.dumps(value, sort_keys=True, indent=1).encode() + b"\n", "not written as it was")  # escapes


def test_a_receipt_that_cannot_be_true_is_not_made() -> None:
    for change in ({"seconds": float("nan")}, {"count": 3}, {"shard": -1}, {"nosuch": 1}):
        with pytest.raises(ValidationError):
            Receipt(**FACTS | change)


def test_content_is_what_two_runs_must_agree_on() -> None:
    for change in ({"host": "b"}, {"seconds": 1.0}, {"finished": "later"}, {"versions": {}}):
        other = Receipt(**FACTS | change)
        assert other.content == RECEIPT.content
        assert other.digest != RECEIPT.digest
    for change in ({"shard": 13}, {"job": "9" * 64}, {"maps": FACTS["metrics"]}, {"statuses": {"ok": 1024}}):
        assert Receipt(**FACTS | change).content != RECEIPT.content


def test_a_stored_file_knows_its_bytes_from_others() -> None:
    stored = StoredFile.of(b"abc")
    stored.check(memoryview(b"abc"), "x")
    with pytest.raises(IntegrityError, match="x is damaged: expected 3 bytes, got 4"):
        stored.check(b"abcd", "x")
    with pytest.raises(IntegrityError, match="x is damaged: its SHA-256"):
        stored.check(b"abd", "x")


def test_each_kind_of_record_has_its_own_limit_of_size() -> None:
    class Small(Sealed):
        max_bytes = 100
        text: str

    assert Small.from_bytes(Small(text="a").to_bytes(), "x") == Small(text="a")
    with pytest.raises(IntegrityError, match="at most 100 bytes"):
        Small.from_bytes(Small(text="a" * 100).to_bytes(), "x")

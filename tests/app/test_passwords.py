"""The password file: what is written, what is refused, what a try costs, and how many there are."""

import base64
import hashlib
import io
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from app import passwords
from app.passwords import TRIES, WINDOW_S, Tries, matches, read_accounts, write_account
from explain import cli
from explain.errors import InputError

GOOD = "correct horse"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "people"
    write_account(path, "anna", GOOD)
    write_account(path, "佐藤", "日本語のパスワード")
    return path


# ---- the file


def test_a_written_password_is_the_only_one_that_matches(file: Path) -> None:
    accounts = read_accounts(file)
    assert list(accounts) == ["anna", "佐藤"]
    assert matches(accounts, "anna", GOOD) and matches(accounts, "佐藤", "日本語のパスワード")
    for name, password in (("anna", GOOD + " "), ("anna", ""), ("佐藤", GOOD), ("bert", GOOD), ("", "")):
        assert not matches(accounts, name, password)


def test_the_hash_is_the_scrypt_that_the_line_says(file: Path) -> None:
    name, rest = file.read_text(encoding="utf-8").splitlines()[0].split(":")
    scheme, n, r, p, salt, digest = rest.split("$")
    assert (name, scheme, n, r, p) == ("anna", "scrypt", "32768", "8", "1")
    again = hashlib.scrypt(GOOD.encode(), salt=base64.b64decode(salt), n=2**15, r=8, p=1, maxmem=2**26, dklen=32)
    assert again == base64.b64decode(digest) and len(base64.b64decode(salt)) == 16


def test_a_second_password_replaces_the_first_and_leaves_the_others(file: Path) -> None:
    before = read_accounts(file)
    assert write_account(file, "anna", "another password") is True
    after = read_accounts(file)
    assert after["佐藤"] == before["佐藤"] and after["anna"].salt != before["anna"].salt
    assert matches(after, "anna", "another password") and not matches(after, "anna", GOOD)
    assert os.listdir(file.parent) == ["people"]  # nothing temporary is left


def test_the_file_is_for_its_owner_alone(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(InputError, match=f"mode {mode:03o}.*chmod 600"):
            read_accounts(file)


def test_the_same_letters_typed_as_other_code_points_are_the_same(file: Path) -> None:
    write_account(file, "José", "piñata piñata")
    accounts = read_accounts(file)
    assert matches(accounts, "José", "pin\u0303ata pin\u0303ata")
    assert passwords.tidy_name("Jose\u0301") == "José"


SALT, HASH = "A" * 22 + "==", "A" * 43 + "="


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("carl", "line 3 .* is not NAME:scrypt"),
        ("carl:secret", "line 3 .* is not NAME:scrypt"),
        (f"carl:scrypt$32768$8$1${SALT}${HASH}:", "line 3 .* is not NAME:scrypt"),
        (f":scrypt$32768$8$1${SALT}${HASH}", "line 3 .* is not NAME:scrypt"),
        (f"\x1b[2J:scrypt$32768$8$1${SALT}${HASH}", "line 3 .* is not NAME:scrypt"),
        (f"{'c' * 65}:scrypt$32768$8$1${SALT}${HASH}", "line 3 .* is not NAME:scrypt"),
        (f"carl:scrypt$2$8$1${SALT}${HASH}", "line 3 .* other scrypt numbers"),
        (f"carl:scrypt$9999999$999$999${SALT}${HASH}", "line 3 .* other scrypt numbers"),
        (f"carl:scrypt$32768$8$1$AAAA${HASH}", "line 3 .* 16 bytes of salt .* got 3 and 32"),
        (f"carl:scrypt$32768$8$1${SALT}$A", "line 3 .*no base64"),
        (f"anna:scrypt$32768$8$1${SALT}${HASH}", "line 3 .* second time"),
    ],
)
def test_a_tampered_line_is_refused_by_its_number_and_not_repeated(file: Path, line: str, words: str) -> None:
    with open(file, "a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(InputError, match=words) as error:
        read_accounts(file)
    assert "secret" not in str(error.value) and "\x1b" not in str(error.value) and SALT not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names nobody"),
        (b"\n\n", "names nobody"),
        (b"anna:\xff\xfe\n", "not UTF-8"),
        (b"x" * (passwords.MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_password_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "people"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError, match=words):
        read_accounts(path)


def test_a_missing_file_says_how_to_make_one_and_a_folder_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="explain view-password"):
        read_accounts(tmp_path / "people")
    tmp_path.chmod(0o700)
    with pytest.raises(InputError, match="no file"):
        read_accounts(tmp_path)


@pytest.mark.parametrize("name", ["", " anna", "an:na", "an\nna", "n" * 65, "\u202eanna"])
def test_a_name_that_would_break_the_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected a name"):
        write_account(tmp_path / "people", name, GOOD)
    assert not (tmp_path / "people").exists()


@pytest.mark.parametrize("password", ["", "seven77", "x" * 257])
def test_a_password_too_short_or_too_long_is_refused(tmp_path: Path, password: str) -> None:
    with pytest.raises(InputError, match="8 to 256"):
        write_account(tmp_path / "people", "anna", password)


def test_a_file_that_others_can_read_is_not_written_to_silently(file: Path) -> None:
    file.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        write_account(file, "bert", GOOD)


def test_an_unknown_name_costs_as_many_hashes_as_a_known_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts, calls = read_accounts(file), []
    scrypt = hashlib.scrypt

    def counted(*arguments: Any, **options: Any) -> bytes:
        calls.append((options["n"], options["r"], options["p"]))
        return scrypt(*arguments, **options)

    monkeypatch.setattr(passwords.hashlib, "scrypt", counted)
    for name, password in (("anna", GOOD), ("anna", "wrong"), ("nobody", "wrong"), ("", "x" * 10_000)):
        calls.clear()
        matches(accounts, name, password)
        assert calls == [(2**15, 8, 1)]


# ---- the command


def explain(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["explain", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_takes_a_password_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{GOOD}\nmore\n"))
    assert explain(monkeypatch, "view-password", tmp_path / "people", "anna", "--stdin") == 0
    assert matches(read_accounts(tmp_path / "people"), "anna", GOOD)
    said = capsys.readouterr()
    assert "anna was added" in said.out and GOOD not in said.out + said.err


def test_the_command_asks_twice_without_echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def prompt(text: str, **options: Any) -> str:
        asked.append(options)
        return GOOD

    monkeypatch.setattr("typer.prompt", prompt)
    assert explain(monkeypatch, "view-password", tmp_path / "people", "anna") == 0
    assert asked[0]["hide_input"] is True and asked[0]["confirmation_prompt"]


def test_the_command_refuses_a_short_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert explain(monkeypatch, "view-password", tmp_path / "people", "anna", "--stdin") == 2
    assert "8 to 256 characters, got 5" in capsys.readouterr().err


# ---- wrong passwords


def test_after_five_tries_a_name_waits_until_the_first_is_a_minute_old() -> None:
    now = 1000.0
    tries = Tries(lambda: now)
    for _ in range(TRIES):
        assert tries.begin("anna") == 0.0
        now += 2
    assert tries.begin("anna") == pytest.approx(WINDOW_S - 2 * TRIES)
    assert tries.begin("bert") == 0.0  # another name is not held up
    now = 1000.0 + WINDOW_S
    assert tries.begin("anna") == 0.0 and tries.begin("anna") > 0


def test_a_right_password_clears_the_count() -> None:
    tries = Tries(lambda: 0.0)
    for _ in range(TRIES):
        tries.begin("anna")
    tries.forget("anna")
    assert tries.begin("anna") == 0.0


def test_names_that_nobody_tries_any_more_are_forgotten() -> None:
    now = 0.0
    tries = Tries(lambda: now)
    for number in range(100):
        tries.begin(f"name {number}")
    now = WINDOW_S
    tries.begin("anna")
    assert list(tries._times) == ["anna"]


def test_many_tries_at_once_do_not_all_pass_as_the_first() -> None:
    tries, passed = Tries(lambda: 0.0), []
    gate = threading.Barrier(20)

    def attempt() -> None:
        gate.wait()
        passed.append(tries.begin("anna") == 0.0)

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == TRIES

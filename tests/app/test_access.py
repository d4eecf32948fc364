"""Who may come in: the password file, wrong passwords, the sign-in form, the identity provider, ids of errors."""

import hashlib
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import access, passwords, trouble
from app.passwords import TRIES, WINDOW_S, Tries, matches, read_accounts, write_account
from explain import cli
from explain.errors import InputError
from explain.i18n import translate

T = translate("en")
GOOD = "correct horse"


def page() -> None:
    """What main.py does: the gate, then the page, guarded."""
    import sys

    import streamlit as st

    from app import access, trouble
    from explain.errors import InputError
    from explain.i18n import translate

    t = translate("en")
    name = access.admit(t)
    access.show_account(t)
    st.write(f"inside: {name}")
    fault = next((word for word in sys.argv if word.startswith("fault=")), "")
    with trouble.guard(t):
        if fault == "fault=bug":
            raise ZeroDivisionError("a secret detail")
        if fault == "fault=input":
            raise InputError("for the caller")
        if fault == "fault=stop":
            st.stop()
    st.write("after the page")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "people"
    write_account(path, "anna", GOOD)
    write_account(path, "佐藤", "日本語のパスワード")
    return path


@pytest.fixture(autouse=True)
def fresh_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_TRIES", Tries())


def start(monkeypatch: pytest.MonkeyPatch, *words: str, secrets: dict[str, Any] | None = None) -> AppTest:
    monkeypatch.setattr("sys.argv", ["main.py", "runs/any", *words])
    test = AppTest.from_function(page, default_timeout=60)
    for key, value in (secrets or {}).items():
        test.secrets[key] = value
    return test.run()


def sign_in(test: AppTest, name: str, password: str) -> AppTest:
    test.text_input[0].set_value(name)
    test.text_input[1].set_value(password)
    return test.button[0].click().run()


def written(test: AppTest) -> list[str]:
    return [each.value for each in (*test.markdown, *test.error, *test.caption)]


# ---- the file


def test_a_written_password_is_the_only_one_that_matches(file: Path) -> None:
    accounts = read_accounts(file)
    assert list(accounts) == ["anna", "佐藤"]
    assert matches(accounts, "anna", GOOD) and matches(accounts, "佐藤", "日本語のパスワード")
    for name, password in (("anna", GOOD + " "), ("anna", ""), ("佐藤", GOOD), ("bert", GOOD), ("", "")):
        assert not matches(accounts, name, password)


def test_the_hash_is_the_scrypt_that_the_line_says(file: Path) -> None:
    import base64

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
    import io

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
    import io

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


# ---- the form


def test_nobody_has_to_sign_in_where_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    test = start(monkeypatch)
    assert "inside: None" in written(test) and not test.button and not test.text_input


def test_the_page_is_not_run_before_somebody_has_signed_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = start(monkeypatch, f"--auth={file}")
    assert len(test.text_input) == 2 and not any("inside" in text for text in written(test))
    sign_in(test, "anna", "wrong password")
    assert T("viewer.access.wrong") in written(test) and not any("inside" in text for text in written(test))
    sign_in(test, " anna ", GOOD)
    assert "inside: anna" in written(test) and not test.text_input
    assert T("viewer.access.signed_in", name="anna") in written(test)


def test_an_unknown_name_is_told_the_same_as_a_wrong_password(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = start(monkeypatch, f"--auth={file}")
    known = written(sign_in(test, "anna", "wrong password"))
    assert written(sign_in(test, "nobody", "wrong password")) == known
    assert written(sign_in(test, "no\x00body", "wrong password")) == known


def test_empty_fields_are_said_and_not_counted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = start(monkeypatch, f"--auth={file}")
    for _ in range(TRIES + 1):
        sign_in(test, "anna", "")
        assert T("viewer.access.empty") in written(test)
    assert "inside: anna" in written(sign_in(test, "anna", GOOD))


def test_the_right_password_does_not_help_during_the_wait(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(access, "_TRIES", Tries(lambda: now))
    test = start(monkeypatch, f"--auth={file}")
    for _ in range(TRIES):
        sign_in(test, "anna", "wrong password")
    sign_in(test, "anna", GOOD)
    assert T("viewer.access.wait", seconds=60) in written(test)
    now = WINDOW_S
    assert "inside: anna" in written(sign_in(test, "anna", GOOD))


def test_signing_out_forgets_the_session(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = sign_in(start(monkeypatch, f"--auth={file}"), "anna", GOOD)
    test.session_state["uploaded"] = "of anna"
    test.button(key="_sign_out").click().run()
    assert len(test.text_input) == 2 and "uploaded" not in test.session_state


@pytest.mark.parametrize("change", ["another password", "removed", "readable by others"])
def test_a_change_of_the_file_ends_the_session_at_the_next_run(
    file: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    test = sign_in(start(monkeypatch, f"--auth={file}"), "anna", GOOD)
    assert "inside: anna" in written(test.run())
    if change == "another password":
        write_account(file, "anna", "another password")
    elif change == "removed":
        file.write_text(file.read_text(encoding="utf-8").splitlines(keepends=True)[1], encoding="utf-8")
    else:
        file.chmod(0o644)
    test.run()
    assert not any("inside" in text for text in written(test))
    assert bool(test.error) == (change == "readable by others")


def test_a_broken_file_is_told_strangers_by_an_id_only(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("carl:secret\n")
    test = start(monkeypatch, f"--auth={file}")
    (said,) = [error.value for error in test.error]
    assert str(file) not in said and "line" not in said
    number = said.split("**")[1]
    assert f"error {number}" in caplog.text and "line 1 of the password file" in caplog.text


def test_a_value_in_the_session_that_this_file_did_not_put_there_lets_nobody_in(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = start(monkeypatch, f"--auth={file}")
    test.session_state["_signed_in"] = "anna"
    assert not any("inside" in text for text in written(test.run()))


def test_the_log_has_names_but_never_what_was_typed_as_one(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    test = start(monkeypatch, f"--auth={file}")
    sign_in(test, GOOD, "anna anna")  # the two mixed up
    sign_in(test, "anna", "wrong password")
    sign_in(test, "anna", GOOD)
    said = [record.getMessage() for record in caplog.records if record.name == "explain.viewer"]
    assert [line.split(" from ")[0] for line in said] == [
        "sign-in refused: an unknown name", "sign-in refused: 'anna'", "signed in: 'anna'"]  # fmt: skip
    assert GOOD not in caplog.text and "wrong password" not in caplog.text


# ---- the identity provider


PROVIDER = {"auth": {"client_id": "x", "cookie_secret": "y" * 32}}


@pytest.fixture
def authlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "find_spec", lambda name: object())


def as_user(monkeypatch: pytest.MonkeyPatch, **user: Any) -> None:
    monkeypatch.setattr(st, "user", user)


def test_a_provider_that_is_not_set_up_is_said_and_nobody_comes_in(
    monkeypatch: pytest.MonkeyPatch, authlib: None
) -> None:
    test = start(monkeypatch, "--oidc")
    assert written(test) == [T("viewer.access.no_provider")]


def test_the_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "find_spec", lambda name: None)
    assert written(start(monkeypatch, "--oidc", secrets=PROVIDER)) == [T("viewer.access.no_provider")]


def test_a_stranger_is_sent_to_the_provider(monkeypatch: pytest.MonkeyPatch, authlib: None) -> None:
    as_user(monkeypatch, is_logged_in=False)
    sent: list[bool] = []
    monkeypatch.setattr(st, "login", lambda: sent.append(True))
    test = start(monkeypatch, "--oidc", secrets=PROVIDER)
    assert not any("inside" in text for text in written(test)) and not sent
    test.button[0].click().run()
    assert sent == [True]


def test_whom_the_provider_knows_comes_in_by_the_address(monkeypatch: pytest.MonkeyPatch, authlib: None) -> None:
    as_user(monkeypatch, is_logged_in=True, email="anna@example.com", name="Anna")
    assert "inside: anna@example.com" in written(start(monkeypatch, "--oidc", secrets=PROVIDER))


@pytest.mark.parametrize(
    ("user", "inside"),
    [
        ({"email": "Anna@Example.com"}, True),
        ({"email": "bert@works.example.org"}, True),
        ({"email": "bert@elsewhere.com"}, False),
        ({"email": "works.example.org"}, False),
        ({"email": "anna@example.com", "email_verified": False}, False),
        ({"name": "anna@example.com"}, False),
    ],
)
def test_a_list_of_people_keeps_everybody_else_out(
    monkeypatch: pytest.MonkeyPatch, authlib: None, user: dict[str, Any], inside: bool
) -> None:
    as_user(monkeypatch, is_logged_in=True, **user)
    people = {"explain": {"people": ["anna@example.com", "@works.example.org"]}}
    test = start(monkeypatch, "--oidc", secrets=PROVIDER | people)
    assert any("inside" in text for text in written(test)) == inside


# ---- errors


def test_a_bug_shows_an_id_and_the_log_has_the_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    test = start(monkeypatch, "fault=bug")
    (said,) = [error.value for error in test.error]
    assert "ZeroDivisionError" not in said and "secret" not in said and not test.exception
    assert "after the page" in written(test)  # such as the language switch
    number = said.split("**")[1]
    assert f"error {number}: ZeroDivisionError" in caplog.text and "Traceback" in caplog.text
    assert "a secret detail" in caplog.text


def test_errors_in_words_and_streamlits_own_go_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="for the caller"), trouble.guard(T):
        raise InputError("for the caller")
    test = start(monkeypatch, "fault=stop")
    assert not test.error and "after the page" not in written(test)
    with pytest.raises(KeyboardInterrupt), trouble.guard(T):
        raise KeyboardInterrupt


def test_a_log_file_gets_the_traceback_and_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "viewer.log"
    trouble._log.cache_clear()
    monkeypatch.setattr(trouble, "LOG_BYTES", 4000)
    before = list(logging.getLogger("explain.viewer").handlers)
    try:
        monkeypatch.setattr("sys.argv", ["main.py", "runs/any", f"--log={file}"])
        numbers = [trouble.record(ValueError("x" * 1000)) for _ in range(9)]
        logging.getLogger("streamlit.error_util").error("in a fragment")
        text = file.read_text(encoding="utf-8")
        assert numbers[-1] in text and "in a fragment" in text
        assert sorted(each.name for each in tmp_path.iterdir())[:2] == ["viewer.log", "viewer.log.1"]
    finally:
        trouble._log.cache_clear()
        for name in ("explain.viewer", "streamlit.error_util"):
            for handler in set(logging.getLogger(name).handlers) - set(before):
                if getattr(handler, "baseFilename", None) == str(file):
                    logging.getLogger(name).removeHandler(handler)
                    handler.close()

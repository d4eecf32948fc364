"""Who may come in: the sign-in form, its sessions, and the identity provider."""

import logging
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import app
from app import access
from app.passwords import TRIES, WINDOW_S, Tries, write_account
from explain.i18n import translate

T = translate("en")
GOOD = "correct horse"


def page() -> None:
    """What main.py does: the gate, then the page."""
    import streamlit as st

    from app import access
    from explain.i18n import translate

    t = translate("en")
    name = access.admit(t)
    access.show_account(t)
    st.write(f"inside: {name}")


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


def test_the_viewer_opens_nothing_of_a_run_before_the_gate(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = Path(app.__file__).parent / "main.py"
    monkeypatch.setattr("sys.argv", [str(main), "/nowhere/run", f"--auth={file}"])
    test = AppTest.from_file(str(main), default_timeout=120).run()
    assert len(test.text_input) == 2 and not test.error and not test.exception
    sign_in(test, "anna", GOOD)
    assert not test.text_input and "nowhere" in test.error[0].value  # only now was it looked for


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

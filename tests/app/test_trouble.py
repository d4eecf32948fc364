"""Errors nobody expected: an id for the reader, details for the log."""

import logging
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import trouble
from explain.errors import InputError
from explain.i18n import translate

T = translate("en")


def page() -> None:
    """A page that goes wrong as the command line says."""
    import sys

    import streamlit as st

    from app import trouble
    from explain.i18n import translate

    with trouble.guard(translate("en")):
        if "fault=bug" in sys.argv:
            raise ZeroDivisionError("a secret detail")
        if "fault=stop" in sys.argv:
            st.stop()
    st.write("after the page")


def start(monkeypatch: pytest.MonkeyPatch, *words: str) -> AppTest:
    monkeypatch.setattr("sys.argv", ["main.py", "runs/any", *words])
    return AppTest.from_function(page, default_timeout=60).run()


def written(test: AppTest) -> list[str]:
    return [each.value for each in test.markdown]


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

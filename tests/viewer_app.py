"""Running the viewer on a pair in a test."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import app
from app import opening, worker

MAIN = Path(app.__file__).parent / "main.py"
SESSION = "test session id"
"""What streamlit calls the one browser of its tests."""
SECONDS = 120
"""Patience for the first run of a process, which imports torch and builds the models."""


def start(monkeypatch: pytest.MonkeyPatch, run: Path, view: str = "", *, locale: str = "en-US", **link: str) -> AppTest:
    """The viewer on a run after its first run, on a page (none: the first), opened by a link with these parameters."""
    monkeypatch.setattr("sys.argv", [str(MAIN)])  # what pytest was called with is not a run
    monkeypatch.setenv(opening.RUN_VARIABLE, str(run))
    test = AppTest.from_file(str(MAIN), default_timeout=SECONDS)
    test.query_params.update(link)
    test.context["locale"] = locale
    return (test.switch_page(f"views/{view}.py") if view else test).run()


def texts(test: AppTest) -> str:
    """Everything a reader can read on the page, without the backslashes that keep Markdown literal."""
    elements = [*test.markdown, *test.caption, *test.error, *test.warning, *test.info]
    return "\n".join(str(element.value) for element in elements).replace("\\", "")


def panel(test: AppTest) -> dict[str, Any]:
    """What the panel of a page is given: the header of its block of bytes."""
    (found,) = test.get("bidi_component")
    data = found.proto.bytes
    return dict(json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")]))


def finish(test: AppTest) -> AppTest:
    """The page when everything that it wished for is there."""
    until = time.monotonic() + SECONDS
    while not worker.the_worker().progress(SESSION).finished:
        assert time.monotonic() < until
        time.sleep(0.05)
    return test.run()

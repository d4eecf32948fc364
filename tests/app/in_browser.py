"""The viewer as a user has it: a server started as `explain view` starts it, and Debian's Chromium."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import urlopen

import pytest

from app.server import command

playwright = pytest.importorskip("playwright.sync_api")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
PATIENCE_MS = 90_000
KNOWN_404 = re.compile(r"/_stcore/(health|host-config)$")
"""Streamlit's page asks for these under the page's own path first, and then finds them at the root."""
SETTLED = """() => document.querySelector('[data-test-script-state="notRunning"]')
    && !document.querySelector('[data-testid="stSkeleton"], [data-testid="stAppSkeleton"]')"""
"""True when the page's script has ended and its elements are there."""

STATE = """() => ({
    address: location.href,
    script: document.querySelector('[data-test-script-state]')?.dataset.testScriptState,
    connection: document.querySelector('[data-test-connection-state]')?.dataset.testConnectionState,
    components: [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')].map(
        place => [...place.shadowRoot?.children ?? []].map(part => part.cloneNode().outerHTML)),
    marks: performance.getEntriesByType('mark').map(mark => `${mark.name} ${Math.round(mark.startTime)}`).slice(-20),
    text: document.body.innerText.slice(0, 1500),
})"""
"""What a test that fails tells of its page."""


def chromium() -> str:
    """The browser; a test is skipped where there is none, but not on the build machine."""
    found = shutil.which("chromium")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("no chromium on the PATH; the build machine must have it (apt-get install chromium)")
    if found is None:
        pytest.skip("no chromium on the PATH (apt-get install chromium)")
    return found


@contextmanager
def serving(arguments: Sequence[str], folder: Path, port: int) -> Iterator[str]:
    """A server while it is needed; its address. It is started from an empty folder, as a user may."""
    log = folder / "server.log"
    with open(log, "w") as stream:
        server = subprocess.Popen(arguments, cwd=folder, stdout=stream, stderr=stream)
    try:
        _wait_for(f"http://127.0.0.1:{port}/_stcore/health", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


@contextmanager
def viewing(location: str | Path, folder: Path, **settings: Any) -> Iterator[str]:
    """The viewer on a run or archive; its address. Settings are those of `app.server.command`."""
    port = free_port()
    with serving(command(location, port, headless=True, **settings), folder, port) as address:
        yield address


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            with urlopen(url) as answer:
                if answer.status == 200:
                    return
        except URLError:
            time.sleep(0.2)
    pytest.fail(f"the viewer did not answer within a minute: {log.read_text()}")


@contextmanager
def browsing(**settings: Any) -> "Iterator[playwright.Page]":
    """A page that fails the test when it asks another machine for anything or meets an error of its own.

    Settings are those of playwright's `new_page`, such as `color_scheme="dark"` or `locale="ja-JP"`.
    """
    requests: list[str] = []
    errors: list[str] = []
    said: list[str] = []
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(**{"viewport": {"width": 1440, "height": 900}, "locale": "en-US"} | settings)
        page.on("request", lambda request: requests.append(request.url))
        page.on("websocket", lambda socket: requests.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: said.append(f"{line.type}: {line.text}"))
        page.on("console", lambda line: errors.append(line.text)
                if line.type == "error" and not line.text.startswith("Failed to load resource") else None)  # fmt: skip
        page.on("response", lambda answer: errors.append(f"{answer.status} {answer.url}")
                if answer.status >= 400 and not KNOWN_404.search(answer.url) else None)  # fmt: skip
        page.set_default_timeout(PATIENCE_MS)
        try:
            yield page
        except Exception as error:
            error.add_note(_state_of(page, [*said, *errors]))
            raise
        browser.close()
    outside = [url for url in requests if urlparse(url).scheme not in ("data", "blob")
               and urlparse(url).hostname not in ("127.0.0.1", "localhost")]  # fmt: skip
    assert not outside, f"asked other machines: {outside}"
    assert not errors, f"errors of the page: {errors}"


def _state_of(page: "playwright.Page", said: Sequence[str]) -> str:
    """What the page showed when a test gave up on it: nobody can look at the browser of a build machine."""
    page.set_default_timeout(5_000)
    try:
        shown = page.evaluate(STATE)
    except playwright.Error as error:  # the page itself hangs, or is gone
        shown = {"page": str(error)}
    return "\n".join([*(f"{name}: {value}" for name, value in shown.items()), *said[-20:]])


def settle(page: "playwright.Page") -> None:
    """Wait until the page's script has ended."""
    page.wait_for_function(SETTLED)

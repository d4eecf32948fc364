"""The viewer in a real browser: the server as `explain view` starts it, Debian's Chromium, one pair."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import urlopen

import pytest

from app.server import command
from explain.training.pair import MatchedPair

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PATIENCE_MS = 90_000
KNOWN_404 = re.compile(r"/_stcore/(health|host-config)$")
"""Streamlit's page asks for these under the page's own path first, and then finds them at the root."""
MAPS = "[data-testid=stImage] img"
ALL_DRAWN = f"""count => {{
    const images = [...document.querySelectorAll('{MAPS}')];
    const running = !document.querySelector('[data-test-script-state="notRunning"]');
    return images.length === count && !running && images.every(image => image.complete && image.naturalWidth > 0);
}}"""
ADDRESSES = f"() => [...document.querySelectorAll('{MAPS}')].map(image => image.src)"


def chromium() -> str:
    found = shutil.which("chromium")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("no chromium on the PATH; the build machine must have it (apt-get install chromium)")
    if found is None:
        pytest.skip("no chromium on the PATH (apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def address(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the viewer answers; started from an empty folder, as a user may."""
    chromium()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("anywhere")
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command(tiny_pair.path, port, headless=True), cwd=folder, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health", server, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
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


@pytest.fixture
def page(address: str) -> "Iterator[playwright.Page]":
    """A page that fails the test when it asks another machine for anything or meets an error of its own."""
    requests: list[str] = []
    errors: list[str] = []
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900}, locale="en-US")
        page.on("request", lambda request: requests.append(request.url))
        page.on("websocket", lambda socket: requests.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda answer: errors.append(f"{answer.status} {answer.url}")
                if answer.status >= 400 and not KNOWN_404.search(answer.url) else None)  # fmt: skip
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()
    outside = [url for url in requests if urlparse(url).scheme not in ("data", "blob")
               and urlparse(url).hostname not in ("127.0.0.1", "localhost")]  # fmt: skip
    assert outside == [] and errors == []


def test_maps_are_drawn_stepped_through_and_redrawn(page: "playwright.Page", address: str) -> None:
    page.goto(address)
    page.wait_for_function(ALL_DRAWN, arg=7)
    first = page.evaluate(ADDRESSES)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"first => ({ADDRESSES})()[0] !== first", arg=first[0])
    page.wait_for_function(ALL_DRAWN, arg=7)
    second = page.evaluate(ADDRESSES)
    assert len(set(second) & set(first)) == 0 and "sample=" in page.url
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")  # the slider takes the arrow; the image stays
    page.wait_for_function(f"second => ({ADDRESSES})()[1] !== second", arg=second[1])
    page.wait_for_function(ALL_DRAWN, arg=7)
    third = page.evaluate(ADDRESSES)
    assert third[0] == second[0] and not set(third[1:]) & set(second[1:])
    page.go_back()
    page.wait_for_function(f"first => ({ADDRESSES})()[0] === first", arg=first[0])


def test_a_link_opens_what_it_names_in_its_language(
    page: "playwright.Page", address: str, tiny_pair: MatchedPair
) -> None:
    wanted = tiny_pair.vpt.predictions.ids[2]
    page.goto(f"{address}/?sample={wanted}&target=class:right&lang=ja")
    page.wait_for_function(ALL_DRAWN, arg=7)
    assert wanted in page.evaluate("() => [...document.querySelectorAll('input')].map(input => input.value)")
    assert page.get_by_text("クラスに依存しない").first.is_visible()


def test_the_downloads_are_a_picture_and_raw_maps(page: "playwright.Page", address: str) -> None:
    page.goto(address)
    page.wait_for_function(ALL_DRAWN, arg=7)
    for label, start in (("Picture", b"\x89PNG"), ("Raw maps", b"PK")):
        with page.expect_download() as download:
            page.get_by_role("button", name=label).click()
        assert Path(download.value.path()).read_bytes().startswith(start)

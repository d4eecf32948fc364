"""The viewer in a real browser: how long a reader waits.

    python benchmarks/viewer.py RUN --images FOLDER --into docs/viewer.md

RUN is a trained pair with an archive in RUN/maps (`explain train textile`, `explain attribute RUN textile`); FOLDER
holds images for the synthetic archive of 100,000 that the gallery is measured on. Headless Chromium and the server
share this machine; times are taken by the page itself, from the key or click to the mark that the canvas sets when it
has painted.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from attribution import machine
from page import publish, say, table
from playwright.sync_api import Browser, Page, sync_playwright
from viewer_index import synthetic_archive

from app.server import command
from explain.archive.archive import MapArchive

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
STEPS, DRAGS, STARTS, CLICKS = 100, 60, 5, 15
LOOK_KEPT_MS = 500
"""The panel writes its look into the address a little after the last change."""
CONTROLS = {"opacity": "opacity", "threshold": "threshold", "positive": "colours"}
"""Name of a control in the panel -> what it is called in the table."""

SETTLED = "() => Boolean(document.querySelector('[data-test-script-state=notRunning]'))"

LISTEN = """() => {
    window.begun = 0;
    const begin = () => { window.begun = performance.now(); };
    for (const kind of ["keydown", "click"]) addEventListener(kind, begin, true);
}"""
MARKS = "name => performance.getEntriesByName(name).length"
SINCE = "name => performance.getEntriesByName(name).at(-1).startTime - window.begun"

DRAG = """async ([control, value]) => {
    const root = [...document.querySelectorAll("*")].map((one) => one.shadowRoot)
        .find((one) => one?.querySelector(`[data-control="${control}"]`));
    const input = root.querySelector(`[data-control="${control}"]`);
    const before = performance.getEntriesByName("panel-draw").length;
    const begun = performance.now();
    input.value = value;
    input.dispatchEvent(new Event(input.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
    while (performance.getEntriesByName("panel-draw").length === before) await new Promise(requestAnimationFrame);
    const drawn = performance.getEntriesByName("panel-draw").at(-1);
    return drawn.startTime + drawn.duration - begun;
}"""


@contextmanager
def serving(location: Path, port: int) -> Iterator[str]:
    """A viewer that is up; its address."""
    server = subprocess.Popen(command(location, port, headless=True), cwd=tempfile.gettempdir(),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                with urlopen(f"{address}/_stcore/health"):
                    break
            except URLError:
                time.sleep(0.02)
        yield address
    finally:
        server.terminate()
        server.wait()


def open_page(browser: Browser, url: str) -> Page:
    """A page whose script has ended."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(url)
    page.wait_for_function(SETTLED)
    return page


def next_mark(page: Page, name: str, act: str) -> float:
    """Milliseconds from a key to the next mark of a name."""
    before = page.evaluate(MARKS, name)
    page.keyboard.press(act)
    page.wait_for_function("([name, before]) => performance.getEntriesByName(name).length > before", arg=[name, before])
    return float(page.evaluate(SINCE, name))


def measure_steps(page: Page, count: int) -> tuple[list[float], int]:
    """Milliseconds of every step through the images with the arrow key, and how often zoom and pan were kept."""
    box = page.locator("canvas[role=img]").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    for _ in range(4):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(60)
    page.wait_for_timeout(LOOK_KEPT_MS)
    wanted = look_of(page)
    page.mouse.move(5, 5)
    page.evaluate(LISTEN)
    times, kept = [], 0
    for _ in range(count):
        times.append(next_mark(page, "panel-painted", "ArrowRight"))
        page.wait_for_function(SETTLED)
        page.wait_for_timeout(LOOK_KEPT_MS)
        kept += look_of(page) == wanted
    return times, kept


def look_of(page: Page) -> str:
    """Zoom and pan as the panel writes them into the address."""
    return str(page.evaluate("() => new URL(location.href).searchParams.get('look')"))


def measure_redraws(page: Page, count: int) -> tuple[dict[str, list[float]], int]:
    """Milliseconds from a control's event to the picture, by control; and what was sent to the server meanwhile."""
    sent: list[str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append("frame")))
    page.reload()
    page.wait_for_function(SETTLED)
    page.wait_for_function("() => performance.getEntriesByName('panel-painted').length > 0")
    page.wait_for_timeout(1500)
    sent.clear()
    values = {  # every value differs from the one before: the same again draws nothing
        "opacity": [f"{0.1 + 0.05 * (at * 7 % 17):.2f}" for at in range(count)],
        "threshold": [f"{0.05 + 0.05 * (at * 7 % 17):.2f}" for at in range(count)],
        "positive": [("viridis", "magma", "cividis")[at % 3] for at in range(count)],
    }  # fmt: skip
    times = {control: [float(page.evaluate(DRAG, [control, value])) for value in chosen]
             for control, chosen in values.items()}  # fmt: skip
    page.wait_for_timeout(1000)
    return times, len(sent)


def measure_first(browser: Browser, run: Path, ports: Iterator[int]) -> list[float]:
    """Milliseconds from asking a server that has just come up to its first page, whole."""
    times = []
    for _ in range(STARTS):
        with serving(run, next(ports)) as address:
            begun = time.perf_counter()
            page = open_page(browser, address)
            times.append(1000 * (time.perf_counter() - begun))
            page.close()
    return times


def measure_filters(browser: Browser, address: str) -> list[float]:
    """Milliseconds from a click on an outcome to the thumbnails."""
    page = open_page(browser, f"{address}/gallery")
    page.wait_for_function("() => performance.getEntriesByName('grid-painted').length > 0")
    page.wait_for_timeout(1500)
    page.evaluate(LISTEN)
    times = []
    for turn in range(CLICKS):
        page.get_by_role("combobox").first.click()
        page.wait_for_timeout(400)
        before = page.evaluate(MARKS, "grid-painted")
        page.get_by_role("option").nth(1 + turn % 4).click()
        page.wait_for_function("before => performance.getEntriesByName('grid-painted').length > before", arg=before)
        times.append(float(page.evaluate(SINCE, "grid-painted")))
        page.wait_for_timeout(400)
    page.close()
    return times


def figures(times: list[float]) -> list[str]:
    """Median, 95th percentile and the largest, in milliseconds."""
    return [f"{median(times):.0f}", f"{np.percentile(times, 95):.0f}", f"{max(times):.0f}", str(len(times))]


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a trained pair with an archive in its folder")
    parser.add_argument("--images", type=Path, required=True, help="folder with images for the synthetic archive")
    parser.add_argument("--large", type=Path, help="the synthetic archive, made when it is not there")
    parser.add_argument("--into", type=Path, help="Markdown page that the tables are written into")
    arguments = parser.parse_args()
    large = arguments.large or Path(tempfile.mkdtemp()) / "maps"
    if not (large / "job.json").is_file():
        say(f"making the synthetic archive in {large}")
        synthetic_archive(large, 100_000, sorted(arguments.images.rglob("*.jpg")))
    ports = iter(range(8710, 8800))
    kept = MapArchive(arguments.run / "maps")
    rows = []
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        say("first page")
        rows.append(["first page whole, server just up, ms", *figures(measure_first(browser, arguments.run, ports))])
        with serving(arguments.run, next(ports)) as address:
            say("steps")
            page = open_page(browser, f"{address}/inspect")
            page.wait_for_function("() => performance.getEntriesByName('panel-painted').length > 0")
            measure_steps(page, 5)
            times, zoom_kept = measure_steps(page, STEPS)
            rows.append(["next image, key to painted, ms", *figures(times)])
            say("redraws")
            redraws, sent = measure_redraws(page, DRAGS)
            rows += [[f"{CONTROLS[control]} changed, event to painted, ms", *figures(part)]
                     for control, part in redraws.items()]  # fmt: skip
        with serving(large, next(ports)) as address:
            say("gallery")
            rows.append(["gallery of 100,000: filter, click to thumbnails, ms",
                         *figures(measure_filters(browser, address))])  # fmt: skip
        browser.close()
    facts = machine()
    lines = [f"{facts['cpu']}, {facts['cores']} cores for server and browser together, no GPU; {len(kept):,} images in "
             "the archive of the run.", "",
             *table(["figure", "median", "95th percentile", "largest", "times"], rows),
             f"Zoom and pan kept: {zoom_kept} of {STEPS} steps. Frames sent to the server during "
             f"{3 * DRAGS} redraws: {sent}.", ""]  # fmt: skip
    publish("\n".join(lines), arguments.into)


if __name__ == "__main__":
    sys.exit(main())

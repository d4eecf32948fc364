"""The canvas panel: its payload, its arithmetic against ours, and what a reader does with it in a real browser."""

import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from in_browser import browsing, free_port, serving, settle
from panel_numbers import BROKEN, GRID, HOSTILE, METHODS, MODELS, SIGNED, make_panel, pixels, pooled, values

from app import block
from app.panel import MapCell, show
from app.panel.payload import EXACT_SIDE
from app.server import flags, settings
from explain.errors import InputError
from explain.render.heatmap import colour_bar, format_value, overlay, pool, resize, scale_for

pytestmark = pytest.mark.browser

PAGE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import streamlit as st
from app.panel import show_panel
from panel_numbers import make_panel

st.set_page_config(layout="wide")
number = st.session_state.setdefault("number", int(st.query_params.get("number", 0)))
def step(): st.session_state.number += 1
st.button("Next", shortcut="Right", on_click=step)
show_panel(make_panel(st.session_state.number, st.query_params.get("lang", "en")))
"""
PICTURES = "canvas[role=img]"
PIXELS = """(canvas) => {
    const { width, height } = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    let text = "";
    for (let at = 0; at < data.length; at += 4096) text += String.fromCharCode(...data.subarray(at, at + 4096));
    return [width, height, btoa(text)];
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with nothing but the panel and a button for the next sample."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "one_panel.py").write_text(PAGE)
    port = free_port()
    options = flags(settings() | {"server.port": port, "server.headless": True})
    with serving([sys.executable, "-m", "streamlit", "run", "one_panel.py", *options], folder, port) as found:
        yield found


@pytest.fixture(scope="module")
def browser_page(address: str) -> Iterator[Any]:
    """One browser for all; it needs the address only to be closed before the server is: it would report the loss."""
    with browsing() as page:
        yield page


@pytest.fixture
def sums(browser_page: Any) -> Any:
    """A blank page that has the panel's arithmetic and nothing else."""
    browser_page.goto("about:blank")
    for file in (block.FOLDER / "block.js", show.FOLDER / "values.js", show.FOLDER / "look.js"):
        browser_page.add_script_tag(content=file.read_text("utf-8"))
    return browser_page


@pytest.fixture
def page(browser_page: Any, address: str) -> Any:
    """The panel with sample 0 and the default look."""
    browser_page.goto(f"{address}/_stcore/health")
    browser_page.evaluate("sessionStorage.clear()")
    return open_panel(browser_page, address)


def open_panel(page: Any, address: str, **link: Any) -> Any:
    query = "&".join(f"{key}={value}" for key, value in link.items())
    page.goto(f"{address}/?{query}")
    wait_painted(page, int(link.get("number", 0)))
    page.wait_for_timeout(50)
    return page


def wait_painted(page: Any, number: int) -> None:
    page.locator(f'[data-painted^="folder/{number} "]').wait_for()


def wait_look(page: Any, pattern: str) -> None:
    page.wait_for_url(re.compile(rf"[?&]look=[^&]*{pattern}"))


def as_map(array: np.ndarray) -> dict[str, Any]:
    return {"values": array.ravel().tolist(), "h": array.shape[0], "w": array.shape[1]}


def picture(page: Any, index: int) -> np.ndarray:
    """Pixels of one cell, (h, w, 3)."""
    width, height, data = page.locator(PICTURES).nth(index).evaluate(PIXELS)
    return np.frombuffer(b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def hover(page: Any, row: int, column: int, cell: int = 1) -> list[str]:
    """What every cell says when the pointer is on a patch."""
    box = page.locator(PICTURES).nth(cell).bounding_box()
    page.mouse.move(box["x"] + box["width"] * (column + 0.5) / GRID[1],
                    box["y"] + box["height"] * (row + 0.5) / GRID[0])  # fmt: skip
    page.wait_for_timeout(60)
    return list(page.locator(".readout").all_inner_texts())


def drawn(number: int, model: str, method: str) -> np.ndarray:
    raw = values(number, model, method)
    means = pooled(raw)
    return raw if means is None else means


# the payload and the arithmetic


def test_large_maps_travel_in_steps_of_their_range_and_small_ones_exactly(sums: Any) -> None:
    panel = make_panel(0)
    decoded = sums.evaluate(
        """bytes => {
            const { header, blob } = readPayload(Uint8Array.from(bytes));
            return header.cells.map(cell => [...readMap(cell.values, blob).values]);
        }""",
        list(panel.encode()),
    )
    for cell, found in zip(panel.cells, decoded, strict=True):
        assert cell.values is not None
        exact = max(cell.values.shape) <= EXACT_SIDE
        step = 0 if exact else float(np.ptp(cell.values)) / 65535
        assert np.abs(np.array(found) - cell.values.ravel()).max() <= 0.51 * step


def test_a_payload_that_is_cut_off_is_an_error_and_a_map_that_is_not_finite_too(sums: Any) -> None:
    for length in (3, 20, len(make_panel(0).encode()) - 1):
        error = sums.evaluate(
            """bytes => {
                try {
                    const { header, blob } = readPayload(Uint8Array.from(bytes));
                    header.colormaps.forEach(one => blob(one.table));
                } catch (error) { return error.constructor.name; }
            }""",
            list(make_panel(0).encode()[:length]),
        )
        assert error == "PayloadError"
    with pytest.raises(InputError, match="finite"):
        MapCell("vpt", "grad_cam", np.full((2, 2), np.nan, np.float32))


def test_scales_are_those_of_the_report(sums: Any) -> None:
    for method in METHODS:
        raw, signed = values(0, "ft", method), method in SIGNED
        for clip in (100, 99.5, 80, 50):
            top = sums.evaluate("([v, s, q]) => scaleTop(magnitudes(Float32Array.from(v), s), q)",
                                [raw.ravel().tolist(), signed, clip])  # fmt: skip
            assert top == pytest.approx(scale_for(raw, signed, clip_percentile=clip).high, rel=1e-6)
    assert sums.evaluate("quantileAt([[0, 1], [50, 3], [100, 7]], 75)") == 5
    numbers = [0.0, 12.345, -0.00123, 1234.0, -1.0, 0.5, -4.2e-5, 999.6, 0.00010004]
    assert sums.evaluate("numbers => numbers.map(formatValue)", numbers) == [format_value(n) for n in numbers]


def test_enlarged_and_averaged_values_are_those_of_the_report(sums: Any) -> None:
    coarse, fine = values(0, "vpt", "grad_cam"), values(0, "vpt", "integrated_gradients")
    call = "([map, w, h]) => [...resample(map, [0, 0, 1, 1], [0, 0, 1, 1], w, h, true)]"
    found = np.array(sums.evaluate(call, [as_map(coarse), 50, 40])).reshape(40, 50)
    np.testing.assert_allclose(found, resize(coarse, (40, 50)), atol=1e-6)
    for grid in (GRID, (5, 7)):
        means = sums.evaluate("([map, h, w]) => [...pool(map, h, w).values]", [as_map(fine), *grid])
        np.testing.assert_allclose(np.array(means).reshape(grid), pool(fine, grid), atol=1e-6)
    cropped = sums.evaluate("map => [...resample(map, [0, 0, 1, 1], [0.5, 0, 1, 1], 8, 8, false)]", as_map(coarse))
    cropped = np.array([np.nan if one is None else one for one in cropped], float).reshape(8, 8)
    assert np.isnan(cropped[:, :4]).all() and np.array_equal(cropped[:, 4:], coarse[:, 1::2])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("opacity", [0.0, 0.6, 1.0])
def test_colours_are_those_of_the_report_to_one_step(sums: Any, method: str, opacity: float) -> None:
    raw, signed = values(0, "vpt", method), method in SIGNED
    image = pixels(0)[::8, ::8]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = scale_for(raw, signed)
    name = "RdBu_r" if signed else "cividis"
    found = sums.evaluate(
        """([map, grey, table, shown, look, side]) => {
            const out = new Uint8ClampedArray(4 * grey.length);
            const values = resample(map, [0, 0, 1, 1], [0, 0, 1, 1], side, side, true);
            compose(out, grey, values, table, shown, look);
            return [...out];
        }""",
        [as_map(raw), grey.ravel().tolist(), colour_bar(name, size=(1, 256)).ravel().tolist(),
         {"low": scale.low, "high": scale.high, "signed": signed, "blank": False},
         {"opacity": opacity, "threshold": 0}, len(image)],
    )  # fmt: skip
    expected = overlay(image, raw, opacity, scale, name, signed=signed)
    difference = np.abs(np.array(found).reshape(*grey.shape, 4)[..., :3] - expected.astype(int))
    assert difference.max() <= 3 and np.mean(difference > 1) < 0.01


def test_below_the_threshold_and_where_there_is_no_map_the_image_is_left_as_it_is(sums: Any) -> None:
    call = """([values, shown, threshold]) => {
        const out = new Uint8ClampedArray(4 * values.length);
        const table = new Uint8Array(768).fill(200);
        compose(out, values.map(() => 50), values, table, shown, { opacity: 1, threshold });
        return values.map((_, i) => out[4 * i]);
    }"""
    positive = {"low": 0, "high": 1, "signed": False, "blank": False}
    assert sums.evaluate(call, [[-1, 0, 0.4, 0.5, 2], positive, 0.5]) == [50, 50, 50, 200, 200]
    assert sums.evaluate(call, [[-1, 0.2, 1], positive | {"low": -1, "signed": True}, 0.5]) == [200, 50, 200]
    assert sums.evaluate(call, [[0, 0], positive | {"high": 0, "blank": True}, 0]) == [50, 50]
    assert sums.evaluate(call, [[float("nan"), 0], positive, 0]) == [50, 200]  # beyond what the model saw


def test_a_difference_is_taken_on_the_grid_both_maps_share(sums: Any) -> None:
    first, second = (values(0, model, "integrated_gradients") for model in MODELS)
    call = "([a, b, grid]) => { const d = difference(a, b, grid); return [d.h, d.w, [...d.values]]; }"
    def typed(array: np.ndarray) -> str:
        return f"{{values: Float32Array.from({array.ravel().tolist()}), h: {array.shape[0]}, w: {array.shape[1]}}}"
    h, w, found = sums.evaluate(f"({call})([{typed(first)}, {typed(second)}, [8, 8]])")
    assert (h, w) == first.shape
    np.testing.assert_allclose(found, (first - second).ravel(), atol=1e-7)
    coarse = values(0, "ft", "grad_cam")
    h, w, found = sums.evaluate(f"({call})([{typed(first)}, {typed(coarse)}, [8, 8]])")
    assert (h, w) == GRID
    np.testing.assert_allclose(found, (pool(first, GRID) - coarse).ravel(), atol=1e-6)


def test_iso_lines_of_a_cone_are_a_circle(sums: Any) -> None:
    rows, columns = (np.mgrid[0:64, 0:64] + 0.5) / 64 - 0.5
    cone = 1 - 2 * np.hypot(rows, columns)
    lines = np.array(sums.evaluate("map => isoLines(map, 0.5)", as_map(cone))).reshape(-1, 2)
    radius = np.hypot(*(lines - 0.5).T)
    assert len(lines) > 100 and np.abs(radius - 0.25).max() < 0.01


def test_a_look_survives_the_address_and_what_is_wrong_in_it_is_the_default(sums: Any) -> None:
    known = {"opacity": 0.6, "clip": 99.5, "positive": ["cividis", "viridis"], "signed": ["RdBu_r"]}
    assert sums.evaluate("known => writeLook(defaultLook(known), known)", known) == ""
    text = "vd.es.cviridis.o40.p900.t20.k1.a0.z250.x3100.y6000"
    assert sums.evaluate("([text, known]) => writeLook(readLook(text, known), known)", [text, known]) == text
    wrong = "vX.cjet.o999999999.t-5.z0.<script>..q"
    assert sums.evaluate("([text, known]) => writeLook(readLook(text, known), known)", [wrong, known]) == ""
    at = "(look, [u, v], [x0, y0, x1, y1] = visibleRect(look)) => [x0 + u * (x1 - x0), y0 + v * (y1 - y0)]"
    before, after = sums.evaluate(f"""() => {{
        const at = {at}, look = {{ zoom: 2, x: 0.5, y: 0.5 }}, point = [0.3, 0.6];
        return [at(look, point), at(zoomAbout(look, 1.7, ...point), point)];
    }}""")
    assert after == pytest.approx(before)


def test_calls_that_are_ended_at_once_change_nothing(browser_page: Any, address: str) -> None:
    browser_page.goto(f"{address}/_stcore/health")
    files = [block.FOLDER / "block.js", *(show.FOLDER / f"{name}.js" for name in show.SCRIPTS)]
    script = "\n".join(file.read_text("utf-8") for file in files)
    shown = browser_page.evaluate("""async ([script, ...payloads]) => {
        const place = document.body.appendChild(document.createElement("div"));
        const start = (await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })))).default;
        const [older, newer] = payloads.map((text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
        const call = (data) => start({ data, parentElement: place });
        const settled = async () => {
            await new Promise((done) => setTimeout(done, 500));
            return [...place.querySelectorAll("[data-painted]")].map((panel) => panel.dataset.painted);
        };
        const found = [];
        const overtaken = call(older);
        let newest = call(newer);
        overtaken(); // as streamlit does with payloads that a newer one overtook while the script was loading
        found.push(await settled());
        call(older)(); // the same, come after the newest
        found.push(await settled());
        newest();
        found.push(await settled());
        call(older)();
        newest = call(newer);
        found.push(await settled());
        const unseen = call(older);
        place.remove(); // the page leaves with a payload on its way
        unseen();
        found.push(await settled());
        return found;
    }""", [script, *(b64encode(make_panel(number).encode()).decode() for number in (0, 1))])
    newer = make_panel(1).sample
    assert shown == [[newer], [newer], [], [newer], []]


# what a reader does


def test_the_cells_have_the_colours_of_the_report(page: Any) -> None:
    assert page.locator(PICTURES).count() == 8
    for index, (model, method) in enumerate((m, k) for m in MODELS for k in METHODS):
        found = picture(page, 1 + index + index // 3)
        image = cv2.resize(pixels(0), found.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        expected = overlay(image, drawn(0, model, method), signed=method in SIGNED)
        inside = (slice(3, -3), slice(3, -3))
        difference = np.abs(found[inside].astype(int) - expected[inside])
        assert difference.max() <= 3, f"{model}, {method}: {difference.max()}"


def test_zoom_holds_for_all_cells_and_for_the_next_sample(page: Any) -> None:
    before = [picture(page, index) for index in range(8)]
    box = page.locator(PICTURES).nth(2).bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.wheel(0, -400)
    wait_look(page, "z223")
    after = [picture(page, index) for index in range(8)]
    assert all((old != new).any() for old, new in zip(before, after, strict=True))
    assert np.array_equal(after[0], after[4])  # the input, once per model
    assert np.abs(before[0][77, 77].astype(int) - after[0][77, 77]).max() <= 2  # the point under the pointer stays
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.wait_for_timeout(60)
    at = 0.25 + 0.25 / 2.2255  # of the image; the middle of the view
    place = f"row {1 + int(at * GRID[0])}, col {1 + int(at * GRID[1])}"
    assert page.locator(".readout").first.inner_text() == place
    page.get_by_role("button", name="Next").click()
    wait_painted(page, 1)
    wait_look(page, "z223")
    assert page.locator("[data-control=zoom]").inner_text() == "223 %"
    page.mouse.dblclick(box["x"] + 20, box["y"] + 20)
    page.wait_for_function("() => !location.search.includes('look=')")


def test_sliders_ask_nothing_of_the_server(page: Any, address: str) -> None:
    asked: list[str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda _: asked.append("frame")))
    open_panel(page, address)
    page.wait_for_timeout(600)
    page.on("request", lambda request: asked.append(request.url))
    asked.clear()
    before = picture(page, 1)
    for name, key in (("opacity", "ArrowLeft"), ("threshold", "ArrowRight")):
        page.locator(f"input[data-control={name}]").focus()
        for _ in range(6):
            page.keyboard.press(key)
    for name in ("difference", "swipe", "blink", "side", "contour", "grid", "average"):
        page.locator(f"button[data-control={name}]").click()
    page.locator("select[data-control=scope]").select_option("sample")
    wait_look(page, "o30")
    page.wait_for_timeout(200)
    # the browser looks for the tab's icon on its own whenever the address changes
    assert (picture(page, 1) != before).any() and [what for what in asked if "favicon" not in what] == []


def test_the_pointer_reads_every_cell_at_once(page: Any) -> None:
    row, column = 2, 5
    said = hover(page, row, column)
    place = f"row {row + 1}, col {column + 1}"
    expected = [f"{place}: {format_value(float(drawn(0, model, method)[row, column]))}"
                for model in MODELS for method in METHODS]  # fmt: skip
    assert said[0] == said[4] == place and said[1:4] + said[5:] == expected
    assert page.locator(".pointed .mark").count() == 8
    page.mouse.move(2, 2)
    page.wait_for_timeout(60)
    assert page.locator(".pointed").count() == 0


def test_the_difference_is_of_raw_values_on_the_scale_both_share(page: Any) -> None:
    page.locator("button[data-control=difference]").click()
    assert page.locator(PICTURES).count() == 12 and page.locator(".row-head").last.inner_text() == "VPT\n−\nFT"
    said = hover(page, 4, 1)
    for index, method in enumerate(METHODS):
        first, second = (drawn(0, model, method) for model in MODELS)
        expected = float(np.float32(first[4, 1]) - np.float32(second[4, 1]))
        assert said[9 + index].endswith(f": {format_value(expected)}")
        high = scale_for([first, second], method in SIGNED).high
        ends = page.locator("figure").nth(9 + index).locator(".end").all_inner_texts()
        assert ends == [format_value(-high), format_value(high)]


def test_a_shared_scale_has_the_same_ends_for_every_model(page: Any) -> None:
    ends = "figure:nth-of-type({}) .end"
    alone = [page.locator(ends.format(index)).last.inner_text() for index in (2, 6)]
    assert alone[0] != alone[1] and "each map its own" in page.locator(".scale").inner_text()
    page.locator("select[data-control=scope]").select_option("sample")
    shared = [page.locator(ends.format(index)).last.inner_text() for index in (2, 6)]
    high = scale_for([drawn(0, model, "grad_cam") for model in MODELS], False).high
    assert shared == [format_value(high)] * 2 and "shared by the models" in page.locator(".scale").inner_text()
    assert page.locator("option[value=dataset]").is_disabled()


def test_a_link_restores_the_look(page: Any, address: str) -> None:
    open_panel(page, address, look="vw.es.o30.cviridis.g1.z200")
    assert page.locator("input[data-control=opacity]").input_value() == "0.3"
    assert page.locator("select[data-control=positive]").input_value() == "viridis"
    assert page.locator("button[data-control=swipe]").get_attribute("aria-pressed") == "true"
    assert page.locator("button[data-control=grid]").get_attribute("aria-pressed") == "true"
    assert page.locator("[data-control=zoom]").inner_text() == "200 %"
    page.keyboard.press("Tab")
    page.locator(PICTURES).nth(1).focus()
    page.keyboard.press("O")
    wait_look(page, "o40")
    page.reload()
    wait_painted(page, 0)
    assert page.locator("input[data-control=opacity]").input_value() == "0.4"


def test_swipe_shows_one_model_on_each_side_of_a_line_that_is_dragged(page: Any) -> None:
    alone = [picture(page, 1), picture(page, 5)]
    page.locator("button[data-control=swipe]").click()
    page.wait_for_timeout(80)
    box = page.locator(PICTURES).nth(1).bounding_box()
    y = box["y"] + 0.8 * box["height"]
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], y, steps=4)
    page.mouse.up()
    wait_look(page, "w2[45]")
    both = picture(page, 1)
    line = int(0.25 * both.shape[1])
    band = slice(40, 120)  # below the names, above the grip
    assert np.array_equal(both[band, : line - 8], alone[0][band, : line - 8])
    assert np.array_equal(both[band, line + 8 :], alone[1][band, line + 8 :])


def test_blink_is_still_where_less_motion_is_asked_for_until_it_is_chosen(page: Any, address: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    try:
        open_panel(page, address, look="vb")
        before = picture(page, 1)
        page.wait_for_timeout(1200)
        assert np.array_equal(before, picture(page, 1))
        page.locator("button[data-control=blink]").click()
        page.wait_for_function("""() => performance.getEntriesByName('panel-draw').length > 0""")
        seen = set()
        for _ in range(8):
            seen.add(picture(page, 1).tobytes())
            page.wait_for_timeout(180)
        assert len(seen) == 2
    finally:
        page.emulate_media(reduced_motion="no-preference")


def test_keys_work_on_the_picture_and_leave_the_arrows_to_the_page_unless_zoomed(page: Any) -> None:
    page.locator(PICTURES).nth(1).click()
    for key in ("c", "g"):
        page.keyboard.press(key)
    wait_look(page, "k1.g1")
    assert page.get_by_role("dialog").count() == 0  # streamlit's own C clears caches
    page.keyboard.press("ArrowRight")
    wait_painted(page, 1)
    page.locator(PICTURES).nth(1).click()
    page.keyboard.press("+")
    wait_look(page, "z140")
    page.keyboard.press("ArrowRight")
    wait_look(page, "x6")
    page.keyboard.press("Shift+ArrowDown")
    assert "row" in page.locator(".live").inner_text()
    page.locator("input[data-control=opacity]").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Next").click()  # one step in all: the slider's arrow was none
    wait_painted(page, 2)
    settle(page)
    page.wait_for_timeout(300)
    assert page.locator('[data-painted^="folder/2 "]').count() == 1


def test_what_is_missing_blank_or_unreadable_is_told_in_its_place(page: Any, address: str) -> None:
    open_panel(page, address, number=1)
    assert page.locator(".no-map").all_inner_texts() == ["GradCAM had no gradient."]
    assert page.locator(".blank").all_inner_texts() == ["blank map"]
    assert page.locator(".flag").all_inner_texts() == ["FAILED"]
    assert page.locator("button[data-control=region]").get_attribute("hidden") is None
    open_panel(page, address, number=BROKEN)
    assert page.locator(PICTURES).count() == 0
    assert "cannot be decoded" in page.locator(".no-map").first.inner_text()


def test_pictures_can_be_saved_and_names_in_them_are_only_text(page: Any, tmp_path: Path) -> None:
    assert page.locator("script:not([src])", has_text="alert(1)").count() == 0
    assert page.locator(".answer").first.inner_text() == HOSTILE
    files = {}
    for kind in ("PNG", "SVG"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind).click()
        name = download.value.suggested_filename
        assert re.fullmatch(r"[\w.-]+\." + kind.lower(), name)
        download.value.save_as(tmp_path / name)
        files[kind] = tmp_path / name
    drawing = ElementTree.parse(files["SVG"]).getroot()
    tags = [element.tag.rpartition("}")[2] for element in drawing.iter()]
    assert set(tags) == {"svg", "title", "rect", "image", "text"} and tags.count("image") == 8 + 6
    said = " ".join("".join(element.itertext()) for element in drawing.iter() if element.tag.endswith("text"))
    assert "<script>alert(1)</script>" in said and "GradCAM" in said and "each map its own" in said
    saved = cv2.imread(str(files["PNG"]))
    assert saved.shape[1] == 2 * round(float(drawing.get("width", "0")))


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_control_has_a_name_and_no_text_is_missing(page: Any, address: str, lang: str) -> None:
    open_panel(page, address, lang=lang)
    page.locator("[data-control=more]").click()
    named = page.evaluate("""() => {
        const host = [...document.querySelectorAll('*')].find(one => one.shadowRoot?.querySelector('.panel'));
        const panel = host.shadowRoot.querySelector('.panel');
        return [...panel.querySelectorAll('button, input, select, canvas[role=img]')].map(one =>
            one.getAttribute('aria-label') || one.innerText || one.labels?.[0]?.innerText || '');
    }""")
    assert len(named) > 25 and all(named) and not [name for name in named if "undefined" in name or "{" in name]
    shown = page.locator(".panel").inner_text()
    assert "undefined" not in shown and "{" not in shown.replace(HOSTILE, "")

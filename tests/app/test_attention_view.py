"""The page "Attention": its numbers are those of the methods, and what a reader does on the canvas reaches the link."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from in_browser import browsing, settle, viewing
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

import explain
from app import attention, maps, worker
from app.attention import HEAD, Captured, capture, query_rows, roll_out
from app.attention_grid import Large, Model, Sheet
from app.attention_grid.small_maps import small_maps, tops
from app.opening import Opened
from explain.archive.manifest import Entry
from explain.convolutional import ConvolutionalModel
from explain.engine import open_image
from explain.errors import CaptureError, InputError
from explain.model import TunedModel
from explain.render.attention_plots import TokenShares, token_shares_figure
from explain.training.pair import MatchedPair


@pytest.fixture(scope="module")
def image(tiny_pair: MatchedPair) -> Entry:
    sample = tiny_pair.data.by_id[tiny_pair.split.test[0]]
    return Entry(sample.id, sample.path, sample.label, sample.sha256, sample.mask)


@pytest.fixture(scope="module")
def captured(tiny_pair: MatchedPair, image: Entry) -> dict[str, Captured]:
    return {arm: capture(tiny_pair.runs[arm].model, image) for arm in ("vpt", "ft")}


def shallow() -> TunedModel:
    """Registers, prompts that travel, a grid that is not square, a head that averages patches."""
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=(48, 64), depth=4, reg_tokens=3,
                            global_pool="avg")  # fmt: skip
    return explain.tune(vit, "prompt", num_tokens=5, deep=False, blocks="1-2").eval()


@pytest.fixture(scope="module", params=["vpt", "ft", "shallow"])
def subject(request: pytest.FixtureRequest, tiny_pair: MatchedPair) -> TunedModel:
    return shallow() if request.param == "shallow" else tiny_pair.runs[request.param].model


@pytest.mark.parametrize(("fusion", "residual"), [("mean", 0.5), ("mean", 0.0), ("max", 0.3), ("min", 0.5)])
def test_the_last_rollout_is_exactly_the_methods_map(
    subject: TunedModel, image: Entry, fusion: str, residual: float
) -> None:
    found = roll_out(subject, capture(subject, image), fusion, residual)
    options = {"attention_rollout": {"head_fusion": fusion, "residual": residual}}
    expected = explain.attribute(subject, [image.path], methods="attention_rollout", options=options)
    expected = expected["attention_rollout"]
    assert found.maps.shape == (subject.num_blocks, *expected.values.shape[1:])
    assert np.array_equal(found.maps[-1], expected.values[0])
    assert not np.array_equal(found.maps[-2], found.maps[-1])
    for name, values in found.extras.items():
        assert values[-1] == expected.extras[name][0]


def test_shares_of_a_rollout_to_every_block_sum_to_one(subject: TunedModel, image: Entry) -> None:
    found = roll_out(subject, capture(subject, image), "mean", 0.5)
    total = found.maps.sum(axis=(1, 2)) + sum(found.extras[f"{name}_share"] for name in ("cls", "register", "prompt"))
    assert np.allclose(total, 1, atol=1e-5)


def test_rows_of_the_head_are_those_of_raw_attention(subject: TunedModel, image: Entry) -> None:
    whole = capture(subject, image)
    found = small_maps(query_rows(whole, HEAD), "mean", prompts=True)
    blocks, columns = found.values.shape[:2]
    for block in range(blocks):
        for head in range(columns):
            options = {"layer": block, "head": head if head < columns - 1 else None}
            expected = explain.attribute(subject, [image.path], methods="raw_attention",
                                         options={"raw_attention": options})["raw_attention"]  # fmt: skip
            assert np.allclose(found.values[block, head], expected.values[0], rtol=1e-4, atol=1e-7)
            own = [expected.extras[f"{name}_share"][0] for name in ("cls", "register", "prompt")]
            assert np.allclose(found.shares[block, head, :3], own, rtol=1e-4, atol=1e-7)
    assert np.allclose(found.shares.sum(axis=2), 1, atol=1e-5) and np.allclose(found.null.sum(axis=1), 1)


def test_a_patchs_row_is_the_one_that_the_blocks_compute(subject: TunedModel, image: Entry) -> None:
    """Against queries and keys taken from the blocks themselves, in a model that leaves nothing out."""
    pixels = subject.transform.normalise(subject.transform.pixels(open_image(image)))[None]
    whole = capture(subject, image)
    layout, place = whole.layout, (whole.layout.grid[0] - 1, 1)
    found = query_rows(whole, attention.patch_name(*place))
    with torch.no_grad(), subject.capture() as trace:
        subject(pixels)
    number = place[0] * layout.grid[1] + place[1]
    for block, recorded in enumerate(trace.attention):
        patches_last = recorded[0, :, recorded.shape[2] - layout.patches + number]  # patches end every sequence
        assert np.allclose(found.rows[block], patches_last, atol=1e-6)
        assert np.allclose(found.rows[block].sum(axis=1), 1, atol=1e-5)


def test_without_prompts_every_head_sums_to_one_over_the_other_tokens(captured: dict[str, Captured]) -> None:
    rows = query_rows(captured["vpt"], HEAD)
    on, off = (small_maps(rows, "mean", prompts=prompts) for prompts in (True, False))
    assert on.prompts[0].shape[1] == 3 and off.prompts[0].shape[1] == 0
    assert (on.shares[..., 2] > 0).all() and not off.shares[..., 2].any() and not off.null[:, 2].any()
    assert np.allclose(off.shares.sum(axis=2), 1, atol=1e-5)
    left = (1 - on.shares[:, :-1, 2])[..., None, None]
    assert np.allclose(off.values[:, :-1] * left, on.values[:, :-1], atol=1e-7)


def test_the_last_column_fuses_the_heads(captured: dict[str, Captured]) -> None:
    rows = query_rows(captured["ft"], HEAD)
    for fusion, function in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        found = small_maps(rows, fusion, prompts=True)
        assert np.allclose(found.values[:, -1], function(found.values[:, :-1], axis=1))
        assert np.isnan(found.shares[:, -1]).all() == (fusion != "mean")


def test_scales_are_shared_as_chosen(captured: dict[str, Captured]) -> None:
    found = [small_maps(query_rows(part, HEAD), "mean", prompts=True) for part in captured.values()]
    whole, block, single = (tops(found, scope) for scope in ("all", "block", "map"))
    assert len({float(value) for part in whole for value in part.ravel()}) == 1
    assert np.array_equal(block[0], block[1]) and (block[0].max(axis=1) == block[0].min(axis=1)).all()
    assert len(np.unique(block[0])) == len(block[0])
    expected = np.percentile(found[1].values[2, 1], 99.5)
    assert single[1][2, 1] == pytest.approx(expected) and len(np.unique(single[1])) > len(single[1])


def test_a_patch_outside_the_grid_is_an_error_in_words(captured: dict[str, Captured]) -> None:
    with pytest.raises(InputError, match="r1c1 to r4c4, got 'r5c1'"):
        query_rows(captured["ft"], "r5c1")


def test_too_much_attention_is_not_kept_but_computed_again(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, image: Entry, captured: dict[str, Captured]
) -> None:
    monkeypatch.setattr(worker, "the_worker", lambda kept=worker.Worker(): kept)
    calls = []
    monkeypatch.setattr(attention, "capture", lambda *given: calls.append(given) or capture(*given))
    opened = Opened(str(tiny_pair.path), tiny_pair, None)
    expected = {query: query_rows(captured["ft"], query) for query in (HEAD, "r2c3", "r4c4")}

    def ask(query: str) -> None:
        the_worker = worker.the_worker()
        the_worker.wish("somebody", [attention.rows_work(opened, image, "ft", query, "rows")])
        until = time.monotonic() + 60
        while attention.ready_rows(opened, image, "ft", query) is None and time.monotonic() < until:
            time.sleep(0.02)
        found = attention.ready_rows(opened, image, "ft", query)
        assert isinstance(found, attention.QueryRows)
        assert all(map(np.array_equal, found.rows, expected[query].rows))

    monkeypatch.setattr(attention, "KEPT_BYTES", 0)
    ask(HEAD)
    assert attention.ready_rows(opened, image, "ft", "r2c3") is None
    ask("r2c3")
    assert len(calls) == 2
    monkeypatch.undo()
    monkeypatch.setattr(worker, "the_worker", lambda kept=worker.Worker(): kept)
    ask(HEAD)
    at_once = attention.ready_rows(opened, image, "ft", "r4c4")  # from what is kept
    assert isinstance(at_once, attention.QueryRows)


def test_a_sheet_holds_its_numbers_exactly() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((2, 3, 4, 5)).astype(np.float32)
    prompts = (rng.random((3, 2)).astype(np.float32), np.zeros((3, 0), np.float32))
    model = Model("VPT <b>", "#0072B2", values, np.ones((2, 3), np.float32), prompts)
    sheet = Sheet(np.zeros((8, 10, 3), np.uint8), (model,), ("1", "2"), ("1", "2", "Mean"), ("a", "b", "c"),
                  {"lang": "en"}, Large(1, 2, (0, 3)))  # fmt: skip
    data = sheet.encode()
    start_of_blobs = 4 + int.from_bytes(data[:4], "little")
    header = json.loads(data[4:start_of_blobs])
    place = header["models"][0]["values"]
    blob = data[start_of_blobs + place["offset"] :][: place["length"]]
    assert np.array_equal(np.frombuffer(blob, "<f4").reshape(place["shape"]), values)
    assert header["models"][0]["prompts"][1]["length"] == 0 and header["large"]["query"] == [0, 3]
    with pytest.raises(InputError, match=r"\(2, 3, 4, 5\)"):
        Model("VPT", "#0072B2", values, np.ones((3, 2), np.float32), prompts)


def test_the_figure_shows_only_kinds_that_are_there_each_beside_uniform(captured: dict[str, Captured]) -> None:
    found = {arm: small_maps(query_rows(part, HEAD), "mean", prompts=True) for arm, part in captured.items()}
    figure = token_shares_figure({arm: TokenShares(part.shares[:, :-1], part.null) for arm, part in found.items()})
    assert [note.text for note in figure.layout.annotations] == ["to the CLS token", "to prompt tokens", "to patches"]
    panels = [trace.xaxis or "x" for trace in figure.data if trace.hovertemplate]
    assert panels.count("x2") == 1 and panels.count("x") == panels.count("x3") == 2  # FT has no prompts
    uniform = [trace for trace in figure.data if trace.line.dash == "dash" and trace.xaxis == "x2"]
    assert len(uniform) == 1 and np.allclose(uniform[0].y, 100 * 3 / (1 + 3 + 16))


# ---- the page


def followed(test: AppTest, link: dict[str, str]) -> AppTest:
    """The page after a link to it was opened; the first page of a test has taken another one."""
    test.query_params.clear()
    test.query_params.update(link)
    return test.run()


def opened_page(monkeypatch: pytest.MonkeyPatch, run: Path, **link: str) -> AppTest:
    """The page, opened by a link, once the worker has found what it shows or it says why there is nothing."""
    test = followed(start(monkeypatch, run, "attention", lang=link.get("lang", "en")), link)
    until = time.monotonic() + 120
    while not (test.exception or test.error) and len(test.get("bidi_component")) < 2:
        assert time.monotonic() < until, "the page showed neither its maps nor an error in time"
        time.sleep(0.2)
        test.run()
    return test


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_page_shows_heads_shares_and_rollout(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, lang: str
) -> None:
    page = opened_page(monkeypatch, tiny_pair.path, lang=lang)
    assert not page.exception and not page.error and not page.warning
    assert len(page.get("bidi_component")) == 2 and len(page.get("plotly_chart")) == 1
    shown = texts(page)
    words = {"en": ("class-agnostic", "share one scale: 0 to", "P/N", "CLS token"),
             "ja": ("クラスに依存せず", "全マップ共通の尺度：0～", "P/N", "CLS トークン")}[lang]  # fmt: skip
    assert [word for word in words if word not in shown] == []
    assert page.slider(key="upto").value == tiny_pair.vpt.model.num_blocks


def test_a_link_gives_query_cell_block_and_choices_back(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    link = {"query": "r2c3", "cell": "b3h2", "upto": "5", "fusion": "max", "residual": "0.25", "map_scale": "map",
            "show_prompts": "0", "models": "ft,vpt"}  # fmt: skip
    page = opened_page(monkeypatch, tiny_pair.path, **link)
    assert not page.exception and not page.error and not page.warning
    shown = texts(page)
    assert "patch in row 2, column 3" in shown and "renormalised" in shown and "its own scale" in shown
    assert page.slider(key="upto").value == 5 and page.slider(key="residual").value == 0.25
    assert {key: page.query_params[key] for key in link} == link
    page.button(key="query_back").click().run()
    assert page.session_state["query"] == HEAD and "query" not in page.query_params


def test_a_query_that_is_no_token_is_said(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    page = followed(start(monkeypatch, tiny_pair.path, "attention"), {"query": "<b>cls"})
    assert not page.exception and not page.error
    assert "<b>cls" in page.warning[0].value.replace("\\", "") and page.session_state["query"] == HEAD
    page = opened_page(monkeypatch, tiny_pair.path, query="r9c9")
    assert not page.exception and "r1c1 to r4c4" in page.error[0].value.replace("\\", "")


def test_a_model_without_attention_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, image: Entry
) -> None:
    network = timm.create_model("resnet10t", num_classes=2).eval()
    convolutional = ConvolutionalModel(network, tiny_pair.ft.model.transform)
    with pytest.raises(CaptureError, match="no attention"):
        capture(convolutional, image)
    monkeypatch.setattr(maps, "load_model", lambda run: convolutional)
    monkeypatch.setattr(worker, "the_worker", lambda kept=worker.Worker(): kept)
    page = start(monkeypatch, tiny_pair.path, "attention")
    until = time.monotonic() + 60
    while not page.error and not page.exception and time.monotonic() < until:
        time.sleep(0.2)
        page.run()
    assert not page.exception and len(page.error) == 1 and "no attention to look at" in page.error[0].value


def test_an_archive_alone_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    folder = tmp_path / "maps"
    explain.attribute_dataset({"ft": tiny_pair.ft.model}, [image.path for image in tiny_pair.data.samples[:2]],
                              out=folder, methods="grad_cam")  # fmt: skip
    page = start(monkeypatch, folder, "attention")
    assert not page.exception and not page.error and not page.get("bidi_component")
    assert [code.value for code in page.code] == ["explain view RUN"]


@pytest.mark.browser
def test_what_is_done_on_the_canvas_reaches_the_link(tiny_pair: MatchedPair, tmp_path: Path) -> None:
    with viewing(tiny_pair.path, tmp_path) as address, browsing() as page:
        page.goto(f"{address}/attention?map_scale=block")
        grid = page.locator(".with-small[data-drawn] .field canvas")
        grid.wait_for()
        settle(page)
        sample = page.evaluate("new URL(location).searchParams.get('sample')")
        large = page.locator(".with-small .frame canvas[tabindex]")
        assert "Block 12, mean over heads" in large.first.get_attribute("aria-label")
        grid.focus()
        for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "Enter"):  # the first shows where the keyboard is
            page.keyboard.press(key)
        page.wait_for_url("**cell=b11h3**")
        settle(page)
        assert "VPT · Block 11, head 3 · largest" in page.locator(".with-small .readout").inner_text()
        assert "Block 11, head 3" in large.nth(1).get_attribute("aria-label")
        box = large.nth(1).bounding_box()
        assert box is not None
        large.nth(1).click(position={"x": 0.6 * box["width"], "y": 0.3 * box["height"]})
        page.wait_for_url("**query=r2c3**")
        page.get_by_text("patch in row 2, column 3").wait_for()
        settle(page)
        assert page.locator(".with-small .asked:visible").count() == 2
        large.first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_url("**query=r2c4**")
        settle(page)
        assert page.evaluate("new URL(location).searchParams.get('sample')") == sample  # no arrow stepped on

"""The gallery: filters, pages, thumbnails, and the way to an image."""

import io
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_browser import browsing, settle, viewing
from PIL import Image
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

import explain
from app import thumbnails
from app.opening import Opened
from app.thumbnails import SIDE, Overlay, thumbnails_of
from explain.archive.archive import MapArchive
from explain.reviews import Reviews, write_review
from explain.training.pair import MatchedPair, load_pair

METHODS = ("grad_cam", "integrated_gradients", "attention_rollout")


@pytest.fixture(scope="module")
def kept(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    """A copy of the pair with an archive of its test images."""
    folder = tmp_path_factory.mktemp("gallery") / "pair"
    shutil.copytree(tiny_pair.path, folder)
    pair = load_pair(folder)
    explain.attribute_dataset(pair, pair.test, out=folder / "maps", options={"integrated_gradients": {"n_steps": 2}})
    return pair


@pytest.fixture
def opened(kept: MatchedPair) -> Opened:
    thumbnails._plain.clear()
    thumbnails._overlaid.clear()
    return Opened(str(kept.path), kept, MapArchive(kept.path / "maps"))


def grid(test: AppTest) -> dict[str, Any]:
    """What the grid was given: the header of its block of bytes."""
    (found,) = test.get("bidi_component")
    data = found.proto.bytes
    return dict(json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")]))


def names(test: AppTest) -> list[str]:
    return [cell["name"] for cell in grid(test)["cells"]]


# ---- thumbnails


def test_a_thumbnail_is_a_small_jpeg_of_its_image(opened: Opened) -> None:
    name = opened.pair.test.samples[0].id
    (found,) = thumbnails_of(opened, [name], None)
    small = Image.open(io.BytesIO(found.data))
    assert small.format == "JPEG" and max(small.size) <= SIDE and found.trouble == "" and found.map == ""
    original = np.asarray(Image.open(opened.image(name).path).convert("RGB"), float)
    assert np.abs(np.asarray(small, float).mean((0, 1)) - original.mean((0, 1))).max() < 3


@pytest.mark.parametrize("method", METHODS)
def test_a_map_lies_over_the_image(opened: Opened, method: str) -> None:
    rows = [sample.id for sample in opened.pair.test.samples]
    plain, mapped = thumbnails_of(opened, rows, None), thumbnails_of(opened, rows, Overlay("vpt", method))
    drawn = [one.map == "" and one.data != two.data for one, two in zip(mapped, plain, strict=True)]
    blank = [one.map == "blank" and one.data == two.data for one, two in zip(mapped, plain, strict=True)]
    assert all(a or b for a, b in zip(drawn, blank, strict=True)) and any(drawn)


def test_a_broken_and_a_missing_file_give_their_reasons_and_the_others_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    rows = [sample.id for sample in opened.pair.test.samples[:3]]
    real = Opened.image
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    files = {rows[0]: broken, rows[1]: tmp_path / "gone.png"}
    monkeypatch.setattr(Opened, "image", lambda self, name: (
        replace(real(self, name), path=files.get(name, real(self, name).path))))  # fmt: skip
    first, second, third = thumbnails_of(opened, rows, Overlay("vpt", "grad_cam"))
    assert first.data == second.data == b"" and first.trouble and "no such file" in second.trouble.lower()
    assert third.data and not third.trouble
    shutil.copy(real(opened, rows[0]).path, files[rows[1]])  # it is there again: a reason is not kept
    assert thumbnails_of(opened, rows, None)[1].data


def test_a_page_of_slow_files_is_shown_piece_by_piece(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [sample.id for sample in opened.pair.test.samples]
    small = thumbnails._small
    monkeypatch.setattr(thumbnails, "_small", lambda entry: time.sleep(0.05) or small(entry))
    turns = []
    while not turns or None in turns[-1]:
        turns.append(thumbnails_of(opened, rows, None, budget_s=0.12))
    there = [sum(one is not None for one in turn) for turn in turns]
    assert len(turns) > 1 and there == sorted(there) and there[0] >= 1 and there[-1] == len(rows)


def test_a_large_jpeg_is_read_at_a_fraction_of_its_size(tmp_path: Path) -> None:
    from explain.data.decode import ImageRejected, decode

    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (1200, 1600, 3)).copy()).save(tmp_path / "large.jpg")
    whole, draft = decode(tmp_path / "large.jpg"), decode(tmp_path / "large.jpg", draft=128)
    assert whole.image.size == (1600, 1200) and draft.image.size == (200, 150) and draft.flags == whole.flags
    assert np.abs(np.asarray(whole.image.resize((200, 150)), float) - np.asarray(draft.image, float)).max() < 12
    Image.new("RGB", (8000, 7000)).save(tmp_path / "bomb.jpg")
    with pytest.raises(ImageRejected, match="bomb"):
        decode(tmp_path / "bomb.jpg", draft=128)


# ---- the page


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("view", ["grid", "table"])
def test_both_views_show_what_a_filter_leaves(
    monkeypatch: pytest.MonkeyPatch, kept: MatchedPair, lang: str, view: str
) -> None:
    page = start(monkeypatch, kept.path, "gallery", lang=lang, gallery=view, find="0", sort="vpt_confidence", down="1")
    assert not page.exception and not page.error and not page.warning
    answers = kept.runs["vpt"].predictions
    order = sorted(zip(answers.probabilities.max(axis=1), answers.ids, strict=True), reverse=True)
    expected = [name for _, name in order if "0" in name]
    if view == "grid":
        assert names(page) == expected
    else:
        assert page.dataframe[0].value.iloc[:, 0].tolist() == expected
    assert f"**{len(expected)}**" in texts(page)


def test_a_cell_tells_truth_answers_and_what_it_is_sorted_by(
    monkeypatch: pytest.MonkeyPatch, kept: MatchedPair
) -> None:
    page = start(monkeypatch, kept.path, "gallery", sort="vpt_confidence")
    answers = kept.runs["vpt"].predictions
    for cell in grid(page)["cells"]:
        row = answers.ids.index(cell["name"])
        share = answers.probabilities[row].max()
        first, second = cell["answers"]
        assert (first["model"], second["model"]) == ("VPT", "FT") and first["right"] == bool(answers.correct[row])
        classes = kept.vpt.manifest.class_names
        assert first["text"] == f"{classes[answers.classes[row]]} {100 * share:.0f} %"
        assert cell["truth"] == f"Truth: {classes[answers.labels[row]]}"
        assert cell["value"] == f"{100 * share:.1f} % · Confidence"
        assert cell["href"].startswith("inspect?") and "sort=vpt_confidence" in cell["href"]


def test_a_filter_goes_to_the_first_page_and_its_counts_are_true(
    monkeypatch: pytest.MonkeyPatch, kept: MatchedPair
) -> None:
    page = start(monkeypatch, kept.path, "gallery", page="7")
    assert len(names(page)) == 8 and not page.warning
    (outcome,) = [box for box in page.selectbox if box.key == "outcome"]
    for label, value in zip(outcome.options, ["all", "only_first", "only_second", "both_wrong", "both_right",
                                              "disagree", "failed"], strict=True):  # fmt: skip
        found = start(monkeypatch, kept.path, "gallery", outcome=value)
        shown = len(names(found)) if found.get("bidi_component") else 0
        assert label.endswith(f"({shown})")


def test_nothing_found_says_which_filter_to_drop_and_drops_it(
    monkeypatch: pytest.MonkeyPatch, kept: MatchedPair
) -> None:
    page = start(monkeypatch, kept.path, "gallery", find="nothing of this name", **{"class": "left"})
    assert not page.get("bidi_component") and "Drop one of them" in page.info[0].value
    labels = {button.key: button.label for button in page.button if button.key and button.key.startswith("drop")}
    assert labels["drop_find"].endswith("(4)") and "drop_class" not in labels and labels["drop_all"].endswith("(8)")
    page.button(key="drop_find").click().run()
    assert len(names(page)) == 4 and all(name.startswith("left/") for name in names(page))
    page.button(key="reset").click().run()
    assert len(names(page)) == 8


def test_reviewed_images_are_found_by_what_was_said(
    monkeypatch: pytest.MonkeyPatch, kept: MatchedPair, tmp_path: Path
) -> None:
    folder = tmp_path / "reviewed"
    shutil.copytree(kept.path, folder)
    name = kept.test.samples[2].id
    write_review(Reviews(folder), name, sha256=None, models={}, verdict="wrong_place", tags=("seam <b>",))
    assert names(start(monkeypatch, folder, "gallery", verdict="wrong_place")) == [name]
    assert names(start(monkeypatch, folder, "gallery", tag="seam <b>")) == [name]
    assert len(names(start(monkeypatch, folder, "gallery", verdict="none"))) == 7


def test_maps_on_thumbnails_say_whose_they_are_and_on_which_scale(
    monkeypatch: pytest.MonkeyPatch, kept: MatchedPair
) -> None:
    page = start(monkeypatch, kept.path, "gallery", over="ft.attention_rollout")
    shown = texts(page)
    assert "FT, Attention rollout" in shown and "its own scale" in shown and "Class-agnostic" in shown
    assert "NOT RUN" in shown


# ---- in a browser


@pytest.mark.browser
def test_in_a_browser(kept: MatchedPair, tmp_path: Path) -> None:
    with viewing(kept.path, tmp_path) as address, browsing() as page:
        page.goto(f"{address}/gallery?sort=gap")
        cells = page.locator("a.cell")
        page.wait_for_selector("[data-painted='8']")
        assert cells.count() == 8
        assert page.evaluate("""() => [...document.querySelectorAll('*')].flatMap(one => one.shadowRoot
            ? [...one.shadowRoot.querySelectorAll('a.cell img')] : []).every(img => img.naturalWidth > 0)""")
        cells.nth(0).focus()
        for key, at in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 7), ("Home", 0)):
            page.keyboard.press(key)
            assert page.evaluate("""() => { let one = document.activeElement;
                while (one.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
                return one.dataset.name; }""") == cells.nth(at).get_attribute("data-name")  # fmt: skip
        name = cells.nth(0).get_attribute("data-name")
        page.keyboard.press("Enter")
        page.wait_for_url("**/inspect?**")
        settle(page)
        assert name in page.locator("body").inner_text() and "sort=gap" in page.url
        page.get_by_role("link", name="Gallery").click()
        page.wait_for_selector("[data-painted='8']")
        page.get_by_label("Which images").first.click()
        page.get_by_role("option", name="Both right").first.click()
        page.wait_for_url("**outcome=both_right**")

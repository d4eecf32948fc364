"""The page "Own image": bringing images, what is said of them, and what stays with whom."""

import io
import json
import time

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest
from viewer_app import start, texts

from app import maps, uploads, widgets
from app.maps import Wanted
from app.opening import Opened
from app.worker import Ticket, the_worker
from explain.data.decode import decode_bytes
from explain.engine import attribute
from explain.training.pair import MatchedPair

PATIENCE_S = 60.0


def png(seed: int = 0, size: int = 64) -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def bring(test: AppTest, *files: tuple[str, bytes]) -> AppTest:
    assert not test.exception
    test.file_uploader[0].set_value([(name, data, "application/octet-stream") for name, data in files])
    return settled(test.run())


def settled(test: AppTest) -> AppTest:
    """The page once the worker has done all that it wished for, as its progress line runs it again."""
    end = time.monotonic() + PATIENCE_S
    while not test.get("download_button") or any(button.key == "stop_work" for button in test.button):
        assert not test.exception and time.monotonic() < end, texts(test)
        time.sleep(0.2)
        test.run()
    return test


def cells(test: AppTest) -> list[str]:
    return [str(cell) for table in test.table for row in table.value.values.tolist() for cell in row]


def button(test: AppTest, key: str) -> bool:
    return any(each.key == key for each in test.button)


def test_an_image_is_answered_and_explained_by_both_models(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    test = bring(start(monkeypatch, tiny_pair.path, "own_image"), ("mine.png", png(1)))
    assert not test.exception and not test.error and "mine.png" in texts(test) and "64 × 64 px" in texts(test)
    assert "can only answer one of: left, right" in texts(test)
    vpt = attribute(tiny_pair.vpt.model, [decode_bytes(png(1)).image], methods="grad_cam")["grad_cam"]
    share = f"**{100 * vpt.probabilities[0].max():.1f} %**"
    assert share in cells(test)
    upload = uploads.take("mine.png", png(1))
    assert isinstance(upload, uploads.Upload)
    opened = Opened(str(tiny_pair.path), tiny_pair, None)
    found = maps.ready(opened, upload.entry, Wanted("vpt", "grad_cam", int(vpt.targets[0])))
    np.testing.assert_allclose(found.values, vpt.values, rtol=1e-4, atol=1e-7)
    # the same bytes again: nothing is left to compute, whoever brings them
    other = start(monkeypatch, tiny_pair.path, "own_image")
    other.file_uploader[0].set_value([("other name.png", png(1), "image/png")])
    other.run()
    assert other.get("download_button") and not button(other, "stop_work")


def test_a_map_of_a_file_is_the_map_of_the_same_file_in_the_data_set(tiny_pair: MatchedPair) -> None:
    opened = Opened(str(tiny_pair.path), tiny_pair, None)
    entry = opened.image(tiny_pair.split.test[0])
    upload = uploads.take("x.png", entry.path.read_bytes())
    assert isinstance(upload, uploads.Upload)
    wanted = Wanted("ft", "grad_cam", 1)
    work = uploads.mapping(opened, tiny_pair.ft, upload, wanted, "")
    assert work.key == maps.key_of(opened, entry, wanted)
    own, theirs = work.run(Ticket()), maps.work_of(opened, entry, wanted, "").run(Ticket())
    np.testing.assert_array_equal(own.values, theirs.values)
    said = uploads.judging(tiny_pair.ft, upload, "").run(Ticket())
    np.testing.assert_allclose(said.probabilities, theirs.probabilities[0], rtol=1e-4)
    assert said.grid == (4, 4) and uploads.find_twin(opened, upload) == (entry.id, "test")


def test_refused_files_are_listed_with_reasons_and_the_good_ones_go_through(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    name = "<b>x</b> [a](javascript:1) $y$.svg"
    test = bring(start(monkeypatch, tiny_pair.path, "own_image"), (name, b"<svg/>"), ("0.png", b""), ("ok.png", png(2)))
    warning = next(element.value for element in test.warning if "cannot be used: 2" in element.value)
    assert r"\[a\]\(javascript\:1\) \$y\$\.svg" in warning
    assert "not a JPEG, PNG" in warning and "the file is empty" in warning
    assert "ok.png" in texts(test) and not test.error
    test = bring(test, ("third.png", png(3)))
    assert not [element for element in test.warning if "cannot be used" in element.value]
    assert button(test, "own_choose_1") and "**third.png**" in texts(test)
    settled(next(each for each in test.button if each.key == "own_choose_0").click().run())
    assert "**ok.png**" in texts(test)


def test_images_can_be_forgotten(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    test = bring(start(monkeypatch, tiny_pair.path, "own_image"), ("a.png", png(1)), ("b.png", png(2)))
    settled(next(each for each in test.button if each.key == "own_remove").click().run())
    assert "**b.png**" in texts(test) and list(test.session_state[uploads.SHELF].images) and not test.exception
    next(each for each in test.button if each.key == "own_remove").click().run()
    assert not test.session_state[uploads.SHELF].images and not test.table and not test.exception


def test_sessions_do_not_see_each_others_images(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    bring(start(monkeypatch, tiny_pair.path, "own_image"), ("secret name.png", png(1)))
    other = start(monkeypatch, tiny_pair.path, "own_image")
    assert "secret name" not in texts(other) and not other.table


def test_a_test_image_can_be_tried_and_is_recognised(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    test = start(monkeypatch, tiny_pair.path, "own_image")
    samples = [each for each in test.button if str(each.key).startswith("own_sample_")]
    assert [each.label for each in samples] == ["left", "right", "left", "right"]
    settled(samples[1].click().run())
    assert "This very file is in the data set: right/" in texts(test) and "(test image)" in texts(test)


def test_the_class_that_is_explained_can_be_chosen_and_is_linked(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    link = {"own_target": "class:right", "methods": "grad_cam", "models": "ft,linear"}
    test = start(monkeypatch, tiny_pair.path, "own_image", **link)
    test.query_params.update(link)
    test = bring(test, ("a.png", png(1)))
    entry = uploads.take("a.png", png(1)).entry
    opened = Opened(str(tiny_pair.path), tiny_pair, None)
    found = [maps.ready(opened, entry, Wanted(model, "grad_cam", 1)) for model in ("ft", "linear")]
    assert [int(part.targets[0]) for part in found] == [1, 1]
    assert test.query_params == link
    header = json.dumps([list(table.value.columns) for table in test.table])
    assert "FT" in header and "Linear probe" in header and "VPT" not in header


def test_an_archive_without_its_pair_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair
) -> None:
    archive_alone = Opened("maps", None, None)
    monkeypatch.setattr(widgets, "open_location", lambda: archive_alone)
    monkeypatch.setattr(widgets, "show_header", lambda t, opened: None)
    test = start(monkeypatch, tiny_pair.path, "own_image")
    assert [code.value for code in test.code] == ["explain view RUN"] and not test.file_uploader and not test.exception


def test_a_model_that_fails_is_said_in_words(monkeypatch: pytest.MonkeyPatch, tiny_pair: MatchedPair) -> None:
    from explain.errors import InputError

    upload = uploads.take("bad.png", png(7))
    assert isinstance(upload, uploads.Upload)
    key = uploads.judging(tiny_pair.vpt, upload, "").key
    test = start(monkeypatch, tiny_pair.path, "own_image")
    the_worker().keep(key, InputError("expected *this*, got that"))
    test.file_uploader[0].set_value([("bad.png", png(7), "image/png")])
    end = time.monotonic() + PATIENCE_S
    while not test.run().error:
        assert time.monotonic() < end
    assert "expected *this*, got that" in texts(test) and not test.exception

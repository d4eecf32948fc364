"""Attribution: values that can be saved, cut and resized without changing their meaning."""

import base64
import io
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_vits import tiny_images, tiny_vit

from explain.attribution import Attribution
from explain.engine import attribute
from explain.errors import InputError, IntegrityError
from explain.methods.base import METHODS
from explain.tuning.base import tune
from explain.wrapping import wrap


def example(count: int = 3) -> Attribution:
    generator = np.random.default_rng(0)
    return Attribution(
        "grad_cam",
        generator.normal(size=(count, 2, 3)).astype(np.float32),
        np.arange(count),
        generator.normal(size=(count, 4)).astype(np.float32),
        (16, 24),
        {"layer": None},
        {"gap": generator.random(count).astype(np.float32), "ok": np.array([True, False, True])[:count]},
        {"device": "cpu", "versions": {"torch": "2"}},
    )


def assert_equal(left: Attribution, right: Attribution) -> None:
    for name in ("values", "targets", "logits"):
        assert getattr(left, name).dtype == getattr(right, name).dtype
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.extras.keys() == right.extras.keys()
    for name, values in left.extras.items():
        np.testing.assert_array_equal(values, right.extras[name])
    for name in ("method", "image_size", "options", "provenance"):
        assert getattr(left, name) == getattr(right, name)


def test_what_is_saved_is_loaded_equal(tmp_path: Path) -> None:
    example().save(tmp_path / "maps.safetensors")
    assert_equal(Attribution.load(tmp_path / "maps.safetensors"), example())


@pytest.mark.parametrize("method", list(METHODS))
def test_what_the_engine_gives_is_saved_whole(method: str, tmp_path: Path) -> None:
    options = {"integrated_gradients": {"n_steps": 2, "baseline": np.zeros((24, 32, 3), np.uint8)}}
    options = {name: given for name, given in options.items() if name == method}
    model = tune(tiny_vit(), "prompt", num_tokens=2)
    found = attribute(model, tiny_images(), methods=method, options=options)[method]
    found.save(tmp_path / "maps.safetensors")
    assert_equal(Attribution.load(tmp_path / "maps.safetensors"), found)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"values": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="holds no attribution"):
        Attribution.load(tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(IntegrityError, match="not a readable safetensors file"):
        Attribution.load(tmp_path / "cut.safetensors")
    with pytest.raises(IntegrityError, match="is missing"):
        Attribution.load(tmp_path / "none.safetensors")


def test_resizing_interpolates_between_patch_centres() -> None:
    """A ramp of patch values stays a ramp between the outer centres and is flat beyond them."""
    ramp = np.array([[[0.0, 1.0, 2.0]]], np.float32)
    found = Attribution("m", ramp, np.zeros(1, int), np.zeros((1, 2)), (4, 12)).resized((4, 12))
    centres = np.clip((np.arange(12) + 0.5) / 4 - 0.5, 0, 2)
    assert found.shape == (1, 4, 12) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], np.broadcast_to(centres, (4, 12)), atol=1e-6)


def test_resizing_keeps_rows_rows_and_signs_signs() -> None:
    values = np.zeros((1, 2, 3), np.float32)
    values[0, 0, 2], values[0, 1, 0] = -5, 7
    found = Attribution("m", values, np.zeros(1, int), np.zeros((1, 2)), (20, 30)).resized((20, 30))[0]
    assert found[:5, 25:].max() < -3 and found[15:, :5].min() > 4 and np.abs(found[:5, :5]).max() < 2
    np.testing.assert_array_equal(example().resized((2, 3)), example().values)


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, 4, 4)])
def test_an_impossible_size_is_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected a size \(H, W\)"):
        example().resized(size)


def test_images_can_be_picked_and_keep_their_company() -> None:
    whole = example()
    second, rest = whole[1], whole[[0, 2]]
    assert len(second) == 1 and len(rest) == 2 and len(whole[-2:]) == 2
    np.testing.assert_array_equal(rest.values, whole.values[[0, 2]])
    np.testing.assert_array_equal(rest.extras["gap"], whole.extras["gap"][[0, 2]])
    np.testing.assert_array_equal(whole[np.array([False, True, False])].logits, second.logits)
    assert second.targets.tolist() == [1] and second.provenance == whole.provenance


def test_predictions_and_probabilities_follow_from_the_logits() -> None:
    whole = example()
    expected = np.exp(whole.logits) / np.exp(whole.logits).sum(1, keepdims=True)
    np.testing.assert_allclose(whole.probabilities, expected, rtol=1e-6)
    np.testing.assert_array_equal(whole.predictions, whole.logits.argmax(1))


def test_a_notebook_shows_pictures_and_numbers() -> None:
    found = attribute(wrap(tiny_vit()), tiny_images(8), methods="attention_rollout")["attention_rollout"]
    html = found._repr_html_()
    assert html.count("<img") == 6 and "and 2 more" in html and "cls_share" in html
    assert "attention_rollout: 8 maps of 3×4" in html
    picture = Image.open(io.BytesIO(base64.b64decode(html.split("base64,")[1].split('"')[0])))
    assert picture.size == (4, 3)


def test_colours_of_the_small_picture_follow_the_sign() -> None:
    values = np.array([[[1.0, -1.0], [0.0, 0.5]]], np.float32)
    one = Attribution("any", values, np.zeros(1, int), np.zeros((1, 2), np.float32), (2, 2))
    data = one._repr_html_().split("base64,")[1].split('"')[0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert pixels.tolist() == [[[255, 0, 0], [0, 0, 255]], [[255, 255, 255], [255, 127, 127]]]


def test_xarray_names_the_axes_or_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    fake = ModuleType("xarray")
    fake.Dataset = lambda own, attrs: made.append((own, attrs)) or "dataset"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xarray", fake)
    assert example().to_xarray() == "dataset"
    own, attrs = made[0]
    assert own["values"][0] == ("image", "y", "x") and own["logits"][0] == ("image", "class")
    assert all(len(axes) == part.ndim for axes, part in own.values()) and attrs["method"] == example().method
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match="pip install xarray"):
        example().to_xarray()

import colorsys
from pathlib import Path

import cv2
import numpy as np
import pytest

from explain.data import synthetic
from explain.data.base import load_data
from explain.data.decode import decode, load_mask
from explain.data.synthetic import TASKS, draw_picture
from explain.errors import DatasetError


def contract_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, int], None]:
    monkeypatch.setenv("EXPLAIN_CACHE", str(folder / "cache"))
    return "synthetic:count:15", dict.fromkeys("12345", 3), None


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("number", range(40))
def test_mask_of_counting_has_as_many_pieces_as_the_class_says(number):
    _, mask, label = draw_picture("count", number)
    pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    assert pieces == int(TASKS["count"].class_names[label])


@pytest.mark.parametrize("number", range(45))
def test_object_lies_wholly_inside_the_field_of_its_class(number):
    _, mask, label = draw_picture("position", number)
    words = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
    down, right = divmod(words.index(TASKS["position"].class_names[label]), 3)
    field = mask[32 * down : 32 * down + 32, 32 * right : 32 * right + 32]
    assert field.sum() == mask.sum() > 15


@pytest.mark.parametrize("number", range(48))
def test_main_axis_of_the_bar_is_within_its_class_of_angles(number):
    _, mask, label = draw_picture("orientation", number)
    down, right = np.nonzero(mask)
    spread = np.cov(np.stack([right, -down]))  # -down: angles count counter-clockwise as seen
    axis = np.linalg.eigh(spread)[1][:, -1]
    angle = np.degrees(np.arctan2(axis[1], axis[0]))
    off = (angle - float(TASKS["orientation"].class_names[label].rstrip("°")) + 90) % 180 - 90
    assert abs(off) < 8 + 1.5  # the corners are rounded to whole pixels
    assert 0 < down.min() and down.max() < 95 and 0 < right.min() and right.max() < 95


def unpainted(monkeypatch: pytest.MonkeyPatch, task: str, number: int) -> np.ndarray:
    """The same picture without any object, drawn with the same random numbers."""
    with monkeypatch.context() as patched:
        patched.setattr(synthetic, "_paint", lambda picture, shape, colour, draw: draw.uniform(0, 1))
        return draw_picture(task, number)[0]


@pytest.mark.parametrize("task", ["position", "orientation"])
def test_mask_is_exactly_what_the_object_changed(monkeypatch, task):
    for number in range(10):
        picture, mask, _ = draw_picture(task, number)
        changed = (picture != unpainted(monkeypatch, task, number)).any(-1)
        np.testing.assert_array_equal(changed, mask)


def test_every_counted_object_is_reddish_and_there_are_others_outside_the_mask(monkeypatch):
    reddish_others = 0
    for number in range(30):
        picture, mask, label = draw_picture("count", number)
        changed = (picture != unpainted(monkeypatch, "count", number)).any(-1)
        assert changed[mask].all()
        others = cv2.connectedComponents((changed & ~mask).astype(np.uint8), connectivity=8)[0] - 1
        assert 2 <= others <= 5
        hues = {}
        for what, region in (("counted", mask), ("other", changed & ~mask)):
            count, pieces = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
            means = [picture[pieces == piece].mean(0) / 255 for piece in range(1, count)]
            hues[what] = [(colorsys.rgb_to_hsv(*mean)[0] + 0.5) % 1 - 0.5 for mean in means]
        assert len(hues["counted"]) == label + 1
        assert all(-0.06 < hue < 0.08 for hue in hues["counted"])
        reddish_others += sum(-0.06 < hue < 0.08 for hue in hues["other"])
    assert reddish_others > 20  # so that colour alone does not count


@pytest.mark.parametrize("task", list(TASKS))
def test_smaller_set_is_the_beginning_of_a_larger_one(task):
    small, large = load_data(f"synthetic:{task}:9"), load_data(f"synthetic:{task}:20")
    known = [(sample.id, sample.sha256, sample.label) for sample in large.samples]
    assert [(sample.id, sample.sha256, sample.label) for sample in small.samples] == known[:9]
    assert small.class_names == large.class_names == TASKS[task].class_names
    assert max(large.counts().values()) - min(large.counts().values()) <= 1


def test_files_hold_the_pictures_and_masks_that_were_drawn():
    dataset = load_data("synthetic:orientation:8")
    for number, sample in enumerate(dataset.samples):
        picture, mask, label = draw_picture("orientation", number)
        np.testing.assert_array_equal(np.asarray(decode(sample.path).image), picture)
        np.testing.assert_array_equal(load_mask(sample.mask, (96, 96), root=dataset.root), mask)
        assert sample.label == label


def test_300_images_are_drawn_when_no_number_is_given(monkeypatch):
    few = [draw_picture("count", number) for number in range(5)]
    monkeypatch.setattr(synthetic, "draw_picture", lambda task, number: few[number % 5])
    assert len(load_data("synthetic:count")) == 300


def test_drawing_leaves_the_global_random_state_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    draw_picture("count", 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("location", "message"),
    [("synthetic:colour", "a task of count, position, orientation, got 'synthetic:colour'"),
     ("synthetic:", "expected synthetic:TASK"),
     ("synthetic:count:many", "expected synthetic:TASK"),
     ("synthetic:count:4", "5 to 100,000 images, got 4"),
     ("synthetic:count:100001", "got 100,001")],
)  # fmt: skip
def test_name_that_cannot_be_drawn_says_what_can(location, message):
    with pytest.raises(DatasetError, match=message):
        load_data(location)

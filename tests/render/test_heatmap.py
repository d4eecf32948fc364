"""Colours of known values, and scales that do not flatter a map."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.render.heatmap import (
    NOT_UNIFORM,
    POSITIVE_COLORMAPS,
    Scale,
    colour,
    colour_bar,
    format_value,
    is_blank,
    overlay,
    pool,
    resize,
    scale_for,
)

RAMP = np.linspace(0, 1, 5, dtype=np.float32)[None]


def test_cividis_of_a_ramp_is_golden_rgb() -> None:
    expected = [[0, 34, 78], [67, 78, 108], [125, 124, 120], [187, 173, 109], [254, 232, 56]]
    assert colour(RAMP, Scale(0, 1)).tolist() == [expected]


def test_signed_colours_are_blue_white_red_in_rgb_order() -> None:
    low, middle, high = colour(np.array([[-2.0, 0.0, 2.0]], np.float32), Scale(-2, 2), signed=True)[0]
    assert low.tolist() == [5, 48, 97] and high.tolist() == [103, 0, 31]
    assert middle.min() > 240


def test_values_beyond_the_scale_take_the_end_colours() -> None:
    ends = colour(np.array([[-9.0, 0.0, 1.0, 9.0]], np.float32), Scale(0, 1))[0]
    assert (ends[0] == ends[1]).all() and (ends[2] == ends[3]).all()


def test_positive_scale_starts_at_zero_and_ignores_negatives() -> None:
    scale = scale_for(np.array([[-50.0, 1.0, 4.0]]), False, clip_percentile=100)
    assert (scale.low, scale.high, scale.scope) == (0.0, 4.0, "map")


def test_a_nearly_flat_map_looks_nearly_flat() -> None:
    flat = np.full((4, 4), 1.0, np.float32)
    flat[0, 0] = 1.01
    shown = colour(flat, scale_for(flat, False)).astype(int)
    assert np.abs(shown - shown[3, 3]).max() <= 6


def test_signed_scale_is_symmetric_about_zero() -> None:
    scale = scale_for(np.array([[-3.0, 1.0]]), True, clip_percentile=100)
    assert (scale.low, scale.high) == (-3.0, 3.0)


def test_one_scale_for_several_maps_covers_the_largest() -> None:
    maps = [np.full((2, 2), 1.0), np.full((2, 2), 5.0)]
    assert scale_for(maps, False, "sample", clip_percentile=100) == Scale(0.0, 5.0, "sample")


def test_one_hot_pixel_does_not_set_the_scale() -> None:
    values = np.ones((100, 100), np.float32)
    values[0, 0] = 1000
    assert scale_for(values, False).high == 1.0
    only = np.zeros((100, 100), np.float32)
    only[0, 0] = 1000
    assert scale_for(only, False).high == 1000.0


@pytest.mark.parametrize(
    ("values", "signed", "blank"),
    [([[0.0, 0.0]], False, True), ([[-1.0, 0.0]], False, True), ([[-1.0, 0.0]], True, False), ([[0.0]], True, True)],
)
def test_blank_maps_are_told_apart(values: list[list[float]], signed: bool, blank: bool) -> None:
    array = np.array(values, np.float32)
    assert is_blank(array, signed) is blank
    colour(array, scale_for(array, signed), signed=signed)  # and still have a picture


def test_blank_signed_map_is_white() -> None:
    zeros = np.zeros((2, 2), np.float32)
    assert colour(zeros, scale_for(zeros, True), signed=True).min() > 240


def test_enlarging_agrees_with_attribution_resized() -> None:
    from explain.attribution import Attribution

    values = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
    maps = Attribution("m", values, np.zeros(1, np.int64), np.zeros((1, 2), np.float32), (28, 42))
    np.testing.assert_allclose(resize(values[0], (28, 42)), maps.resized((28, 42))[0], atol=1e-5)


def test_pooling_is_the_mean_of_each_cell() -> None:
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_allclose(pool(values, (2, 2)), [[2.5, 4.5], [10.5, 12.5]])


def test_overlay_mixes_by_opacity() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    ones = np.ones((1, 1), np.float32)
    assert (overlay(image, ones, 0.0) == 100).all()
    assert overlay(image, ones, 1.0)[0, 0].tolist() == [254, 232, 56]
    assert overlay(image, ones, 0.5)[0, 0].tolist() == [177, 166, 78]


def test_overlay_of_no_evidence_leaves_a_signed_picture_as_it_is() -> None:
    image = np.full((4, 4, 3), 90, np.uint8)
    values = np.array([[0.0, 1.0]], np.float32)
    shown = overlay(image, values, 1.0, signed=True)
    assert (shown[:, 0] == 90).all() and shown[0, 3].tolist() == [103, 0, 31]


def test_overlay_leaves_its_image_alone() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    before = image.copy()
    overlay(image, np.ones((2, 2), np.float32), grid=(2, 2), grey=False)
    assert (image == before).all()


def test_colour_bar_runs_from_low_to_high() -> None:
    bar = colour_bar(size=(3, 5))
    assert bar.shape == (3, 5, 3)
    assert (bar[0] == colour(RAMP, Scale(0, 1))[0]).all()


def test_jet_comes_last_and_is_marked() -> None:
    assert POSITIVE_COLORMAPS[-1] == "jet" and "jet" in NOT_UNIFORM


def test_legend_text() -> None:
    assert format_value(0.0) == "0"
    assert Scale(-0.01234, 0.01234).ends == ("\u22120.0123", "0.0123")


def test_wrong_input_is_refused() -> None:
    ones = np.ones((2, 2), np.float32)
    for call in (
        lambda: colour(np.full((2, 2), np.nan), Scale(0, 1)),
        lambda: colour(np.ones((1, 2, 2)), Scale(0, 1)),
        lambda: colour(ones, Scale(0, 1), "no_such_table"),
        lambda: overlay(np.ones((2, 2, 3)), ones),  # type: ignore[arg-type]
        lambda: overlay(np.ones((2, 2, 3), np.uint8), ones, 1.5),
        lambda: scale_for(ones, False, "galaxy"),  # type: ignore[arg-type]
        lambda: pool(ones, (4, 4)),
    ):
        with pytest.raises(InputError):
            call()

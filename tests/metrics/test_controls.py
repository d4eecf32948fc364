"""Control maps: what they show, and that nothing but the image and its seed decides them."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.metrics.controls import CENTRE_SIGMA, CONTROL_LABELS, control_maps

GRID = (3, 4)


def images(count: int = 2, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def test_every_control_has_a_label_and_maps_of_the_grid() -> None:
    found = control_maps(images(), GRID, [0, 1])
    assert list(found) == list(CONTROL_LABELS)
    for maps in found.values():
        assert maps.shape == (2, *GRID) and maps.dtype == np.float32 and (maps >= 0).all()


def test_the_random_map_depends_on_the_seed_of_its_image_alone() -> None:
    first = control_maps(images(3), GRID, ["a", "b", "c"])["random"]
    again = control_maps(255 - images(2), GRID, ["c", "a"])["random"]
    assert (again == first[[2, 0]]).all()
    assert (first[0] != first[1]).all()
    plain, numpy = (control_maps(images(1), GRID, [seed])["random"] for seed in (7, np.int64(7)))
    assert (plain == numpy).all()
    drawn = control_maps(images(1), GRID, [np.random.default_rng(3)])["random"][0]
    assert (drawn == np.random.default_rng(3).random(GRID, dtype=np.float32)).all()


def test_random_maps_are_uniform_and_leave_the_global_generator_alone() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    noise = control_maps(images(40), (8, 8), range(40))["random"]
    assert (np.random.get_state()[1] == before).all()
    assert noise.mean() == pytest.approx(0.5, abs=0.03) and noise.std() == pytest.approx(12**-0.5, abs=0.02)


def test_the_centre_map_falls_off_with_the_distance_in_pixels() -> None:
    centre = control_maps(images(1), GRID, [0])["centre"][0]
    assert (centre == centre[::-1, ::-1]).all()
    # patch centres of 8 pixels: (1, 1) lies 4 px from the middle, (0, 1) 8 px up and 4 px left
    sigma = CENTRE_SIGMA * 24
    assert centre[1, 1] == pytest.approx(np.exp(-(4**2) / (2 * sigma**2)))
    assert centre[0, 1] == pytest.approx(np.exp(-(4**2 + 8**2) / (2 * sigma**2)))


def test_edges_of_a_step_lie_in_the_patches_beside_it() -> None:
    step = np.zeros((1, 24, 32, 3), dtype=np.uint8)
    step[:, :, 12:] = 255  # inside the second column of patches
    edges = control_maps(step, GRID, [0])["sobel"][0]
    # the kernel's columns sum to 4 on the two pixels beside the step: 2 of 8 pixels at 4 each
    assert edges[:, 1] == pytest.approx([1.0] * 3) and (edges[:, [0, 2, 3]] == 0).all()


def test_edges_are_the_gradient_of_the_grey_image_averaged_over_patches() -> None:
    picture = images(1)
    grey = picture[0].astype(float) @ (0.299, 0.587, 0.114) / 255
    padded = np.pad(grey, 1, mode="reflect")
    across = np.zeros_like(grey)
    down = np.zeros_like(grey)
    for offset, weight in zip(range(3), (1, 2, 1), strict=True):
        across += weight * (padded[offset : offset + 24, 2:] - padded[offset : offset + 24, :-2])
        down += weight * (padded[2:, offset : offset + 32] - padded[:-2, offset : offset + 32])
    expected = np.sqrt(across**2 + down**2).reshape(3, 8, 4, 8).mean(axis=(1, 3))
    assert control_maps(picture, GRID, [0])["sobel"][0] == pytest.approx(expected, rel=1e-4)


def test_an_image_of_one_colour_has_no_edges() -> None:
    plain = np.full((1, 24, 32, 3), (10, 200, 77), dtype=np.uint8)
    assert not control_maps(plain, GRID, [0])["sobel"].any()


def test_wrong_images_seeds_and_grids_are_refused() -> None:
    good = images(1)
    for pixels, grid, seeds in [
        (good / 255.0, GRID, [0]), (good[0], GRID, [0]), (good[..., :1], GRID, [0]), (good, (25, 4), [0]),
        (good, GRID, [0, 1]), (good, GRID, [None]),
    ]:  # fmt: skip
        with pytest.raises(InputError, match="expected"):
            control_maps(pixels, grid, seeds)

"""Pixels averaged over patches: by area, in their own type, and never over a finer grid."""

import numpy as np
import pytest

from explain.errors import InputError
from explain.metrics.patch_grid import patch_means


def test_a_cell_is_the_mean_of_its_pixels() -> None:
    values = np.random.default_rng(0).standard_normal((3, 6, 8))
    expected = values.reshape(3, 2, 3, 4, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(patch_means(values, (2, 4)), expected, rtol=1e-6)


def test_a_pixel_on_a_border_counts_to_both_cells_by_area() -> None:
    np.testing.assert_allclose(patch_means(np.array([[[0.0, 3.0, 6.0]]]), (1, 2)), [[[1.0, 5.0]]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_grid_itself_is_left_as_it_is(dtype: type) -> None:
    values = np.random.default_rng(1).random((2, 3, 4)).astype(dtype)
    found = patch_means(values, (3, 4))
    assert found.dtype == dtype and np.array_equal(found, values)


@pytest.mark.parametrize(("shape", "grid"), [((2, 3, 4), (4, 4)), ((2, 3, 4), (0, 2)), ((3, 4), (1, 2))])
def test_a_finer_grid_or_another_shape_is_refused(shape: tuple[int, ...], grid: tuple[int, int]) -> None:
    with pytest.raises(InputError):
        patch_means(np.ones(shape), grid)

import io

import numpy as np
import pytest
from PIL import Image

from explain.data.png import png_bytes
from explain.errors import InputError


# the last two need several stored blocks of 65,535 bytes
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (28, 28), (9, 13, 3), (255, 256), (255, 257), (300, 310, 3)])
def test_pillow_reads_back_every_pixel(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.open(io.BytesIO(png_bytes(pixels)))
    image.verify()  # checks every checksum
    image = Image.open(io.BytesIO(png_bytes(pixels)))
    assert image.mode == ("L" if len(shape) == 2 else "RGB")
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_rows_that_are_not_contiguous_are_written_as_seen():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    assert png_bytes(pixels[::2, ::-1]) == png_bytes(pixels[::2, ::-1].copy())


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_other_types_and_shapes_are_refused(pixels):
    with pytest.raises(InputError, match="expected uint8 pixels"):
        png_bytes(pixels)

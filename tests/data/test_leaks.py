import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from explain.data import leaks
from explain.data.base import Dataset, load_data
from explain.data.leaks import Leaks, find_leaks, perceptual_hashes
from explain.data.split import Split


def texture(seed: int) -> Image.Image:
    """A smooth colourful picture of 64x64 pixels that no other seed resembles."""
    noise = np.random.default_rng(seed).random((7, 7, 3))
    pixels = 255 * np.clip(cv2.resize(noise, (64, 64), interpolation=cv2.INTER_CUBIC), 0, 1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def album(tmp_path: Path) -> Dataset:
    """Two classes of eight textures, and copies of some in another form."""
    for number in range(16):
        folder = tmp_path / "album" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        texture(number).save(folder / f"{number:02}.png")
    a, b = tmp_path / "album/a", tmp_path / "album/b"
    (b / "same.png").write_bytes((a / "00.png").read_bytes())
    texture(2).save(a / "jpeg.jpg", quality=60)
    texture(3).resize((40, 40), Image.Resampling.BICUBIC).save(a / "small.png")
    for name, level in (("black.png", 0), ("dark.png", 1)):
        Image.new("RGB", (64, 64), (level,) * 3).save(b / name)
    return load_data(tmp_path / "album")


def split(album: Dataset, *, val: tuple[str, ...] = (), test: tuple[str, ...] = ()) -> Split:
    train = tuple(name for name in album.by_id if name not in val + test)
    return Split(train, val, test, 0)


def test_copies_are_found_with_kind_part_and_labels(album):
    found = find_leaks(album, split(album, val=("a/jpeg.jpg",), test=("b/same.png", "a/small.png", "a/04.png")))
    seen = [(leak.part, leak.held_out, leak.train, leak.kind, leak.other_label) for leak in found.pairs]
    assert seen == [
        ("test", "a/small.png", "b/03.png", "same picture", True),
        ("test", "b/same.png", "a/00.png", "same bytes", True),
        ("val", "a/jpeg.jpg", "a/02.png", "same picture", False),
    ]
    assert (found.val_images, found.test_images, found.unhashed) == (1, 3, 0)
    assert found.sentence == (
        "2 of 3 test images and 1 of 1 validation images also among the training images: 1 with the same bytes, "
        "2 as another file of the same picture; 2 under another label."
    )
    assert Leaks.model_validate_json(found.model_dump_json()) == found


def test_pictures_that_only_share_a_split_are_no_leak(album):
    test = tuple(name for name in album.by_id if name[2:4].isdigit() and int(name[2:4]) >= 8)
    found = find_leaks(album, split(album, test=test))
    assert found.pairs == ()
    assert found.sentence == "No validation or test image is also among the training images."


def test_pictures_of_one_colour_have_no_hash_and_are_not_called_alike(album):
    found = find_leaks(album, split(album, test=("b/black.png",)))
    assert found.pairs == ()
    assert found.unhashed == 1


def test_progress_counts_every_decoded_image(album):
    seen = []
    find_leaks(album, split(album, test=("a/00.png",)), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(album)) for done in range(1, len(album) + 1)]


def random_thumbnails(count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((count, 8, 8))
    return np.stack([(255 * cv2.resize(each, (32, 32))).astype(np.uint8) for each in noise])


def test_hash_bits_are_those_of_the_cosine_transform_written_out():
    thumbnails = random_thumbnails(20, 0)
    position = np.arange(32)
    waves = [np.cos(math.pi * (2 * position + 1) * u / 64) for u in range(8)]
    basis = np.stack(waves) * np.sqrt(np.array([1, 2, 2, 2, 2, 2, 2, 2]) / 32)[:, None]
    for thumbnail, bits in zip(thumbnails, perceptual_hashes(thumbnails), strict=True):
        low = (basis @ thumbnail.astype(float) @ basis.T).ravel()
        median = sorted(low[1:])[31]
        sure = np.abs(low - median) > 1e-2  # the median itself is decided by rounding
        assert sure.sum() >= 60
        np.testing.assert_array_equal(bits[sure], (low > median)[sure])


def test_hash_ignores_brightness_and_contrast():
    thumbnails = random_thumbnails(20, 1) // 4
    changed = perceptual_hashes(3 * thumbnails + 40) != perceptual_hashes(thumbnails)
    assert changed[:, 1:].sum() == 0


@pytest.mark.parametrize(("rows", "pairs"), [(1, 1), (3, 2), (1000, 1000)])
def test_pairs_are_those_of_comparing_each_with_each(monkeypatch, rows, pairs):
    train = random_thumbnails(30, 2)
    rng = np.random.default_rng(3)
    held = np.concatenate([train[:12], random_thumbnails(8, 4)])
    strength = np.linspace(0, 40, 20)[:, None, None]
    held = np.clip(held + strength * rng.standard_normal(held.shape), 0, 255).astype(np.uint8)
    expected = []
    for row, first in enumerate(perceptual_hashes(held)):
        for column, second in enumerate(perceptual_hashes(train)):
            distance = int((first != second).sum())
            correlation = np.corrcoef(held[row].ravel(), train[column].ravel())[0, 1]
            if distance <= leaks.LARGEST_DISTANCE and correlation >= leaks.LEAST_CORRELATION:
                expected.append((row, column, distance))
    monkeypatch.setattr(leaks, "_ROWS", rows)
    monkeypatch.setattr(leaks, "_PAIRS", pairs)
    assert sorted(leaks._alike(held, train)) == expected
    assert 2 <= len(expected) <= 11  # some copies are too noisy


def test_nothing_held_out_is_nothing_found(album):
    assert find_leaks(album, split(album)).pairs == ()


@pytest.mark.fetch
def test_fabric_that_all_looks_alike_is_not_called_a_copy():
    textile = load_data("textile")
    chosen = [sample.id for sample in textile.samples[::20]]
    assert find_leaks(textile, Split(tuple(chosen[20:]), tuple(chosen[:10]), tuple(chosen[10:20]), 0)).pairs == ()

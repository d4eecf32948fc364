"""The defect finder on images drawn by the published recipe, whose defect is known, and the masks made of its finds."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.signal import lfilter
from test_textile import COUNTS, MEMBERS, carry, members, stand_in

from explain.data import textile
from explain.data.base import load_data
from explain.data.decode import load_mask
from explain.data.textile_defects import ellipse, find_local_defect, most_likely_centre
from explain.errors import InputError

SIDE_PX = 250


def weave(rng: np.random.Generator, left: float, below: float, size: tuple[int, int]) -> np.ndarray:
    """The recipe's surface: each number is `left` of one neighbour, `below` of the other and noise; then 0 to 255."""
    border = 200
    noise = rng.normal(size=(size[0] + border, size[1] + border))
    found = np.zeros_like(noise)
    for index in range(1, len(found)):
        found[index] = lfilter([1], [1, -below], left * found[index - 1] + noise[index])
    found = found[border:, border:]
    return np.round((found - found.min()) / (found.max() - found.min()) * 255)


def drawn(seed: int, *, defect: bool = True, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """One image as the recipe draws it, with its true region: 33 greys, the first axis to the right, JPEG."""
    rng = np.random.default_rng(seed)
    surface, region = weave(rng, 0.6 * share, 0.35 * share, (SIDE_PX, SIDE_PX)), np.zeros((SIDE_PX, SIDE_PX), bool)
    row, column = rng.integers(8, 242), rng.integers(14, 236)
    if defect:
        noise = weave(rng, 0, 0, (9, 21))
        for i in range(-4, 5):
            for j in range(-10, 11):
                if i**2 / 16 + j**2 / 100 <= 1.05:
                    surface[row + i, column + j] = noise[i + 4, j + 10]
                    region[row + i, column + j] = True
    greys = np.round(np.minimum(np.floor(surface / 255 * 33), 32) / 32 * 255).astype(np.uint8)
    picture = np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    picture[:-1, :-1], shown = greys.T[::-1][:-1, 1:], np.zeros_like(region)
    shown[:-1, :-1] = region.T[::-1][:-1, 1:]
    file = io.BytesIO()
    Image.fromarray(picture).convert("RGB").save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file)), shown


@pytest.fixture(scope="module")
def images() -> list[tuple[np.ndarray, np.ndarray]]:
    return [drawn(seed) for seed in range(8)]


def test_every_answer_is_the_drawn_region_to_the_pixel(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    found = [(find_local_defect(picture), region) for picture, region in images]
    spoken = [(mask, region) for mask, region in found if mask is not None]
    assert len(spoken) >= 6
    assert all(mask.dtype == bool and np.array_equal(mask, region) for mask, region in spoken)


def test_a_nominal_weave_and_another_weave_everywhere_have_no_local_defect() -> None:
    for share in (1.0, 0.95):
        picture, _ = drawn(3, defect=False, share=share)
        assert find_local_defect(picture) is None and most_likely_centre(picture)[1] < 20


def test_two_equally_likely_places_are_not_chosen_between(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    picture, region = images[0][0].copy(), images[0][1]
    rows, columns = np.nonzero(region)
    top, left = rows.min() - 8, columns.min() - 8
    other = (20 if top > 120 else 190, 20 if left > 120 else 190)
    picture[other[0] : other[0] + 37, other[1] : other[1] + 25] = picture[top : top + 37, left : left + 25]
    centre, evidence, lead = most_likely_centre(picture)
    assert evidence > 60 and lead == pytest.approx(0, abs=1e-6) and find_local_defect(picture) is None


def test_the_shape_is_the_recipes_ellipse() -> None:
    assert ellipse().shape == (21, 9) and ellipse().sum() == 129
    assert np.array_equal(ellipse().sum(1), ellipse().sum(1)[::-1]) and ellipse()[10].all()
    assert ellipse().sum(0)[0] == 5  # 5 % above 1, so the widest rows are 5


def test_what_is_too_small_holds_no_ellipse_and_what_is_no_picture_is_refused() -> None:
    assert find_local_defect(np.zeros((31, 40, 3), np.uint8)) is None
    assert find_local_defect(np.full((32, 32, 3), 7, np.uint8)) is None  # of one colour
    with pytest.raises(InputError, match="expected uint8 pixels"):
        find_local_defect(np.zeros((64, 64, 3)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    """A cache whose small wheel has one local image with a defect of known place."""
    stand_in(tmp_path, monkeypatch)
    file = io.BytesIO()
    Image.fromarray(images[0][0]).save(file, "PNG")
    content = members() | {f"{MEMBERS}/local/textile_0002.jpg": file.getvalue()}
    monkeypatch.setattr("test_textile.members", lambda: content)
    carry(monkeypatch, content)
    return tmp_path / "datasets" / "textile-0.1.4"


def masks_of(dataset: object) -> dict[str, Path]:
    return {sample.id: sample.mask for sample in dataset.samples if sample.mask is not None}  # type: ignore[attr-defined]


def test_a_found_defect_becomes_the_samples_mask_and_leaves_the_fingerprint(
    cache: Path, images: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    dataset = load_data("textile")
    found = masks_of(dataset)
    assert list(found) == ["local/textile_0002.jpg"] and dataset.fingerprint == textile.FINGERPRINT
    mask = load_mask(found["local/textile_0002.jpg"], (SIDE_PX, SIDE_PX), root=cache)
    assert np.array_equal(mask, images[0][1]) and dataset.counts() == COUNTS


def test_masks_are_made_once_also_for_images_that_were_checked_before(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_data("textile")
    shutil.rmtree(cache / f".masks-{textile.FINDER_VERSION}")
    monkeypatch.setattr(textile, "read_class_folders", lambda *args, **options: pytest.fail("read again"))
    assert load_data("textile") == first
    monkeypatch.setattr(textile, "find_local_defect", lambda pixels: pytest.fail("searched again"))
    assert load_data("textile") == first


@pytest.mark.parametrize("damage", ["no mask", "another mask", "no list", "another list"])
def test_damaged_masks_are_made_again(cache: Path, damage: str) -> None:
    first = load_data("textile")
    mask = masks_of(first)["local/textile_0002.jpg"]
    content, listed = mask.read_bytes(), mask.parent / "found.json"
    if damage == "no mask":
        mask.unlink()
    elif damage == "another mask":
        mask.write_bytes(content + b"\0")
    elif damage == "no list":
        listed.unlink()
    else:
        listed.write_text(json.dumps({"local/textile_0009.jpg": 3}))
    assert load_data("textile") == first and mask.read_bytes() == content


def test_another_finder_makes_masks_of_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_data("textile")
    monkeypatch.setattr(textile, "FINDER_VERSION", textile.FINDER_VERSION + 1)
    monkeypatch.setattr(textile, "find_local_defect", lambda pixels: None)
    assert not masks_of(load_data("textile"))


def test_images_load_without_masks_where_those_cannot_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_data("textile")
    shutil.rmtree(cache / f".masks-{textile.FINDER_VERSION}")

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(textile, "move_in", full)
    dataset = load_data("textile")
    assert not masks_of(dataset) and dataset.fingerprint == first.fingerprint
    assert sorted(path.name for path in cache.iterdir()) == ["checked.json", "global", "local", "nominal"]


@pytest.mark.fetch
def test_the_published_images_have_the_masks_that_the_documentation_counts() -> None:
    dataset = load_data("textile")
    assert len(masks_of(dataset)) == 450
    assert {dataset.by_id[name].label for name in masks_of(dataset)} == {1}

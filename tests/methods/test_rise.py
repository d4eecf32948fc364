"""RISE: what the masks look like, a model that reads one patch, a plain loop, and what a map may not depend on."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vits import GRID, PATCH, SIZE, tiny_images, tiny_vit
from torch import Tensor

import explain.passes
from explain.engine import attribute, attribute_targets
from explain.errors import Cancelled, InputError
from explain.methods.base import METHODS
from explain.methods.rise import draw_masks, enlarge
from explain.model import TunedModel
from explain.wrapping import wrap

TARGETS = torch.tensor([4, 0, 2])


def values_of(model: TunedModel, images: Tensor, targets: Any = TARGETS, **options: Any) -> np.ndarray:
    options = {"masks": 20, "cells": 3} | options
    found = attribute(model, images, methods="rise", targets=targets, options={"rise": options})["rise"].values
    return found.astype(np.float64)


def masks_of(masks: int, cells: int, keep: float, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    grids, shifts = draw_masks(masks, cells, keep, seed)
    return enlarge(grids.double(), shifts, size)


class ReadsOnePatch(TunedModel):
    """Two classes; the logit of class 1 is how bright one patch is, in model space."""

    def __init__(self, row: int, column: int) -> None:
        plain = wrap(tiny_vit(num_classes=2))
        super().__init__(plain.vit, plain.layout, plain.transform)
        self.area = (slice(row * PATCH, (row + 1) * PATCH), slice(column * PATCH, (column + 1) * PATCH))

    def forward(self, images: Tensor) -> Tensor:
        brightness = images[:, :, self.area[0], self.area[1]].mean((1, 2, 3))
        return torch.stack((torch.zeros_like(brightness), brightness), dim=1)


@pytest.mark.parametrize("place", [(1, 2), (0, 3), (2, 0)])
def test_the_patch_that_a_model_reads_stands_out(place: tuple[int, int]) -> None:
    model, images = ReadsOnePatch(*place), torch.ones(1, 3, *SIZE, dtype=torch.float64)
    found = values_of(model, images, 1, masks=400, cells=4)[0]
    patches = found.reshape(GRID[0], PATCH, GRID[1], PATCH).mean((1, 3))
    assert np.unravel_index(patches.argmax(), GRID) == place
    row, column = np.unravel_index(found.argmax(), SIZE)
    assert (row // PATCH, column // PATCH) == place


def test_the_class_that_loses_by_it_has_its_minimum_there() -> None:
    model, images = ReadsOnePatch(1, 2), torch.ones(1, 3, *SIZE, dtype=torch.float64)
    found = values_of(model, images, 0, masks=400, cells=4)[0].reshape(GRID[0], PATCH, GRID[1], PATCH).mean((1, 3))
    assert np.unravel_index(found.argmin(), GRID) == (1, 2) and (found > 0).all()


@pytest.mark.parametrize(("cells", "keep", "size"), [(7, 0.5, (24, 32)), (3, 0.2, (25, 31)), (4, 0.9, (40, 16))])
def test_a_mask_shows_a_pixel_as_often_as_it_says(cells: int, keep: float, size: tuple[int, int]) -> None:
    masks = masks_of(4000, cells, keep, size=size)
    assert masks.shape == (4000, *size) and masks.min() >= 0 and masks.max() <= 1 + 1e-12
    error = masks.std(0) / 4000**0.5
    assert ((masks.mean(0) - keep).abs() < 5 * error).all() and error.max() < 0.01


def test_masks_are_smooth_shifted_and_never_the_same() -> None:
    masks = masks_of(50, 4, 0.5)
    cell = min(SIZE) / 4
    assert masks.diff(dim=1).abs().max() <= 1 / cell + 1e-9 and masks.diff(dim=2).abs().max() <= 1 / (SIZE[1] / 4)
    assert len(torch.unique(masks.flatten(1), dim=0)) == 50


def enlarge_by_hand(grid: Tensor, shift: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Pillow's triangle filter, which is bilinear when it enlarges, then a crop."""
    cells = len(grid)
    sides = [-(-side // cells) for side in size]
    picture = Image.fromarray(grid.float().numpy())
    large = np.asarray(picture.resize(((cells + 1) * sides[1], (cells + 1) * sides[0]), Image.Resampling.BILINEAR))
    top, left = (int(float(part) * side) for part, side in zip(shift, sides, strict=True))
    return large[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize("size", [SIZE, (25, 31), (40, 16)])
@pytest.mark.parametrize("cells", [1, 3, 7])
def test_a_mask_is_its_cells_enlarged_and_cropped(cells: int, size: tuple[int, int]) -> None:
    grids, shifts = draw_masks(6, cells, 0.5, seed=3)
    expected = np.stack([enlarge_by_hand(*drawn, size) for drawn in zip(grids, shifts, strict=True)])
    np.testing.assert_allclose(enlarge(grids.float(), shifts, size).numpy(), expected, atol=1e-5)
    assert (shifts >= 0).all() and (shifts < 1).all()


@pytest.mark.parametrize("baseline", ["black", "mean", "blur"])
def test_a_map_equals_a_plain_loop(baseline: str) -> None:
    from explain.baselines import baseline_images

    model, images = wrap(tiny_vit()), tiny_images()
    (start,) = baseline_images(baseline, images, model.transform)
    total = torch.zeros(3, *SIZE, dtype=torch.float64)
    for mask in masks_of(11, 3, 0.4, seed=5):
        with torch.no_grad():
            chance = model(mask * images + (1 - mask) * start).softmax(1).gather(1, TARGETS[:, None])
        total += chance[..., None] * mask / (11 * 0.4)
    found = values_of(model, images, masks=11, cells=3, keep=0.4, seed=5, baseline=baseline)
    np.testing.assert_allclose(found, total.numpy(), rtol=1e-5)


class AlwaysSure(ReadsOnePatch):
    """Class 1, whatever it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([0.0, 900.0], dtype=images.dtype).expand(len(images), 2)


def test_a_model_that_is_always_sure_gets_the_share_of_masks_at_each_pixel() -> None:
    found = values_of(AlwaysSure(0, 0), tiny_images(1), 1, masks=9, cells=2, keep=0.3)
    np.testing.assert_allclose(found[0], masks_of(9, 2, 0.3).mean(0).numpy() / 0.3, rtol=1e-5, atol=1e-7)


def test_a_map_depends_on_neither_chunk_batch_nor_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, targets = wrap(tiny_vit()), tiny_images(5), torch.tensor([4, 0, 2, 2, 1])
    whole = values_of(model, images, targets)
    for row in range(5):
        np.testing.assert_allclose(values_of(model, images[row : row + 1], targets[row : row + 1])[0], whole[row],
                                   rtol=1e-5)  # fmt: skip
    for size in (1, 3, 7, 100):
        monkeypatch.setitem(explain.passes.LARGEST_CHUNK, "cpu", size)
        np.testing.assert_allclose(values_of(model, images, targets), whole, rtol=1e-5)
    monkeypatch.undo()
    small = attribute(model, images, methods="rise", targets=targets, options={"rise": {"masks": 20, "cells": 3}},
                      batch_size=2, memory_budget=1)["rise"]  # fmt: skip
    np.testing.assert_allclose(small.values, whole, rtol=1e-5)


def test_more_masks_begin_with_the_same_masks() -> None:
    """Nothing of a draw depends on how many there are of its kind."""
    model, images = wrap(tiny_vit()), tiny_images(1)
    few, many = (values_of(model, images, 1, masks=masks) * masks for masks in (8, 9))
    added = many - few
    with torch.no_grad():
        last = masks_of(9, 3, 0.5)[8]
        start = model.transform.normalise(torch.zeros_like(images))
        chance = float(model(last * images + (1 - last) * start).softmax(1)[0, 1])
    np.testing.assert_allclose(added[0], chance * last.numpy() / 0.5, atol=1e-5)


def test_full_masks_are_held_for_one_chunk_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(grids: Tensor, *rest: Any) -> Tensor:
        made.append(len(grids))
        return enlarge(grids, *rest)

    monkeypatch.setattr("explain.methods.rise.enlarge", counted)
    values_of(wrap(tiny_vit()), tiny_images(), masks=100)
    assert sum(made) >= 100 and max(made) <= explain.passes.LARGEST_CHUNK["cpu"] // 3 + 2


def test_the_seed_decides_and_the_global_random_state_does_not() -> None:
    model, images = wrap(tiny_vit()), tiny_images(1)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    first = values_of(model, images, 1, seed=1)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        assert np.array_equal(values_of(model, images, 1, seed=1), first)
    assert not np.allclose(values_of(model, images, 1, seed=2), first, rtol=0.01)


def test_several_targets_share_the_forwards() -> None:
    seen: list[int] = []
    vit = tiny_vit()
    vit.patch_embed.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    model, images = wrap(vit), tiny_images()
    both = attribute_targets(model, images, [TARGETS, 1], methods="rise", options={"rise": {"masks": 20, "cells": 3}})
    assert sum(seen) == 3 * (1 + 20) and max(seen) <= explain.passes.LARGEST_CHUNK["cpu"]
    for target, found in zip((TARGETS, 1), both, strict=True):
        np.testing.assert_allclose(found["rise"].values, values_of(model, images, target), rtol=1e-6)


def test_no_gradient_is_computed() -> None:
    vit, modes = tiny_vit(), []
    vit.patch_embed.register_forward_hook(lambda module, inputs, output: modes.append(output.requires_grad))
    values_of(wrap(vit), tiny_images())
    assert modes and not any(modes)


def test_the_work_stops_between_passes() -> None:
    vit, forwards = tiny_vit(), []
    vit.patch_embed.register_forward_hook(lambda module, inputs, output: forwards.append(len(output)))
    with pytest.raises(Cancelled):
        attribute(wrap(vit), tiny_images(), methods="rise", cancelled=lambda: len(forwards) >= 3)
    assert len(forwards) == 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"masks": 0}, "expected masks to be a whole number of at least 1, got 0"),
        ({"cells": 1.5}, "expected cells"),
        ({"cells": True}, "expected cells"),
        ({"seed": -1}, "expected seed to be a whole number of at least 0"),
        ({"keep": 0.0}, "expected keep to be a probability between 0 and 1, got 0.0"),
        ({"keep": 1.0}, "expected keep"),
        ({"keep": "half"}, "expected keep"),
        ({"baseline": "white"}, "expected a baseline in"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        METHODS.create("rise", **options)

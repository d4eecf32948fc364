"""Models and pictures whose right map is known: the truths are exact, and the methods that must return them do."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import GRID, PATCH, SIZE, tiny_images, tiny_vit

from explain.baselines import baseline_images
from explain.engine import attribute
from explain.errors import InputError
from explain.evidence.truth import additive_contributions, additive_vit, cam_identity, composite, mosaic
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

TARGETS = np.array([1, 4, 0])


def of_targets(values: torch.Tensor) -> np.ndarray:
    return values.numpy()[np.arange(3), TARGETS]


def maps(method: str, model: TunedModel, **options: Any) -> np.ndarray:
    found = attribute(model, tiny_images(), methods=method, targets=TARGETS.tolist(), options={method: options})
    return found[method].values.astype(np.float64)


def test_contributions_are_the_change_of_the_score_for_every_set_of_patches() -> None:
    model, images = additive_vit(), tiny_images()
    black = baseline_images("black", images, model.transform)[0].expand_as(images)
    truth = additive_contributions(model, images)
    assert truth.shape == (3, 5, *GRID) and truth.dtype == torch.float64
    rng = np.random.default_rng(0)
    for _ in range(4):
        chosen = torch.from_numpy(rng.random(GRID) < 0.5)
        pixels = chosen.repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
        with torch.no_grad():
            change = model(images) - model(torch.where(pixels, black, images))
        torch.testing.assert_close((truth * chosen).sum((2, 3)), change, rtol=0, atol=1e-12)
    assert truth.std() > 0.01


@pytest.mark.parametrize("baseline", ["black", "mean", "blur"])
def test_integrated_gradients_return_the_contributions(baseline: str) -> None:
    model = additive_vit()
    truth = of_targets(additive_contributions(model, tiny_images(), baseline))
    pixels = maps("integrated_gradients", model, n_steps=200, baseline=baseline)
    found = pixels.reshape(3, GRID[0], PATCH, GRID[1], PATCH).sum((2, 4))
    assert np.abs(found - truth).max() <= 1e-6 * np.abs(truth).max()


@pytest.mark.parametrize("prompts", [None, False, True], ids=["plain", "shallow", "deep"])
def test_grad_cam_at_the_final_norm_is_what_patches_feed_the_head(prompts: bool | None) -> None:
    vit = tiny_vit("mean of patches", fc_norm=False)
    model = wrap(vit) if prompts is None else tune(vit, "prompt", num_tokens=4, deep=prompts).eval()
    truth = cam_identity(model, tiny_images())
    with torch.no_grad():
        logits = model(tiny_images()) - model.vit.head.bias
    torch.testing.assert_close(truth.sum((2, 3)), logits, rtol=0, atol=1e-10)
    expected = of_targets(truth.detach())
    assert np.abs(maps("grad_cam", model) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_size_of_the_model_is_what_was_asked_for_and_its_weights_follow_the_seed() -> None:
    state = torch.get_rng_state()
    model = additive_vit(grid=(2, 5), patch_px=4, classes=3, depth=2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.transform.size == (8, 20) and model.num_blocks == 2 and len(model.class_names) == 3
    images = tiny_images(2, (8, 20))
    assert additive_contributions(model, images).shape == (2, 3, 2, 5)
    again, other = (additive_vit(grid=(2, 5), patch_px=4, classes=3, depth=2, seed=seed) for seed in (1, 2))
    with torch.no_grad():
        assert torch.equal(again(images), model(images)) and not torch.equal(other(images), model(images))


def test_truths_leave_the_model_as_it_was() -> None:
    model = additive_vit().train()
    model.vit.blocks[0].eval()
    before = [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]
    additive_contributions(model, tiny_images())
    assert before == ([module.training for module in model.modules()], [p.requires_grad for p in model.parameters()])
    assert all(p.grad is None for p in model.parameters())


def test_a_model_without_such_a_truth_is_refused() -> None:
    with pytest.raises(InputError, match="without attention"):
        additive_contributions(wrap(tiny_vit("mean of patches", fc_norm=False)), tiny_images())
    for vit in (tiny_vit(), tiny_vit("mean of patches")):
        with pytest.raises(InputError, match="linear in the mean patch"):
            cam_identity(wrap(vit), tiny_images())


def test_a_mosaic_shows_each_image_in_its_cell_row_by_row() -> None:
    colours = torch.arange(12.0).reshape(4, 3, 1, 1).expand(4, 3, *SIZE)
    found = mosaic(colours)
    assert found.shape == (3, *SIZE)
    for index, (rows, columns) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        cell = found[:, rows * 12 : rows * 12 + 12, columns * 16 : columns * 16 + 16]
        torch.testing.assert_close(cell, colours[index, :, :12, :16])


def test_a_mosaic_keeps_up_and_left_and_takes_odd_sides() -> None:
    ramp = torch.linspace(0, 1, 9)[:, None] + 2 * torch.linspace(0, 1, 7)
    found = mosaic(ramp.expand(4, 3, 9, 7))
    assert found.shape == (3, 9, 7)
    for cell in (found[:, :4, :3], found[:, 4:, 3:]):
        assert (cell.diff(dim=1) > 0).all() and (cell.diff(dim=2) > 0).all()
    with pytest.raises(InputError, match="four images"):
        mosaic(tiny_images(3))


def test_a_composite_is_the_object_where_it_is_opaque_and_the_background_elsewhere() -> None:
    rng = np.random.default_rng(0)
    picture, background = (rng.integers(0, 256, (6, 5, channels), np.uint8) for channels in (4, 3))
    picture[..., 3] = 0
    picture[1:3, 1:4, 3], picture[3, 1, 3], picture[3, 2, 3] = 255, 128, 127
    found, region = composite(picture, background)
    assert region.sum() == 7 and region[3, 1] and not region[3, 2]
    assert np.array_equal(found[1:3, 1:4], picture[1:3, 1:4, :3]) and np.array_equal(found[4:], background[4:])
    half = np.abs(found[3, 1].astype(float) - (picture[3, 1, :3].astype(float) + background[3, 1]) / 2)
    assert half.max() <= 1
    again, same = composite(picture[..., :3], background, region)
    assert np.array_equal(same, region) and np.array_equal(again[region], picture[..., :3][region])
    with pytest.raises(InputError, match="expected a picture"):
        composite(picture[..., :3], background)

"""What a faulty implementation would get past: every fault of a list is built in, and the tests named must fail.

The oracles are the suite's own tests, called as they stand. Each holds for the real code and not for the mutant, so
none of these faults can enter without being seen.
"""

import copy
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from explain.attribution import Attribution
from explain.baselines import baseline_images
from explain.methods.integrated_gradients import IntegratedGradients
from explain.path import GradientPath
from explain.render.heatmap import view_maps
from explain.tokens import TokenLayout
from explain.trace import Trace

TESTS = Path(__file__).parents[1]

Patch = pytest.MonkeyPatch


class Oracle(NamedTuple):
    """A test of the suite: its file, its name and its arguments."""

    file: str
    test: str
    given: tuple[Any, ...] = ()

    def __call__(self, patch: Patch) -> None:
        path = TESTS / self.file
        patch.syspath_prepend(path.parent)
        getattr(importlib.import_module(path.stem), self.test)(*self.given)


CAM_IDENTITY = Oracle("methods/test_grad_cam.py", "test_a_mean_pooled_head_gives_the_class_activation_map", (None,))
CAM_PICTURE = Oracle("methods/test_grad_cam.py", "test_the_picture_equals_pytorch_grad_cams", ("plain",))
CAM_OF_PROMPTED = Oracle("methods/test_grad_cam.py", "test_the_picture_equals_pytorch_grad_cams", ("shallow",))
LINEAR = Oracle("methods/test_integrated_gradients.py",
                "test_a_linear_model_is_split_exactly_into_weight_times_difference", ({"n_steps": 7},))  # fmt: skip
ADDITIVE = Oracle("evidence/test_truth.py", "test_integrated_gradients_return_the_contributions", ("black",))
ADDITIVE_FROM_MEAN = ADDITIVE._replace(given=("mean",))
ROLLOUT_BY_HAND = Oracle("methods/test_attention_rollout.py", "test_two_blocks_by_hand")
ROLLOUT_UNIFORM = Oracle("methods/test_attention_rollout.py",
                         "test_uniform_attention_gives_every_patch_the_same_known_share", (2,))  # fmt: skip
RAMP = Oracle("test_attribution.py", "test_resizing_interpolates_between_patch_centres")
ENLARGED_ALIKE = Oracle("render/test_heatmap.py", "test_enlarging_agrees_with_attribution_resized")
SINGLES = Oracle("evidence/test_mutants.py", "each_picture_has_a_scale_of_its_own")


def each_picture_has_a_scale_of_its_own() -> None:
    """A faint map beside a strong one looks the same as alone, however many images are shown."""
    values = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32) * np.array([1, 1e-3, 50])[:, None, None]
    maps = Attribution("grad_cam", values.astype(np.float32), np.zeros(3, int), np.zeros((3, 2), np.float32), (32, 32))
    together, image = view_maps({"ft": {"grad_cam": maps}}, (4, 4)), np.full((32, 32, 3), 90, np.uint8)
    for index in range(3):
        alone = view_maps({"ft": {"grad_cam": maps[index]}}, (4, 4))[0, "ft", "grad_cam"]
        assert (together[index, "ft", "grad_cam"].draw(image) == alone.draw(image)).all()


def transposed_grid(patch: Patch) -> None:
    real = TokenLayout.to_grid

    def to_grid(self: TokenLayout, values: Tensor) -> Tensor:
        turned = real(self.with_grid((self.grid[1], self.grid[0])), values)
        return turned.transpose(1, 2)

    patch.setattr(TokenLayout, "to_grid", to_grid)


def prompts_read_as_patches(patch: Patch) -> None:
    def patch_tokens(self: TokenLayout, tokens: Tensor) -> Tensor:
        return tokens[:, self.prefix : self.prefix + self.patches]

    patch.setattr(TokenLayout, "patch_tokens", patch_tokens)


def prefix_off_by_one(patch: Patch) -> None:
    def patch_tokens(self: TokenLayout, tokens: Tensor) -> Tensor:
        end = tokens.shape[1] - 1
        return tokens[:, end - self.patches : end]

    patch.setattr(TokenLayout, "patch_tokens", patch_tokens)


def gradients_of_another_class(patch: Patch) -> None:
    real = IntegratedGradients._walk

    def walk(self: IntegratedGradients, trace: Trace, targets: list[Tensor], *more: Any) -> Any:
        return real(self, trace, [(target + 1) % trace.logits.shape[1] for target in targets], *more)

    patch.setattr(IntegratedGradients, "_walk", walk)


def gradients_without_the_difference(patch: Patch) -> None:
    real = GradientPath.split

    def split(self: GradientPath, gradients: Any) -> dict[str, Tensor]:
        one = copy.copy(self)
        one.trace = replace(self.trace, images=self.baseline.expand_as(self.trace.images) + 1)
        return real(one, gradients)

    patch.setattr(GradientPath, "split", split)


def path_of_the_probability(patch: Patch) -> None:
    real = GradientPath._logits
    patch.setattr(GradientPath, "_logits", lambda self, at: real(self, at).softmax(1))


def score_is_the_probability(patch: Patch) -> None:
    patch.setattr(Trace, "score", lambda self, targets: self.logits.softmax(1).gather(1, targets[:, None])[:, 0])


def product_reversed(patch: Patch) -> None:
    real = TokenLayout.roll_back
    patch.setattr(TokenLayout, "roll_back", lambda self, row, blocks, **more: real(self, row, blocks[::-1], **more))


def residual_left_out(patch: Patch) -> None:
    real = TokenLayout.roll_back
    patch.setattr(TokenLayout, "roll_back", lambda self, row, blocks, **more: real(self, row, blocks, mixed=1, kept=0))


def corners_aligned(patch: Patch) -> None:
    def interpolate(values: Tensor, *, align_corners: bool, **more: Any) -> Tensor:
        return torch.nn.functional.interpolate(values, align_corners=True, **more)

    patch.setattr("explain.attribution.interpolate", interpolate)


def baselines_mixed_up(patch: Patch) -> None:
    real = baseline_images
    other = {"black": "mean", "mean": "black"}
    patch.setattr("explain.methods.integrated_gradients.baseline_images",
                  lambda name, *given, **more: real(other[name], *given, **more))  # fmt: skip


def scale_of_the_batch(patch: Patch) -> None:
    patch.setattr("explain.render.heatmap._group", lambda key, scope: (key[2],))


MUTANTS: list[tuple[Callable[[Patch], None], Oracle]] = [
    (transposed_grid, CAM_IDENTITY),
    (transposed_grid, CAM_PICTURE),
    (prompts_read_as_patches, CAM_OF_PROMPTED),
    (prefix_off_by_one, CAM_IDENTITY),
    (prefix_off_by_one, CAM_PICTURE),
    (gradients_of_another_class, LINEAR),
    (gradients_of_another_class, ADDITIVE),
    (gradients_without_the_difference, LINEAR),
    (gradients_without_the_difference, ADDITIVE),
    (path_of_the_probability, LINEAR),
    (path_of_the_probability, ADDITIVE),
    (score_is_the_probability, CAM_IDENTITY),
    (product_reversed, ROLLOUT_BY_HAND),
    (residual_left_out, ROLLOUT_BY_HAND),
    (residual_left_out, ROLLOUT_UNIFORM),
    (corners_aligned, RAMP),
    (corners_aligned, ENLARGED_ALIKE),
    (baselines_mixed_up, LINEAR),
    (baselines_mixed_up, ADDITIVE),
    (baselines_mixed_up, ADDITIVE_FROM_MEAN),
    (scale_of_the_batch, SINGLES),
]


@pytest.mark.parametrize(("mutate", "oracle"), MUTANTS, ids=lambda part: getattr(part, "__name__", None) or part.test)
def test_the_oracle_holds_for_the_code_and_fails_for_the_mutant(
    mutate: Callable[[Patch], None], oracle: Oracle, monkeypatch: Patch
) -> None:
    oracle(monkeypatch)
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        oracle(monkeypatch)

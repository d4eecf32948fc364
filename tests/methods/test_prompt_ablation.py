"""Prompt ablation: effects equal logits of models without the prompts."""

import numpy as np
import pytest
import torch
from tiny_vits import tiny_images, tiny_vit
from torch import Tensor

from explain.attribution import Attribution
from explain.engine import attribute
from explain.errors import CaptureError
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap


def ablated(model: TunedModel, **options: object) -> Attribution:
    return attribute(model, tiny_images(), targets=[4, 0, 2], methods="prompt_ablation",
                     options={"prompt_ablation": options})["prompt_ablation"]  # fmt: skip


def scores(model: TunedModel) -> Tensor:
    with torch.no_grad():
        return model(tiny_images()).gather(1, torch.tensor([[4], [0], [2]]))[:, 0]


@pytest.mark.parametrize("deep", [True, False])
def test_without_any_prompt_the_model_is_the_backbone(deep: bool) -> None:
    model, bare = tune(tiny_vit(), "prompt", num_tokens=3, deep=deep).eval(), wrap(tiny_vit())
    found = ablated(model)
    np.testing.assert_allclose(found.extras["prompt_effect"], (scores(model) - scores(bare)).numpy(), rtol=1e-5)
    maps = [attribute(one, tiny_images(), targets=[4, 0, 2], methods="grad_cam")["grad_cam"].values
            for one in (model, bare)]  # fmt: skip
    np.testing.assert_allclose(found.values, maps[0] - maps[1], rtol=1e-4, atol=1e-6)
    assert found.extras["prompt_effect_per_block"].shape == (3, 3 if deep else 1)
    if not deep:
        only = found.extras["prompt_effect_per_block"][:, 0]
        np.testing.assert_allclose(only, found.extras["prompt_effect"], rtol=1e-5)


def test_one_block_and_one_prompt_are_masked_alone() -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=3).eval()
    found, prompts = ablated(model, per_prompt=True), model.prompts()
    assert found.extras["prompt_effect_per_prompt"].shape == (3, 3, 3)
    for block in range(3):
        replica = model.replica()
        replica.give_prompts([value[:0] if index == block else value for index, value in enumerate(prompts)])
        expected = (scores(model) - scores(replica)).numpy()
        np.testing.assert_allclose(found.extras["prompt_effect_per_block"][:, block], expected, rtol=1e-4)
        replica.give_prompts([value[[0, 2]] if index == block else value for index, value in enumerate(prompts)])
        expected = (scores(model) - scores(replica)).numpy()
        np.testing.assert_allclose(found.extras["prompt_effect_per_prompt"][:, block, 1], expected, rtol=1e-4)


def test_a_model_without_prompts_is_refused() -> None:
    with pytest.raises(CaptureError, match="needs a model tuned with prompts, this one was tuned by 'none'"):
        ablated(wrap(tiny_vit()))

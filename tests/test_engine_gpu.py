"""The engine on a CUDA device: the same maps, mixed precision within its tolerance, memory that does not grow."""

import gc

import numpy as np
import pytest
import torch
from tiny_vits import tiny_images, tiny_vit

from explain.engine import attribute
from explain.model import TunedModel
from explain.tuning.base import tune

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

STEPS = {"integrated_gradients": {"n_steps": 8}}


def prompted() -> TunedModel:
    return tune(tiny_vit(dtype=torch.float32), "prompt", num_tokens=5).eval()


@pytest.mark.parametrize("options", [STEPS, {}], ids=["fixed", "nested"])
def test_maps_are_those_of_the_cpu(options: dict[str, dict[str, int]]) -> None:
    images = tiny_images().float()
    here = attribute(prompted(), images, targets=[4, 0, 2], options=options)
    there = attribute(prompted().cuda(), images, targets=[4, 0, 2], options=options)
    for name, found in there.items():
        assert found.provenance["device"].startswith("cuda")
        largest = np.abs(here[name].values).max()
        np.testing.assert_allclose(found.values, here[name].values, rtol=1e-3, atol=1e-3 * largest)


def test_mixed_precision_stays_near() -> None:
    model, images = prompted().cuda(), tiny_images().float()
    exact = attribute(model, images, targets=0, options=STEPS)
    rough = attribute(model, images, targets=0, options=STEPS, precision="bf16")
    for name, found in rough.items():
        assert found.values.dtype == np.float32
        assert np.corrcoef(found.values.ravel(), exact[name].values.ravel())[0, 1] > 0.98


def test_peak_memory_does_not_grow_with_nodes_or_images() -> None:
    model = tune("random:vit_tiny_patch16_224", "prompt", class_names="ab", num_tokens=10).eval().cuda()
    peaks = {}
    for count, steps in ((2, 32), (2, 256), (16, 32)):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        images = torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        attribute(model, images, targets=0, methods="integrated_gradients", batch_size=2, memory_budget=2**28,
                  options={"integrated_gradients": {"n_steps": steps}})  # fmt: skip
        peaks[count, steps] = torch.cuda.max_memory_allocated()
    assert peaks[2, 256] <= 1.05 * peaks[2, 32] and peaks[16, 32] <= 1.05 * peaks[2, 32]

"""What only a CUDA device shows: bf16 training, and maps that agree with the CPU's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from squares import TINY_RECIPE

from explain.data.base import Dataset
from explain.engine import attribute
from explain.training.train import train_pair

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]


def test_a_pair_trains_in_bf16_and_says_so(pictures: Dataset, tmp_path: Path) -> None:
    pair = train_pair(pictures, TINY_RECIPE, out=tmp_path / "pair")
    for run in pair:
        assert run.manifest.precision == "bf16 autocast"
        assert run.manifest.device == torch.cuda.get_device_name()
        assert run.manifest.peak_mib > 0


def test_maps_on_the_gpu_agree_with_the_cpu(pictures: Dataset, tmp_path: Path) -> None:
    model = train_pair(pictures, TINY_RECIPE, out=tmp_path / "pair").vpt.model
    options = {"integrated_gradients": {"n_steps": 8}}
    on_cpu = attribute(model, pictures, targets="label", options=options)
    on_gpu = attribute(model.to("cuda"), pictures, targets="label", options=options)
    for name, maps in on_cpu.items():
        scale = np.abs(maps.values).max()
        np.testing.assert_allclose(on_gpu[name].values, maps.values, atol=0.02 * scale)

"""What every test may use: quiet threads, a folder of small pictures, and a pair really trained on them."""

import os
from typing import Any

# before torch and the BLAS libraries start: parallel test processes must not fight for the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from fake_pair import make_fake_pair
from squares import TINY_RECIPE, draw_pictures

from explain.data.base import Dataset, load_data
from explain.report.panels import Panels
from explain.training.pair import MatchedPair
from explain.training.train import train_pair

torch.set_num_threads(1)

@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """24 pictures of 64x64 in two classes."""
    return load_data(draw_pictures(tmp_path_factory.mktemp("data") / "squares"))


@pytest.fixture(scope="session")
def tiny_pair(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    """A matched pair with a linear probe, trained for two epochs on an untrained tiny backbone."""
    return train_pair(pictures, TINY_RECIPE, out=tmp_path_factory.mktemp("runs") / "tiny", device="cpu")


@pytest.fixture(scope="session")
def fake_pair(tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    """A finished pair of seeded random numbers, with panels; do not change its folder."""
    return make_fake_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def fake_panels(fake_pair: MatchedPair) -> Panels:
    """The panels of `fake_pair`."""
    return Panels.load(fake_pair.path)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the shards that are computed during the test."""
    from explain.batch import base  # most tests compute none

    found: list[int] = []

    def counting(archive: Any, models: Any, shard: int, **rest: Any) -> Any:
        found.append(shard)
        return run(archive, models, shard, **rest)

    run = base.run_shard
    monkeypatch.setattr(base, "run_shard", counting)
    return found

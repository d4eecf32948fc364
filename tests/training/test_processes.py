"""Several processes, started as users start them, train the model that one process trains."""

import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from squares import TINY_RECIPE

from explain.data.base import Dataset
from explain.training.pair import MatchedPair
from explain.training.recipe import Arm
from explain.training.train import train_pair

ARMS = {
    "vpt": Arm(tuning="prompt", options={"num_tokens": 3}, learning_rates=(1e-3, 1e-2)),
    "ft": Arm(tuning="full", learning_rates=(1e-5, 1e-4)),
    "linear": Arm(tuning="linear", learning_rates=(1e-3, 1e-2)),
}
RECIPE = TINY_RECIPE.model_copy(update={"arms": ARMS, "batch_size": 5})
"""12 images in batches of 5, 5 and 2: the processes' shares are unequal."""

TOLERANCE = 1e-4
"""Sums over images are taken in another order."""


@pytest.fixture(scope="module")
def both(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[MatchedPair, MatchedPair]:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE.model_dump(mode="json"), sort_keys=False))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "explain.cli", "train", str(pictures.root), "--out", str(folder / "two"), "--recipe",
               str(folder / "recipe.yaml"), "--device", "cpu"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("12 training images") == 1  # one process speaks
    return train_pair(pictures, RECIPE, out=folder / "one", device="cpu"), MatchedPair.load(folder / "two")


def test_two_processes_see_the_same_images_in_the_same_order(both: tuple[MatchedPair, MatchedPair]) -> None:
    one, two = both
    for arm in ARMS:
        assert (one.runs[arm].manifest.processes, two.runs[arm].manifest.processes) == (1, 2)
        assert two.runs[arm].manifest.order_hash == one.runs[arm].manifest.order_hash
        assert two.runs[arm].manifest.steps == one.runs[arm].manifest.steps == 6


def test_two_processes_reach_the_metrics_of_one(both: tuple[MatchedPair, MatchedPair]) -> None:
    one, two = both
    for arm in ARMS:
        first, second = one.runs[arm], two.runs[arm]
        for figure in ("train_loss", "val_loss", "test_loss", "gradient_norm", "train_accuracy", "test_accuracy"):
            expected = [getattr(epoch, figure) for epoch in first.history]
            np.testing.assert_allclose([getattr(epoch, figure) for epoch in second.history], expected, atol=TOLERANCE)
        np.testing.assert_allclose(second.predictions.probabilities, first.predictions.probabilities, atol=TOLERANCE)
        assert [trial.val_accuracy for trial in second.manifest.trials] == pytest.approx(
            [trial.val_accuracy for trial in first.manifest.trials]
        )

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from killed import RECIPE, train
from squares import TINY_RECIPE

from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError
from explain.files import read_json
from explain.tensor_files import read_tensors, write_tensors
from explain.training.checkpoint import CHECKPOINT, Checkpoint
from explain.training.pair import MatchedPair
from explain.training.train import train_pair

TESTS = Path(__file__).parents[1]
TIMES = {"seconds", "peak_mib", "energy_j"}


def told(pair: MatchedPair) -> dict[str, object]:
    """Everything a pair says but how long it took."""
    plain = {}
    for name, run in pair.runs.items():
        weights, _ = read_tensors(run.path / "weights.safetensors")
        plain[name] = {
            "weights": {key: value.numpy().tobytes() for key, value in weights.items()},
            "history": [epoch.model_dump(exclude=TIMES) for epoch in run.history],
            "trials": [trial.model_dump(exclude=TIMES) for trial in run.manifest.trials],
            "predictions": run.predictions.probabilities.tobytes(),
        }
    return plain


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, env=environment, text=True, capture_output=True, timeout=250, **options)


@pytest.fixture(scope="module")
def uninterrupted(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    out = tmp_path_factory.mktemp("uninterrupted") / "pair"
    script = f"import killed; killed.train({str(pictures.root)!r}, {str(out)!r})"
    result = run(sys.executable, "-c", script, cwd=TESTS / "training")
    assert result.returncode == 0, result.stderr
    return MatchedPair.load(out)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_killed_at_any_moment_ends_bit_for_bit_as_if_it_never_was(
    pictures: Dataset, uninterrupted: MatchedPair, tmp_path: Path, seed: int
) -> None:
    result = run(sys.executable, str(TESTS / "training/killed.py"), str(pictures.root), str(tmp_path / "p"), str(seed))
    assert result.returncode == 0, result.stderr
    end = json.loads(result.stdout.splitlines()[-1])
    assert end["exit"] == 0 and end["died"] >= 3
    assert told(MatchedPair.load(tmp_path / "p")) == told(uninterrupted)
    left = sorted(path.name for path in (tmp_path / "p").rglob("*") if path.name.startswith("checkpoint"))
    assert left == []


def test_a_checkpoint_that_outlived_its_training_is_removed(
    pictures: Dataset, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    folder = tmp_path / "pair"
    shutil.copytree(tiny_pair.path, folder)
    left = folder / "ft" / CHECKPOINT
    left.write_bytes(b"as if it was killed right after the manifest")
    again = train_pair(pictures, TINY_RECIPE, out=folder, device="cpu")
    assert not left.exists() and told(again) == told(tiny_pair)


def test_a_changed_recipe_is_refused_with_the_keys_that_differ(pictures: Dataset, tiny_pair: MatchedPair) -> None:
    arms = TINY_RECIPE.arms | {"ft": TINY_RECIPE.arms["ft"].model_copy(update={"learning_rates": (1e-5, 2e-4)})}
    changed = TINY_RECIPE.model_copy(update={"epochs": 5, "arms": arms})
    with pytest.raises(InputError, match="another recipe") as caught:
        train_pair(pictures, changed, out=tiny_pair.path, device="cpu")
    assert "epochs is 2 there and 5 now" in str(caught.value)
    assert "arms.ft.learning_rates is [1e-05, 0.0001] there and [1e-05, 0.0002] now" in str(caught.value)
    assert "batch_size" not in str(caught.value)


def test_a_checkpoint_of_another_training_is_not_taken_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    mine = Checkpoint(tmp_path / CHECKPOINT, "mine", 0.0)
    mine.save({"a": torch.arange(3.0)}, {"epoch": 2})
    tensors, state = mine.load()
    assert state == {"epoch": 2} and torch.equal(tensors["a"], torch.arange(3.0))
    assert Checkpoint(mine.path, "other", 0.0).load() is None
    kept, header = read_tensors(mine.path)
    write_tensors(mine.path, {"a": kept["a"] + 1}, header)
    with pytest.raises(IntegrityError, match="changed after it was written; delete it"):
        mine.load()


def command(data: Path, out: Path, folder: Path) -> list[str]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE.model_dump(mode="json"), sort_keys=False))
    return [sys.executable, "-m", "explain.cli", "train", str(data), "--out", str(out), "--recipe", str(recipe),
            "--device", "cpu"]  # fmt: skip


def test_a_full_disk_stops_with_exit_4_and_the_same_command_goes_on(
    pictures: Dataset, uninterrupted: MatchedPair, tmp_path: Path
) -> None:
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))  # prompts fit, a fine-tuned model does not

    order = command(pictures.root, tmp_path / "pair", tmp_path)
    stopped = run(*order, preexec_fn=small_disk)
    assert stopped.returncode == 4, stopped.stderr
    assert "what is finished is kept" in stopped.stderr and "File too large" in stopped.stderr
    assert (tmp_path / "pair/vpt/manifest.json").is_file() and not (tmp_path / "pair/ft/manifest.json").exists()
    assert [path for path in (tmp_path / "pair").rglob(".*")] == []
    kept = (tmp_path / "pair/vpt/manifest.json").stat().st_mtime_ns
    went_on = run(*order)
    assert went_on.returncode == 0, went_on.stderr
    assert (tmp_path / "pair/vpt/manifest.json").stat().st_mtime_ns == kept
    assert told(MatchedPair.load(tmp_path / "pair")) == told(uninterrupted)


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(pictures: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="nothing can be written in .*; choose another output folder with --out"):
        train_pair(pictures, TINY_RECIPE, out=tmp_path / "file" / "pair", device="cpu")


def test_the_recipe_of_a_folder_names_every_arm_that_was_trained_there(uninterrupted: MatchedPair) -> None:
    assert set(read_json(uninterrupted.path / "recipe.json")["arms"]) == {"vpt", "ft"}
    assert callable(train)

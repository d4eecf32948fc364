import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from squares import TINY_RECIPE

from explain.backbone import load_backbone
from explain.console import trial_table
from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError, MismatchedRunsError
from explain.files import sha256_file
from explain.tensor_files import read_tensors
from explain.training.fit import predict
from explain.training.images import ImageStore, PixelSource
from explain.training.machine import Machine
from explain.training.pair import MatchedPair, compare_runs
from explain.training.run import Run, load_model
from explain.training.train import train_pair


@pytest.fixture
def copy(tiny_pair: MatchedPair, tmp_path: Path) -> Path:
    """A copy of the pair's folder that a test may damage."""
    return Path(shutil.copytree(tiny_pair.path, tmp_path / "pair"))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return read_tensors(run.path / "weights.safetensors")[0]


def test_every_matched_field_is_equal_and_has_a_value(tiny_pair: MatchedPair) -> None:
    fields = compare_runs(tiny_pair.runs)
    assert all(field.equal for field in fields)
    assert all(set(field.values) == {"vpt", "ft", "linear"} and "None" not in field.values.values() for field in fields)


def test_each_run_stores_exactly_what_its_tuning_trains(tiny_pair: MatchedPair) -> None:
    vit, _ = load_backbone(TINY_RECIPE.backbone, 64)
    assert set(weights(tiny_pair.runs["linear"])) == {"vit.head.weight", "vit.head.bias"}
    prompts = {f"vit.blocks.{block}.prompts" for block in range(len(vit.blocks))}
    assert set(weights(tiny_pair.vpt)) == prompts | {"vit.head.weight", "vit.head.bias"}
    assert len(weights(tiny_pair.ft)) == len(list(vit.parameters())) + 2
    assert tiny_pair.vpt.manifest.weights_bytes < 100_000 < tiny_pair.ft.manifest.weights_bytes


def test_prompt_training_leaves_every_backbone_tensor_as_it_was(tiny_pair: MatchedPair) -> None:
    vit, _ = load_backbone(TINY_RECIPE.backbone, 64)
    pretrained = dict(vit.named_parameters())
    tuned = {name.replace(".block.", "."): value for name, value in tiny_pair.vpt.model.vit.named_parameters()}
    assert all(torch.equal(tuned[name], value) for name, value in pretrained.items())


def test_full_fine_tuning_moves_the_backbone(tiny_pair: MatchedPair) -> None:
    vit, _ = load_backbone(TINY_RECIPE.backbone, 64)
    pretrained = dict(vit.named_parameters())
    moved = [name for name, value in tiny_pair.ft.model.vit.named_parameters()
             if name in pretrained and not torch.equal(value, pretrained[name])]  # fmt: skip
    assert len(moved) > 0.9 * len(pretrained)


def test_a_loaded_run_gives_the_recorded_predictions(tiny_pair: MatchedPair) -> None:
    for run in tiny_pair:
        images = ImageStore().take(tiny_pair.test.samples, run.model.transform, "")
        source = PixelSource(images, run.model.transform, torch.device("cpu"))
        probabilities = predict(run.model, source, len(images), 4, Machine(device="cpu")).softmax(1).numpy()
        np.testing.assert_allclose(probabilities, run.predictions.probabilities, atol=1e-5)
        assert run.predictions.ids == list(tiny_pair.split.test)
        assert run.manifest.test.accuracy == pytest.approx(run.predictions.correct.mean())


def test_the_chosen_learning_rate_is_the_best_on_validation(tiny_pair: MatchedPair) -> None:
    for run in tiny_pair:
        best = max(run.manifest.trials, key=lambda trial: (trial.val_accuracy, -trial.val_loss))
        assert run.manifest.learning_rate == best.learning_rate
        assert len(run.manifest.trials) == 2


def test_a_trial_that_diverges_counts_as_tried_and_is_never_chosen(pictures: Dataset, tmp_path: Path) -> None:
    arms = {name: arm.model_copy(update={"learning_rates": (1e25, arm.learning_rates[0])})
            for name, arm in TINY_RECIPE.arms.items() if name != "linear"}  # fmt: skip
    recipe = TINY_RECIPE.model_copy(update={"arms": arms, "search_epochs": 2})
    pair = train_pair(pictures, recipe, out=tmp_path / "pair", device="cpu")
    first, second = pair.ft.manifest.trials
    assert (first.val_loss, first.val_accuracy, first.steps) == (None, 0.0, second.steps)
    assert pair.ft.manifest.learning_rate == second.learning_rate
    columns = trial_table({"ft": pair.ft.manifest.trials}).columns
    assert "diverged" in [cell for column in columns for cell in column.cells]


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not(
    tiny_pair: MatchedPair, pictures: Dataset, tmp_path: Path
) -> None:
    again = train_pair(pictures, TINY_RECIPE, out=tmp_path / "again", device="cpu")
    other = train_pair(pictures, TINY_RECIPE.model_copy(update={"seed": 1}), out=tmp_path / "other", device="cpu")
    for run in tiny_pair:
        first, same, different = (weights(pair.runs[run.manifest.arm]) for pair in (tiny_pair, again, other))
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert not all(torch.equal(first[name], different[name]) for name in first)


def test_training_again_keeps_what_is_finished(pictures: Dataset, copy: Path) -> None:
    (copy / "ft" / "manifest.json").unlink()  # as if stopped in the last arm's final training
    trained, searched = copy / "vpt" / "weights.safetensors", copy / "ft" / "search.log"
    kept = trained.stat().st_mtime_ns, searched.read_bytes()
    seen: set[str] = set()
    train_pair(pictures, TINY_RECIPE, out=copy, device="cpu", progress=lambda what, done, total: seen.add(what))
    assert (trained.stat().st_mtime_ns, searched.read_bytes()) == kept
    assert not any(what.startswith("vpt") or "trial" in what for what in seen)
    assert any(what.startswith("ft: training") for what in seen)
    MatchedPair.load(copy)


def test_another_recipe_does_not_overwrite_a_run(pictures: Dataset, copy: Path) -> None:
    before = sha256_file(copy / "vpt" / "weights.safetensors")
    with pytest.raises(InputError, match="trained by another recipe"):
        train_pair(pictures, TINY_RECIPE.model_copy(update={"epochs": 3}), out=copy, device="cpu")
    assert sha256_file(copy / "vpt" / "weights.safetensors") == before


def test_other_data_or_another_split_does_not_overwrite_a_pair(pictures: Dataset, copy: Path) -> None:
    renamed = replace(pictures, class_names=("one", "two"))
    with pytest.raises(InputError, match="other images or another split"):
        train_pair(renamed, TINY_RECIPE, out=copy, device="cpu")
    with pytest.raises(InputError, match="another recipe: seed is 0 there and 9 now"):
        train_pair(pictures, TINY_RECIPE.model_copy(update={"seed": 9}), out=copy, device="cpu")


def test_a_pair_needs_both_arms(pictures: Dataset, copy: Path) -> None:
    lonely = TINY_RECIPE.model_copy(update={"arms": {"ft": TINY_RECIPE.arms["ft"]}})
    with pytest.raises(InputError, match="'vpt' and 'ft'"):
        train_pair(pictures, lonely, out=copy / "new", device="cpu")
    shutil.rmtree(copy / "ft")
    with pytest.raises(IntegrityError, match="no run ft; found: .*vpt"):
        MatchedPair.load(copy)


def test_runs_that_differ_are_refused_with_every_field_named(copy: Path) -> None:
    path = copy / "ft" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["split_hash"], manifest["seed"] = "0" * 64, 7
    manifest["trials"] = manifest["trials"][:1]
    path.write_text(json.dumps(manifest))
    with pytest.raises(MismatchedRunsError) as caught:
        MatchedPair.load(copy)
    for words in ("split: vpt", "seed: vpt 0, ft 7", "trials: vpt 2, ft 1"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "predictions.parquet", "history.jsonl", "recipe.json"])
def test_a_changed_byte_in_a_run_is_found(copy: Path, name: str) -> None:
    path = copy / "vpt" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name} is missing or changed"):
        load_model(copy / "vpt")


def test_a_manifest_may_not_name_files_outside_the_run(copy: Path) -> None:
    path = copy / "vpt" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../ft/weights.safetensors"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="names a file that no run has"):
        Run.load(copy / "vpt")


def test_an_unfinished_run_does_not_load(copy: Path) -> None:
    (copy / "vpt" / "manifest.json").unlink()
    with pytest.raises(IntegrityError, match="no finished run"):
        load_model(copy / "vpt")

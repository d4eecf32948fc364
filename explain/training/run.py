"""Run: one trained arm in one folder.

    recipe.json            every hyperparameter
    history.jsonl          one line per epoch: losses, accuracies, learning rate, seconds, peak memory
    weights.safetensors    the trained parameters only (a prompt run is kilobytes)
    predictions.parquet    every test image: id, label, prediction, probabilities
    manifest.json          what it is, what it was trained on, hashes of the files above; written last

A folder without its manifest is unfinished and does not load.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from explain.attribution import Array
from explain.backbone import BackboneCard
from explain.errors import IntegrityError
from explain.files import read_json, read_table, read_tensors, sha256_file, write_table
from explain.model import TunedModel
from explain.record import Record
from explain.training.course import Course
from explain.training.recipe import Recipe, Value
from explain.training.trial import Trial as Trial
from explain.training.trial import best_trial
from explain.tuning.base import tune

HASHED = ("recipe.json", "history.jsonl", "weights.safetensors", "predictions.parquet")


class Epoch(Record):
    """One pass over the training images; accuracies are 0-1, losses are cross-entropy in nats.

    Validation figures are None where there are no validation images left, test figures where none are watched, energy
    where the machine does not tell. Gradient norms are of all trained parameters together, per step.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    gradient_norm: float
    gradient_norm_max: float
    seconds: float
    peak_mib: float
    energy_j: float | None


class TestResult(Record):
    """Accuracy on the test images (0-1) with its 95 % bootstrap interval, and the mean cross-entropy."""

    __test__ = False  # not a test class, whatever its name suggests to pytest

    accuracy: float
    low: float
    high: float
    count: int
    loss: float


class RunManifest(Record):
    """What a run is; everything two runs of a pair are compared by is here."""

    format: int = 2
    arm: str
    tuning: str
    tuning_options: dict[str, Value]
    arm_hash: str
    seed: int
    backbone: BackboneCard
    image_size: int
    class_names: tuple[str, ...]
    data_name: str
    data_fingerprint: str
    split_hash: str
    order_hash: str
    head_hash: str
    train_count: int
    steps: int
    started_from: str | None
    course: Course
    search_seed: int
    trials: tuple[Trial, ...]
    trained_parameters: int
    total_parameters: int
    weights_bytes: int
    seconds_per_epoch: float
    peak_mib: float
    energy_j: float | None
    test: TestResult
    device: str
    precision: str
    processes: int
    versions: dict[str, str]
    created: str
    files: dict[str, str]

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the file with what was trained."""
        return self.files["weights.safetensors"]

    @property
    def learning_rate(self) -> float:
        """The peak rate that the search chose."""
        return self.course.learning_rate

    @property
    def chosen(self) -> Trial:
        """The trial that the search chose."""
        return best_trial(list(self.trials))


@dataclass(frozen=True)
class Predictions:
    """A run's answers on the test images: ids (n), labels (n,), classes (n,), probabilities (n, K)."""

    ids: list[str]
    labels: Array
    classes: Array
    probabilities: Array

    @property
    def correct(self) -> Array:
        """bool (n,)."""
        return np.asarray(self.classes == self.labels)

    def save(self, path: Path) -> None:
        """Write Parquet, one row per image."""
        table = pa.table({
            "id": self.ids, "label": self.labels, "prediction": self.classes,
            "probabilities": pa.array(list(self.probabilities.astype(np.float32)), pa.list_(pa.float32())),
        })  # fmt: skip
        write_table(table, path)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote."""
        table = read_table(path)
        probabilities = np.array(table["probabilities"].to_pylist(), dtype=np.float32)
        return cls(table["id"].to_pylist(), table["label"].to_numpy(), table["prediction"].to_numpy(), probabilities)


@dataclass(frozen=True)
class Run:
    """A finished run on disk.

    Args:
        path: its folder.
        manifest: what was recorded when it finished.
    """

    path: Path
    manifest: RunManifest

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Open a run folder.

        Raises:
            IntegrityError: no manifest (unfinished), a manifest of another format, or a file that changed since.
        """
        folder = Path(path)
        if not (folder / "manifest.json").is_file():
            raise IntegrityError(f"{folder} holds no finished run (no manifest.json); train it, or check the path")
        try:
            manifest = RunManifest.model_validate(read_json(folder / "manifest.json"))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise IntegrityError(f"{folder}/manifest.json: {field}: {first['msg']}") from None
        for name, expected in manifest.files.items():
            if name not in HASHED:
                raise IntegrityError(f"{folder}/manifest.json names a file that no run has: {name!r}")
            if not (folder / name).is_file() or sha256_file(folder / name) != expected:
                raise IntegrityError(f"{folder / name} is missing or changed since training; train the run again")
        return cls(folder, manifest)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe it was trained by."""
        return Recipe.parse(read_json(self.path / "recipe.json"), str(self.path / "recipe.json"))

    @cached_property
    def history(self) -> list[Epoch]:
        """One record per epoch."""
        lines = (self.path / "history.jsonl").read_text(encoding="utf-8").splitlines()
        return [Epoch.model_validate_json(line) for line in lines]

    @cached_property
    def predictions(self) -> Predictions:
        """The answers on the test images."""
        return Predictions.load(self.path / "predictions.parquet")

    @cached_property
    def model(self) -> TunedModel:
        """The trained model on the CPU, in evaluation mode, built on the first use."""
        manifest = self.manifest
        options: dict[str, Any] = dict(manifest.tuning_options)
        model = tune(
            manifest.backbone.spec, manifest.tuning, class_names=manifest.class_names,
            image_size=manifest.image_size, expect_sha256=manifest.backbone.sha256, **options,
        )  # fmt: skip
        tensors, _ = read_tensors(self.path / "weights.safetensors")
        model.load_trained(tensors)
        return model.eval()


def load_model(path: str | Path) -> TunedModel:
    """The trained model of a run folder, such as "runs/demo/vpt", on the CPU in evaluation mode."""
    return Run.load(path).model

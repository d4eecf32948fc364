"""Run: one trained arm in one folder.

    recipe.json            every hyperparameter
    history.jsonl          one line per epoch: losses, accuracies, learning rate, seconds, peak memory
    weights.safetensors    the trained parameters only (a prompt run is kilobytes)
    predictions.parquet    every test image: id, label, prediction, probabilities
    packages.txt           every package that was installed when it finished, as pip install -r takes them
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
from explain.data.names import find_obeyed
from explain.errors import IntegrityError
from explain.files import parse_json, read_json, read_table, sha256_file, write_table
from explain.model import TunedModel
from explain.record import Record
from explain.software import Software
from explain.tensor_files import read_weights
from explain.training.course import Course
from explain.training.epoch import Epoch as Epoch
from explain.training.recipe import Recipe, Value
from explain.training.trial import Trial as Trial
from explain.training.trial import best_trial
from explain.tuning.base import TUNINGS, tune

PACKAGES = "packages.txt"
HASHED = ("recipe.json", "history.jsonl", "weights.safetensors", "predictions.parquet")


class TestResult(Record):
    """Accuracy on the test images (0-1) with its 95 % bootstrap interval, and the mean cross-entropy."""

    __test__ = False  # not a test class, whatever its name suggests to pytest

    accuracy: float
    low: float
    high: float
    count: int
    loss: float


class RunManifest(Record):
    """What a run is; everything two runs of a pair are compared by is here.

    `criteria_sha256` is of the criteria that were declared before it was trained; None where none were. `software` is
    None for runs that were trained before it was recorded.
    """

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
    software: Software | None = None
    created: str
    criteria_sha256: str | None = None
    files: dict[str, str]

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the file with what was trained."""
        return self.files["weights.safetensors"]

    @property
    def identity(self) -> str:
        """What the model's answers depend on: backbone, tuning and trained weights."""
        return f"{self.backbone.sha256}:{self.arm_hash}:{self.weights_sha256}"

    @property
    def learning_rate(self) -> float:
        """The peak rate that the search chose."""
        return self.course.learning_rate

    @property
    def chosen(self) -> Trial:
        """The trial that the search chose."""
        return best_trial(list(self.trials))


COLUMNS = {"id": pa.string(), "label": pa.int64(), "prediction": pa.int64(), "probabilities": pa.list_(pa.float32())}
"""Columns of a run's answers."""


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
    def load(cls, path: Path, classes: int | None = None) -> "Predictions":
        """Read what `save` wrote.

        Args:
            path: the file.
            classes: K; None for as many as the first image has.

        Raises:
            IntegrityError: not Parquet, other columns, or no label, class and probabilities of every image.
        """
        table = read_table(path)
        found = list(zip(table.schema.names, table.schema.types, strict=True))
        if found != list(COLUMNS.items()) or any(column.null_count for column in table.columns):
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            raise IntegrityError(f"{path} holds other columns than predictions; expected {columns}, without gaps")
        try:
            ids = table["id"].to_pylist()
        except UnicodeDecodeError as error:
            raise IntegrityError(f"{path} holds an id that is no text ({error})") from None
        rows = table["probabilities"].combine_chunks()
        widths, numbers = rows.value_lengths().to_numpy(zero_copy_only=False), rows.flatten()
        wanted = classes or int(widths[0] if len(widths) else 1)
        labels, answers = table["label"].to_numpy(), table["prediction"].to_numpy()
        inside = all(((part >= 0) & (part < wanted)).all() for part in (labels, answers))
        probabilities = numbers.to_numpy(zero_copy_only=False)
        if not inside or (widths != wanted).any() or not np.isfinite(probabilities).all():
            raise IntegrityError(f"{path} is not about {wanted} classes: expected labels and predictions of 0 to "
                                 f"{wanted - 1}, and {wanted} finite probabilities for every image")  # fmt: skip
        return cls(ids, labels, answers, np.array(probabilities.reshape(-1, wanted)))


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
        obeyed = find_obeyed(manifest.model_dump(mode="json"))
        if obeyed:
            raise IntegrityError(f"{folder}/manifest.json: {obeyed} holds control characters; it was changed")
        strange, lacking = sorted(manifest.files.keys() - set(HASHED)), sorted(set(HASHED) - manifest.files.keys())
        if strange:
            raise IntegrityError(f"{folder}/manifest.json names a file that no run has: {strange[0]!r}")
        if lacking:
            raise IntegrityError(f"{folder}/manifest.json has no hash of {', '.join(lacking)}; train the run again")
        for name, expected in manifest.files.items():
            if not (folder / name).is_file() or sha256_file(folder / name) != expected:
                raise IntegrityError(f"{folder / name} is missing or changed since training; train the run again")
        return cls(folder, manifest)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe it was trained by."""
        return Recipe.parse(read_json(self.path / "recipe.json"), str(self.path / "recipe.json"))

    @cached_property
    def history(self) -> list[Epoch]:
        """One record per epoch.

        Raises:
            IntegrityError: a line that is no record of an epoch.
        """
        path = self.path / "history.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise IntegrityError(f"{path} is not UTF-8 ({error}); train the run again") from None
        values = [parse_json(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
        try:
            return [Epoch.model_validate(value) for value in values]
        except ValidationError as error:
            first = error.errors()[0]
            raise IntegrityError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    @cached_property
    def predictions(self) -> Predictions:
        """The answers on the test images."""
        return Predictions.load(self.path / "predictions.parquet", len(self.manifest.class_names))

    @cached_property
    def model(self) -> TunedModel:
        """The trained model on the CPU, in evaluation mode, built on the first use."""
        manifest = self.manifest
        options: dict[str, Any] = dict(manifest.tuning_options)
        TUNINGS.create(manifest.tuning, **options)  # a manifest gives options of its tuning, no other arguments
        model = tune(
            manifest.backbone.spec, manifest.tuning, class_names=manifest.class_names,
            image_size=manifest.image_size, expect_sha256=manifest.backbone.sha256, **options,
        )  # fmt: skip
        tensors, _ = read_weights(self.path / "weights.safetensors")
        model.load_trained(tensors)
        return model.eval()


def load_model(path: str | Path) -> TunedModel:
    """The trained model of a run folder, such as "runs/demo/vpt", on the CPU in evaluation mode."""
    return Run.load(path).model

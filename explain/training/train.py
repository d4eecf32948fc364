"""train_pair: every arm of a recipe on one data set, each a run in its own folder.

Work continues from what is finished: a finished arm is kept, and so is every learning-rate trial of an unfinished one.
A folder that holds another recipe's or another data set's work is refused, never overwritten.
"""

import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import cross_entropy

from explain.data.base import Dataset, load_data
from explain.data.split import Split, stratified_split
from explain.errors import InputError, IntegrityError
from explain.files import read_json, sha256_file, sha256_json, write_atomically, write_json, write_tensors
from explain.metrics.statistics import bootstrap_interval
from explain.model import TunedModel
from explain.provenance import library_versions
from explain.training.fit import Images, Progress, accelerator_for, accuracy, fit, order_hash, predict, quiet
from explain.training.pair import MatchedPair
from explain.training.recipe import Arm, Recipe
from explain.training.run import HASHED, Epoch, Predictions, Run, RunManifest, TestResult, Trial
from explain.tuning.base import classification_heads, tune


def train_pair(
    data: Dataset | str | Path,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    device: str | None = None,
    progress: Progress = quiet,
) -> MatchedPair:
    """Train every arm of the recipe under equal conditions; call it again to continue an interrupted training.

    Args:
        data: a data set, or what `load_data` reads.
        recipe: every hyperparameter; None is the "matched" preset.
        out: folder of the pair; None is "runs/<name of the data set>".
        device: "cpu", "cuda", or None for a GPU when there is one.
        progress: called with (what is running, images done, images in all).

    Raises:
        InputError: the folder holds other work, or the recipe lacks the arms "vpt" and "ft".
        DatasetError: too few images for the split.
        NonFiniteError: a loss became NaN or infinite.
    """
    recipe = recipe or Recipe()
    missing = [arm for arm in ("vpt", "ft") if arm not in recipe.arms]
    if missing:
        raise InputError(f"a pair needs the arms 'vpt' and 'ft'; the recipe has {', '.join(recipe.arms)}")
    dataset = data if isinstance(data, Dataset) else load_data(data)
    folder = Path(out) if out is not None else Path("runs") / dataset.name
    split = stratified_split(
        dataset, seed=recipe.seed, train_per_class=recipe.train_per_class, val_per_class=recipe.val_per_class,
        test_per_class=recipe.test_per_class,
    )  # fmt: skip
    _claim(folder, dataset, split)
    job = _Job(folder, dataset, split, recipe, accelerator_for(device), progress)
    for name in recipe.arms:
        job.train_arm(name)
    return MatchedPair.load(folder)


def _claim(folder: Path, data: Dataset, split: Split) -> None:
    """Write what the folder is about, or check that it is about the same."""
    if (folder / "split.json").is_file():
        found = Dataset.from_manifest(read_json(folder / "dataset.json"))
        found_split = Split.from_json(read_json(folder / "split.json"))
        if (found.fingerprint, found_split.hash) != (data.fingerprint, split.hash):
            raise InputError(
                f"{folder} holds runs on other images or another split ({found.name}, {len(found)} images); "
                "choose another output folder, or move this one away"
            )
        return
    write_json(folder / "dataset.json", data.manifest())
    write_json(folder / "split.json", split.to_json())


@dataclass
class _Job:
    """What all arms share."""

    folder: Path
    data: Dataset
    split: Split
    recipe: Recipe
    accelerator: Accelerator
    progress: Progress
    _images: dict[str, Images] | None = None

    def images(self, part: str, model: TunedModel) -> Images:
        """The decoded images of "train", "val" or "test"; decoded once for all arms."""
        self._images = self._images or {}
        if part not in self._images:
            subset = self.data.select(getattr(self.split, part))
            self._images[part] = Images.decode(subset, model.transform, f"reading {part} images", self.progress)
        return self._images[part]

    def train_arm(self, name: str) -> None:
        """Search and train one arm unless it is finished."""
        folder, arm = self.folder / name, self.recipe.arms[name]
        if (folder / "manifest.json").is_file():
            finished = Run.load(folder).manifest
            if finished.arm_hash != self.recipe.arm_hash(name):
                raise InputError(f"{folder} was trained by another recipe; choose another output folder, "
                                 "or move this one away")  # fmt: skip
            return
        trials = self._search(name, arm)
        best = max(trials, key=lambda trial: (trial.val_accuracy, -trial.val_loss))
        self._train_final(name, arm, trials, best.learning_rate)

    def _model(self, arm: Arm) -> TunedModel:
        options: dict[str, Any] = dict(arm.options)
        return tune(self.recipe.backbone, arm.tuning, class_names=self.data.class_names,
                    image_size=self.recipe.image_size, seed=self.recipe.seed, **options)  # fmt: skip

    def _fit(self, model: TunedModel, rate: float, epochs: int, what: str) -> list[Epoch]:
        train, val = self.images("train", model), self.images("val", model)
        return list(fit(model, train, val, self.recipe, learning_rate=rate, epochs=epochs,
                        accelerator=self.accelerator, what=what, progress=self.progress))  # fmt: skip

    def _search(self, name: str, arm: Arm) -> list[Trial]:
        """One short training per learning rate; finished trials are read back."""
        path = self.folder / name / "trials.json"
        key = sha256_json([self.recipe.arm_hash(name), self.split.hash, self.data.fingerprint])
        record = read_json(path) if path.is_file() else {}
        if record and record["key"] != key:
            raise InputError(f"{path} belongs to another recipe; choose another output folder, or move it away")
        trials = [Trial.model_validate(row) for row in record.get("trials", [])]
        for index, rate in enumerate(arm.learning_rates[len(trials) :], start=len(trials) + 1):
            what = f"{name}: trial {index} of {len(arm.learning_rates)}, learning rate {rate:g}"
            history = self._fit(self._model(arm), rate, self.recipe.search_epochs, what)
            trials.append(Trial(
                learning_rate=rate, val_accuracy=history[-1].val_accuracy, val_loss=history[-1].val_loss,
                seconds=sum(epoch.seconds for epoch in history),
            ))  # fmt: skip
            write_json(path, {"key": key, "trials": [trial.model_dump() for trial in trials]})
        return trials

    def _train_final(self, name: str, arm: Arm, trials: list[Trial], rate: float) -> None:
        folder, model = self.folder / name, self._model(arm)
        head = _head_hash(model)
        history = self._fit(model, rate, self.recipe.epochs, f"{name}: training, learning rate {rate:g}")
        test = self.images("test", model)
        logits = predict(model, test, self.recipe.batch_size, self.accelerator, f"{name}: testing", self.progress)
        write_json(folder / "recipe.json", self.recipe.model_dump(mode="json"))
        lines = "".join(epoch.model_dump_json() + "\n" for epoch in history)
        write_atomically(folder / "history.jsonl", lambda path: path.write_text(lines, encoding="utf-8"))
        write_tensors(folder / "weights.safetensors", model.trained_state(), {"arm": name, "tuning": arm.tuning})
        probabilities = logits.softmax(1).numpy()
        predictions = Predictions(list(test.ids), test.labels.numpy(), logits.argmax(1).numpy(), probabilities)
        write_atomically(folder / "predictions.parquet", predictions.save)
        manifest = self._manifest(name, model, head, history, trials, rate, _test_result(logits, test.labels))
        write_json(folder / "manifest.json", manifest.model_dump(mode="json"))

    def _manifest(
        self, name: str, model: TunedModel, head: str, history: list[Epoch], trials: list[Trial], rate: float,
        test: TestResult,
    ) -> RunManifest:  # fmt: skip
        folder, recipe = self.folder / name, self.recipe
        if model.card is None:
            raise IntegrityError("a run needs a backbone with a card; build it by name")
        on_gpu = self.accelerator.device.type == "cuda"
        trained = model.trained_state()
        train_ids = self.split.train
        return RunManifest(
            arm=name, tuning=model.tuning, tuning_options=model.tuning_options, arm_hash=recipe.arm_hash(name),
            seed=recipe.seed, backbone=model.card, image_size=recipe.image_size, class_names=model.class_names,
            data_name=self.data.name, data_fingerprint=self.data.fingerprint, split_hash=self.split.hash,
            order_hash=order_hash(train_ids, recipe), head_hash=head,
            steps=recipe.epochs * -(-len(train_ids) // recipe.batch_size), trials=tuple(trials), learning_rate=rate,
            trained_parameters=sum(value.numel() for value in trained.values()),
            total_parameters=sum(value.numel() for value in model.parameters()),
            weights_bytes=(folder / "weights.safetensors").stat().st_size,
            seconds_per_epoch=statistics.median(epoch.seconds for epoch in history),
            peak_mib=max(epoch.peak_mib for epoch in history), test=test,
            device=torch.cuda.get_device_name() if on_gpu else "cpu", precision="bf16 autocast" if on_gpu else "fp32",
            versions=library_versions(), created=datetime.now(UTC).isoformat(timespec="seconds"),
            files={file: sha256_file(folder / file) for file in HASHED},
        )  # fmt: skip


def _head_hash(model: TunedModel) -> str:
    tensors = [value for head in classification_heads(model.vit) for value in head.parameters()]
    return sha256_json([value.detach().flatten().tolist() for value in tensors])


def _test_result(logits: Tensor, labels: Tensor) -> TestResult:
    correct = (logits.argmax(1) == labels).numpy().astype(float)
    low, high = bootstrap_interval(correct)
    loss = float(cross_entropy(logits, labels))
    return TestResult(accuracy=accuracy(logits, labels), low=low, high=high, count=len(labels), loss=loss)

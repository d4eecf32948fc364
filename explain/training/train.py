"""train_pair: every arm of a recipe on one data set, each a run in its own folder.

Work continues from what is finished: a finished arm is kept, so is every trial of an unfinished one, and the training
that was running goes on from its checkpoint. A folder that holds other work is refused, never overwritten.
"""

import copy
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from explain.data.base import Dataset, load_data
from explain.errors import InputError, IntegrityError, NonFiniteError
from explain.files import sha256_file, sha256_json, write_atomically, write_json
from explain.metrics.statistics import bootstrap_interval
from explain.model import TunedModel
from explain.provenance import library_versions
from explain.software import package_list, software
from explain.tensor_files import read_tensors, write_tensors
from explain.training.checkpoint import CHECKPOINT, Checkpoint
from explain.training.course import Course
from explain.training.fit import Stems, accuracy, fit, predict
from explain.training.folder import Material, claim
from explain.training.images import FLIPS, Images, ImageStore, PixelSource, Progress, order_hash, quiet
from explain.training.machine import Machine
from explain.training.pair import MatchedPair
from explain.training.recipe import Arm, Recipe
from explain.training.run import HASHED, PACKAGES, Epoch, Predictions, Run, RunManifest, TestResult
from explain.training.search import planned_epochs, search
from explain.training.trial import Point, Trial, best_trial
from explain.tuning.base import classification_heads, tune


def train_pair(
    data: Dataset | str | Path,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    criteria: str | Path | None = None,
    device: str | None = None,
    machine: Machine | None = None,
    progress: Progress = quiet,
) -> MatchedPair:
    """Train every arm of the recipe under equal conditions; call it again to continue an interrupted training.

    Args:
        data: a data set, or what `load_data` reads.
        recipe: every hyperparameter; None is the "matched" preset.
        out: folder of the pair; None is "runs/<name of the data set>".
        criteria: YAML file of what a model must fulfil; it is fixed here, before anything is trained.
        device: "cpu", "cuda", or None for a GPU when there is one; short for `machine=Machine(device=…)`.
        machine: how it is computed.
        progress: called with (what is running, images done, images in all).

    Raises:
        InputError: the folder holds other work, the recipe lacks the arms "vpt" and "ft", or the criteria cannot be
            held against these arms and classes, or come after a training.
        DatasetError: too few images for the split.
        NonFiniteError: a loss became NaN or infinite.
    """
    recipe = recipe or Recipe()
    missing = [arm for arm in ("vpt", "ft") if arm not in recipe.arms]
    if missing:
        raise InputError(f"a pair needs the arms 'vpt' and 'ft'; the recipe has {', '.join(recipe.arms)}")
    dataset = data if isinstance(data, Dataset) else load_data(data)
    folder = Path(out) if out is not None else Path("runs") / dataset.name
    train_arms(dataset, recipe, folder, Workshop(machine or Machine(device=device), progress), criteria=criteria)
    return MatchedPair.load(folder)


class Workshop:
    """What trainings share: machine, software, decoded images, and what frozen blocks made of them.

    Args:
        machine: how it is computed.
        progress: called with (what is running, images done, images in all).
    """

    def __init__(self, machine: Machine, progress: Progress = quiet) -> None:
        self.machine = machine
        self.progress = progress if machine.rank == 0 else quiet
        self.images = ImageStore(self.progress)
        self.stems = Stems(machine, self.progress)
        self.software = software()  # now: files may be changed while this runs

    def saying(self, prefix: str) -> "Workshop":
        """The same workshop with words before everything that is said to `progress`."""
        twin = copy.copy(self)
        twin.progress = lambda what, done, total: self.progress(f"{prefix}{what}", done, total)
        return twin


def train_arms(
    data: Dataset, recipe: Recipe, folder: Path, workshop: Workshop, *, searched_in: Path | None = None,
    criteria: str | Path | None = None,
) -> dict[str, Run]:  # fmt: skip
    """Train every arm of a recipe into sub-folders of `folder`; see `train_pair`.

    Args:
        searched_in: folder of another seed whose search is used instead of a new one.
        criteria: as in `train_pair`.

    Returns:
        The finished runs by arm.
    """
    with workshop.machine.first():
        material = claim(folder, data, recipe, criteria=criteria, write=workshop.machine.rank == 0)
    runs = {}
    for name in in_order(recipe.arms):
        runs[name] = _Job(name, folder / name, material, recipe, workshop, searched_in).run()
    return {name: runs[name] for name in recipe.arms}


def search_arms(data: Dataset, recipe: Recipe, folder: Path, workshop: Workshop) -> dict[str, list[Trial]]:
    """Only the search of every arm; `train_arms` into the same folder goes on from it.

    Returns:
        Every trial by arm.

    Raises:
        InputError: an arm starts from another one, which a search alone does not train.
    """
    late = [name for name, arm in recipe.arms.items() if arm.start_from is not None]
    if late:
        raise InputError(f"{', '.join(late)} can be searched only once the arm it starts from is trained; leave it out "
                         "here, `explain train` searches it")  # fmt: skip
    with workshop.machine.first():
        material = claim(folder, data, recipe, write=workshop.machine.rank == 0)
    return {name: _Job(name, folder / name, material, recipe, workshop, None).search() for name in recipe.arms}


def in_order(arms: Mapping[str, Arm]) -> list[str]:
    """Names of the arms, each after the one that it starts from.

    Raises:
        InputError: arms that start from each other.
    """
    order: list[str] = []
    while len(order) < len(arms):
        ready = [name for name, arm in arms.items() if name not in order and arm.start_from in (None, *order)]
        if not ready:
            raise InputError(f"arms start from each other: {', '.join(arms.keys() - set(order))}")
        order += ready
    return order


@dataclass
class _Job:
    """One arm on its way: search, training, test, and its folder."""

    name: str
    folder: Path
    material: Material
    recipe: Recipe
    workshop: Workshop
    searched_in: Path | None

    @property
    def arm(self) -> Arm:
        return self.recipe.arms[self.name]

    @cached_property
    def searched(self) -> RunManifest | None:
        """The run of another seed whose search is used."""
        return None if self.searched_in is None else Run.load(self.searched_in / self.name).manifest

    @property
    def key(self) -> str:
        """Hash of all that decides the results."""
        return sha256_json([self.recipe.arm_hash(self.name), self.material.split.hash, self.material.fingerprint])

    def run(self) -> Run:
        """The finished run; nothing is trained when it is there already."""
        machine = self.workshop.machine
        finished = machine.told((self.folder / "manifest.json").is_file())
        if not finished:
            trials = self.search()
            best = best_trial(trials)
            self.train(trials, Point(learning_rate=best.learning_rate, weight_decay=best.weight_decay,
                                     options=best.options))  # fmt: skip
        elif machine.rank == 0:  # it may have been ended between its last file and this
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        machine.wait()
        return Run.load(self.folder)

    def search(self) -> list[Trial]:
        """Every trial; the process of rank 0 decides what is tried, the others train along."""
        if self.searched is not None:
            return list(self.searched.trials)
        machine, rows = self.workshop.machine, None
        if machine.rank == 0:

            def evaluate(point: Point, epochs: int, what: str) -> Trial:
                machine.told([point.model_dump(), epochs, what])
                return self.evaluate(point, epochs, what)

            found = search(self.arm, self.recipe, evaluate, storage=self.folder, key=self.key)
            rows = [trial.model_dump() for trial in found]
            machine.told(None)
        else:
            while (asked := machine.told(None)) is not None:
                self.evaluate(Point.model_validate(asked[0]), asked[1], asked[2])
        return [Trial.model_validate(row) for row in machine.told(rows)]

    def evaluate(self, point: Point, epochs: int, what: str) -> Trial:
        """Train a fresh model at a point and look at the validation images."""
        course = Course.of(self.recipe, self.arm, point, epochs)
        model = self.model(point)
        images = {"train": self.images("train", model), "val": self.images("val", model),
                  "test": self.images("", model)}  # fmt: skip
        cost: dict[str, Any] = {"epochs": epochs, "steps": epochs * course.steps_per_epoch(len(images["train"]))}
        started = time.perf_counter()
        try:
            history = self.fit(model, images, course, f"{self.name}: {what}")
        except NonFiniteError:  # a point like any other, only a bad one; it counts as tried
            return Trial(**point.model_dump(), **cost, val_accuracy=0.0, val_loss=None,
                         seconds=time.perf_counter() - started)  # fmt: skip
        last = history[-1] if course.select == "last" else max(history, key=lambda epoch: epoch.val_accuracy or 0.0)
        if last.val_accuracy is None or last.val_loss is None:
            raise InputError("a search needs validation images; the split has none")
        return Trial(
            **point.model_dump(), **cost, val_accuracy=last.val_accuracy, val_loss=last.val_loss,
            seconds=sum(epoch.seconds for epoch in history),
        )  # fmt: skip

    def train(self, trials: list[Trial], point: Point) -> None:
        """The final training at the chosen point, the test, and the files of the run, the manifest last."""
        course, model = Course.of(self.recipe, self.arm, point, self.recipe.epochs), self.model(point)
        head, machine = _head_hash(model), self.workshop.machine
        train, val = ("train+val", "") if self.recipe.train_on_val else ("train", "val")
        images = {"train": self.images(train, model), "val": self.images(val, model),
                  "test": self.images("watched", model)}  # fmt: skip
        history = self.fit(model, images, course, f"{self.name}: training, learning rate {point.learning_rate:.3g}")
        test = self.images("test", model)
        source = PixelSource(test, model.transform, machine.torch_device)
        logits = predict(model.training_view(), source, len(test), course.batch_size, machine,
                         f"{self.name}: testing", self.workshop.progress)  # fmt: skip
        if machine.rank == 0:
            self.write(model, history, test, logits)
            manifest = self.manifest(model, head, history, trials, course, images["train"],
                                     _test_result(logits, test.labels))  # fmt: skip
            write_json(self.folder / "manifest.json", manifest.model_dump(mode="json"))
            self.checkpoint(course).remove()

    def fit(self, model: TunedModel, images: dict[str, Images], course: Course, what: str) -> list[Epoch]:
        """Train a model on its course, from its checkpoint where there is one."""
        # frozen blocks are run once per image and flip, which has to be less than once per epoch
        pays = planned_epochs(self.recipe, self.arm) + self.recipe.epochs > (len(FLIPS) if course.flip else 1)
        return fit(
            model, images, course, machine=self.workshop.machine, stems=self.workshop.stems if pays else None,
            checkpoint=self.checkpoint(course), what=what, progress=self.workshop.progress,
        )  # fmt: skip

    def checkpoint(self, course: Course) -> Checkpoint:
        """Where the training on this course is kept."""
        machine = self.workshop.machine
        key = sha256_json([self.key, course.model_dump(mode="json")])
        return Checkpoint(self.folder / CHECKPOINT, key, machine.checkpoint_s, write=machine.rank == 0)

    def model(self, point: Point) -> TunedModel:
        """The arm's model before its training."""
        start, origin = None, self.arm.start_from
        if origin is not None:
            start, _ = read_tensors(self.folder.parent / origin / "weights.safetensors")
        options: dict[str, Any] = dict(point.options)
        return tune(self.recipe.backbone, self.arm.tuning, class_names=self.material.data.class_names,
                    image_size=self.recipe.image_size, seed=self.recipe.seed, start=start, **options)  # fmt: skip

    def images(self, part: str, model: TunedModel) -> Images:
        """The images of "train", "val", "train+val", "test", the "watched" ones of the test, or "" for none."""
        samples = self.material.samples(part, self.recipe.monitor_images)
        return self.workshop.images.take(samples, model.transform, f"reading {part} images")

    def write(self, model: TunedModel, history: list[Epoch], test: Images, logits: Tensor) -> None:
        """All files of the run but its manifest."""
        write_json(self.folder / "recipe.json", self.recipe.model_dump(mode="json"))
        write_atomically(self.folder / PACKAGES, lambda path: path.write_text(package_list(), encoding="utf-8"))
        lines = "".join(epoch.model_dump_json() + "\n" for epoch in history)
        write_atomically(self.folder / "history.jsonl", lambda path: path.write_text(lines, encoding="utf-8"))
        header = {"arm": self.name, "tuning": self.arm.tuning}
        write_tensors(self.folder / "weights.safetensors", model.trained_state(), header)
        answers = Predictions(list(test.ids), test.labels.numpy(), logits.argmax(1).numpy(), logits.softmax(1).numpy())
        answers.save(self.folder / "predictions.parquet")

    def manifest(
        self, model: TunedModel, head: str, history: list[Epoch], trials: list[Trial], course: Course, train: Images,
        test: TestResult,
    ) -> RunManifest:  # fmt: skip
        """What the run is."""
        folder, recipe, machine = self.folder, self.recipe, self.workshop.machine
        if model.card is None:
            raise IntegrityError("a run needs a backbone with a card; build it by name")
        searched = recipe.seed if self.searched is None else self.searched.search_seed
        spent = [epoch.energy_j for epoch in history]
        return RunManifest(
            arm=self.name, tuning=model.tuning, tuning_options=model.tuning_options,
            arm_hash=recipe.arm_hash(self.name), seed=recipe.seed, backbone=model.card, image_size=recipe.image_size,
            class_names=model.class_names, data_name=self.material.data.name,
            data_fingerprint=self.material.fingerprint, split_hash=self.material.split.hash,
            order_hash=order_hash(train.ids, course.seed, course.epochs, course.flip), head_hash=head,
            train_count=len(train), steps=course.epochs * course.steps_per_epoch(len(train)),
            started_from=self.arm.start_from, course=course, search_seed=searched,
            trials=tuple(trials),
            trained_parameters=sum(value.numel() for value in model.parameters() if value.requires_grad),
            total_parameters=sum(value.numel() for value in model.parameters()),
            weights_bytes=(folder / "weights.safetensors").stat().st_size,
            seconds_per_epoch=statistics.median(epoch.seconds for epoch in history),
            peak_mib=max(epoch.peak_mib for epoch in history),
            energy_j=None if None in spent else sum(value for value in spent if value is not None), test=test,
            device=machine.name, precision=machine.precision, processes=machine.processes,
            versions=library_versions(), software=self.workshop.software,
            created=datetime.now(UTC).isoformat(timespec="seconds"), criteria_sha256=self.material.criteria_sha256,
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

"""MatchedPair: a VPT run and a full fine-tuning run that were trained alike, and the proof of it.

Runs are compared field by field. A pair exists only when every field that must agree does: same backbone bytes, same
images, same split, same image order, same steps, same number of learning-rate trials.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from explain.criteria import FILE as CRITERIA
from explain.criteria import Declaration, read_criteria
from explain.data.base import Dataset
from explain.data.split import Split
from explain.errors import IntegrityError, MismatchedRunsError
from explain.files import read_json
from explain.training.run import Run

MATCHED_FIELDS: dict[str, str] = {
    "backbone.sha256": "backbone weights",
    "image_size": "input size",
    "class_names": "classes",
    "data_fingerprint": "images",
    "split_hash": "split",
    "recipe.label_noise": "label noise",
    "recipe.imbalance": "imbalance",
    "train_count": "training images",
    "order_hash": "image order and flips",
    "head_hash": "head before training",
    "seed": "seed",
    "steps": "steps",
    "course.batch_size": "batch size",
    "course.epochs": "epochs",
    "course.optimizer": "optimizer",
    "recipe.weight_decay": "weight decay",
    "course.warmup": "warm-up",
    "course.schedule": "schedule",
    "course.select": "selection of the epoch",
    "course.flip": "augmentation",
    "recipe.search": "search",
    "search_seed": "seed of the search",
    "trial_count": "trials",
    "trial_steps": "steps of all trials",
    "precision": "precision",
}
"""What two matched runs must share: path of the field -> its name in words."""


@dataclass(frozen=True)
class MatchedField:
    """One field of the comparison.

    Args:
        name: in words.
        values: each arm's value as text.
        set_apart: True when a published protocol says that the arms differ here.
    """

    name: str
    values: dict[str, str]
    set_apart: bool = False

    @property
    def key(self) -> str:
        """The name as one word, such as "input_size"."""
        return re.sub("[^a-z]+", "_", self.name.lower())

    @property
    def equal(self) -> bool:
        """True when every arm has the same value."""
        return len(set(self.values.values())) == 1


def compare_runs(runs: dict[str, Run]) -> list[MatchedField]:
    """Every field that must agree, with each run's value, in a fixed order."""
    return [
        MatchedField(
            words, {arm: _text(_field(_begun(runs, run, path), path)) for arm, run in runs.items()},
            set_apart=all(words in run.recipe.unequal for run in runs.values()),
        )
        for path, words in MATCHED_FIELDS.items()
    ]  # fmt: skip


def _begun(runs: dict[str, Run], run: Run, path: str) -> Run:
    """The run whose field is compared: a head that another run trained first is that run's head before training."""
    while path == "head_hash" and run.manifest.started_from in runs:
        run = runs[str(run.manifest.started_from)]
    return run


def _field(run: Run, path: str) -> Any:
    if path == "trial_count":
        return len(run.manifest.trials)
    if path == "trial_steps":
        return sum(trial.steps for trial in run.manifest.trials)
    value: Any = run if path.startswith("recipe.") else run.manifest
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class MatchedPair:
    """The runs of one comparison, proved equal in everything but the tuning.

    Args:
        path: folder that holds the runs, `dataset.json` and `split.json`.
        runs: every run by its arm's name; "vpt" and "ft" are always there.

    Raises:
        MismatchedRunsError: listing each field that differs.
    """

    path: Path
    runs: dict[str, Run]

    def __post_init__(self) -> None:
        differing = [field for field in compare_runs(self.runs) if not field.equal and not field.set_apart]
        if differing:
            lines = [
                f"{field.name}: " + ", ".join(f"{arm} {value}" for arm, value in field.values.items())
                for field in differing
            ]
            raise MismatchedRunsError(
                f"the runs in {self.path} are not a matched pair; they differ in " + "; ".join(lines)
                + ". Train them together with one recipe."
            )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> "MatchedPair":
        """Open the folder of a pair: every sub-folder with a manifest is a run.

        Raises:
            IntegrityError: "vpt" or "ft" is missing.
            MismatchedRunsError: the runs were not trained alike.
        """
        folder = Path(path)
        runs = {child.parent.name: Run.load(child.parent) for child in sorted(folder.glob("*/manifest.json"))}
        missing = [arm for arm in ("vpt", "ft") if arm not in runs]
        if missing:
            raise IntegrityError(
                f"{folder} is not a finished pair: no run {' and no run '.join(missing)}; found: "
                f"{', '.join(runs) or 'nothing'}. `explain train DATA --out {folder}` makes or continues one."
            )
        order = sorted(runs, key=lambda arm: (("vpt", "ft").index(arm) if arm in ("vpt", "ft") else 2, arm))
        return cls(folder, {arm: runs[arm] for arm in order})

    @property
    def vpt(self) -> Run:
        """The Visual Prompt Tuning run."""
        return self.runs["vpt"]

    @property
    def ft(self) -> Run:
        """The full fine-tuning run."""
        return self.runs["ft"]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs.values())

    @cached_property
    def data(self) -> Dataset:
        """The data set as it was when the pair was trained.

        Raises:
            IntegrityError: `dataset.json` is damaged, or not about the images that the runs were trained on.
        """
        data = Dataset.from_manifest(read_json(self.path / "dataset.json"))
        if data.fingerprint != self.vpt.manifest.data_fingerprint:
            raise IntegrityError(f"{self.path / 'dataset.json'} is about other images than the runs beside it; restore "
                                 "it from a backup, or train the pair again")  # fmt: skip
        return data

    @cached_property
    def split(self) -> Split:
        """Which images were for training, validation and test.

        Raises:
            IntegrityError: `split.json` is damaged, or not the split that the runs were trained by.
        """
        split = Split.from_json(read_json(self.path / "split.json"))
        if split.hash != self.vpt.manifest.split_hash:
            raise IntegrityError(f"{self.path / 'split.json'} is another split than that of the runs beside it; "
                                 "restore it from a backup, or train the pair again")  # fmt: skip
        return split

    @cached_property
    def declaration(self) -> Declaration | None:
        """The criteria that every run was trained under; None where none were declared.

        Raises:
            IntegrityError: the file changed since, is gone, or some of the runs were trained under other criteria.
        """
        declared = {run.manifest.criteria_sha256 for run in self}
        path = self.path / CRITERIA
        if declared == {None} and not path.is_file():
            return None
        found = read_criteria(path) if path.is_file() else None
        if declared != {found and found.sha256}:
            raise IntegrityError(f"{path} is not what the runs beside it were trained under; restore it from a backup. "
                                 "Criteria for runs that were trained without go to `explain report --criteria`")
        return found

    @cached_property
    def test(self) -> Dataset:
        """The test images."""
        return self.data.select(self.split.test)


def load_pair(path: str | Path) -> MatchedPair:
    """The matched pair in a folder, such as "runs/demo"; see `MatchedPair.load`."""
    return MatchedPair.load(path)

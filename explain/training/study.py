"""Study: the same comparison under several seeds, paired seed by seed.

All seeds share one split and one search, made under the first seed. What changes is the order of the images, the flips
and the first values of head and prompts: an interval over seeds tells how much of a difference is luck of training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError

from explain.attribution import Array
from explain.criteria import FILE as CRITERIA
from explain.data.base import Dataset, load_data
from explain.errors import InputError, IntegrityError, MismatchedRunsError
from explain.files import read_json, write_json
from explain.metrics.statistics import Difference, SeedDifference, paired_seeds, two_way_bootstrap
from explain.record import Record
from explain.training.folder import check_declared
from explain.training.images import Progress, quiet
from explain.training.machine import Machine
from explain.training.pair import MatchedPair
from explain.training.recipe import ARM_NAME, Recipe
from explain.training.run import Run
from explain.training.train import Workshop, train_arms


@dataclass(frozen=True)
class Verdict:
    """Accuracy of one arm less that of another, over seeds.

    Args:
        seeds: with Student's interval over the seeds, which pairs them.
        images: with an interval over seeds and test images both.
    """

    first: str
    second: str
    seeds: SeedDifference
    images: Difference

    @property
    def tie(self) -> bool:
        """True unless both intervals leave out 0: other seeds, or other images, could turn the result round."""
        return self.seeds.tie or self.images.tie


class StudyRecord(Record):
    """What `study.json` says: the seeds, in the order they were trained, and the names of the arms."""

    seeds: tuple[int, ...] = Field(min_length=1)
    arms: tuple[Annotated[str, Field(pattern=f"^{ARM_NAME.pattern}$")], ...] = Field(min_length=1)

    @classmethod
    def read(cls, folder: Path) -> "StudyRecord":
        """The record in a study's folder.

        Raises:
            IntegrityError: it is no such record.
        """
        try:
            return cls.model_validate(read_json(folder / "study.json"))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise IntegrityError(f"{folder}/study.json: {where}: {first['msg']}; train the study again") from None


@dataclass(frozen=True)
class Study:
    """The runs of every seed.

    Args:
        path: folder with `study.json` and one sub-folder per seed.
        runs: by seed, then by arm.
    """

    path: Path
    runs: dict[int, dict[str, Run]]

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Open a finished study.

        Raises:
            IntegrityError: no study, or a seed that is not finished.
            MismatchedRunsError: seeds that were trained on other images or by another recipe.
        """
        folder = Path(path)
        if not (folder / "study.json").is_file():
            raise IntegrityError(f"{folder} holds no study (no study.json); `explain train DATA --seeds 5` makes one")
        record = StudyRecord.read(folder)
        runs = {seed: {arm: Run.load(seed_folder(folder, seed) / arm) for arm in record.arms}
                for seed in record.seeds}  # fmt: skip
        manifests = [run.manifest for arms in runs.values() for run in arms.values()]
        if len({(manifest.split_hash, manifest.data_fingerprint) for manifest in manifests}) > 1:
            raise MismatchedRunsError(f"the seeds in {folder} were trained on different images or splits")
        return cls(folder, runs)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in the order they were trained."""
        return tuple(self.runs)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""
        return tuple(next(iter(self.runs.values())))

    @property
    def pairs(self) -> list[MatchedPair]:
        """The matched pair of every seed.

        Raises:
            IntegrityError: the study was trained without the arms "vpt" and "ft".
        """
        return [MatchedPair.load(seed_folder(self.path, seed)) for seed in self.runs]

    def correct(self, arm: str) -> Array:
        """Which test images an arm got right, bool (S, n): one row per seed."""
        return np.stack([runs[arm].predictions.correct for runs in self.runs.values()])

    def compare(self, first: str, second: str) -> Verdict:
        """How much better the first arm is than the second, in accuracy (0-1)."""
        a, b = self.correct(first).astype(float), self.correct(second).astype(float)
        return Verdict(first, second, paired_seeds(a.mean(axis=1), b.mean(axis=1)), two_way_bootstrap(a, b))


def seed_folder(folder: Path, seed: int) -> Path:
    """Where the runs of a seed lie."""
    return folder / f"seed{seed}"


def train_study(
    data: Dataset | str | Path,
    recipe: Recipe | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    out: str | Path | None = None,
    criteria: str | Path | None = None,
    machine: Machine | None = None,
    progress: Progress = quiet,
) -> Study:
    """Train the arms of a recipe under several seeds; call it again to continue an interrupted study.

    Args:
        data: a data set, or what `load_data` reads.
        recipe: every hyperparameter; its own seed is replaced, its split stays that of the first seed.
        seeds: two or more; the search runs under the first.
        out: folder of the study; None is "runs/<name of the data set>".
        criteria: as in `train_pair`.
        machine: how it is computed.
        progress: called with (what is running, images done, images in all).

    Raises:
        InputError: fewer than two seeds or one twice, or the folder holds other work.
        DatasetError: too few images for the split.
        NonFiniteError: a loss became NaN or infinite.
    """
    if len(set(seeds)) < len(seeds) or len(seeds) < 2:
        raise InputError(f"expected at least two different seeds, got {list(seeds)}")
    recipe = recipe or Recipe()
    dataset = data if isinstance(data, Dataset) else load_data(data)
    folder = Path(out) if out is not None else Path("runs") / dataset.name
    split_seed = seeds[0] if recipe.split_seed is None else recipe.split_seed
    workshop = Workshop(machine or Machine(), progress)
    folders = [seed_folder(folder, seed) for seed in seeds]
    if criteria is None:  # a seed that is added later is held against those of the others
        criteria = next((found / CRITERIA for found in folders if (found / CRITERIA).is_file()), None)
    for found in folders:
        check_declared(found, dataset, recipe, criteria)
    for seed in seeds:
        own = recipe.model_copy(update={"seed": seed, "split_seed": split_seed})
        said = workshop.saying(f"seed {seed}: ")
        searched_in = None if seed == seeds[0] else seed_folder(folder, seeds[0])
        train_arms(dataset, own, seed_folder(folder, seed), said, searched_in=searched_in, criteria=criteria)
    if workshop.machine.rank == 0:
        record = StudyRecord(seeds=tuple(seeds), arms=tuple(recipe.arms))
        write_json(folder / "study.json", record.model_dump(mode="json"))
    workshop.machine.wait()
    return Study.load(folder)

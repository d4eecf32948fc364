"""Borrowed: what a planted-cue test takes over from a trained pair or study, so that it speaks of the same setting."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from explain.data.base import Dataset
from explain.data.split import Split
from explain.errors import UnknownNameError
from explain.evidence.planted import PLANTED
from explain.files import read_json
from explain.training.recipe import Arm, Recipe
from explain.training.run import Run


@dataclass(frozen=True)
class Borrowed:
    """The images of a comparison, their split, and how models are trained on cues as its own were."""

    data: Dataset
    split: Split
    recipe: Recipe


def trained_folder(location: str | Path) -> Path | None:
    """The folder whose sub-folders are trained runs: the one given or, of a study, its first seed's; None if neither.

    Args:
        location: any folder, or a name that is none.
    """
    folder = Path(location)
    seeds = sorted(folder.glob("seed*"), key=lambda path: (len(path.name), path.name))
    return next((one for one in (folder, *seeds) if any(one.glob("*/manifest.json"))), None)


def borrow(folder: Path, arms: Sequence[str] | None = None) -> Borrowed:
    """Take over data, split, backbone, image size, and of each arm its tuning, chosen options and chosen rate.

    Cues are learnt in few steps, so epochs and batch size are those of `PLANTED`.

    Args:
        folder: see `trained_folder`.
        arms: names; None for "vpt" and "ft" where they are there, else for every arm.

    Raises:
        UnknownNameError: an arm that was not trained.
        IntegrityError: a file is missing or changed.
    """
    trained = sorted(path.parent.name for path in folder.glob("*/manifest.json"))
    chosen = list(arms or [name for name in ("vpt", "ft") if name in trained] or trained)
    missing = [name for name in chosen if name not in trained]
    if missing:
        raise UnknownNameError(f"no trained arm {', '.join(missing)} in {folder}; there are {', '.join(trained)}")
    runs = {name: Run.load(folder / name) for name in chosen}
    first = next(iter(runs.values()))
    recipe = PLANTED.model_copy(update={
        "backbone": first.manifest.backbone.spec, "image_size": first.manifest.image_size,
        "optimizer": first.recipe.optimizer, "weight_decay": first.recipe.weight_decay, "warmup": first.recipe.warmup,
        "schedule": first.recipe.schedule, "flip": first.recipe.flip, "unequal": first.recipe.unequal,
        "arms": {name: _arm(name, run) for name, run in runs.items()},
    })  # fmt: skip
    data = Dataset.from_manifest(read_json(folder / "dataset.json"))
    return Borrowed(data, Split.from_json(read_json(folder / "split.json")), Recipe.parse(recipe.model_dump()))


def _arm(name: str, run: Run) -> Arm:
    manifest, own = run.manifest, run.recipe.arms[name]
    return Arm(
        tuning=manifest.tuning, options=manifest.tuning_options, learning_rates=(manifest.learning_rate,),
        weight_decays=(manifest.course.weight_decay,), optimizer=own.optimizer, warmup=own.warmup,
        start_from=own.start_from,
    )  # fmt: skip

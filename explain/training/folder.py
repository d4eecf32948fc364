"""The folder of a comparison: what it is about, decided before anything is trained.

    dataset.json     every usable image with its hash, and every rejected file
    split.json       which images are for training, validation and test
    recipe.json      every hyperparameter
    label_noise.json the training images whose labels were changed on purpose, when the recipe asks for it
    leaks.json       images that are, or look, the same in training and test
    criteria.yaml    what a model must fulfil, when that was declared; byte for byte the file that was given
    <arm>/           one run each

A folder is claimed by the first training in it. Another recipe, data set or split is refused with what differs.
"""

import errno
from dataclasses import dataclass, replace
from pathlib import Path

from explain.criteria import FILE as CRITERIA
from explain.criteria import Declaration, check_criteria, read_criteria
from explain.data.base import Dataset, Sample
from explain.data.disturb import LabelNoise, imbalanced, noisy_labels
from explain.data.leaks import find_leaks
from explain.data.split import Split, make_split
from explain.errors import InputError
from explain.files import read_json, write_atomically, write_json
from explain.record import differences
from explain.training.recipe import Recipe

REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
"""System errors that say that nothing can be written in a place at all."""


@dataclass(frozen=True)
class Material:
    """What every arm is trained and tested on.

    Args:
        data: the images; training images may carry other labels than they came with.
        fingerprint: of the data set as it came.
        split: the parts.
        criteria_sha256: of the criteria that are declared; None where none are.
    """

    data: Dataset
    fingerprint: str
    split: Split
    criteria_sha256: str | None = None

    def samples(self, part: str, watched: int | None = None) -> tuple[Sample, ...]:
        """The samples of "train", "val", "test", "train+val", of the "watched" test images, or of "" none."""
        if part == "watched":
            ids = evenly(self.split.test, watched)
        elif part == "train+val":
            ids = tuple(sorted((*self.split.train, *self.split.val)))
        else:
            ids = getattr(self.split, part) if part else ()
        return tuple(self.data.by_id[name] for name in ids)


def evenly(ids: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    """`count` of the ids, evenly spaced in their order, so that every class has its share; None for all."""
    if count is None or count >= len(ids):
        return ids
    return tuple(ids[index * len(ids) // count] for index in range(count))


def claim(
    folder: Path, data: Dataset, recipe: Recipe, *, criteria: str | Path | None = None, write: bool = True
) -> Material:
    """Write what the folder is about, or check that it is about the same, and say what is trained on.

    Args:
        folder: where the runs go; made when missing.
        data: the data set as it came.
        recipe: what is going to be trained; arms may be added to a folder later, nothing else may change.
        criteria: YAML file of what a model must fulfil; None for those that the folder has, or none.
        write: False for all processes but one.

    Raises:
        InputError: the folder holds runs on other images, another split or by another recipe, each difference named;
            nothing can be written there; or the criteria cannot be held against these runs, or come too late.
        DatasetError: too few images for the split.
    """
    seed = recipe.seed if recipe.split_seed is None else recipe.split_seed
    split = make_split(
        data, seed=seed, train_per_class=recipe.train_per_class, val_per_class=recipe.val_per_class,
        test_per_class=recipe.test_per_class, train_images=recipe.train_images,
    )  # fmt: skip
    split = replace(split, train=imbalanced(data, split.train, recipe.imbalance, seed))
    disturbed = noisy_labels(data, split.train, recipe.label_noise, seed)
    if (folder / "recipe.json").is_file():
        _check_same(folder, data, split, recipe)
    declared = check_declared(folder, data, recipe, criteria)
    if write:
        try:
            _write(folder, data, split, recipe, disturbed.noise)
            if declared is not None:
                content = declared.text.encode()
                write_atomically(folder / CRITERIA, lambda path: path.write_bytes(content))
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            raise InputError(f"nothing can be written in {folder} ({error.strerror}); choose another output folder "
                             "with --out") from None  # fmt: skip
    return Material(disturbed.data, data.fingerprint, split, None if declared is None else declared.sha256)


def check_declared(folder: Path, data: Dataset, recipe: Recipe, given: str | Path | None) -> Declaration | None:
    """The criteria that runs in a folder are trained under; None where none are declared.

    Args:
        folder, data, recipe: as in `claim`.
        given: the YAML file; None for that of the folder.

    Raises:
        InputError: they cannot be held against these arms and classes, are not those that the folder was begun under,
            or come after a training has begun. A search alone looks at no test image: criteria may follow it.
    """
    kept = read_criteria(folder / CRITERIA) if (folder / CRITERIA).is_file() else None
    trained = [read_json(path) for path in sorted(folder.glob("*/manifest.json"))]
    unlike = {manifest.get("arm") for manifest in trained
              if manifest.get("criteria_sha256") != (kept and kept.sha256)}  # fmt: skip
    if kept is not None and unlike:
        raise InputError(f"{folder / CRITERIA} is not the file that {', '.join(map(str, unlike))} was trained under; "
                         "restore it from a backup, or choose another output folder")  # fmt: skip
    asked = kept if given is None else read_criteria(given)
    if asked is None:
        return None
    if kept is not None and kept.sha256 != asked.sha256:
        raise InputError(f"{folder} was begun under other criteria ({CRITERIA} there); what is declared is not "
                         "exchanged afterwards: choose another output folder")  # fmt: skip
    if kept is None and (trained or any(folder.glob("*/checkpoint.safetensors"))):
        raise InputError(f"{folder} holds a training that was begun without criteria; what is declared after it is no "
                         "declaration: choose another output folder, or give them to `explain report --criteria`, "
                         "which says that they came late")  # fmt: skip
    others = read_json(folder / "recipe.json")["arms"] if (folder / "recipe.json").is_file() else {}
    check_criteria(asked.criteria, data.class_names, recipe.arms | others)
    return asked


def _write(folder: Path, data: Dataset, split: Split, recipe: Recipe, noise: LabelNoise) -> None:
    if not (folder / "recipe.json").is_file():
        write_json(folder / "dataset.json", data.manifest())
        write_json(folder / "split.json", split.to_json())
        if noise.changed:
            write_json(folder / "label_noise.json", noise.model_dump(mode="json"))
        write_json(folder / "leaks.json", find_leaks(data, split).model_dump(mode="json"))
    known = read_json(folder / "recipe.json")["arms"] if (folder / "recipe.json").is_file() else {}
    values = recipe.model_dump(mode="json")
    write_json(folder / "recipe.json", values | {"arms": known | values["arms"]})


def _check_same(folder: Path, data: Dataset, split: Split, recipe: Recipe) -> None:
    there, asked = read_json(folder / "recipe.json"), recipe.model_dump(mode="json")
    there["arms"] = {name: arm for name, arm in there["arms"].items() if name in asked["arms"]}
    asked["arms"] = {name: arm for name, arm in asked["arms"].items() if name in there["arms"]}
    differing = list(differences(there, asked))
    if differing:
        raise InputError(f"{folder} was trained by another recipe: {'; '.join(differing)}. Choose another output "
                         "folder, or move this one away")  # fmt: skip
    found, found_split = Dataset.from_manifest(read_json(folder / "dataset.json")), read_json(folder / "split.json")
    if (found.fingerprint, found_split["hash"]) != (data.fingerprint, split.hash):
        raise InputError(
            f"{folder} holds runs on other images or another split ({found.name}, {len(found)} images); "
            "choose another output folder, or move this one away"
        )

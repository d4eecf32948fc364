"""Split: which images are for training, validation and test, decided once and by content.

Within a class, images are ordered by a hash of the seed, the class name and the image's bytes. That order
needs no random generator, so it is the same on every platform, does not change when another class changes,
and hardly changes when an image is added. Test takes the first images, validation the next, training the
following ones: a smaller training set is always part of a larger one, and test and validation do not move.

A data set that brings its own parts keeps them: only what it does not give is drawn, from its training part.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from explain.data.base import PARTS, Dataset, Sample
from explain.errors import DatasetError, InputError, IntegrityError
from explain.files import sha256_json

FRACTIONS = (0.7, 0.15, 0.15)
"""(train, val, test) shares of each class where no count is asked for."""


@dataclass(frozen=True)
class Split:
    """Image ids of the three parts, each sorted, and the seed they were drawn with."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int

    @property
    def hash(self) -> str:
        """SHA-256 over the three lists."""
        return sha256_json({"train": list(self.train), "val": list(self.val), "test": list(self.test)})

    def to_json(self) -> dict[str, Any]:
        """Plain data for a JSON file; `from_json` reads it back equal."""
        return {"seed": self.seed, "hash": self.hash, "train": list(self.train), "val": list(self.val),
                "test": list(self.test)}  # fmt: skip

    @classmethod
    def from_json(cls, record: Any) -> "Split":
        """Read what `to_json` wrote.

        Raises:
            IntegrityError: a part is missing, or the lists are not those the hash was made of.
        """
        try:
            parts = {part: _id_list(record[part]) for part in PARTS}
            seed, recorded = int(record["seed"]), record["hash"]
        except (KeyError, TypeError, ValueError) as error:
            what = f"a split needs seed, hash, train, val and test; {error} is missing or wrong"
            raise IntegrityError(what) from None
        split = cls(**parts, seed=seed)
        if recorded != split.hash:
            made_of = str(recorded)[:16]
            raise IntegrityError(f"the split's lists hash to {split.hash[:16]}…, recorded was {made_of}…")
        return split


def _id_list(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("a list of image ids")
    return tuple(value)


def make_split(
    dataset: Dataset,
    *,
    seed: int,
    train_per_class: int | None = None,
    val_per_class: int | None = None,
    test_per_class: int | None = None,
    train_images: int | None = None,
) -> Split:
    """Split a data set: by its own parts where it has them, else as `stratified_split` does.

    Parts of the data set's own are kept as they are, also where they share bytes: its owner decided. A count cuts
    one of them by the hash order; a part that it does not give is drawn from its training part, where a class of
    one or two images stays in training.

    Args:
        dataset: the labelled images.
        seed: draws another split; it moves nothing in parts that are kept whole.
        train_per_class: distinct training images per class; omitted: all that are left.
        val_per_class: distinct validation images per class; omitted: the data set's part, else 15 %.
        test_per_class: distinct test images per class; omitted: the data set's part, else 15 %.
        train_images: distinct training images in all, instead of `train_per_class`: every class in proportion to
            its training images, and at least one of each. A smaller number gives a part of what a larger one gives.

    Raises:
        InputError: a count makes no sense.
        DatasetError: there are too few images; the message says where, how many there are and are needed.
    """
    _check_request(train_per_class, val_per_class, test_per_class, FRACTIONS)
    if train_images is not None and train_per_class is not None:
        raise InputError(f"expected train_per_class or train_images, got both ({train_per_class} and {train_images})")
    if train_images is not None and train_images < 1:
        raise InputError(f"expected train_images of at least 1, got {train_images}")
    counts = {"train": train_per_class, "val": val_per_class, "test": test_per_class}
    parts = _keep_parts(dataset, seed, counts) if dataset.parts else _draw_parts(dataset, seed, counts)
    split = _sorted_split(parts, seed)
    empty = [part for part in PARTS if part in dataset.parts and counts[part] != 0 and not parts[part]]
    if empty:
        raise DatasetError(
            f"data set {dataset.name!r} sets images aside for {' and '.join(empty)}, but none of them is usable; "
            "repair them, or leave that part out so that it is drawn"
        )
    if train_images is None:
        return split
    chosen = _proportional(_hash_order(dataset.select(split.train), seed), train_images, dataset)
    return replace(split, train=tuple(sorted(chosen)))


def stratified_split(
    dataset: Dataset,
    *,
    seed: int,
    train_per_class: int | None = None,
    val_per_class: int | None = None,
    test_per_class: int | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> Split:
    """Split every class by the same rule, whatever parts the data set has.

    Counts are of distinct images: files with the same bytes follow their twin into its part, also when they
    are filed under another class, so that no test image is ever trained on.

    Args:
        dataset: the labelled images.
        seed: draws another split.
        train_per_class: distinct training images per class; omitted: all that validation and test leave.
        val_per_class: distinct validation images per class; omitted: by fraction, at least one.
        test_per_class: distinct test images per class; omitted: by fraction, at least one.
        fractions: (train, val, test) shares of each class for the counts that are omitted; they sum to 1.

    Raises:
        InputError: a count or fraction makes no sense.
        DatasetError: a class has too few images; the message says which, how many there are and are needed.
    """
    _check_request(train_per_class, val_per_class, test_per_class, fractions)
    counts = {"train": train_per_class, "val": val_per_class, "test": test_per_class}
    return _sorted_split(_draw_parts(dataset, seed, counts, fractions), seed)


def _sorted_split(parts: Mapping[str, list[str]], seed: int) -> Split:
    return Split(**{part: tuple(sorted(parts[part])) for part in PARTS}, seed=seed)


def _hash_order(dataset: Dataset, seed: int) -> list[list[list[Sample]]]:
    """Per class, its distinct images in the order of their hash, each as the files that have its bytes."""
    twins: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(dataset.samples, key=lambda sample: (sample.label, sample.id)):
        twins[sample.sha256].append(sample)
    classes: list[list[list[Sample]]] = [[] for _ in dataset.class_names]
    for samples in twins.values():
        classes[samples[0].label].append(samples)
    for class_name, images in zip(dataset.class_names, classes, strict=True):
        images.sort(key=lambda samples: _draw(seed, class_name, samples[0].sha256))
    return classes


def _ids(images: list[list[Sample]]) -> list[str]:
    return [sample.id for samples in images for sample in samples]


def _draw_parts(
    dataset: Dataset,
    seed: int,
    counts: Mapping[str, int | None],
    fractions: tuple[float, float, float] = FRACTIONS,
    every_class: bool = True,
) -> dict[str, list[str]]:
    """Ids by part; without `every_class`, a class may be missing, or too small to give a share of it away."""
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for class_name, images in zip(dataset.class_names, _hash_order(dataset, seed), strict=True):
        least = 1 if every_class else int(len(images) > 2)
        test = _count(counts["test"], fractions[2], len(images), least)
        val = _count(counts["val"], fractions[1], len(images), least)
        left = max(len(images) - test - val, 1 if every_class or images else 0)
        train = left if counts["train"] is None else counts["train"]
        if test + val + train > len(images):
            raise DatasetError(
                f"class {class_name!r} has {len(images)} distinct usable images, but {train} for training + "
                f"{val} for validation + {test} for test need {test + val + train}; "
                "ask for fewer or add images"
            )
        parts["test"] += _ids(images[:test])
        parts["val"] += _ids(images[test : test + val])
        parts["train"] += _ids(images[test + val :][:train])
    return parts


def _keep_parts(dataset: Dataset, seed: int, counts: Mapping[str, int | None]) -> dict[str, list[str]]:
    """Ids by part, where the data set has parts of its own."""
    given = {part: dataset.parts[part] for part in ("val", "test") if part in dataset.parts}
    drawn = {part: 0 if part in given else counts[part] for part in PARTS}
    parts = _draw_parts(dataset.select(dataset.parts["train"]), seed, drawn, every_class=False)
    for part, ids in given.items():
        parts[part] = _cut(dataset.select(ids), seed, part, counts[part])
    return parts


def _cut(own: Dataset, seed: int, part: str, per_class: int | None) -> list[str]:
    """The first images of each class of a data set's own part, or all of them."""
    if per_class is None:
        return [sample.id for sample in own.samples]
    ids: list[str] = []
    for class_name, images in zip(own.class_names, _hash_order(own, seed), strict=True):
        if len(images) < per_class:
            raise DatasetError(
                f"class {class_name!r} has {len(images)} distinct usable images in the data set's own {part} part, "
                f"but {part}_per_class is {per_class}; ask for fewer, or for none to take the part whole"
            )
        ids += _ids(images[:per_class])
    return ids


def _proportional(classes: list[list[list[Sample]]], count: int, dataset: Dataset) -> list[str]:
    """Ids of `count` distinct images, every class in proportion and at least one of each.

    Sainte-Laguë's rule: image r (from 0) of a class of n is due at (2r + 1) / 2n of the whole. That is one fixed
    order, so that every smaller set begins every larger one; largest remainders can take an image back.
    """
    available, filled = sum(map(len, classes)), sum(map(bool, classes))
    if not filled <= count <= available:
        raise DatasetError(
            f"train_images is {count}, but data set {dataset.name!r} has {available} distinct usable images for "
            f"training in {filled} classes; ask for {filled} to {available}, or add images"
        )
    due = sorted(
        (rank > 0, (2 * rank + 1) / (2 * len(images)), samples[0].sha256, label, rank)
        for label, images in enumerate(classes)
        for rank, samples in enumerate(images)
    )
    return _ids([classes[label][rank] for *_, label, rank in due[:count]])


def _check_request(
    train: int | None, val: int | None, test: int | None, fractions: tuple[float, float, float]
) -> None:
    for name, count, least in (("train", train, 1), ("val", val, 0), ("test", test, 0)):
        if count is not None and count < least:
            raise InputError(f"expected {name}_per_class of at least {least}, got {count}")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise InputError(f"expected three fractions (train, val, test) that sum to 1, got {fractions}")


def _count(requested: int | None, fraction: float, available: int, least: int) -> int:
    if requested is not None:
        return requested
    return max(least, int(fraction * available + 0.5)) if fraction > 0 else 0


def _draw(seed: int, class_name: str, digest: str) -> str:
    return hashlib.sha256(f"{seed}\n{class_name}\n{digest}".encode()).hexdigest()

"""Split: which images are for training, validation and test, decided once and by content.

Within a class, images are ordered by a hash of the seed, the class name and the image's bytes. That order
needs no random generator, so it is the same on every platform, does not change when another class changes,
and hardly changes when an image is added. Test takes the first images, validation the next, training the
following ones: a smaller training set is always part of a larger one, and test and validation do not move.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from explain.data.base import Dataset, Sample
from explain.errors import DatasetError, InputError, IntegrityError
from explain.files import sha256_json


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
    def from_json(cls, record: dict[str, Any]) -> "Split":
        """Read what `to_json` wrote.

        Raises:
            IntegrityError: a part is missing, or the lists are not those the hash was made of.
        """
        try:
            split = cls(tuple(record["train"]), tuple(record["val"]), tuple(record["test"]), record["seed"])
            recorded = record["hash"]
        except (KeyError, TypeError) as error:
            what = f"a split needs seed, hash, train, val and test; {error} is missing or wrong"
            raise IntegrityError(what) from None
        if recorded != split.hash:
            made_of = str(recorded)[:16]
            raise IntegrityError(f"the split's lists hash to {split.hash[:16]}…, recorded was {made_of}…")
        return split


def stratified_split(
    dataset: Dataset,
    *,
    seed: int,
    train_per_class: int | None = None,
    val_per_class: int | None = None,
    test_per_class: int | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
) -> Split:
    """Split every class by the same rule.

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
    twins: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(dataset.samples, key=lambda sample: (sample.label, sample.id)):
        twins[sample.sha256].append(sample)
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, class_name in enumerate(dataset.class_names):
        contents = [digest for digest, samples in twins.items() if samples[0].label == label]
        order = sorted(contents, key=lambda digest: _draw(seed, class_name, digest))
        test = _count(test_per_class, fractions[2], len(order))
        val = _count(val_per_class, fractions[1], len(order))
        train = max(len(order) - test - val, 1) if train_per_class is None else train_per_class
        if test + val + train > len(order):
            raise DatasetError(
                f"class {class_name!r} has {len(order)} distinct usable images, but {train} for training + "
                f"{val} for validation + {test} for test need {test + val + train}; "
                "ask for fewer or add images"
            )
        chosen = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :][:train]}
        for part, digests in chosen.items():
            parts[part] += [sample.id for digest in digests for sample in twins[digest]]
    return Split(**{part: tuple(sorted(ids)) for part, ids in parts.items()}, seed=seed)


def _check_request(
    train: int | None, val: int | None, test: int | None, fractions: tuple[float, float, float]
) -> None:
    for name, count, least in (("train", train, 1), ("val", val, 0), ("test", test, 0)):
        if count is not None and count < least:
            raise InputError(f"expected {name}_per_class of at least {least}, got {count}")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise InputError(f"expected three fractions (train, val, test) that sum to 1, got {fractions}")


def _count(requested: int | None, fraction: float, available: int) -> int:
    if requested is not None:
        return requested
    return max(1, int(fraction * available + 0.5)) if fraction > 0 else 0


def _draw(seed: int, class_name: str, digest: str) -> str:
    return hashlib.sha256(f"{seed}\n{class_name}\n{digest}".encode()).hexdigest()

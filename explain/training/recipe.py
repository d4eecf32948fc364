"""Recipe: every hyperparameter of a matched comparison, in one frozen and hashable record.

The fields outside `arms` hold for every arm alike: that is what makes the comparison matched. An arm adds only what
must differ, its tuning and what is searched for it, and every arm is searched equally long, because an arm that may
try more settings than the other is not the better arm but the better searched one.
"""

import math
import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from explain.backbone import DEFAULT_BACKBONE
from explain.errors import InputError
from explain.files import sha256_json, write_atomically
from explain.plain_yaml import Lines, check_record, parse_yaml
from explain.record import Record
from explain.tuning.base import TUNINGS

ARM_NAME = re.compile(r"\w[\w.-]{0,99}")
Value = bool | int | float | str
"""A tuning's option."""


class Arm(Record):
    """One side of the comparison.

    Args:
        tuning: registered name of a tuning, such as "prompt".
        options: the tuning's options, such as {"num_tokens": 10, "deep": True}.
        learning_rates: the grid tried; a search that draws takes rates log-uniformly between its ends.
        weight_decays: the grid of AdamW's or SGD's decay; empty for the recipe's one.
        choices: options that are searched, each with the values tried: {"num_tokens": (1, 5, 10)}.
        optimizer, warmup, batch_size: instead of the recipe's, where a published protocol sets arms apart.
        start_from: name of an arm whose trained weights this one begins with.
    """

    tuning: str
    options: dict[str, Value] = {}
    learning_rates: tuple[float, ...] = Field(min_length=1)
    weight_decays: tuple[float, ...] = ()
    choices: dict[str, tuple[Value, ...]] = {}
    optimizer: Literal["adamw", "sgd"] | None = None
    warmup: float | None = Field(default=None, ge=0, lt=1)
    batch_size: int | None = Field(default=None, ge=1)
    start_from: str | None = None

    @property
    def grid_size(self) -> int:
        """Points of the full grid."""
        return len(self.learning_rates) * (len(self.weight_decays) or 1) * math.prod(map(len, self.choices.values()))


    @classmethod
    def of(cls, tuning: str, **options: Value) -> "Arm":
        """An arm with its tuning's own learning rates."""
        return cls(tuning=tuning, options=options, learning_rates=TUNINGS[tuning].learning_rates)


VPT = Arm.of("prompt", num_tokens=10, deep=True)
VPT_SHALLOW = Arm.of("prompt", num_tokens=10, deep=False)
FT = Arm.of("full")
LINEAR = Arm.of("linear")


class Recipe(Record):
    """How a matched pair is made.

    Args:
        backbone: name, file or packaged weights, as `explain backbones list` shows them.
        image_size: side of the square input in pixels.
        train_per_class, val_per_class, test_per_class: images per class; None takes what is left (train, test)
            or 15 % (val), or the parts that the data set comes with.
        train_images: training images in all, every class in its proportion; smaller sets lie within larger ones.
        label_noise: share of the training images that get a wrong label, 0-1.
        imbalance: how many times more training images the largest class keeps than the smallest; 1 for all.
        epochs: passes over the training images in the final training of each arm.
        search: "grid" tries every point of an arm's grid, "halving" and "tpe" draw `trials` points.
        trials: points drawn per arm.
        search_epochs: passes in each trial of a grid, and in the longest trials of a halving.
        batch_size: images per step, the same in every arm.
        optimizer: AdamW, or SGD with momentum 0.9.
        weight_decay: decay of every trained weight matrix (not of biases, norms and position embeddings).
        warmup: share of the steps in which the learning rate rises from 0, before the cosine.
        schedule: the learning rate changes every "step", or every "epoch" with the first epoch at 0.
        select: weights kept are those of the "last" epoch, or of the epoch that is "best" on validation images.
        train_on_val: the final training also uses the validation images, once the search has used them.
        flip: random horizontal and vertical flips, drawn from (seed, epoch) and so equal in every arm.
        monitor_images: test images watched after every epoch, which decide nothing; None for all, 0 for none.
        seed: of the image order, the flips, the head's and the prompts' first values, and of the split.
        split_seed: of the split alone, so that several seeds share one; None for `seed`.
        unequal: matched fields that a published protocol sets apart, by their name in `compare_runs`.
        arms: the sides compared, by name; "vpt" and "ft" make the pair.
    """

    backbone: str = DEFAULT_BACKBONE
    image_size: int = Field(default=224, ge=14)
    train_per_class: int | None = Field(default=None, ge=1)
    val_per_class: int | None = Field(default=None, ge=1)
    test_per_class: int | None = Field(default=None, ge=1)
    train_images: int | None = Field(default=None, ge=2)
    label_noise: float = Field(default=0.0, ge=0, le=1)
    imbalance: float = Field(default=1.0, ge=1)
    epochs: int = Field(default=20, ge=1)
    search: Literal["grid", "halving", "tpe"] = "grid"
    trials: int | None = Field(default=None, ge=1)
    search_epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=32, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    schedule: Literal["step", "epoch"] = "step"
    select: Literal["last", "best"] = "last"
    train_on_val: bool = False
    flip: bool = True
    monitor_images: int | None = Field(default=None, ge=0)
    seed: int = 0
    split_seed: int | None = None
    unequal: tuple[str, ...] = ()
    arms: dict[str, Arm] = {"vpt": VPT, "vpt_shallow": VPT_SHALLOW, "ft": FT, "linear": LINEAR}

    @model_validator(mode="after")
    def _arms_are_matched(self) -> Self:
        if self.search != "grid" and self.trials is None:
            raise ValueError(f"search {self.search!r} draws points: say how many with trials")
        if self.train_on_val and self.select == "best":
            raise ValueError("train_on_val leaves no validation images to choose the best epoch by; use select: last")
        counts = {name: self.trial_count(name) for name in self.arms}
        if len(set(counts.values())) > 1 and "trials" not in self.unequal:
            raise ValueError(f"every arm needs the same number of trials, got {counts}")
        for name, arm in self.arms.items():
            if ARM_NAME.fullmatch(name) is None or ".." in name:  # it also names a folder
                raise ValueError(f"expected names of arms of letters, digits, '-', '_' and '.', got {ascii(name[:60])}")
            if arm.start_from is not None and (arm.start_from == name or arm.start_from not in self.arms):
                raise ValueError(f"arm {name!r} starts from {arm.start_from!r}, which is no other arm of this recipe")
            if arm.start_from is None and TUNINGS[arm.tuning].continues:
                raise ValueError(f"arm {name!r} goes on from another one: say which with start_from")
        return self

    def trial_count(self, arm: str) -> int:
        """Points that the search tries for an arm."""
        return self.arms[arm].grid_size if self.trials is None or self.search == "grid" else self.trials

    @property
    def hash(self) -> str:
        """SHA-256 of all fields."""
        return sha256_json(self.model_dump(mode="json"))

    def arm_hash(self, arm: str) -> str:
        """SHA-256 of everything that decides how one arm is trained: a change elsewhere does not retrain it."""
        fields = self.model_dump(mode="json", exclude={"arms"})
        start = self.arms[arm].start_from
        begun = {} if start is None else {"start": self.arm_hash(start)}
        return sha256_json(fields | begun | {"arm": self.arms[arm].model_dump(mode="json")})

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        """A recipe from a YAML file; an unknown or wrong field is an error that names it and its line."""
        fields, lines = recipe_fields(path)
        return cls.parse(fields, str(path), lines)

    def write(self, path: Path) -> None:
        """Write the YAML file that `read` reads."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    @classmethod
    def parse(cls, values: Any, where: str = "recipe", lines: Lines | None = None) -> "Recipe":
        """A recipe from plain values.

        Args:
            values: field by field.
            where: where they come from, for the message.
            lines: the lines of a file that they were read from.

        Raises:
            InputError: with one clause per wrong field.
        """
        return check_record(values, where, cls, lines)


def recipe_fields(path: str | Path) -> tuple[dict[str, Any], Lines]:
    """What a YAML file says of a recipe, not yet checked, and in which lines.

    Raises:
        InputError: it cannot be read, or is not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the recipe {path}: {error}") from None
    values, lines = parse_yaml(text, f"cannot read the recipe {path}")
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected fields of a recipe such as `epochs: 30`, got a {type(values).__name__}")
    return values, lines


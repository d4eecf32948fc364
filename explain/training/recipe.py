"""Recipe: every hyperparameter of a matched comparison, in one frozen and hashable record.

The fields outside `arms` hold for every arm alike: that is what makes the comparison matched. An arm adds only what
must differ, its tuning and its own grid of learning rates, and every grid has the same length, because an arm that
may try more learning rates than the other is not the better arm but the better searched one.
"""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from explain.backbone import DEFAULT_BACKBONE
from explain.errors import InputError
from explain.files import sha256_json
from explain.record import Record


class Arm(Record):
    """One side of the comparison.

    Args:
        tuning: registered name of a tuning, such as "prompt".
        options: the tuning's options, such as {"num_tokens": 10, "deep": True}.
        learning_rates: the grid tried; the one with the best validation accuracy trains the arm.
    """

    tuning: str
    options: dict[str, bool | int | float | str] = {}
    learning_rates: tuple[float, ...] = Field(min_length=1)


VPT = Arm(tuning="prompt", options={"num_tokens": 10, "deep": True}, learning_rates=(1e-3, 5e-3, 3e-2))
FT = Arm(tuning="full", learning_rates=(1e-5, 5e-5, 3e-4))
LINEAR = Arm(tuning="linear", learning_rates=(1e-3, 5e-3, 3e-2))


class Recipe(Record):
    """How a matched pair is made.

    Args:
        backbone: name, file or packaged weights, as `explain backbones list` shows them.
        image_size: side of the square input in pixels.
        train_per_class, val_per_class, test_per_class: images per class; None takes what is left (train, test)
            or 15 % (val).
        epochs: passes over the training images in the final training of each arm.
        search_epochs: passes in each learning-rate trial.
        batch_size: images per step, the same in every arm.
        weight_decay: AdamW's decay of every trained weight matrix (not of biases, norms and prompts' offsets).
        warmup: share of the steps in which the learning rate rises from 0, before the cosine.
        flip: random horizontal and vertical flips, drawn from (seed, epoch) and so equal in every arm.
        seed: of the split, the image order, the flips, the head's and the prompts' first values.
        arms: the sides compared, by name; "vpt" and "ft" make the pair.
    """

    backbone: str = DEFAULT_BACKBONE
    image_size: int = Field(default=224, ge=14)
    train_per_class: int | None = Field(default=None, ge=1)
    val_per_class: int | None = Field(default=None, ge=1)
    test_per_class: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=20, ge=1)
    search_epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=32, ge=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    flip: bool = True
    seed: int = 0
    arms: dict[str, Arm] = {"vpt": VPT, "ft": FT, "linear": LINEAR}

    @model_validator(mode="after")
    def _arms_are_matched(self) -> Self:
        lengths = {name: len(arm.learning_rates) for name, arm in self.arms.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"every arm needs the same number of learning rates, got {lengths}")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of all fields."""
        return sha256_json(self.model_dump(mode="json"))

    def arm_hash(self, arm: str) -> str:
        """SHA-256 of everything that decides how one arm is trained: a change elsewhere does not retrain it."""
        fields = self.model_dump(mode="json", exclude={"arms"})
        return sha256_json(fields | {"arm": self.arms[arm].model_dump(mode="json")})

    @classmethod
    def read(cls, path: str | Path) -> "Recipe":
        """A recipe from a YAML file; an unknown or wrong field is an error that names it."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the recipe {path}: {error}") from None
        return cls.parse(values, str(path))

    @classmethod
    def parse(cls, values: Any, where: str = "recipe") -> "Recipe":
        """A recipe from plain values.

        Raises:
            InputError: with one clause per wrong field.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            clauses = [f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors()]
            raise InputError(f"{where}: {'; '.join(clauses)}. Known fields: {', '.join(cls.model_fields)}") from None


PRESETS: dict[str, Recipe] = {"matched": Recipe()}
"""Recipes by name: one protocol for every arm, chosen on validation images only."""

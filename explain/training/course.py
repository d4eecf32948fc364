"""Course: everything that decides the numbers of one training, and the optimiser that follows from it.

A recipe speaks of a whole comparison; a course is one training of one arm, a trial or the final one.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from explain.model import TunedModel
from explain.record import Record
from explain.training.recipe import Arm, Recipe
from explain.training.trial import Point
from explain.tuning.base import TUNINGS

MOMENTUM = 0.9


class Course(Record):
    """One training; the fields are those of `Recipe`, with what the arm and the search set in their place."""

    learning_rate: float
    weight_decay: float
    epochs: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    warmup: float
    schedule: Literal["step", "epoch"]
    select: Literal["last", "best"]
    flip: bool
    seed: int

    @classmethod
    def of(cls, recipe: Recipe, arm: Arm, point: Point, epochs: int) -> "Course":
        """The course of one arm at one point."""
        return cls(
            learning_rate=point.learning_rate, weight_decay=point.weight_decay, epochs=epochs,
            batch_size=arm.batch_size or recipe.batch_size, optimizer=arm.optimizer or recipe.optimizer,
            warmup=recipe.warmup if arm.warmup is None else arm.warmup, schedule=recipe.schedule,
            select=recipe.select, flip=recipe.flip, seed=recipe.seed,
        )  # fmt: skip

    def steps_per_epoch(self, images: int) -> int:
        """Optimiser steps of one pass over so many images."""
        return math.ceil(images / self.batch_size)

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0."""
        if self.schedule == "epoch":
            return rate_of_epoch(step // steps_per_epoch, self.epochs, self.learning_rate, self.warmup)
        return rate_of_step(step, self.epochs * steps_per_epoch, self.learning_rate, self.warmup)

    def optimiser(self, model: TunedModel) -> torch.optim.Optimizer:
        """The optimiser of a model's trained parameters."""
        groups = parameter_groups(model, self.weight_decay)
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.learning_rate, momentum=MOMENTUM)
        return torch.optim.AdamW(groups, lr=self.learning_rate)


def rate_of_step(step: int, steps: int, peak: float, warmup: float) -> float:
    """Linear warm-up from 0 over the first `warmup` share of the steps, then a cosine to 0."""
    rising = max(1, round(warmup * steps)) if warmup else 0
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def rate_of_epoch(epoch: int, epochs: int, peak: float, warmup: float) -> float:
    """The same shape held constant within an epoch, so that the first epoch of a warm-up runs at 0.

    Source: Jia et al. 2022, arXiv 2203.12119, whose schedule sets the rate before every epoch.
    """
    rising = round(warmup * epochs)
    if epoch < rising:
        return peak * epoch / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - rising) / max(1, epochs - rising)))


def parameter_groups(model: TunedModel, weight_decay: float) -> list[dict[str, object]]:
    """Trained parameters by (decay, learning-rate factor): matrices and prompts decay, biases and norms do not."""
    spared = {f"vit.{name}" for name in model.vit.no_weight_decay()}
    tuning = None if model.tuning == "none" else TUNINGS.create(model.tuning, **model.tuning_options)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            decay = weight_decay if value.ndim > 1 and name not in spared else 0.0
            factor = 1.0 if tuning is None else tuning.rate_scale(name.removeprefix("vit."), model.num_blocks)
            groups.setdefault((decay, factor), []).append(value)
    return [{"params": values, "weight_decay": decay, "factor": factor} for (decay, factor), values in groups.items()]

"""Subject: one trained model on the chosen images, with its maps on the patch grid, as a measure meets it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explain.attribution import Array, Attribution
from explain.engine import attribute
from explain.evidence.scorer import run_forwards
from explain.methods.base import METHODS
from explain.metrics.patch_grid import patch_means
from explain.model import TunedModel
from explain.passes import Passes


@dataclass(frozen=True)
class Subject:
    """One trained model on n images.

    Args:
        arm: name of the arm, such as "vpt".
        seed: of its training.
        model: the model, in evaluation mode.
        ids: ids of the images.
        images: (n, 3, H, W) in model space, on the CPU.
        labels: (n,) true classes; the target of every map and curve, in every model.
        masks: bool (n, H, W), the region that decides the label; all False where an image has none.
        maps: method or control -> (n, h, w) on the patch grid, float32, raw. Controls are those of `explain.metrics.
            controls`; they are listed in `controls`.
        options: options of each method, by name.
        controls: names in `maps` that no model made.
        draw_seed: of everything random in a measure.
        backbone: the pretrained backbone before any tuning, under the same head shape; for `internals`.
        extras: what a method measured with its maps, by "method.name", each (n,).
        memory_budget: bytes a pass may take, or "auto".
    """

    arm: str
    seed: int
    model: TunedModel
    ids: tuple[str, ...]
    images: Tensor
    labels: Array
    masks: Array
    maps: Mapping[str, Array]
    options: Mapping[str, Mapping[str, Any]]
    controls: tuple[str, ...] = ()
    draw_seed: int = 0
    backbone: TunedModel | None = None
    extras: Mapping[str, Array] = field(default_factory=dict)
    memory_budget: int | str = "auto"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names in `maps` that the model made."""
        return tuple(name for name in self.maps if name not in self.controls)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns (h, w) of the maps."""
        return self.model.grid_for(self.images)

    @property
    def class_specific(self) -> Mapping[str, bool]:
        """Per method, whether its map depends on the class."""
        return {name: METHODS[name].class_specific for name in self.methods}

    @cached_property
    def _replica(self) -> TunedModel:
        return self.model.replica()

    def rng(self, *what: object) -> np.random.Generator:
        """Random numbers that depend on the draw seed and on `what` they are for, and on nothing that ran before."""
        words = [self.draw_seed, *(byte for part in what for byte in str(part).encode() + b"\n")]
        return np.random.default_rng(np.random.SeedSequence(words))

    def logits(self, count: int, make: Callable[[slice], Tensor]) -> Array:
        """Logits (count, K) of images that are made chunk by chunk; see `run_forwards`."""
        return run_forwards(self._replica, count, make, Passes(self.memory_budget))

    def explain(
        self, images: Tensor, labels: Array | None = None, *, model: TunedModel | None = None,
        methods: Sequence[str] | None = None,
    ) -> dict[str, Array]:  # fmt: skip
        """Maps on the patch grid of other images, or by another model, made just as this subject's own.

        Args:
            images: (m, 3, H, W) in model space.
            labels: (m,) targets; None for this subject's own labels.
            model: None for its own.
            methods: None for all of its own.

        Returns:
            Method -> (m, h, w).
        """
        targets = torch.as_tensor(np.asarray(self.labels if labels is None else labels))
        return {
            name: on_grid(found, self.grid)
            for name, found in attribute(
                model or self.model, images, methods=tuple(methods or self.methods), targets=targets,
                options={name: self.options[name] for name in methods or self.methods if name in self.options},
                memory_budget=self.memory_budget,
            ).items()
        }  # fmt: skip

    def first(self, count: int | None) -> "Subject":
        """The subject with the first `count` images, or itself."""
        return self if count is None or count >= len(self) else self._only(slice(count))

    def last(self, count: int) -> "Subject":
        """The subject with the last `count` images."""
        return self._only(slice(len(self) - count, None))

    def _only(self, rows: slice) -> "Subject":
        return replace(
            self, ids=self.ids[rows], images=self.images[rows], labels=self.labels[rows], masks=self.masks[rows],
            maps={name: values[rows] for name, values in self.maps.items()},
            extras={name: values[rows] for name, values in self.extras.items()},
        )  # fmt: skip


def on_grid(found: Attribution, grid: tuple[int, int]) -> Array:
    """An attribution's maps averaged over the cells of the patch grid, (B, h, w)."""
    return patch_means(found.values, grid)

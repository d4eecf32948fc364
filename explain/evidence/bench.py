"""Bench: one trained model with the chosen images; its maps, features and measured rows, kept piece by piece.

A piece is named by a hash of all that decides it (weights, images, methods, options, seed), so pieces of an earlier
evaluation are used again where they fit and never where they do not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from explain.attribution import Array
from explain.data.base import Dataset
from explain.data.decode import load_mask
from explain.engine import attribute, load_images, open_image
from explain.evidence.across import Seen
from explain.evidence.base import Measure, Row
from explain.evidence.choice import Choice
from explain.evidence.inside import block_features
from explain.evidence.subject import Subject, on_grid
from explain.files import read_table, sha256_file, sha256_json, write_table
from explain.methods.base import METHODS, Method
from explain.metrics.controls import control_maps
from explain.model import TunedModel
from explain.passes import Passes
from explain.tensor_files import read_tensors, write_tensors
from explain.training.images import Progress
from explain.training.run import Run
from explain.tuning.base import tune

SCHEMA = pa.schema([("image", pa.string()), ("model", pa.string()), ("seed", pa.string()), ("method", pa.string()),
                    ("metric", pa.string()), ("value", pa.float64()), ("flag", pa.string())])  # fmt: skip

PER_PIECE = 24
"""Images whose maps are one piece: what an interruption costs at most."""

VERSION = 1
"""Part of every piece's hash; raise it when a formula changes."""


@dataclass(frozen=True)
class Setting:
    """What is the same for every model of an evaluation.

    Args:
        data: the images chosen from.
        methods, options: registered methods and their options.
        seed: of everything random in a measure.
        folder: of the evaluation; pieces go into its "parts".
        device, memory_budget: of every pass.
        progress: called with (what is running, steps done, steps in all).
    """

    data: Dataset
    methods: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]]
    seed: int
    folder: Path
    device: torch.device
    memory_budget: int | str
    progress: Progress

    def method(self, name: str) -> Method:
        """A method with its options; two that are equal make equal maps."""
        return METHODS.create(name, **self.options.get(name, {}))

    def images_key(self, ids: Sequence[str]) -> list[Any]:
        """What of the images decides a map."""
        return [[one.id, one.sha256, one.label] for one in (self.data.by_id[name] for name in ids)]

    def methods_key(self) -> dict[str, str]:
        """What of the methods decides a map."""
        return {name: repr(self.method(name)) for name in self.methods}

    def piece(self, name: str, key: Any, ending: str) -> Path:
        """The file of a piece."""
        return self.folder / "parts" / f"{name}.{sha256_json([VERSION, self.seed, key])[:16]}.{ending}"

    def rows(self, name: str, key: Any, model: str, seed: str, make: Callable[[], Iterable[Row]]) -> pa.Table:
        """The rows of one piece, from its file or made now."""
        path = self.piece(name, key, "parquet")
        if not path.is_file():
            rows = [one._asdict() | {"model": model, "seed": seed} for one in make()]
            write_table(pa.Table.from_pylist(rows, SCHEMA), path)
        return read_table(path)


@dataclass(frozen=True)
class Bench:
    """One model with the chosen images."""

    setting: Setting
    choice: Choice
    run: Run
    seed: int
    arm: str

    @property
    def ids(self) -> tuple[str, ...]:
        """The images this model is shown."""
        return self.choice.ids

    @property
    def name(self) -> str:
        return f"seed{self.seed}.{self.arm}"

    @cached_property
    def model(self) -> TunedModel:
        return build(self.run, self.setting.device)

    @cached_property
    def images(self) -> Tensor:
        return load_images([self.setting.data.by_id[name] for name in self.ids], self.model.transform)

    @cached_property
    def labels(self) -> Array:
        return np.array([self.setting.data.by_id[name].label for name in self.ids])

    def seen(self) -> Seen:
        """Maps and features, from their files or made now; what the head reads after each block."""
        maps, _ = self._maps
        shown = {name: maps[name] for name in self.setting.methods}
        return Seen(self.arm, self.seed, self.run.manifest.weights_sha256, self.ids, shown, self._features)

    @cached_property
    def _maps(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Maps on the patch grid by method, and what the methods measured with them, by "method.name"."""
        maps: dict[str, Array] = {}
        extras: dict[str, Array] = {}
        pieces = [slice(start, start + PER_PIECE) for start in range(0, len(self.ids), PER_PIECE)]
        for method in self.setting.methods:
            parts = [self._some_maps(method, rows) for rows in pieces]
            for name in parts[0]:
                (maps if name == method else extras)[name] = np.concatenate([part[name].numpy() for part in parts])
        return maps, extras

    def _some_maps(self, method: str, rows: slice) -> dict[str, Tensor]:
        """One piece of the maps of a method."""
        setting, ids = self.setting, self.ids[rows]
        key = [self.run.manifest.weights_sha256, setting.images_key(ids), repr(setting.method(method))]
        path = self._file(f"{method}.maps", key)
        if not path.is_file():
            what = f"seed {self.seed}: {self.arm}: maps of {method}"
            found = attribute(
                self.model, self.images[rows], methods=(method,), targets=torch.from_numpy(self.labels[rows]),
                options={method: setting.options[method]} if method in setting.options else None,
                memory_budget=setting.memory_budget,
                progress=lambda done, total: setting.progress(what, rows.start + done, len(self.ids)),
            )[method]  # fmt: skip
            arrays = {method: on_grid(found, self.model.grid_for(self.images))}
            arrays |= {f"{method}.{name}": values.astype(np.float32) for name, values in found.extras.items()
                       if values.ndim == 1}  # fmt: skip
            write_tensors(path, {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in arrays.items()})
        return read_tensors(path)[0]

    @cached_property
    def _features(self) -> Array:
        path = self._file("features", [self.run.manifest.weights_sha256, self.setting.images_key(self.ids)])
        if not path.is_file():
            found = block_features(self.model, self.images, Passes(self.setting.memory_budget))
            write_tensors(path, {"features": torch.from_numpy(np.ascontiguousarray(found))})
        return np.asarray(read_tensors(path)[0]["features"].numpy())

    def _file(self, what: str, key: Any) -> Path:
        return self.setting.piece(f"{self.name}.{what}", key, "safetensors")

    @cached_property
    def subject(self) -> Subject:
        """The model as a measure meets it, on all images."""
        maps, extras = self._maps
        seeds = [f"{self.setting.seed}\n{name}" for name in self.ids]  # the same random map beside every model
        controls = control_maps(self.model.transform.pictures(self.images), self.model.grid_for(self.images), seeds)
        return Subject(
            self.arm, self.seed, self.model, self.ids, self.images, self.labels, self._masks(), {**maps, **controls},
            self.setting.options, tuple(controls), self.setting.seed, self._backbone, extras,
            self.setting.memory_budget,
        )  # fmt: skip

    def _masks(self) -> Array:
        """Masks at the size the model sees, half of a pixel or more."""
        height, width = self.images.shape[-2:]
        masks = np.zeros((len(self.ids), height, width), dtype=bool)
        for index, name in enumerate(self.ids):
            sample = self.setting.data.by_id[name]
            if sample.mask is not None:
                mask = Image.fromarray(load_mask(sample.mask, open_image(sample).size[::-1]))
                masks[index] = np.asarray(mask.convert("L").resize((width, height), Image.Resampling.BOX)) >= 128
        return masks

    @cached_property
    def _backbone(self) -> TunedModel:
        m = self.run.manifest
        return tune(m.backbone.spec, "linear", class_names=m.class_names, image_size=m.image_size,
                    expect_sha256=m.backbone.sha256).to(self.setting.device).eval()  # fmt: skip

    def measured(self, measures: Sequence[Measure]) -> list[pa.Table]:
        """The rows of every measure: of the headline images, and of the others what is asked of every map."""
        setting, headline = self.setting, len(self.choice.headline)
        samples = [setting.data.by_id[name] for name in self.ids]
        masks = [sample.mask and sha256_file(sample.mask) for sample in samples]
        given = [self.run.manifest.weights_sha256, [setting.images_key(self.ids), headline], setting.methods_key()]
        tables = []
        for done, measure in enumerate(measures):
            setting.progress(f"seed {self.seed}: {self.arm}: measures", done, len(measures))
            regions = masks if measure.masks else []
            key = [*given, measure.name, measure.images, regions]

            def make(measure: Measure = measure) -> Iterable[Row]:
                rows = measure(self.subject.first(headline).first(measure.images))
                apart = measure.controls and measure.images is None and self.choice.rest
                return chain(rows, measure(self.subject.last(len(self.choice.rest)))) if apart else rows

            tables.append(setting.rows(f"{self.name}.{measure.name}", key, self.arm, str(self.seed), make))
        setting.progress(f"seed {self.seed}: {self.arm}: measures", len(measures), len(measures))
        return tables


def build(run: Run, device: torch.device) -> TunedModel:
    """A run's model on a device, a copy of its own that goes when it is no longer needed."""
    return Run.load(run.path).model.to(device).eval()

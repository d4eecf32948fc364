"""Job: what an archive holds and how it was computed, written before the first shard.

Everything that decides a number in the archive is part of `config`; its hash is in every receipt. A job that is gone on
with must have the same configuration, and one that has not is told each key that differs.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from explain.archive.manifest import ManifestFacts
from explain.archive.maps_file import Column
from explain.archive.sealed import Sealed
from explain.data.names import from_printable
from explain.errors import InputError, IntegrityError
from explain.files import sha256_json
from explain.record import Record

KEY = "job.json"
FINISHED = "finished.json"

MODEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
SAMPLE_POLICY = re.compile(r"sample:([1-9][0-9]{0,9})(?::([0-9]{1,9}))?")
POLICIES = ("int8", "fp16", "grid", "sample:COUNT", "sample:COUNT:SEED")

Size = Annotated[int, Field(ge=1, le=1 << 20)]
"""Rows or columns of an image or map."""

Value = bool | int | float | str | None
"""What an option may be, as JSON holds it."""


class DataFacts(Record):
    """Where the images come from.

    Args:
        name: short name.
        location: what was asked for: a folder, a file, the name of a data set; None for images given from Python.
        root: folder that no image may leave by a link; None where there is none.
        class_names: of the labels, in order; empty where there are none.
        has_masks: some image has a mask.
        source: in words.
        licence: in words.
    """

    name: str
    location: str | None
    root: str | None
    class_names: tuple[str, ...]
    has_masks: bool
    source: str
    licence: str

    @property
    def folder(self) -> Path | None:
        """The root as a path."""
        return None if self.root is None else Path(from_printable(self.root))


class ModelFacts(Record):
    """One model.

    Args:
        name: what the archive calls it, such as "vpt".
        sha256: over every weight, the input transform, the tuning and the class names.
        tuning: registered name of its tuning.
        tuning_options: of the tuning.
        class_names: one per logit.
        image_size: (H, W) of its input in pixels.
        grid: rows and columns (h, w) of its patch grid.
        backbone: where the backbone comes from, when that is known.
        run: folder of the trained run, which may move: the hash says what the model is; None for one given from Python.
        run_identity: what tells the trained run from every other, `RunManifest.identity`; None without a run.
    """

    name: str
    sha256: str
    tuning: str
    tuning_options: dict[str, Value]
    class_names: tuple[str, ...]
    image_size: tuple[Size, Size]
    grid: tuple[Size, Size]
    backbone: str | None
    run: str | None
    run_identity: str | None

    @field_validator("name")
    @classmethod
    def _is_a_column(cls, value: str) -> str:
        if not MODEL_NAME.fullmatch(value):
            raise ValueError(f"expected a letter, then letters, digits and _, got {value!r}")
        return value


class MapFacts(Record):
    """What one method gives for one model.

    Args:
        model: its name.
        method: registered name.
        shape: (h, w) of a map.
        on_grid: the map lies on the patch grid; else in pixels.
        numbers: what the method measures beside the map, one number per image, such as "completeness_gap".
        notes: what it chose that its options do not show, such as the layer.
    """

    model: str
    method: str
    shape: tuple[Size, Size]
    on_grid: bool
    numbers: tuple[str, ...]
    notes: dict[str, Value]


class Job(Sealed):
    """What is computed, for which images, by which models.

    Args:
        format: of the archive.
        data: where the images come from.
        manifest: what tells the manifest from another.
        models: in the order asked for.
        methods: method -> every option, defaults included.
        targets: "label", "predicted", or one class index for all.
        store_maps: "int8" and "fp16" keep pixel maps so, "grid" keeps them on the patch grid only, "sample:n:seed"
            keeps about n of them in pixels, and those of remarkable images.
        precision: "fp32" or "bf16".
        maps: what each method gives for each model.
        batch_size: images per pass at most.
        created: when, in UTC.
        versions: of the libraries.
    """

    format: Literal[1] = 1
    data: DataFacts
    manifest: ManifestFacts
    models: tuple[ModelFacts, ...]
    methods: dict[str, dict[str, Value]]
    targets: Literal["label", "predicted"] | int
    store_maps: str
    precision: Literal["fp32", "bf16"]
    maps: tuple[MapFacts, ...]
    batch_size: int
    created: str
    versions: dict[str, str]

    @field_validator("store_maps")
    @classmethod
    def _is_a_policy(cls, value: str) -> str:
        return check_policy(value)

    def check(self, what: str) -> None:
        """Refuse a job that contradicts itself, as only another hand than this toolkit's could write it.

        Args:
            what: the file's name for messages.

        Raises:
            IntegrityError: models of one name, or not one entry of maps per model and method.
        """
        names = [facts.name for facts in self.models]
        maps = [(facts.model, facts.method) for facts in self.maps]
        expected = [(name, method) for name in names for method in self.methods]
        if not names or len(set(names)) != len(names) or sorted(maps) != sorted(expected):
            raise IntegrityError(f"{what} contradicts itself: expected models whose names differ, and one entry of "
                                 "maps per model and method; the archive has to be made again")  # fmt: skip

    @cached_property
    def config(self) -> dict[str, Any]:
        """What decides the numbers, as plain data; where a model lies and the libraries' versions do not."""
        own = {"format", "manifest", "methods", "targets", "store_maps", "precision"}
        whole = self.model_dump(mode="json", include=own)
        moves = {"name", "run", "run_identity"}
        models = {facts.name: facts.model_dump(mode="json", exclude=moves) for facts in self.models}
        return whole | {"models": models, "class_names": list(self.data.class_names)}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the configuration."""
        return sha256_json(self.config)

    @cached_property
    def facts_of(self) -> dict[str, ModelFacts]:
        """Facts of each model by its name."""
        return {facts.name: facts for facts in self.models}

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The maps that are stored: each on its patch grid, and those in pixels as the policy says."""
        found: list[Column] = []
        for facts in self.maps:
            grid = facts.shape if facts.on_grid else self.facts_of[facts.model].grid
            found.append(Column(facts.model, facts.method, "grid", "fp16", grid))
            if not facts.on_grid and self.store_maps != "grid":
                form: Literal["fp16", "int8"] = "fp16" if self.store_maps == "fp16" else "int8"
                found.append(Column(facts.model, facts.method, "pixels", form, facts.shape))
        return tuple(found)

    @property
    def method_names(self) -> tuple[str, ...]:
        """The methods in the order asked for; a dictionary comes back from JSON in another."""
        return tuple(dict.fromkeys(facts.method for facts in self.maps))

    @property
    def sampled(self) -> tuple[int, int] | None:
        """(images whose pixel maps are kept, seed) of the policy "sample"."""
        found = SAMPLE_POLICY.fullmatch(self.store_maps)
        return None if found is None else (int(found[1]), int(found[2] or 0))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every two models whose maps lie on one grid."""
        return tuple(
            (a.name, b.name) for i, a in enumerate(self.models) for b in self.models[i + 1 :] if a.grid == b.grid
        )


class Finished(Sealed):
    """All shards are committed: what came out.

    Args:
        job: hash of the configuration.
        images: in all.
        statuses: images per status.
        content: SHA-256 over what the receipts vouch for, in order; equal for two runs of one job.
        receipts: SHA-256 over the receipts' bytes, in order.
        tables: files that hold the table of numbers joined, and their SHA-256.
        finished: when, in UTC.
    """

    job: str
    images: int
    statuses: dict[str, int]
    content: str
    receipts: str
    tables: dict[str, str]
    finished: str


def check_policy(value: str) -> str:
    """The policy, when there is such a one.

    Raises:
        InputError: there is not.
    """
    if value not in ("int8", "fp16", "grid") and not SAMPLE_POLICY.fullmatch(value):
        raise InputError(f"expected store_maps to be one of {', '.join(POLICIES)}, got {value!r}")
    return value

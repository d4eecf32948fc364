"""A whole run over a small data set in half a second: two tiny models, three methods, shards of four images."""

from pathlib import Path
from typing import Any

import torch
from tiny_vits import tiny_vit

import explain
from explain.archive.archive import MapArchive
from explain.batch.dataset import attribute_dataset
from explain.model import TunedModel

CLASSES = ("left", "right")
METHODS = ("grad_cam", "integrated_gradients", "attention_rollout")
OPTIONS = {"integrated_gradients": {"n_steps": 2}}


def small_model(seed: int = 7, classes: tuple[str, ...] = CLASSES) -> TunedModel:
    """A model of 24x32 pixels and 3x4 patches that depends on nothing but the seed."""
    return explain.wrap(tiny_vit(seed=seed, dtype=torch.float32, num_classes=len(classes)), classes)


def small_models() -> dict[str, TunedModel]:
    """Two models that agree on half of the images."""
    return {"vpt": small_model(7), "ft": small_model(4)}


def explain_all(models: Any, data: Any, out: Any, **settings: Any) -> MapArchive:
    """`attribute_dataset` with the quickest settings; others replace them."""
    quick: dict[str, Any] = {"methods": METHODS, "shard_size": 4, "device": "cpu"}
    if "methods" not in settings:
        quick["options"] = OPTIONS
    return attribute_dataset(models, data, out=out, **quick | settings)


def files_of(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""Finished runs without training: a trained run's folder with other weights, options or classes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explain.files import sha256_file, write_json
from explain.tensor_files import write_tensors
from explain.training.run import HASHED, Predictions, Run
from explain.tuning.base import tune

BACKBONE = "random:vit_tiny_patch16_224"


def make_run(
    template: Run, folder: Path, tuning: str = "prompt", *, seed: int = 0, image_size: int = 64,
    class_names: tuple[str, ...] = ("left", "right"), wrong: int = 0, head_scale: float = 1.0,
    **options: Any,
) -> Run:  # fmt: skip
    """A run whose trained values come from a seed, wide enough to tell prompts apart.

    Args:
        template: gives the recipe, the history and the test images.
        folder: where it goes.
        tuning, options: what is trained.
        seed: of the trained values.
        image_size, class_names: of the model.
        head_scale: what the head's weights are multiplied by.
        wrong: test images answered wrongly, the first of them; all others are right, with 0.9 probability.
    """
    shutil.copytree(template.path, folder)
    model = tune(BACKBONE, tuning, class_names=class_names, image_size=image_size, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.trained_state().items():
            value.add_(torch.randn(value.shape, generator=generator) * (0.05 if "head" in name else 0.3))
            value.copy_(value.double() * (head_scale if "head" in name else 1))
    write_tensors(folder / "weights.safetensors", model.trained_state())
    labels = template.predictions.labels
    classes = np.where(np.arange(len(labels)) < wrong, 1 - labels, labels)
    probabilities = np.full((len(labels), len(class_names)), 0.1 / (len(class_names) - 1), dtype=np.float32)
    probabilities[np.arange(len(labels)), classes] = 0.9
    Predictions(template.predictions.ids, labels, classes, probabilities).save(folder / "predictions.parquet")
    trained = sum(value.numel() for value in model.trained_state().values())
    accuracy = 1 - wrong / len(labels)
    manifest = template.manifest.model_copy(update={
        "tuning": tuning, "tuning_options": model.tuning_options, "class_names": class_names, "image_size": image_size,
        "trained_parameters": trained, "total_parameters": sum(value.numel() for value in model.parameters()),
        "weights_bytes": (folder / "weights.safetensors").stat().st_size,
        "test": template.manifest.test.model_copy(update={"accuracy": accuracy, "low": accuracy / 2, "high": 1.0}),
        "files": {name: sha256_file(folder / name) for name in HASHED},
    })  # fmt: skip
    write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    return Run.load(folder)

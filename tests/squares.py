"""Small pictures to train on, and the recipe that trains a pair on them in seconds."""

from pathlib import Path

import numpy as np
from PIL import Image

from explain.training.recipe import Arm, Recipe

TINY_RECIPE = Recipe(
    backbone="random:vit_tiny_patch16_224",
    image_size=64,
    train_per_class=6,
    val_per_class=2,
    test_per_class=4,
    epochs=2,
    search_epochs=1,
    batch_size=6,
    arms={
        "vpt": Arm(tuning="prompt", options={"num_tokens": 3, "deep": True}, learning_rates=(1e-3, 1e-2)),
        "ft": Arm(tuning="full", learning_rates=(1e-5, 1e-4)),
        "linear": Arm(tuning="linear", learning_rates=(1e-3, 1e-2)),
    },
)
"""Seconds on one core; 4x4 patches."""


def draw_pictures(folder: Path, per_class: int = 12) -> Path:
    """Noise with a bright square: left for class "left", right for class "right"."""
    generator = np.random.default_rng(0)
    for name, column in (("left", 8), ("right", 40)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            picture = generator.integers(0, 120, (64, 64, 3), dtype=np.uint8)
            picture[24:40, column : column + 16] = 230
            Image.fromarray(picture).save(folder / name / f"{index:02d}.png")
    return folder

"""Disturbed: do the answers stay right when pictures change in ways that change nothing for a person?

The test images for this are drawn by seed from all of them, right answers and wrong ones, because images that every
model answers right would flatter them all. What is found is kept beside the evaluation, with the weights' hashes.
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from explain.attribution import Array
from explain.engine import load_images
from explain.errors import IntegrityError
from explain.evidence.bench import build
from explain.evidence.changes import DISTURBANCES, change_pixels
from explain.evidence.scorer import run_forwards
from explain.files import read_json, write_json
from explain.passes import Passes
from explain.record import Record
from explain.training.images import Progress, quiet
from explain.training.pair import MatchedPair
from explain.training.run import Run

FILE = "disturbed.json"
MOST_IMAGES = 200
CHUNK = 32
"""Images that are changed and answered at once."""


class DisturbedAnswers(Record):
    """Right answers on changed pictures, image by image.

    Args:
        seed: of the choice of images.
        ids: the images.
        weights: arm -> SHA-256 of its weights.
        unchanged: arm -> whether it answers each image right as it is.
        changed: change -> arm -> whether it answers each changed image right.
    """

    format: int = 1
    seed: int
    ids: tuple[str, ...]
    weights: dict[str, str]
    unchanged: dict[str, tuple[bool, ...]]
    changed: dict[str, dict[str, tuple[bool, ...]]]


def measure_disturbed(
    pair: MatchedPair, folder: Path, *, images: int = MOST_IMAGES, seed: int = 0,
    device: torch.device | None = None, progress: Progress = quiet,
) -> DisturbedAnswers:  # fmt: skip
    """Answer changed test images with every arm, and keep what comes of it; what is there already is not done again.

    Args:
        pair: the runs.
        folder: of the evaluation.
        images: test images at most, drawn by seed.
        seed: of the draw.
        device: where to compute; None is the CPU.
        progress: called with (what is running, changes done, changes in all).

    Raises:
        ImageRejected: a file changed since training.
    """
    ids = choose_ids(pair, images, seed)
    weights = {arm: run.manifest.weights_sha256 for arm, run in pair.runs.items()}
    kept = load_disturbed(folder) if (folder / FILE).is_file() else None
    if kept is not None and (kept.seed, kept.ids, kept.weights) == (seed, ids, weights):
        return kept
    unchanged: dict[str, Array] = {}
    changed: dict[str, dict[str, Array]] = {name: {} for name in DISTURBANCES}
    rows = {name: row for row, name in enumerate(pair.vpt.predictions.ids)}
    for done, (arm, run) in enumerate(pair.runs.items()):
        progress("answers on changed images", done, len(pair.runs))
        unchanged[arm] = run.predictions.correct[[rows[name] for name in ids]]
        for name, right in _answers(pair, run, ids, device or torch.device("cpu")).items():
            changed[name][arm] = right
    progress("answers on changed images", len(pair.runs), len(pair.runs))
    found = DisturbedAnswers(
        seed=seed, ids=ids, weights=weights, unchanged={arm: _plain(right) for arm, right in unchanged.items()},
        changed={name: {arm: _plain(right) for arm, right in of.items()} for name, of in changed.items()},
    )  # fmt: skip
    write_json(folder / FILE, found.model_dump(mode="json"))
    return found


def load_disturbed(folder: Path) -> DisturbedAnswers:
    """What `measure_disturbed` kept.

    Raises:
        IntegrityError: it is missing or of another format.
    """
    try:
        return DisturbedAnswers.model_validate(read_json(folder / FILE))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise IntegrityError(f"{folder / FILE}: {where}: {first['msg']}; delete it and evaluate again") from None


def choose_ids(pair: MatchedPair, most: int, seed: int) -> tuple[str, ...]:
    """Test images drawn by seed, sorted."""
    ids = sorted(pair.vpt.predictions.ids)
    drawn = np.random.default_rng(seed).permutation(len(ids))[:most]
    return tuple(ids[index] for index in sorted(drawn))


def _answers(pair: MatchedPair, run: Run, ids: tuple[str, ...], device: torch.device) -> dict[str, Array]:
    """Change -> which images the run answers right."""
    model = build(run, device)
    transform, replica = model.transform, model.replica()
    samples = [pair.data.by_id[name] for name in ids]
    labels = np.array([sample.label for sample in samples])
    patch_px = run.manifest.image_size // model.layout.grid[1]
    found: dict[str, list[Array]] = {name: [] for name in DISTURBANCES}
    for start in range(0, len(ids), CHUNK):
        pixels = transform.denormalise(load_images(samples[start : start + CHUNK], transform))
        for name in DISTURBANCES:
            images = transform.normalise(change_pixels(pixels, name, patch_px))
            logits = run_forwards(replica, len(images), images.__getitem__, Passes("auto"))
            found[name].append(logits.argmax(axis=1))
    return {name: np.concatenate(parts) == labels for name, parts in found.items()}


def _plain(right: Array) -> tuple[bool, ...]:
    return tuple(bool(value) for value in right)

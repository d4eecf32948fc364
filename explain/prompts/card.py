"""Card: everything that is known of one version of a prompt, and which backbone it fits.

The fields fall in two: content, which together with the weights makes the version's id, and what people say of it
(owner, purpose, approver, supplied metrics, parent, when it was registered).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from explain.backbone import BackboneCard
from explain.data.names import find_obeyed
from explain.errors import InputError, IntegrityError
from explain.files import sha256_json
from explain.metrics.classification import per_class_recall
from explain.record import Record
from explain.training.run import Predictions, Run, TestResult
from explain.tuning.base import TUNINGS

MAX_TRAINED_SHARE = 0.2
"""What trains more of a model than this is a model of its own, not a prompt on a shared backbone."""

PROMPTS = re.compile(r"vit\.blocks\.([0-9]{1,4})\.prompts")
HEAD = re.compile(r"vit\.(head|head_dist)\.(weight|bias)")

SAID = frozenset({"owner", "purpose", "approver", "metrics", "parent", "created"})
"""Fields that do not make the id."""


class Card(Record):
    """One version of a prompt.

    Args:
        name: what it is registered as; a version belongs to one name.
        backbone: provenance of the backbone, with its hash and normalisation (mean, std).
        depth, width: blocks L and embedding D of the backbone.
        patch_size: (height, width) of a patch in pixels.
        image_size: side of the square input in pixels.
        tuning, tuning_options: how the backbone was adapted; "prompt" in the narrow sense, or another small tuning.
        class_names: in the order of the logits.
        data_name, data_fingerprint, split_hash: what it was trained and tested on.
        recipe, recipe_hash: every hyperparameter.
        learning_rate: the one the search chose.
        test: accuracy on the test images with its interval.
        recall: recall (0-1) of every class that has test images.
        trained_parameters, total_parameters, weights_bytes: its size.
        trained: when the run finished.
        versions: libraries it was trained with.
        files: SHA-256 of every file beside the card.
        owner, purpose: who answers for it, and what it is for.
        approver: who agreed to its registration; promotions name theirs in the log.
        metrics: further measurements that were supplied, such as {"completeness gap": 0.012}.
        parent: id of the version it follows.
        created: when it was registered.
    """

    format: int = 1
    name: str
    backbone: BackboneCard
    depth: int
    width: int
    patch_size: tuple[int, int]
    image_size: int
    tuning: str
    tuning_options: dict[str, bool | int | float | str]
    class_names: tuple[str, ...]
    data_name: str
    data_fingerprint: str
    split_hash: str
    recipe: dict[str, Any]
    recipe_hash: str
    learning_rate: float
    test: TestResult
    recall: dict[str, float]
    trained_parameters: int
    total_parameters: int
    weights_bytes: int
    trained: str
    versions: dict[str, str]
    files: dict[str, str]
    owner: str
    purpose: str
    approver: str = ""
    metrics: dict[str, float] = {}
    parent: str | None = None
    created: str

    @property
    def id(self) -> str:
        """SHA-256 over the content fields, the hashes of weights and predictions among them."""
        return sha256_json(self.model_dump(mode="json", exclude=set(SAID)))

    @property
    def sha256(self) -> str:
        """SHA-256 over all fields."""
        return sha256_json(self.model_dump(mode="json"))


def card_of(
    run: Run, *, name: str, files: dict[str, str], owner: str, purpose: str, approver: str, metrics: dict[str, float],
    parent: str | None,
) -> Card:  # fmt: skip
    """The card of a finished run; builds its model once, which proves that the weights fit the backbone.

    Raises:
        InputError: no owner or purpose, a metric that is not finite, or a run that is too large to be a prompt.
    """
    if not owner.strip() or not purpose.strip():
        raise InputError("a prompt needs an owner and a purpose; give both, such as --owner quality-line-3 "
                         '--purpose "weaving defects, camera 2"')  # fmt: skip
    obeyed = find_obeyed({"owner": owner, "purpose": purpose, "approver": approver, "metrics": metrics})
    if obeyed:
        raise InputError(f"expected plain text, but {obeyed} holds control characters; write it without")
    wrong = [f"{metric} = {value}" for metric, value in metrics.items() if not np.isfinite(value)]
    if wrong:
        raise InputError(f"expected finite metrics, got {', '.join(wrong)}; measure again")
    check_small(run)
    manifest, model = run.manifest, run.model
    return Card(
        name=name, backbone=manifest.backbone, depth=model.num_blocks, width=model.vit.embed_dim,
        patch_size=tuple(model.vit.patch_embed.patch_size), image_size=manifest.image_size, tuning=manifest.tuning,
        tuning_options=manifest.tuning_options, class_names=manifest.class_names, data_name=manifest.data_name,
        data_fingerprint=manifest.data_fingerprint, split_hash=manifest.split_hash,
        recipe=run.recipe.model_dump(mode="json"), recipe_hash=run.recipe.hash, learning_rate=manifest.learning_rate,
        test=manifest.test, recall=recalls(run.predictions, manifest.class_names),
        trained_parameters=manifest.trained_parameters, total_parameters=manifest.total_parameters,
        weights_bytes=manifest.weights_bytes, trained=manifest.created, versions=manifest.versions, files=files,
        owner=owner, purpose=purpose, approver=approver, metrics=metrics, parent=parent,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def check_small(run: Run) -> None:
    """Raise InputError for a run that is no small addition to a backbone."""
    manifest = run.manifest
    share = manifest.trained_parameters / manifest.total_parameters
    if share > MAX_TRAINED_SHARE or TUNINGS[manifest.tuning].continues:
        raise InputError(
            f"expected a run that leaves the backbone as published and stores at most {MAX_TRAINED_SHARE:.0%} of its "
            f"parameters, got {manifest.tuning!r}, which stores {share:.0%}: that is a model of its own, not a prompt "
            "on a shared backbone. Keep its run folder, and register the prompt run of the same pair"
        )


def recalls(predictions: Predictions, class_names: tuple[str, ...]) -> dict[str, float]:
    """Recall (0-1) of every class that has an image."""
    rows = per_class_recall(predictions.labels, predictions.classes, class_names)
    return {row.name: row.recall for row in rows}


def check_weights(card: Card, tensors: Mapping[str, Tensor]) -> None:
    """Raise IntegrityError unless stored tensors are finite and what the card says: depth, width, number of classes."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise IntegrityError(f"{name} holds NaN or infinite values; train the run again")
        block, head = PROMPTS.fullmatch(name), HEAD.fullmatch(name)
        if block and int(block[1]) >= card.depth:
            raise IntegrityError(f"the card says depth {card.depth}, the weights hold prompts for block {block[1]}; "
                                 "they belong to another backbone")  # fmt: skip
        if tensor.ndim != (1 if head and head[2] == "bias" else 2) and (block or head):
            raise IntegrityError(f"{name} has the shape {tuple(tensor.shape)}; the weights were changed")
        if (block or (head and head[2] == "weight")) and tensor.shape[-1] != card.width:
            raise IntegrityError(f"the card says width {card.width}, {name} is {tensor.shape[-1]} wide; "
                                 "the weights belong to another backbone")  # fmt: skip
        if head and tensor.shape[0] != len(card.class_names):
            raise IntegrityError(f"the card names {len(card.class_names)} classes, the head has {tensor.shape[0]} "
                                 "outputs; card and weights do not belong together")  # fmt: skip
        if block and tensor.shape[0] != card.tuning_options.get("num_tokens", tensor.shape[0]):
            raise IntegrityError(f"the card says {card.tuning_options['num_tokens']} prompts per block, {name} holds "
                                 f"{tensor.shape[0]}; card and weights do not belong together")  # fmt: skip


def check_fits(card: Card, vit: VisionTransformer, backbone: BackboneCard) -> None:
    """Raise IntegrityError, naming every difference, unless a prompt was trained on this very backbone.

    Args:
        card: of the prompt.
        vit: the backbone.
        backbone: its own card.
    """
    facts = {
        "backbone sha256": (card.backbone.sha256, backbone.sha256),
        "depth": (card.depth, len(vit.blocks)),
        "width": (card.width, vit.embed_dim),
        "patch size": (card.patch_size, tuple(vit.patch_embed.patch_size)),
        "mean": (card.backbone.mean, backbone.mean),
        "std": (card.backbone.std, backbone.std),
        "interpolation": (card.backbone.interpolation, backbone.interpolation),
    }
    wrong = [f"{what}: expected {expected}, got {got}" for what, (expected, got) in facts.items() if expected != got]
    if wrong:
        raise IntegrityError(f"prompt {card.name!r} was trained on another backbone than {backbone.spec!r}: "
                             f"{'; '.join(wrong)}. Use {card.backbone.spec!r} as it was in training")  # fmt: skip
    if card.image_size < 1 or card.image_size % card.patch_size[0]:
        raise IntegrityError(f"the card of {card.name!r} says images of {card.image_size} pixels, which is no multiple "
                             f"of its patch of {card.patch_size[0]}; the card was changed")  # fmt: skip

"""Internals: what each block looks at, and how far tuning moved its weights and features from the backbone's."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from explain.attribution import Array
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.inside import block_attention, block_drift, block_features, prompt_chance
from explain.evidence.subject import Subject
from explain.metrics.representation import ENOUGH_FOR_CKA, feature_cosine, feature_drift, linear_cka_debiased
from explain.model import TunedModel
from explain.passes import Passes


@MEASURES.register("internals")
class Internals(Measure):
    """Attention, weights and features of every block, counted from 0.

    "name/3" of an image is the mean over the heads of block 3; "attention_distance/3/2" of no image is head 2 of it,
    the mean over the images. Drift and similarity are to `subject.backbone`, and left out without one.
    """

    label: ClassVar[str] = "Inside the blocks"
    source: ClassVar[str] = "Dosovitskiy et al. 2021, arXiv 2010.11929; Nguyen et al. 2021, arXiv 2010.15327"
    metrics: ClassVar[dict[str, Metric]] = {
        "attention_distance": Metric("attention distance (pixels)"),
        "attention_entropy": Metric("attention entropy, all tokens (0-1)"),
        "patch_entropy": Metric("attention entropy, patches (0-1)"),
        "cls_to_patch": Metric("CLS attention to patches (0-1)"),
        "register_mass": Metric("CLS attention to registers (0-1)"),
        "prompt_mass": Metric("CLS attention to prompts (0-1)"),
        "prompt_chance": Metric("prompts' share of the tokens (0-1)"),
        "weight_drift": Metric("change of weights (relative L2)"),
        "feature_drift": Metric("change of features (relative L2)"),
        "feature_cosine": Metric("cosine of features to the backbone's"),
        "backbone_cka": Metric("debiased linear CKA to the backbone", chance=0.0),
    }
    controls: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`; a network without blocks has no rows."""
        if not subject.model.num_blocks:
            return
        passes = Passes(subject.memory_budget)
        for block, found in enumerate(block_attention(subject.model, subject.images, passes)):
            for metric, values in found.items():
                yield from _per_image(subject, f"{metric}/{block}", values.mean(axis=1), "no_patch_attention")
            for head, distance in enumerate(found["attention_distance"].mean(axis=0)):
                yield row(None, None, f"attention_distance/{block}/{head}", float(distance),
                          _reason(distance, "no_patch_attention"))  # fmt: skip
        for block, chance in enumerate(prompt_chance(subject.model, subject.images)):
            if chance:
                yield row(None, None, f"prompt_chance/{block}", chance)
        if subject.backbone is not None:
            yield from _from_backbone(subject, subject.backbone, passes)


def _from_backbone(subject: Subject, backbone: TunedModel, passes: Passes) -> Iterator[Row]:
    for block, drift in enumerate(block_drift(subject.model, backbone)):
        yield row(None, None, f"weight_drift/{block}", drift, _reason(drift, "zero_weights"))
    tuned = block_features(subject.model, subject.images, passes)
    before = block_features(backbone, subject.images, passes)
    few = "few_images" if len(subject) < ENOUGH_FOR_CKA else None
    for block, (after, start) in enumerate(zip(tuned, before, strict=True)):
        yield from _per_image(subject, f"feature_drift/{block}", feature_drift(after, start), "zero_features")
        yield from _per_image(subject, f"feature_cosine/{block}", feature_cosine(after, start), "zero_features")
        alike = linear_cka_debiased(after, start)
        yield row(None, None, f"backbone_cka/{block}", alike, few or _reason(alike, "constant_features"))


def _reason(value: float, missing: str) -> str | None:
    return None if np.isfinite(value) else missing


def _per_image(subject: Subject, metric: str, values: Array, missing: str) -> Iterator[Row]:
    """One row per image; `missing` says why a number is not there."""
    for name, value in zip(subject.ids, values, strict=True):
        yield row(name, None, metric, float(value), _reason(value, missing))

"""Compare: how two versions differ, in settings, metrics, prompts and answers.

Prompts of one block have no order: exchanging two of them changes nothing. So their cosine is taken twice, in the
order they are stored and for the best matching of one set to the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from explain.attribution import Array
from explain.prompts.bank import PromptBank
from explain.prompts.card import PROMPTS, Card
from explain.prompts.stored import Stored


@dataclass(frozen=True)
class BlockCosine:
    """Mean cosine between the prompts of one block of two versions.

    Args:
        block: which one, counted from 0.
        in_order: first with first, second with second, …; None where the numbers of prompts differ.
        matched: every prompt of the smaller set with a partner of its own, chosen for the largest mean.
    """

    block: int
    in_order: float | None
    matched: float


@dataclass(frozen=True)
class Agreement:
    """On how many of `count` images two versions give the same class, and which images those are."""

    share: float
    count: int
    images: str


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side.

    Args:
        settings: (field, value of a, value of b) of every setting that differs.
        metrics: (metric, value of a, value of b), None where one has not got it.
        cosines: per block that both prompt.
        matching: "Hungarian" or "greedy", how prompts were matched.
        agreement: of the answers; None when there are no common images.
        notes: what could not be compared, and why.
    """

    settings: list[tuple[str, Any, Any]]
    metrics: list[tuple[str, float | None, float | None]]
    cosines: list[BlockCosine]
    matching: str
    agreement: Agreement | None
    notes: list[str]


def compare(a: Stored, b: Stored, *, images: Sequence[Path] = ()) -> Comparison:
    """Compare two versions.

    Args:
        a, b: from `PromptStore.get`.
        images: files on which the answers are compared; without any, the stored answers on common test images are.

    Raises:
        IntegrityError: the bytes of one of them changed.
    """
    notes: list[str] = []
    return Comparison(
        _settings(a.card, b.card), _metrics(a.card, b.card), _cosines(a, b, notes),
        "Hungarian" if find_spec("scipy") else "greedy", _agreement(a, b, images, notes), notes,
    )  # fmt: skip


def _settings(a: Card, b: Card) -> list[tuple[str, Any, Any]]:
    left, right = _flat(_described(a)), _flat(_described(b))
    fields = dict.fromkeys([*left, *right])
    return [(field, left.get(field), right.get(field)) for field in fields if left.get(field) != right.get(field)]


def _described(card: Card) -> dict[str, Any]:
    left_out = {"test", "recall", "metrics", "files", "format", "weights_bytes", "trained_parameters", "parent"}
    return card.model_dump(mode="json", exclude=left_out)


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}{name}.") if isinstance(inner, dict) else {prefix + name: inner}
    return flat


def _metrics(a: Card, b: Card) -> list[tuple[str, float | None, float | None]]:
    left, right = _measured(a), _measured(b)
    return [(metric, left.get(metric), right.get(metric)) for metric in dict.fromkeys([*left, *right])]


def _measured(card: Card) -> dict[str, float]:
    test = card.test
    own = {"accuracy": test.accuracy, "lower bound of accuracy": test.low, "upper bound of accuracy": test.high,
           "test images": test.count, "test loss": test.loss, "trained parameters": card.trained_parameters,
           "trained bytes": card.weights_bytes}  # fmt: skip
    return own | {f"recall of {name}": value for name, value in card.recall.items()} | card.metrics


def _cosines(a: Stored, b: Stored, notes: list[str]) -> list[BlockCosine]:
    left, right = _prompts(a), _prompts(b)
    if not left or not right:
        notes.append("cosine: at least one of the two has no prompts")
        return []
    if a.card.width != b.card.width:
        notes.append(f"cosine: the prompts are {a.card.width} and {b.card.width} wide, on different backbones")
        return []
    if a.card.backbone.sha256 != b.card.backbone.sha256:
        notes.append("cosine: the backbones differ, so directions of the two need not mean the same")
    return [block_cosine(block, left[block], right[block]) for block in sorted(left.keys() & right.keys())]


def _prompts(stored: Stored) -> dict[int, Tensor]:
    return {int(match[1]): value for name, value in stored.tensors().items() if (match := PROMPTS.fullmatch(name))}


def block_cosine(block: int, a: Tensor, b: Tensor) -> BlockCosine:
    """Cosine between prompts (P, D) and (P', D) of a block, in order and matched."""
    cosines = F.cosine_similarity(a.double()[:, None], b.double()[None], dim=-1).numpy()
    in_order = float(np.diag(cosines).mean()) if len(a) == len(b) else None
    first, second = match(cosines)
    return BlockCosine(block, in_order, float(cosines[first, second].mean()))


def match(similarity: Array) -> tuple[Array, Array]:
    """Rows and columns of a one-to-one matching: the best by scipy, or greedily the largest first.

    Args:
        similarity: (P, P').
    """
    if find_spec("scipy"):
        rows, columns = import_module("scipy.optimize").linear_sum_assignment(-similarity)
        return np.asarray(rows), np.asarray(columns)
    return match_greedily(similarity)


def match_greedily(similarity: Array) -> tuple[Array, Array]:
    """A one-to-one matching that takes the largest entry left, again and again."""
    left = np.array(similarity, dtype=float)
    pairs = []
    for _ in range(min(left.shape)):
        row, column = np.unravel_index(left.argmax(), left.shape)
        pairs.append((int(row), int(column)))
        left[row], left[:, column] = -np.inf, -np.inf
    rows, columns = zip(*sorted(pairs), strict=True)
    return np.array(rows), np.array(columns)


def _agreement(a: Stored, b: Stored, images: Sequence[Path], notes: list[str]) -> Agreement | None:
    if sorted(a.card.class_names) != sorted(b.card.class_names):
        notes.append("agreement: the two tell different classes apart")
        return None
    if images:
        bank = PromptBank(a.card.backbone.spec)
        other = bank if b.card.backbone.spec == a.card.backbone.spec else PromptBank(b.card.backbone.spec)
        files = list(images)
        answers = [each.answer(files, [one] * len(files)).names for each, one in ((bank, a), (other, b))]
        return _share(answers[0], answers[1], "probe images")
    left, right = _answers(a), _answers(b)
    common = sorted(left.keys() & right.keys())
    if a.card.data_fingerprint != b.card.data_fingerprint or not common:
        notes.append("agreement: they were not tested on common images; give some with --images FOLDER")
        return None
    return _share([left[id] for id in common], [right[id] for id in common], "common test images")


def _answers(stored: Stored) -> dict[str, str]:
    predictions, names = stored.predictions(), stored.card.class_names
    return {id: names[index] for id, index in zip(predictions.ids, predictions.classes, strict=True)}


def _share(a: Sequence[str], b: Sequence[str], images: str) -> Agreement:
    return Agreement(sum(one == other for one, other in zip(a, b, strict=True)) / len(a), len(a), images)

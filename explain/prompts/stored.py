"""Stored: the files of one version, and the checks that they are what its card says."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from explain.data.names import find_obeyed
from explain.errors import IntegrityError
from explain.files import parse_json, read_json, sha256_file
from explain.prompts.card import Card
from explain.prompts.history import Version
from explain.tensor_files import read_tensors, read_weights, write_tensors
from explain.training.run import Predictions

WEIGHTS, PREDICTIONS, CARD = "weights.safetensors", "predictions.safetensors", "card.json"
FILES = (WEIGHTS, PREDICTIONS)
"""What lies beside a card."""


@dataclass(frozen=True)
class Stored:
    """One version in a store: its folder, its place in the history, its card."""

    folder: Path
    version: Version
    card: Card

    def tensors(self) -> dict[str, Tensor]:
        """The trained weights by name.

        Raises:
            IntegrityError: the file is not the one its card recorded, or holds no weights.
        """
        check_files(self.folder, self.card)
        return read_weights(self.folder / WEIGHTS)[0]

    def predictions(self) -> Predictions:
        """The answers on the test images.

        Raises:
            IntegrityError: the file is not the one its card recorded.
        """
        check_files(self.folder, self.card)
        return read_predictions(self.folder / PREDICTIONS, len(self.card.class_names))


def read_card(folder: Path) -> Card:
    """The card in a folder.

    Raises:
        IntegrityError: it is missing or is no card.
    """
    try:
        card = Card.model_validate(read_json(folder / CARD))
    except ValidationError as error:
        first = error.errors()[0]
        raise IntegrityError(f"{folder / CARD}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    obeyed = find_obeyed(card.model_dump(mode="json"))
    if obeyed:
        raise IntegrityError(f"{folder / CARD}: {obeyed} holds control characters; it was changed")
    return card


def check_files(folder: Path, card: Card) -> None:
    """Raise IntegrityError unless the files beside a card are those it recorded."""
    if sorted(card.files) != sorted(FILES):
        raise IntegrityError(f"{folder / CARD} lists {', '.join(card.files) or 'no files'}; "
                             f"expected {', '.join(FILES)}")  # fmt: skip
    for name, expected in card.files.items():
        path = folder / name
        found = sha256_file(path) if path.is_file() else "missing"
        if found != expected:
            raise IntegrityError(f"{path} was recorded with hash {expected[:12]}… and is {found[:12]}; "
                                 "restore it from a backup or from an export")  # fmt: skip


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the answers on the test images: tensors, and the ids beside them as JSON."""
    tensors = {"labels": predictions.labels, "classes": predictions.classes,
               "probabilities": predictions.probabilities}  # fmt: skip
    write_tensors(path, {name: torch.from_numpy(array.copy()) for name, array in tensors.items()},
                  {"ids": json.dumps(predictions.ids, ensure_ascii=False)})  # fmt: skip


def read_predictions(path: Path, classes: int) -> Predictions:
    """Read what `write_predictions` wrote of a model with so many classes.

    Raises:
        IntegrityError: no label, class and probabilities of every image.
    """
    tensors, notes = read_tensors(path)
    ids = parse_json(notes.get("ids", "null"), f"the list of images in {path}")
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise IntegrityError(f"{path} does not name its images; restore it from a backup or from an export")
    found = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    wanted = {"labels": (torch.int64, (len(ids),)), "classes": (torch.int64, (len(ids),)),
              "probabilities": (torch.float32, (len(ids), classes))}  # fmt: skip
    if found != wanted:
        raise IntegrityError(f"{path} holds {found}, expected {wanted}; restore it from a backup or from an export")
    chosen = torch.cat([tensors["labels"], tensors["classes"]])
    if ((chosen < 0) | (chosen >= classes)).any() or not torch.isfinite(tensors["probabilities"]).all():
        raise IntegrityError(f"{path} holds labels or probabilities that are of none of {classes} classes; restore it "
                             "from a backup or from an export")  # fmt: skip
    return Predictions(ids, *(tensors[name].numpy() for name in ("labels", "classes", "probabilities")))

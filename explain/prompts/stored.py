"""Stored: the files of one version, and the checks that they are what its card says."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from explain.errors import IntegrityError
from explain.files import read_json, read_tensors, sha256_file, write_tensors
from explain.prompts.card import Card
from explain.prompts.history import Version
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
            IntegrityError: the file is not the one its card recorded.
        """
        check_files(self.folder, self.card)
        return read_tensors(self.folder / WEIGHTS)[0]

    def predictions(self) -> Predictions:
        """The answers on the test images.

        Raises:
            IntegrityError: the file is not the one its card recorded.
        """
        check_files(self.folder, self.card)
        tensors, notes = read_tensors(self.folder / PREDICTIONS)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        return Predictions(json.loads(notes["ids"]), arrays["labels"], arrays["classes"], arrays["probabilities"])


def read_card(folder: Path) -> Card:
    """The card in a folder.

    Raises:
        IntegrityError: it is missing or is no card.
    """
    try:
        return Card.model_validate(read_json(folder / CARD))
    except ValidationError as error:
        first = error.errors()[0]
        raise IntegrityError(f"{folder / CARD}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


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

"""Checkpoint: an unfinished training on disk, so that a killed one continues and ends bit for bit the same.

One safetensors file holds the trained parameters, the optimiser's moments, the random states and, as JSON in its
header, where the training stands. It is replaced as a whole, so it is always a complete one.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explain.errors import IntegrityError
from explain.tensor_files import read_tensors, sha256_tensors, write_tensors

CHECKPOINT = "checkpoint.safetensors"
"""Its name in the folder of the run."""

EPOCH_S = 5.0
"""Epochs that follow each other faster than this share a checkpoint."""


@dataclass
class Checkpoint:
    """Where an unfinished training is kept.

    Args:
        path: the file.
        key: hash of everything that decides the training; a file of another key is not this training's.
        every_s: seconds between two checkpoints within an epoch.
        write: False for all processes but one.
    """

    path: Path
    key: str
    every_s: float
    write: bool = True
    _saved: float = field(default_factory=time.monotonic)

    def due(self, *, epoch_ends: bool) -> bool:
        """True when it is time to save."""
        passed = time.monotonic() - self._saved
        return self.write and passed >= (min(EPOCH_S, self.every_s) if epoch_ends else self.every_s)

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the file; `state` is JSON data."""
        plain = dict(tensors)
        header = {"key": self.key, "sha256": sha256_tensors(plain), "state": json.dumps(state, allow_nan=False)}
        write_tensors(self.path, plain, header)
        self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was saved of this training, or None.

        Raises:
            IntegrityError: the file was changed or damaged after it was written.
        """
        if not self.path.is_file():
            return None
        tensors, header = read_tensors(self.path)
        if header.get("key") != self.key:
            return None
        if header.get("sha256") != sha256_tensors(tensors):
            raise IntegrityError(f"{self.path} was changed after it was written; delete it to train this arm anew")
        state: dict[str, Any] = json.loads(header["state"])
        return tensors, state

    def remove(self) -> None:
        """Forget the training, since it is finished."""
        if self.write:
            self.path.unlink(missing_ok=True)


def random_states() -> dict[str, Tensor]:
    """The random states that a training draws from, as tensors."""
    states = {"random.cpu": torch.get_rng_state()}
    return states | {f"random.cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}


def restore_random_states(tensors: Mapping[str, Tensor]) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(tensors["random.cpu"])
    for index in range(torch.cuda.device_count()):
        if f"random.cuda{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"random.cuda{index}"], index)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimiser's moments by "moment.<what>.<parameter>"."""
    return {
        f"moment.{what}.{names[parameter]}": value
        for parameter, moments in optimizer.state.items()
        for what, value in moments.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = {name: parameter for parameter, name in names.items()}
    for key, value in tensors.items():
        if key.startswith("moment."):
            what, _, name = key.removeprefix("moment.").partition(".")
            parameter = parameters[name]
            # the step counter stays on the CPU, as the optimiser keeps it
            optimizer.state[parameter][what] = value.to(parameter.device) if value.ndim else value

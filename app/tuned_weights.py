"""Tuned weights: what of a model was trained, block by block, and what became of its prompts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from app import maps, worker
from app.opening import Opened
from app.worker import Work
from explain.attribution import Array
from explain.errors import ExplainError
from explain.model import TunedModel
from explain.training.run import Run

BLOCK = re.compile(r"(?:vit\.)?blocks\.(\d+)\.")
EMBEDDING, HEAD = "embedding", "head"
"""Places of parameters outside the blocks: before the first one, and after the last."""
AFTER = ("norm", "fc_norm", "head", "head_drop", "attn_pool")


@dataclass(frozen=True)
class TunedWeights:
    """What of one model was trained.

    Args:
        parameters: place -> (trained, all): "embedding", block numbers counted from 1 as text, "head".
        prompts: block, counted from 1 -> its prompt tokens (P, D); empty for a tuning without prompts.
    """

    parameters: Mapping[str, tuple[int, int]]
    prompts: Mapping[int, Array]

    def norms(self) -> dict[int, Array]:
        """Block -> Euclidean norm of each of its prompts, (P,)."""
        return {block: torch.linalg.vector_norm(torch.from_numpy(values), dim=1).numpy()
                for block, values in self.prompts.items()}  # fmt: skip

    def cosines(self, block: int) -> Array:
        """Cosine of every two prompts of a block, (P, P), -1 to 1."""
        unit = F.normalize(torch.from_numpy(self.prompts[block]).double(), dim=1)
        return (unit @ unit.T).clamp(-1, 1).numpy()

    def likeness(self) -> dict[int, float]:
        """Block -> mean absolute cosine of two different prompts; of blocks with two prompts or more."""
        found = {}
        for block, values in self.prompts.items():
            count = len(values)
            if count > 1:
                cosines = abs(self.cosines(block))
                found[block] = float((cosines.sum() - cosines.trace()) / (count * (count - 1)))
        return found


def weights_of(model: TunedModel) -> TunedWeights:
    """What of a model was trained; a parameter counts as trained when the tuning lets it change."""
    counts: dict[str, list[int]] = {EMBEDDING: [0, 0]}
    counts |= {str(block + 1): [0, 0] for block in range(model.num_blocks)}
    counts[HEAD] = [0, 0]
    prompts = {}
    for name, value in model.named_parameters():
        place = place_of(name)
        counts[place][0] += value.numel() * value.requires_grad
        counts[place][1] += value.numel()
        if name.endswith(".prompts") and BLOCK.match(name):
            prompts[int(place)] = value.detach().float().cpu().numpy().copy()
    return TunedWeights({place: (trained, total) for place, (trained, total) in counts.items()}, prompts)


def place_of(name: str) -> str:
    """Where a parameter belongs: "embedding", a block's number counted from 1, or "head"."""
    block = BLOCK.match(name)
    if block:
        return str(int(block[1]) + 1)
    return HEAD if name.removeprefix("vit.").split(".")[0] in AFTER else EMBEDDING


def ready(opened: Opened, model: str) -> TunedWeights | ExplainError | None:
    """What is known of a model that has a run; None when it is not there yet."""
    run = opened.run(model)
    found: TunedWeights | ExplainError | None = worker.the_worker().result(_key(run)) if run else None
    return found


def work_of(opened: Opened, model: str, what: str) -> Work:
    """What the worker has to do to know a model that has a run; `what` is that in words."""
    run = opened.run(model)
    assert run is not None  # the page asks for models that are here
    return Work(_key(run), what, lambda ticket: weights_of(maps.load_model(run)))


def _key(run: Run) -> worker.Key:
    return ("tuned weights", run.manifest.identity)

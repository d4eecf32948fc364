"""Randomisation: the model is destroyed from its head to its input, and its maps should go with it."""

import copy
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from explain.attribution import Array
from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.subject import Subject
from explain.methods.base import METHODS
from explain.metrics.randomisation import entropy_rise, map_similarity
from explain.model import TunedModel

BLOCKS_PER_STAGE = 3
"""Blocks that are randomised before the maps are made again."""

BEHIND_BLOCKS = ("norm.", "fc_norm.", "attn_pool.")
"""What lies between the last block and the head; it goes with the first blocks, since a head alone leaves rollout."""

WRAPPED = re.compile(r"^(blocks\.\d+\.)block\.")
"""A block that carries prompts, around the one whose names are the backbone's."""

MOST_NODES = 17
"""Nodes of a path method at most: a rank correlation does not see the finer quadrature, and every stage pays for it."""


@MEASURES.register("randomisation")
class Randomisation(Measure):
    """Cascade over the weights: first the head, then three blocks at a time from the last to the first, then the rest.

    Every tensor gets its own values in another order, so that its scale stays. Stage "blocks.9" has everything behind
    block 9 randomised and block 9 too, its prompts excepted: they come in the last stage, "all", with the patch
    embedding, position embeddings and prefix tokens, so that a stage changes the same tensors in every arm. Each tensor
    has random numbers of its own, the same in every model that has a tensor of that name.

    A class-agnostic method does not see the head: there its similarity is 1 by design, with the flag "class_agnostic".
    """

    label: ClassVar[str] = "Randomised weights"
    source: ClassVar[str] = "Adebayo et al. 2018, arXiv 1810.03292; Hedström et al. 2024, arXiv 2401.06465"
    metrics: ClassVar[dict[str, Metric]] = {
        "cascade_signed": Metric("similarity to the map of the randomised model", chance=0.0),
        "cascade_absolute": Metric("the same without signs", "lower", 0.0),
        "emprt": Metric("rise of map entropy under random weights (eMPRT)", "higher", 0.0),
    }
    images: ClassVar[int | None] = 24
    every_seed: ClassVar[bool] = False
    controls: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        subject = replace(subject, options={name: _cheap(subject, name) for name in subject.methods})
        # made again, in the very same passes: a map that does not change must come out equal to the last bit
        original = subject.explain(subject.images)
        destroyed = copy.deepcopy(subject.model)
        for stage, tensors in cascade_stages(destroyed):
            for name, value in tensors.items():
                permute(value, subject.rng("randomisation", name))
            maps = subject.explain(subject.images, model=destroyed)
            for method in subject.methods:
                yield from _similarity(subject, method, stage, maps[method], original[method])
                if stage == "all":
                    rise = entropy_rise(maps[method], original[method])
                    yield from _rows(subject, method, "emprt", rise, original[method])


def cascade_stages(model: TunedModel) -> list[tuple[str, dict[str, Tensor]]]:
    """The stages in order, each with the parameters that it randomises beyond the stages before.

    Parameters go by the names they have in the backbone, so that tuned models can be told to use the same random
    numbers.
    """
    network = model.network
    left: dict[str, Tensor] = {WRAPPED.sub(r"\1", name): value for name, value in network.named_parameters()}
    heads: Any = network.get_classifier()  # type: ignore[operator]
    in_head = {id(value) for head in (heads if isinstance(heads, tuple) else (heads,)) for value in head.parameters()}
    stages = [("head", _take(left, [name for name, value in left.items() if id(value) in in_head]))]
    for first in range(model.num_blocks - BLOCKS_PER_STAGE, -1, -BLOCKS_PER_STAGE):
        parts = (*BEHIND_BLOCKS, *(f"blocks.{index}." for index in range(first, model.num_blocks)))
        names = [name for name in left if name.startswith(parts) and not name.endswith(".prompts")]
        stages.append((f"blocks.{first}", _take(left, names)))
    return [*stages, ("all", left)]


def permute(value: Tensor, rng: np.random.Generator) -> None:
    """Put a tensor's own values into another order, in place."""
    order = torch.from_numpy(rng.permutation(value.numel())).to(value.device)
    with torch.no_grad():
        value.copy_(value.flatten()[order].view_as(value))


def _take(left: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    return {name: left.pop(name) for name in names}


def _similarity(subject: Subject, method: str, stage: str, maps: Array, original: Array) -> Iterator[Row]:
    found = map_similarity(maps, original)
    by_design = "class_agnostic" if stage == "head" and not subject.class_specific[method] else None
    yield from _rows(subject, method, f"cascade_signed/{stage}", found.signed, original, by_design)
    yield from _rows(subject, method, f"cascade_absolute/{stage}", found.absolute, np.abs(original), by_design)


def _rows(
    subject: Subject, method: str, metric: str, values: Array, original: Array, flag: str | None = None
) -> Iterator[Row]:
    """One row per image; a missing number is put down to the map that is the same everywhere."""
    for name, value, before in zip(subject.ids, values, original, strict=True):
        missing = "flat_map" if np.ptp(before) == 0 else "blank_map"
        yield row(name, method, metric, float(value), flag if np.isfinite(value) else missing)


def _cheap(subject: Subject, method: str) -> dict[str, object]:
    """The method's options, with no more than `MOST_NODES` nodes where it counts such."""
    options = dict(subject.options.get(method, {}))
    known = {field.name: field.default for field in fields(METHODS[method])}  # type: ignore[arg-type]
    if "max_nodes" in known:
        options["max_nodes"] = min(MOST_NODES, options.get("max_nodes", MOST_NODES))
    return options

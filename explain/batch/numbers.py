"""Numbers: what is written down of every image beside its maps, taken from the float32 maps before they are stored.

Columns of the table, for every model M, method X and two models M and N:

    row, id, status, detail, flags, label, width, height
    M_prediction, M_confidence, M_target, M_target_probability, M_correct
    M_X_low, M_X_high                 smallest and largest value of the map
    M_X_gini                          how concentrated it is on the patch grid
    M_X_<number>                      what the method measured, such as completeness_gap or prompt_share
    M_X_relevance_mass                share of the positive map inside the mask, where there is one
    agreement_X_M_N                   Pearson's correlation of the two models' maps on the patch grid

A number that an image does not have (it failed, its map is the same everywhere, it has no label or one that the model
does not know) is null.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from explain.archive.job import Job, MapFacts
from explain.attribution import Array, Attribution
from explain.metrics.agreement import pearson
from explain.metrics.complexity import gini
from explain.metrics.localisation import mask_on_grid, relevance_mass
from explain.metrics.patch_grid import patch_means

IMAGE_COLUMNS = (
    ("row", pa.int64()), ("id", pa.string()), ("status", pa.string()), ("detail", pa.string()),
    ("flags", pa.list_(pa.string())), ("label", pa.int32()), ("width", pa.int32()), ("height", pa.int32()),
)  # fmt: skip

Found = Mapping[str, Mapping[str, Attribution]]
"""Model -> method -> maps of the same images."""


def table_schema(job: Job) -> pa.Schema:
    """The columns of a job's table."""
    columns = list(IMAGE_COLUMNS)
    for model in job.models:
        columns += [(f"{model.name}_prediction", pa.int32()), (f"{model.name}_confidence", pa.float32()),
                    (f"{model.name}_target", pa.int32()), (f"{model.name}_target_probability", pa.float32()),
                    (f"{model.name}_correct", pa.bool_())]  # fmt: skip
    for facts in job.maps:
        names = ["low", "high", "gini", *facts.numbers] + ["relevance_mass"] * job.data.has_masks
        columns += [(f"{facts.model}_{facts.method}_{name}", pa.float32()) for name in names]
    columns += [(_agreement(method, pair), pa.float32()) for method, pair in compared(job)]
    return pa.schema(columns)


def compared(job: Job) -> Iterator[tuple[str, tuple[str, str]]]:
    """Every method with every two models whose maps are compared."""
    return ((method, pair) for method in job.method_names for pair in job.pairs)


def _agreement(method: str, pair: tuple[str, str]) -> str:
    return f"agreement_{method}_{pair[0]}_{pair[1]}"


def same_classes(of_data: Sequence[str], of_model: Sequence[str]) -> bool:
    """Whether a label means the same class to images and model; a model whose classes have no names is taken so."""
    numbered = tuple(of_model) == tuple(map(str, range(len(of_model))))
    return tuple(of_data) == tuple(of_model) or (numbered and len(of_data) <= len(of_model))


@dataclass(frozen=True)
class OnGrid:
    """Maps of some images on their patch grids: (model, method) -> float32 (n, h, w), pixel maps summed per patch."""

    maps: Mapping[tuple[str, str], Array]

    @classmethod
    def of(cls, job: Job, found: Found) -> "OnGrid":
        """From what the engine found."""
        return cls({
            (facts.model, facts.method): _on_grid(facts, job.facts_of[facts.model].grid, found) for facts in job.maps
        })  # fmt: skip


def _on_grid(facts: MapFacts, grid: tuple[int, int], found: Found) -> Array:
    values = found[facts.model][facts.method].values
    if facts.on_grid:
        return values
    patch = values.shape[1] * values.shape[2] / (grid[0] * grid[1])
    return np.asarray(patch_means(values, grid) * np.float32(patch))  # a sum, so that what IG adds up to is kept


def numbers(
    job: Job, found: Found, on_grid: OnGrid, labels: Sequence[int | None], masks: Sequence[Array | None]
) -> dict[str, list[Any]]:
    """Every number of n images: column -> n values, None where there is none.

    Args:
        job: whose columns.
        found: the maps.
        on_grid: the same on patch grids.
        labels: class of each image, None for one without.
        masks: bool (H, W) of each image, None for one without.
    """
    columns: dict[str, list[Any]] = {}
    for model in job.models:
        any_method = next(iter(found[model.name].values()))
        known = labels if same_classes(job.data.class_names, model.class_names) else [None] * len(labels)
        columns |= {f"{model.name}_{name}": values for name, values in _answers(any_method, known).items()}
    for facts in job.maps:
        maps = found[facts.model][facts.method]
        grid = on_grid.maps[facts.model, facts.method]
        own = {"low": maps.values.min(axis=(1, 2)), "high": maps.values.max(axis=(1, 2)), "gini": gini(grid)}
        own |= {name: maps.extras.get(name, np.full(len(labels), np.nan)) for name in facts.numbers}
        if job.data.has_masks:
            own["relevance_mass"] = _inside(grid, masks)
        columns |= {f"{facts.model}_{facts.method}_{name}": _plain(values) for name, values in own.items()}
    for method, pair in compared(job):
        first, second = (on_grid.maps[model, method] for model in pair)
        columns[_agreement(method, pair)] = _plain(pearson(first, second))
    return columns


def _answers(maps: Attribution, labels: Sequence[int | None]) -> dict[str, list[Any]]:
    rows, probabilities, predictions = np.arange(len(maps)), maps.probabilities, maps.predictions
    return {
        "prediction": predictions.tolist(),
        "confidence": probabilities[rows, predictions].tolist(),
        "target": maps.targets.tolist(),
        "target_probability": probabilities[rows, maps.targets].tolist(),
        "correct": [None if label is None else bool(label == answer)
                    for label, answer in zip(labels, predictions.tolist(), strict=True)],
    }  # fmt: skip


def _inside(maps: Array, masks: Sequence[Array | None]) -> Array:
    """Share of each positive map inside its mask, NaN where there is no mask."""
    result = np.full(len(maps), np.nan)
    for row, mask in enumerate(masks):
        if mask is not None:
            share = mask_on_grid(mask[None], (maps.shape[1], maps.shape[2]))
            result[row] = relevance_mass(maps[row : row + 1], share)[0]
    return result


def _plain(values: Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values, dtype=np.float64)]


def degenerate(maps: Attribution) -> Array:
    """Which maps are the same everywhere, bool (n,): there is nothing to see, and nothing to rank."""
    flat = maps.values.reshape(len(maps), -1)
    return np.asarray(flat.min(axis=1) == flat.max(axis=1))

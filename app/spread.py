"""Spread: how large a method's maps are over the data set, so that one scale can serve all its images.

It is read from an even sample of the archive's maps on the patch grid; that it is a sample is told beside the scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.opening import Opened
from app.worker import Ticket, Work
from explain.archive.archive import MapArchive
from explain.errors import Cancelled
from explain.methods.base import METHODS

SAMPLED = 128
"""Images that are read: the 99.5th percentile of their patches is within a few per cent of that of all."""

QUANTILES = (0.0, 50.0, 75.0, 90.0, 95.0, 97.0, 98.0, 99.0, 99.5, 99.9, 100.0)


@dataclass(frozen=True)
class Spread:
    """Quantiles of the magnitudes that are drawn.

    Args:
        quantiles: (q, value), q in 0-100: of the positive part of a positive map, of the absolute values of a signed
            one; as means over the patches.
        count: images that were read.
        total: images of the archive.
    """

    quantiles: tuple[tuple[float, float], ...]
    count: int
    total: int


def work_of(opened: Opened, method: str, models: Sequence[str]) -> Work | None:
    """The reading of one method's maps of these models; None where no archive has them."""
    archive = opened.archive
    names = tuple(opened.kept_as[model] for model in models if model in opened.kept_as)
    if archive is None or not names or method not in archive.methods:
        return None
    key = ("spread", archive.store.url, archive.job.sha256, len(opened.committed), method, names)
    return Work(key, METHODS[method].label, lambda ticket: _read(archive, method, names, opened.committed, ticket))


def _read(
    archive: MapArchive, method: str, names: Sequence[str], committed: Sequence[int], ticket: Ticket
) -> Spread:
    manifest = archive.job.manifest
    rows = np.concatenate([manifest.first_row(shard) + np.arange(manifest.size(shard)) for shard in committed])
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(int))]
    columns = [f"{name}.{method}.grid" for name in names]
    magnitudes, count = [], 0
    for number, row in enumerate(chosen.tolist()):
        if ticket.cancelled():
            raise Cancelled("nobody wants the scale any more")
        found = archive.at(row, columns)
        maps = [found[name][method] for name in names if name in found]
        count += bool(maps)
        for one in maps:
            facts = archive.job.facts_of[one.model]
            patches = facts.grid[0] * facts.grid[1]
            area = 1 if _is_on_grid(archive, one.model, method) else facts.image_size[0] * facts.image_size[1] / patches
            magnitudes.append(one.on_grid.ravel() / area)  # pixels are kept as sums per patch and shown as means
        ticket.say(number + 1, len(chosen))
    values = np.concatenate(magnitudes) if magnitudes else np.zeros(1)
    drawn = np.abs(values) if METHODS[method].picture == "signed" else np.maximum(values, 0)
    found_at = np.percentile(drawn, QUANTILES)
    return Spread(tuple(zip(QUANTILES, map(float, found_at), strict=True)), count, len(archive))


def _is_on_grid(archive: MapArchive, model: str, method: str) -> bool:
    return next(facts.on_grid for facts in archive.job.maps if (facts.model, facts.method) == (model, method))

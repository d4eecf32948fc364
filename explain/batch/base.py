"""Backend: where shards are computed, as one file per way: in this process, or on a cluster.

Every backend runs the same `Worker`, so the archive does not depend on which it was.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from explain.archive.archive import MapArchive
from explain.archive.receipt import Receipt
from explain.batch.models import Source, load_models
from explain.batch.settings import Settings
from explain.batch.shard import Step, nothing, run_shard
from explain.model import TunedModel
from explain.registry import Registry
from explain.training.machine import Machine

Done = Callable[[int, Mapping[str, int]], None]
"""Called with a shard that was committed, and how many of its images have each status."""


@dataclass(frozen=True)
class Worker:
    """The models of a job in one process, and the archive they write to."""

    archive: MapArchive
    models: Mapping[str, TunedModel]
    settings: Settings

    def run(self, shard: int, *, cancelled: Callable[[], bool] | None = None, step: Step = nothing) -> Receipt:
        """Compute one shard and commit it; see `run_shard`."""
        return run_shard(self.archive, self.models, shard, settings=self.settings, cancelled=cancelled, step=step)


@dataclass(frozen=True)
class Work:
    """What a backend has to do, wherever it does it.

    Args:
        url: of the archive.
        sources: where each model comes from.
        settings: how shards are computed.
    """

    url: str
    sources: Mapping[str, Source]
    settings: Settings

    def open(self) -> Worker:
        """The models in this process, on their device, proved to be those of the job.

        Raises:
            IntegrityError: a model is another one than the archive was begun with.
        """
        archive = MapArchive.open(self.url)
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        device = Machine(device=self.settings.device).torch_device
        models = load_models(archive.job.facts_of, self.sources)
        return Worker(archive, {name: model.to(device) for name, model in models.items()}, self.settings)


class Backend:
    """One way to compute shards; its dataclass fields are its options."""

    def run(self, work: Work, shards: Iterator[int], done: Done, step: Step) -> None:
        """Compute and commit every shard, in any order.

        Args:
            work: what is computed.
            shards: their numbers, taken as they are needed: there may be a million.
            done: called in this process for each shard that was committed.
            step: called in this process as images are done, where that is known before the shard is.
        """
        raise NotImplementedError


BACKENDS: Registry[Backend] = Registry("backend", "explain.batch")

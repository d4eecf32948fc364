"""Backend: where shards are computed, as one file per way: in this process, or on a cluster.

Every backend runs the same `Worker`, so the archive does not depend on which it was.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from explain.archive.archive import MapArchive
from explain.archive.receipt import Receipt
from explain.batch.models import Source, check_models, load_models
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
        models = load_models(self.sources, Machine(device=self.settings.device).torch_device)
        check_models(models, archive.job.facts_of)
        return Worker(archive, models, self.settings)


class Backend:
    """One way to compute shards; its dataclass fields are its options."""

    @property
    def processes(self) -> int:
        """How many shards are computed at once, as far as it is known beforehand."""
        return 1

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

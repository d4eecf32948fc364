"""Inline: shards one after the other in this process."""

from collections.abc import Iterator
from dataclasses import dataclass

from explain.batch.base import BACKENDS, Backend, Done, Work
from explain.batch.shard import Step


@BACKENDS.register("inline")
@dataclass(frozen=True)
class Inline(Backend):
    """Shards one after the other in this process: nothing to start, nothing to install."""

    def run(self, work: Work, shards: Iterator[int], done: Done, step: Step) -> None:
        """See `Backend.run`."""
        worker = work.open()
        for shard in shards:
            done(shard, worker.run(shard, step=step).statuses)

"""Ray: shards on every core or GPU of this machine, or on a cluster, by the library of that name.

    pip install explain-vit[ray]

Each worker is a process that holds the models and computes one shard after another, as `inline` does. A worker that
dies is replaced and its shard handed out again, a bounded number of times; only shard numbers and counts travel. The
archive, the images and the trained runs must lie where every worker can reach them.
"""

import logging
import os
import secrets
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from explain.archive.commit import give_up
from explain.archive.store import Store
from explain.batch.base import BACKENDS, Backend, Done, Work, Worker
from explain.batch.guard import Guard
from explain.batch.models import Source
from explain.batch.settings import Settings
from explain.batch.shard import Step
from explain.errors import ExplainError, InputError

HANDED_OUT = 4
"""Times that a shard is handed out at most; from the third on its images are decoded in a process of their own."""

OBJECT_STORE_BYTES = 100_000_000
"""Ray's shared memory. Nothing large travels, and Ray would take a third of the machine's memory."""

SECONDS_TO_CONNECT = 10


class WorkersLost(ExplainError):
    """Worker processes died again and again; what is committed is kept and the work can go on."""

    exit_code = 4


class ShardActor:
    """Computes shards in a process of its own.

    Args:
        url: of the archive.
        runs: folder of the trained run of each model.
        settings: fields of `Settings`.
    """

    def __init__(self, url: str, runs: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        sources = {name: Source(run=Path(run)) for name, run in runs.items()}
        self._work = Work(url, sources, Settings(**settings))
        self._worker: Worker | None = None

    def open(self) -> None:
        """Load the models. Not done at construction, where Ray would turn any error into the death of the process."""
        torch.set_num_threads(self._work.settings.threads or 1)
        self._worker = self._work.open()

    def run(self, shard: int) -> dict[str, int]:
        """Compute and commit a shard; how many of its images have each status."""
        worker = self._worker or self._work.open()
        return dict(worker.run(shard).statuses)


@BACKENDS.register("ray")
@dataclass(frozen=True)
class Ray(Backend):
    """Shards on many processes.

    Without an address, Ray is started on this machine for the run and stopped after it; its ports listen to this
    machine alone. A Ray that this program has already started is used and left running.

    Args:
        workers: processes that compute shards; None for one per GPU, or one per core where there is no GPU.
        address: of a running cluster, such as "10.0.0.1:6379" or "auto"; None for $RAY_ADDRESS, or else this machine.
    """

    workers: int | None = None
    address: str | None = None

    @property
    def processes(self) -> int:
        """See `Backend.processes`; what a cluster has is known when it is reached."""
        there = self.address or os.environ.get("RAY_ADDRESS")
        return self.workers or (1 if there else len(os.sched_getaffinity(0)))

    def run(self, work: Work, shards: Iterator[int], done: Done, step: Step) -> None:
        """See `Backend.run`; `step` is not called. Each process uses one thread of torch unless the settings say more.

        Raises:
            InputError: Ray is not installed or not reachable, more workers than fit, models that are no trained runs.
            WorkersLost: a shard, or loading the models, killed every worker it was given to.
        """
        arguments = _plain(work)
        if self.workers is not None and self.workers < 1:
            raise InputError(f"expected at least one worker, got {self.workers}")
        first = list(islice(shards, 1))
        if not first:
            return
        with Guard() as guard, self._cluster(work.settings) as (ray, workers, gpus):
            guard.note()

            def noted(shard: int, statuses: Mapping[str, int]) -> None:
                guard.note()  # workers may have been replaced
                done(shard, statuses)

            options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
            actor = ray.remote(**options)(ShardActor)
            pool = _Pool(ray, lambda: actor.remote(*arguments), chain(first, shards), noted)
            try:
                pool.work(workers)
            finally:
                pool.close(Store.open(work.url))

    @contextmanager
    def _cluster(self, settings: Settings) -> Iterator[tuple[Any, int, int]]:
        """(the library, workers, GPUs of each), connected; what was started or connected here is left again."""
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        ray = _import_ray(address)
        if ray.is_initialized():
            yield ray, *self._fit(_resources(ray), settings)
            return
        try:
            if address == "local":
                workers, gpus = self._on_this_machine(settings)
                _init(ray, address=address, num_cpus=workers + 1, num_gpus=workers * gpus, include_dashboard=False,
                      object_store_memory=OBJECT_STORE_BYTES)  # fmt: skip
            else:
                _init(ray, address=address)
                workers, gpus = self._fit(_resources(ray), settings)
            yield ray, workers, gpus
        finally:
            ray.shutdown()

    def _on_this_machine(self, settings: Settings) -> tuple[int, int]:
        gpus = 0 if settings.device == "cpu" else torch.cuda.device_count()
        cores = max(len(os.sched_getaffinity(0)), self.workers or 0)  # more workers than cores are slow, not wrong
        return self._fit({"CPU": cores, "GPU": gpus}, settings)

    def _fit(self, resources: Mapping[str, float], settings: Settings) -> tuple[int, int]:
        """(workers, GPUs of each); more than fit at once would wait for the others to end."""
        cores = int(resources.get("CPU", 0))
        gpus = 0 if settings.device == "cpu" else int(resources.get("GPU", 0))
        most = min(cores, gpus) if gpus else cores
        if most < 1 or (self.workers or 1) > most:
            raise InputError(f"expected at most {most} workers ({cores} cores and {gpus} GPUs are there for them), got "
                             f"{self.workers or 'none asked for'}")  # fmt: skip
        return self.workers or most, min(gpus, 1)


class _Pool:
    """The workers, and which shard each is at.

    Args:
        ray: the library.
        start: starts a worker.
        shards: their numbers.
        done: called for each that was committed.
    """

    def __init__(
        self, ray: Any, start: Callable[[], Any], shards: Iterator[int], done: Done
    ) -> None:
        self._ray, self._create, self._shards, self._done = ray, start, shards, done
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._tasks: dict[Any, tuple[Any, int | None]] = {}  # no shard: it is loading the models
        self._again: deque[int] = deque()
        self._lost: Counter[int | None] = Counter()
        self._exhausted = False

    def work(self, workers: int) -> None:
        """Compute every shard. A worker gets one when it has loaded its models, so none waits for a slow start."""
        for _ in range(workers):
            self._start()
        while not self._exhausted or self._again or any(shard is not None for _, shard in self._tasks.values()):
            (ready, *_), _ = self._ray.wait(list(self._tasks), num_returns=1)
            actor, shard = self._tasks.pop(ready)
            try:
                statuses = self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, ExplainError) else error) from None
            except self._ray.exceptions.RayError as error:
                self._replace(actor, shard, error)
                continue
            del self._lost[None]
            if shard is not None:
                self._done(shard, statuses)
            self._hand_out(actor)

    def close(self, store: Store) -> None:
        """Stop the workers. What they were at is not their fault, so it does not count as an attempt."""
        for actor in self._actors:
            self._ray.kill(actor)
        with suppress(ExplainError):  # an error on the way must not take the place of the one that led here
            for _, shard in self._tasks.values():
                if shard is not None:
                    give_up(store, shard)

    def _start(self) -> None:
        actor = self._create()
        self._actors.append(actor)
        self._tasks[actor.open.remote()] = actor, None

    def _hand_out(self, actor: Any) -> None:
        shard = self._again.popleft() if self._again else next(self._shards, None)
        if shard is None:
            self._exhausted = True
            self._idle.append(actor)
        else:
            self._tasks[actor.run.remote(shard)] = actor, shard

    def _replace(self, actor: Any, shard: int | None, error: Exception) -> None:
        """Let another worker take the shard of one that is gone."""
        self._ray.kill(actor)  # it may only be out of reach
        self._actors.remove(actor)
        self._lost[shard] += 1
        if self._lost[shard] >= HANDED_OUT:
            what = "loading the models" if shard is None else f"shard {shard}"
            raise WorkersLost(
                f"{what} killed {HANDED_OUT} workers one after the other (the last: {_first_line(error)}). Is there "
                "memory left on every machine? What is committed is kept; the same command continues"
            )
        if shard is not None:
            self._again.append(shard)
        if self._idle and shard is not None:
            self._hand_out(self._idle.pop())
        else:
            self._start()


def _plain(work: Work) -> tuple[str, dict[str, str], dict[str, Any]]:
    """What a worker is made of, as text and numbers.

    Raises:
        InputError: it cannot be: models or an archive that are in this process alone.
    """
    if work.url.startswith("memory:"):
        raise InputError(f"expected an archive in a folder or a bucket with the backend 'ray', got {work.url}")
    runs = {name: source.run for name, source in work.sources.items()}
    given = [name for name, run in runs.items() if run is None]
    if given:
        raise InputError(f"expected trained runs (their folders) with the backend 'ray'; model {given[0]!r} was given "
                         "from memory. Use the backend 'inline', or train it with explain.train_pair")  # fmt: skip
    settings = work.settings.model_copy(update={"threads": work.settings.threads or 1})
    return work.url, {name: str(run.resolve()) for name, run in runs.items() if run is not None}, settings.model_dump()


def _import_ray(address: str) -> Any:
    """The library, with an environment that keeps it quiet and, on this machine alone, closed to others.

    Some of these are read when Ray is imported, others by the processes that it starts. Tokens stay on: who reaches a
    port of Ray without one could run any code.
    """
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if address == "local":
        wanted["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on any system: listen to this machine alone
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # or Ray would write one below HOME, and fail if it cannot
    else:
        wanted["RAY_AUTH_MODE"] = "token"  # without it a driver does not show the token that it has
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError("the backend 'ray' needs the library ray: pip install explain-vit[ray]") from None
    return ray


def _init(ray: Any, *, address: str, **options: Any) -> None:
    """Start or reach a cluster, and leave the program's handler of SIGTERM as it is."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(f"no Ray at {address!r}: {_first_line(error)}. Is the cluster running, and is $RAY_AUTH_TOKEN "
                         "its token? Without an address, Ray is started on this machine") from error  # fmt: skip
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _knock(address: str) -> None:
    """Raise an OSError where nobody listens: Ray itself would try for more than five minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()


def _resources(ray: Any) -> dict[str, float]:
    return dict(ray.cluster_resources())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""attribute_dataset: the maps of a whole data set, on one machine or a cluster, interrupted as often as need be.

Called again it goes on where it stopped, and computes nothing twice. Called with something else it refuses, and says
what differs.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from explain.archive.archive import MapArchive
from explain.archive.commit import now
from explain.archive.finish import finish
from explain.archive.job import KEY, check_policy
from explain.archive.lock import KEY as LOCK
from explain.archive.lock import writing
from explain.archive.paths import ATTEMPTS, MAPS, METRICS, key, shard_of
from explain.archive.store import Store
from explain.archive.verify import drop, verify
from explain.batch.base import BACKENDS, Backend, Work
from explain.batch.claim import Claim
from explain.batch.estimate import Estimate
from explain.batch.models import load_models, named_models
from explain.batch.settings import Settings, torch_threads
from explain.engine import DEFAULT_METHODS, PRECISIONS, create_methods, recorded_options
from explain.errors import Cancelled, InputError, IntegrityError
from explain.training.images import Progress, quiet
from explain.training.machine import Machine

SHARD_SIZE = 1024

LEFT_OVER = ("probe-", f"{LOCK}.")
"""How files begin that try whether a folder can be written, and those by which a dead writer's lock is taken over."""

Say = Callable[[str], None]
"""Called with one line of text that a user wants to read."""


def silent(line: str) -> None:
    """A Say that says nothing."""


def attribute_dataset(
    models: Any,
    data: Any = None,
    *,
    out: str | Path,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    targets: int | str | None = None,
    store_maps: str = "int8",
    backend: str | Backend = "inline",
    shard_size: int = SHARD_SIZE,
    batch_size: int = 8,
    memory_budget: int | str = "auto",
    precision: str = "fp32",
    device: str | None = None,
    threads: int | None = None,
    repair: bool = False,
    progress: Progress = quiet,
    say: Say = silent,
) -> MapArchive:
    """Saliency maps and their numbers for every image of a data set, kept in an archive; call it again to go on.

    An image that cannot be explained is a row with a reason in the archive's table; the others are not touched by it.

    Args:
        models: a `TunedModel`, a run, a matched pair, the folder of either, or a dictionary of name -> model.
        data: a `Dataset`; the path or name of one; an image, a folder of images or a list of images; None to go on with
            the images of an archive that was begun.
        out: folder of the archive, or the URL of a bucket and prefix such as "s3://bucket/maps".
        methods: registered names.
        options: per method its options; plain values only.
        targets: class each map explains: "label", "predicted" for each model's own answer, a class name or an index.
            None is "label" where several models are compared on labelled images, so that all explain one class, else
            "predicted".
        store_maps: how maps in pixels are kept: "int8" (38 kB each at 224x224), "fp16" (94 kB), "grid" (none, only sums
            per patch), "sample:1000" (about so many images, and the remarkable ones). Maps on the patch grid are always
            kept.
        backend: "inline" for this process, "ray" for a cluster, or a `Backend`.
        shard_size: images per shard, the unit that is computed and kept or not.
        batch_size: images per pass at most.
        memory_budget: bytes that a pass may take, or "auto".
        precision: "fp32", or "bf16" for mixed precision.
        device: "cpu", "cuda", or None for a GPU when there is one.
        threads: of torch in each process; None for torch's own number.
        repair: check everything that is there first, and compute damaged shards again.
        progress: called with (what is running, images done, images in all).
        say: called with a line that a user wants to read: the estimate, what is gone on with, what went wrong.

    Returns:
        The archive; `finished` says how many images have which status.

    Raises:
        InputError: arguments that do not fit, an archive of something else (each differing key is named), another
            process that writes it, or nothing can be written there.
        UnknownNameError: no such method, option, backend or class.
        IntegrityError: a shard or a model is not the one that was recorded; `repair` computes such shards again.
        StorageError: a file could not be written; what is committed is kept.
        Cancelled: interrupted; what is committed is kept.
    """
    plugins = create_methods(methods, options or {})
    asked = {name: _plain_options(name, recorded_options(method)) for name, method in plugins.items()}
    check_policy(store_maps)
    if precision not in PRECISIONS:
        raise InputError(f"expected precision in {tuple(PRECISIONS)}, got {precision!r}")
    runner = BACKENDS.create(backend) if isinstance(backend, str) else backend
    settings = Settings.of(device=device, batch_size=batch_size, memory_budget=memory_budget, threads=threads)
    sources = named_models(models)  # first, or a mistyped run would leave a folder of its name behind
    store = Store.open(out)
    store.check_writable()  # before anything that takes time
    try:
        with writing(store), torch_threads(threads):
            store.clean()
            loaded = load_models(sources, Machine(device=device).torch_device)
            claim = Claim(sources, loaded, asked, targets, store_maps, precision, shard_size, settings, progress)
            if store.exists(KEY):
                archive, seconds = MapArchive(store), None
                claim.check(archive, data)
                say(f"going on with the {len(archive):,} images listed on {archive.job.created}")
            else:
                archive, seconds = claim.begin(store, data)
            _tidy(archive)
            if repair:
                _repair(archive, progress, say)
            given = {name: replace(source, given=loaded[name]) for name, source in sources.items()}
            return _complete(archive, runner, Work(store.url, given, settings), seconds, progress, say)
    except KeyboardInterrupt:
        raise Cancelled(f"stopped; every committed shard is kept in {store.url}, and the same call continues") from None


def _plain_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if "given image" in options.values():
        raise InputError(f"{method}: expected options that can be written down, got an image; give it by name, or use "
                         "explain.attribute")  # fmt: skip
    return dict(options)


def _tidy(archive: MapArchive) -> None:
    """Take away what killed processes left beside half-written files, now that no other may write here."""
    committed = set(archive.committed())
    for name in list(archive.store.list(ATTEMPTS)):
        if shard_of(name) in committed:
            archive.store.delete(name)
    if archive.store.folder is not None:
        for name in sorted(os.listdir(archive.store.folder)):
            if name.startswith(LEFT_OVER):
                archive.store.delete(name)


def _repair(archive: MapArchive, progress: Progress, say: Say) -> None:
    problems = verify(archive, lambda done, total: progress("checking shards", done, total))
    for problem in problems:
        say(f"damaged: {problem}")
    dropped = drop(archive, problems)
    say(f"{len(dropped)} damaged shards are computed again" if dropped else "nothing is damaged")


def _complete(
    archive: MapArchive, backend: Backend, work: Work, seconds: float | None, progress: Progress, say: Say
) -> MapArchive:
    """Compute every shard that is not committed."""
    _check_sizes(archive)
    facts = archive.job.manifest
    left = sum(facts.size(shard) for shard in archive.pending())
    if left:
        _announce(archive, left, seconds, backend.processes, say)
        archive.note("working", images=left, time=now())
        tally = Tally(progress, len(archive), len(archive) - left)
        backend.run(work, archive.pending(), tally.committed, tally.step)
    if left or archive.finished is None:
        finish(archive)
    return MapArchive(archive.store)


def _check_sizes(archive: MapArchive) -> None:
    """A quick look at what is committed: there is no going on from a file that is gone or cut short."""
    for receipt in archive.receipts():
        for kind, expected in ((MAPS, receipt.maps), (METRICS, receipt.metrics)):
            name = key(kind, receipt.shard)
            if archive.store.size(name) != expected.bytes:
                raise IntegrityError(f"{archive.store.name(name)} is missing or cut short; give repair=True to compute "
                                     "its shard again")  # fmt: skip


def _announce(archive: MapArchive, left: int, seconds: float | None, processes: int, say: Say) -> None:
    if left < len(archive):
        say(f"{len(archive) - left:,} of {len(archive):,} images are there already")
    if seconds is None:
        spent = [(receipt.seconds, receipt.count) for receipt in archive.receipts()]
        seconds = sum(part for part, _ in spent) / sum(count for _, count in spent) if spent else None
    estimate = Estimate.of(archive.job, archive.store, left, None if seconds is None else seconds / processes)
    say(str(estimate))
    if not estimate.fits:
        say("warning: that is more than the disk has room for. It will stop when the disk is full, and go on when "
            "there is room; store_maps='grid' takes far less")  # fmt: skip


class Tally:
    """How far the work is, whether a backend tells images or only shards."""

    def __init__(self, progress: Progress, total: int, done: int) -> None:
        self.progress, self.total, self.done, self.ahead = progress, total, done, 0
        self._tell()  # the first images may take minutes, and the rate counts from here

    def step(self, count: int) -> None:
        """So many more images of a shard that is not committed yet."""
        self.ahead += count
        self._tell()

    def committed(self, shard: int, statuses: Mapping[str, int]) -> None:
        """A shard is committed."""
        self.ahead = max(0, self.ahead - sum(statuses.values()))
        self.done += sum(statuses.values())
        self._tell()

    def _tell(self) -> None:
        self.progress("explaining", min(self.done + self.ahead, self.total), self.total)

"""Verify: is every byte of an archive the one that was written? And what to do with those that are not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from explain.archive.archive import MapArchive
from explain.archive.finish import finish, receipts_sha256
from explain.archive.job import FINISHED
from explain.archive.manifest import slice_sha256
from explain.archive.paths import ATTEMPTS, MAPS, METRICS, RECEIPTS, key
from explain.archive.receipt import StoredFile
from explain.errors import ExplainError, IntegrityError

Progress = Callable[[int, int], None]
"""Called with (shards checked, shards in all)."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        shard: whose files they are; None for a file of the whole archive.
        what: in one sentence, naming the file.
    """

    shard: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.shard is None else f"shard {self.shard}: {self.what}"


def verify(archive: MapArchive, progress: Progress = lambda done, total: None) -> list[Problem]:
    """Read everything and compare it with what vouches for it.

    A shard that is not computed yet is no problem, unless the archive was finished.
    """
    problems = [Problem(None, what) for what in archive.manifest.problems()]
    shards = archive.job.manifest.shards
    there = set(archive.committed())
    whole = _is_finished(archive, problems)
    for shard in range(shards):
        if shard in there:
            problems += [Problem(shard, what) for what in _shard_problems(archive, shard, bool(problems))]
        elif whole:
            problems.append(Problem(shard, f"{archive.store.name(key(RECEIPTS, shard))} is missing"))
        progress(shard + 1, shards)
    if whole and not problems:
        problems += list(_whole_problems(archive))
    return problems


def _is_finished(archive: MapArchive, problems: list[Problem]) -> bool:
    try:
        return archive.finished is not None
    except IntegrityError as error:
        problems.append(Problem(None, str(error)))
        return True


def _shard_problems(archive: MapArchive, shard: int, manifest_is_damaged: bool) -> Iterator[str]:
    try:
        receipt = archive.receipt(shard)
    except ExplainError as error:
        yield str(error)
        return
    for kind, expected in ((MAPS, receipt.maps), (METRICS, receipt.metrics)):
        yield from _file_problems(archive, key(kind, shard), expected)
    if not manifest_is_damaged and slice_sha256(archive.manifest.shard(shard)) != receipt.manifest_slice:
        yield f"{archive.store.name(key(RECEIPTS, shard))} is of other images than the manifest's"


def _file_problems(archive: MapArchive, name: str, expected: StoredFile) -> Iterator[str]:
    try:
        expected.check(archive.store.read(name), archive.store.name(name))
    except ExplainError as error:
        yield str(error)


def _whole_problems(archive: MapArchive) -> Iterator[Problem]:
    """Of a finished archive whose shards are all right."""
    finished = archive.finished
    if finished is None:
        return
    if finished.receipts != receipts_sha256(archive):
        yield Problem(None, f"{archive.store.name(FINISHED)} vouches for other receipts than these")
    for name, expected in finished.tables.items():
        if not archive.store.exists(name) or archive.store.sha256(name) != expected:
            yield Problem(None, f"{archive.store.name(name)} is damaged; it is joined again from the shards")


def drop(archive: MapArchive, problems: list[Problem]) -> list[int]:
    """Take damaged shards out, so that the next run computes them and nothing else; their numbers.

    Raises:
        IntegrityError: the manifest is damaged, without which no shard can be computed.
    """
    lost = archive.manifest.problems()
    if lost:
        raise IntegrityError(f"{lost[0]}: the list of images cannot be made again from anything else; restore it from "
                             "a copy, or make the archive again")  # fmt: skip
    damaged = sorted({problem.shard for problem in problems if problem.shard is not None})
    if problems:
        archive.store.delete(FINISHED)
    for shard in damaged:
        for kind in (RECEIPTS, MAPS, METRICS, ATTEMPTS):  # the receipt first: what it vouches for must be there
            archive.store.delete(key(kind, shard))
        archive.note("dropped", shard=shard)
    if problems and not damaged and not any(True for _ in archive.pending()):
        finish(archive)
    return damaged

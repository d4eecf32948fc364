"""Explain a data set while being killed again and again: `python killed_batch.py DATA OUT SEED KILLS`.

Every event (a file opened, written, flushed, renamed, linked or removed, some images done) is a moment at which the
process may die by SIGKILL; now and then its parent kills it by the clock instead. The next child goes on from what is
on the disk. When a job is finished the next one begins, until enough children died. After each death every receipt that
was ever seen must still be there, untouched. Prints what came of it as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_archive import explain_all, files_of, small_models

from explain.archive.archive import MapArchive
from explain.archive.verify import verify
from explain.data.base import Dataset, load_data

torch.set_num_threads(1)
CALLS = ("open", "write", "fsync", "replace", "link", "unlink")
Seen = dict[str, tuple[bytes, int, int]]


def dying(events: int | None) -> Callable[..., None]:
    """A function that kills this process when it is called for the n-th time."""
    left = [events]

    def event(*_: object) -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return event


def watch(event: Callable[..., None]) -> None:
    """Let every call that changes a disk be two events: before it, and after it."""

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*arguments: Any, **rest: Any) -> Any:
            event()
            result = call(*arguments, **rest)
            event()
            return result

        return calling

    for name in CALLS:
        setattr(os, name, watched(getattr(os, name)))


def child(data: Dataset, out: Path, events: int | None) -> int:
    """A process that explains the data set and dies at an event, or lives to the end; its number."""
    pid = os.fork()
    if pid:
        return pid
    event = dying(events)
    watch(event)
    explain_all(small_models(), data, out, progress=event)
    os._exit(0)


def receipts(out: Path) -> Seen:
    """Receipts on the disk: their bytes, when they were written, and as which file."""
    found = {}
    for path in (out / "receipts").rglob("*.json"):
        facts = path.stat()
        found[path.name] = (path.read_bytes(), facts.st_mtime_ns, facts.st_ino)
    return found


def job(data: Dataset, out: Path, draw: random.Random, tally: dict[str, int], kills: int) -> None:
    """One job to its end, killed on the way as long as more kills are wanted."""
    seen: Seen = {}
    while True:
        living = tally["died"] >= kills
        by_clock = not living and draw.random() < 0.2
        events = None if living or by_clock else draw.randrange(1, 160)
        pid = child(data, out, events)
        if by_clock:
            time.sleep(draw.uniform(0, 0.8))
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        found = receipts(out)
        tally["seen"] += len(found.keys() - seen.keys())
        tally["lost"] += len(seen.keys() - found.keys())
        tally["recomputed"] += sum(found[name] != seen[name] for name in seen.keys() & found.keys())
        seen = found
        if os.WIFSIGNALED(status):
            tally["died"] += 1
            tally["died_by_clock"] += by_clock
            continue
        if os.WEXITSTATUS(status):
            raise SystemExit(f"a child failed with {os.WEXITSTATUS(status)}")
        tally["jobs"] += 1
        return


def compare(out: Path, reference: Path) -> dict[str, Any]:
    """How an archive whose work was interrupted differs from one that was made in one go."""
    found, expected = files_of(out), files_of(reference)
    files = {name for name in expected if name.split("/")[0] in ("manifest", "maps", "metrics", "table")}
    archive = MapArchive(out)
    return {
        "left_over": sorted(found.keys() - expected.keys()),
        "missing": sorted(expected.keys() - found.keys()),
        "other_bytes": sorted(name for name in files if found.get(name) != expected[name]),
        "other_content": archive.content_sha256 != MapArchive(reference).content_sha256,
        "problems": [str(problem) for problem in verify(archive)],
    }


def main() -> None:
    """See the module."""
    data, out, kills = load_data(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[4])
    draw, reference = random.Random(int(sys.argv[3])), out / "reference"
    os.waitpid(child(data, reference, None), 0)
    tally = dict.fromkeys(("jobs", "died", "died_by_clock", "seen", "lost", "recomputed"), 0)
    while tally["died"] < kills:
        job(data, out / str(tally["jobs"]), draw, tally, kills)
    compared = [compare(out / str(number), reference) for number in range(tally["jobs"])]
    print(json.dumps(tally | {name: [one[name] for one in compared if one[name]] for name in compared[0]}))


if __name__ == "__main__":
    main()

"""Guard: a small process that ends what its parent started, when the parent is killed and cannot do it itself.

Ray's own processes notice that their driver is gone, but some of them try for a minute to report it.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, cast

import psutil

SECONDS_TO_END = 10.0
"""Time that the processes have to end by themselves, so that they can put away what they hold."""

_DONE = b"done\n"


class Guard:
    """Watches over every process that this one started, and that those started. A context manager."""

    def __enter__(self) -> "Guard":
        # in a session of its own, or what ends this process would end the guard with it
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        return self

    def note(self) -> None:
        """Look which processes there are now."""
        family = psutil.Process().children(recursive=True)
        lines = [f"{one.pid} {one.create_time()!r}\n" for one in family if one.pid != self._process.pid]
        self._tell("".join(lines).encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(_DONE)
        cast(BinaryIO, self._process.stdin).close()
        self._process.wait()

    def _tell(self, text: bytes) -> None:
        with suppress(BrokenPipeError):  # the guard was killed: then nobody watches, and the work is not harmed
            cast(BinaryIO, self._process.stdin).write(text)


def watch(notes: BinaryIO, seconds: float = SECONDS_TO_END) -> int:
    """Wait for the end of the notes; unless they end well, end the processes in them. How many had to be ended."""
    lines = notes.readlines()
    if lines and lines[-1] == _DONE:
        return 0
    noted = {(int(pid), float(start)) for pid, start in (line.split() for line in lines if line.endswith(b"\n"))}
    end = time.monotonic() + seconds
    while _alive(noted) and time.monotonic() < end:
        time.sleep(0.2)
    left = _alive(noted)
    for one in left:
        with suppress(psutil.Error):
            one.kill()
    return len(left)


def _alive(noted: set[tuple[int, float]]) -> list[psutil.Process]:
    """Those that are still there; a number that was given to another process since is not touched."""
    found = []
    for pid, start in noted:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.create_time() == start and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


if __name__ == "__main__":
    with os.fdopen(os.dup(0), "rb") as stream:
        watch(stream)

"""Isolated decoding: a child process opens the images, so that a file that breaks its decoder breaks only the child.

`IsolatedDecoder` starts the child (this module, run as a program) and hands it one file after another. The child has a
limit of memory, and a limit of time for each file. The file at which it dies or does not end is `decoder_crashed`; a
new child goes on with the next.

A request is one line of JSON. An answer is one line of JSON, and after it the pixels, 3 bytes each, when there are any.
"""

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast

from PIL import Image

from explain.batch.loading import Loaded, Picture, read_picture
from explain.errors import ExplainError

if TYPE_CHECKING:
    from explain.archive.manifest import Entry

MEMORY_BYTES = 2 * 2**30
SECONDS_PER_IMAGE = 60.0
SECONDS_TO_START = 60.0

_READY = b"ready\n"
_CHUNK = 2**20


class IsolatedDecoder:
    """Decodes like `explain.batch.loading.read_image`, in a child process. A context manager; for one thread at a time.

    Args:
        root: folder that no file may leave by a link; None: it may lie anywhere.
        memory: bytes of address space the child may have.
        seconds: that one image may take.
    """

    def __init__(
        self, root: Path | None = None, *, memory: int = MEMORY_BYTES, seconds: float = SECONDS_PER_IMAGE
    ) -> None:
        self._root, self._memory, self._seconds = root, memory, seconds
        self._child: _Child | None = None

    def __enter__(self) -> "IsolatedDecoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, entry: "Entry", row: int) -> Loaded:
        """One image of a shard. Its mask is only tried here: one that breaks its decoder is a `bad_mask`.

        Raises:
            ExplainError: no child can be started at all.
        """
        picture = self.read(entry.path, entry.sha256)
        if picture.status == "ok" and entry.mask is not None:
            tried = self.read(entry.mask, None)
            if tried.status == "decoder_crashed":
                picture = Picture(None, "bad_mask", f"its mask cannot be used: {tried.detail}")
        return Loaded.of(entry, row, picture)

    def read(self, path: Path, sha256: str | None) -> Picture:
        """One file; `path` and `sha256` as in `explain.batch.loading.read_picture`."""
        root = None if self._root is None else str(self._root.absolute())
        request = {"path": str(path.absolute()), "sha256": sha256, "root": root}
        if self._child is None or not self._child.alive:
            self.close()
            self._child = _Child(self._memory, self._seconds)
        try:
            return self._child.ask(request, self._seconds)
        except _Lost as loss:
            self.close()
            return Picture(None, "decoder_crashed", f"the process that decoded it {loss}")

    def close(self) -> None:
        """End the child; the next image starts a new one."""
        if self._child is not None:
            self._child.kill()
            self._child = None


class _Lost(Exception):
    """The child died or does not answer; the message says which, after "the process that decoded it"."""


class _Child:
    """One child process, from its start to its end."""

    def __init__(self, memory: int, seconds: float) -> None:
        command = [sys.executable, "-P", "-m", "explain.batch.isolated", str(memory), str(math.ceil(seconds) + 5)]
        try:
            # In a session of its own, or Ctrl-C in a terminal would kill it and put the blame on the image it is at.
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
                env=os.environ | _SINGLE_THREAD | {"PYTHONPATH": _import_path()},
            )  # fmt: skip
        except OSError as error:
            raise _cannot_start(f"could not be started: {error.strerror}") from error
        self._requests, self._answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        self._waiting = b""
        try:
            if self._line(time.monotonic() + SECONDS_TO_START) != _READY:
                raise _Lost("printed something else")
        except _Lost as loss:
            self.kill()
            raise _cannot_start(f"{loss} before the first image; its own message, if any, is above") from None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, str | None], seconds: float) -> Picture:
        """What the child makes of one file; raises `_Lost` when it makes nothing of it."""
        deadline = time.monotonic() + seconds
        try:
            _write(self._requests, json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise _Lost(self._end()) from None
        try:
            answer = json.loads(self._line(deadline))
            if answer["size"] is None:
                return Picture(None, str(answer["status"]), str(answer["detail"]))
            width, height = answer["size"]
            pixels = self._exactly(3 * width * height, deadline)
            return Picture(Image.frombytes("RGB", (width, height), pixels), flags=tuple(answer["flags"]))
        except (ValueError, KeyError, TypeError):  # its memory was overwritten, and it still lives
            raise _Lost("gave an answer that makes no sense") from None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._requests.close()
        self._answers.close()

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._waiting:
            self._waiting += self._some(_CHUNK, deadline)
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line + b"\n"

    def _exactly(self, size: int, deadline: float) -> bytes:
        parts, missing = [self._waiting], size - len(self._waiting)
        self._waiting = b""
        while missing > 0:
            parts.append(self._some(min(missing, _CHUNK), deadline))
            missing -= len(parts[-1])
        return b"".join(parts)

    def _some(self, most: int, deadline: float) -> bytes:
        """At least one byte of the child's output."""
        output = select.poll()  # not select(): that refuses the numbers of files beyond the first 1,024
        output.register(self._answers, select.POLLIN)
        if not output.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _Lost("did not end in time")
        data = os.read(self._answers.fileno(), most)
        if not data:
            raise _Lost(self._end())
        return data

    def _end(self) -> str:
        """How the child ended, in words."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code >= 0:
            return f"ended with code {code}"
        return "did not end in time" if -code == signal.SIGALRM else f"was killed by signal {-code}"


def _cannot_start(what: str) -> ExplainError:
    return ExplainError(
        f"expected a process that decodes images, but `{sys.executable} -m explain.batch.isolated` {what}. "
        "Is there memory left, and is the toolkit installed for this Python?"
    )


_SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Threads that are never used would take most of the address space the child may have."""


def _import_path() -> str:
    """Where this process finds modules, so that the child finds the same ones and none beside the images."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)


def _write(stream: BinaryIO, data: bytes) -> None:
    """Write all of it to an unbuffered stream, which may take only a part at a time."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def serve(requests: BinaryIO, answers: BinaryIO, seconds: int) -> None:
    """Answer each request until there are no more.

    Args:
        requests: lines of JSON.
        answers: unbuffered.
        seconds: after which the system ends this process while it is at one image, also when its parent is gone.
    """
    _write(answers, _READY)
    for line in requests:
        request = json.loads(line)
        root = request["root"]
        signal.alarm(seconds)
        picture = read_picture(Path(request["path"]), request["sha256"], None if root is None else Path(root))
        signal.alarm(0)
        image = picture.image
        answer = {"status": picture.status, "detail": picture.detail, "flags": picture.flags,
                  "size": None if image is None else image.size}  # fmt: skip
        _write(answers, json.dumps(answer).encode() + b"\n")
        if image is not None:
            _write(answers, image.tobytes())


def main() -> None:
    """The child: limit this process, then decode until the parent closes the pipe."""
    import resource  # only where there are such limits

    memory, seconds = (int(argument) for argument in sys.argv[1:])
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not get among the answers
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        serve(sys.stdin.buffer, answers, seconds)
    except BrokenPipeError:  # the parent is gone
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The guard ends what a killed process leaves running, and nothing else."""

import io
import subprocess
import sys
import time

import psutil
import pytest

from explain.batch.guard import Guard, watch

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
FAMILY = f"""
import subprocess, sys, time
from explain.batch.guard import Guard
with Guard() as guard:
    child = subprocess.Popen({SLEEPER!r}, stdout=subprocess.DEVNULL)
    guard.note()
    print(child.pid, guard._process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def sleeper():  # type: ignore[no-untyped-def]
    with subprocess.Popen(SLEEPER) as process:
        yield psutil.Process(process.pid)
        process.kill()


def line(process: psutil.Process, start: float | None = None) -> bytes:
    return f"{process.pid} {process.create_time() if start is None else start!r}\n".encode()


def test_what_is_left_of_a_parent_that_was_killed_is_ended(sleeper: psutil.Process) -> None:
    assert watch(io.BytesIO(line(sleeper)), 0.3) == 1
    assert sleeper.wait(5) is not None


def test_what_ends_by_itself_has_the_time_to() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"]) as process:
        assert watch(io.BytesIO(line(psutil.Process(process.pid))), 10) == 0
        assert process.wait(5) == 0


@pytest.mark.parametrize("end", [b"done\n", None])
def test_a_parent_that_ended_well_and_a_number_given_again_are_left_alone(
    sleeper: psutil.Process, end: bytes | None
) -> None:
    notes = line(sleeper) + end if end else line(sleeper, sleeper.create_time() - 1)
    assert watch(io.BytesIO(notes), 0.1) == 0
    assert sleeper.is_running()


@pytest.mark.parametrize("killed", [True, False])
def test_a_killed_process_takes_its_children_with_it(killed: bool) -> None:
    """The whole of it, with real processes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", FAMILY], **pipes) as parent:  # type: ignore[call-overload]
        assert parent.stdout is not None
        child, guard = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        if killed:
            parent.kill()
        else:
            parent.communicate("")
        guard.wait(20)
        deadline = time.monotonic() + 5
        while killed and child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert killed or child.is_running()
        if child.is_running():
            child.kill()


def test_a_guard_that_was_killed_harms_nobody() -> None:
    with Guard() as guard:
        guard._process.kill()
        guard._process.wait()
        guard.note()

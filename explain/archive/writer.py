"""Writer: which process writes here, and whether it is surely gone.

A number alone does not name a process: it is given again after the process ends, and two containers count from 1 each.
So the start of the process goes with it: machine start, process namespace, and ticks from one to the other.
"""

import os
import re
import socket
from functools import cache
from pathlib import Path

import psutil

from explain.record import Record

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9-]")


class Writer(Record):
    """A process on a host.

    Args:
        host: its name, of letters, digits and hyphens.
        pid: number of the process.
        started: "machine start-namespace-ticks", which no later process of this number shares.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> "Writer":
        """This process."""
        pid = os.getpid()
        host = _NOT_IN_A_NAME.sub("-", socket.gethostname())[:63] or "unnamed"
        return cls(host=host, pid=pid, started=f"{_boot()}-{_namespace()}-{_ticks(pid)}")

    @property
    def is_gone(self) -> bool:
        """Whether it has surely ended; False where that cannot be known, as on another host or in another container."""
        here = Writer.here()
        if self.host != here.host or self.started.count("-") != 2:
            return False
        boot, namespace, ticks = self.started.split("-")
        if boot != _boot():
            return True
        return namespace == _namespace() and ticks != _ticks(self.pid)


@cache
def _boot() -> str:
    """What tells this start of the machine from the one before, "0" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")[:12]
    except OSError:
        return "0"


def _namespace() -> str:
    """Number of the space in which process numbers count, "0" where there is but one."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"


def _ticks(pid: int) -> str:
    """When a process started, "none" when there is none or it only waits to be forgotten."""
    try:
        # after the name, which may hold spaces and brackets: state is the third field, the start the 22nd
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "none" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return "none"
    except ProcessLookupError:
        return "none"
    try:  # systems without /proc; their clock may be set, so to the second is as exact as it gets
        return str(int(psutil.Process(pid).create_time()))
    except psutil.NoSuchProcess:
        return "none"

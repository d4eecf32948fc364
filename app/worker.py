"""One worker thread that computes what pages want to show, and keeps what it found.

Pages are run by a thread per browser and must never wait for a model there: whoever clicks on something that is kept
gets it at once, however long the queue is. Work is keyed by content (see `app.maps`), so that two browsers that want
the same share it. Every browser has one list of wishes, that of its last click: work that nobody wishes for any more
is dropped, or stopped between two passes.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import streamlit as st

from explain.errors import Cancelled, ExplainError

Key = Hashable

KEPT_BYTES = 512 << 20
"""What results may take in memory; those that were not looked at for longest go first."""


@dataclass
class Ticket:
    """What a piece of work is given: whether to go on, and a way to say how far it is."""

    stopped: threading.Event = field(default_factory=threading.Event)
    share: float = 0.0

    def cancelled(self) -> bool:
        """True when nobody wants the result any more."""
        return self.stopped.is_set()

    def say(self, done: int, total: int) -> None:
        """Note progress."""
        self.share = done / max(total, 1)


@dataclass(frozen=True)
class Work:
    """Something to compute.

    Args:
        key: of the result; equal keys have equal results.
        what: in words, for the line that says what is running.
        run: computes it; an `ExplainError` that it raises is kept as the result.
    """

    key: Key
    what: str
    run: Callable[[Ticket], Any]


@dataclass(frozen=True)
class Progress:
    """How far a browser's wishes are.

    Args:
        done, total: pieces of work.
        share: of the whole, 0-1.
        what: is running, in words; "" when nothing is.
    """

    done: int
    total: int
    share: float
    what: str

    @property
    def finished(self) -> bool:
        """True when nothing is left to wait for."""
        return self.done == self.total


class Worker:
    """See the module's docstring. Safe to use from all threads.

    Args:
        kept_bytes: memory that results may take.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="viewer-worker")
        self._lock = threading.Lock()
        self._limit, self._bytes = kept_bytes, 0
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._jobs: dict[Key, tuple[Work, Ticket, Future[Any]]] = {}
        self._wishes: dict[str, tuple[Key, ...]] = {}

    def result(self, key: Key) -> Any:
        """What was found, or the ExplainError that came instead; None when it is not there (yet).

        Raises:
            Exception: what the work raised that is no ExplainError, for whoever shows it.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and job[2].done() and job[2].exception() is not None:
                del self._jobs[key]
                job[2].result()
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def wish(self, owner: str, works: Sequence[Work]) -> Progress:
        """Make these the wishes of a browser, in order; its former ones that nobody else has are dropped.

        Args:
            owner: the browser's session.
            works: what is kept already costs nothing.
        """
        with self._lock:
            self._wishes[owner] = tuple(work.key for work in works)
            self._drop_unwished()
            for work in works:
                if work.key not in self._kept and work.key not in self._jobs:
                    ticket = Ticket()
                    self._jobs[work.key] = work, ticket, self._pool.submit(self._run, work, ticket)
        return self.progress(owner)

    def progress(self, owner: str) -> Progress:
        """How far the wishes of a browser are."""
        with self._lock:
            keys = self._wishes.get(owner, ())
            open_jobs = [self._jobs[key] for key in keys if key in self._jobs and not self._jobs[key][2].done()]
            running = [job for job in open_jobs if job[2].running()]
            done = len(keys) - len(open_jobs)
            share = (done + sum(job[1].share for job in running)) / len(keys) if keys else 1.0
            return Progress(done, len(keys), share, next((job[0].what for job in running or open_jobs), ""))

    def cancel(self, owner: str) -> None:
        """Drop the wishes of a browser."""
        with self._lock:
            self._wishes.pop(owner, None)
            self._drop_unwished()

    def keep(self, key: Key, value: Any) -> None:
        """Keep a result, dropping old ones where it does not fit."""
        with self._lock:
            self._keep(key, value)

    def _keep(self, key: Key, value: Any) -> None:
        size = size_of(value)
        if key in self._kept:
            self._bytes -= self._kept.pop(key)[1]
        self._kept[key] = value, size
        self._bytes += size
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]

    def _drop_unwished(self) -> None:
        wished = {key for keys in self._wishes.values() for key in keys}
        for key in [key for key in self._jobs if key not in wished]:
            _, ticket, future = self._jobs[key]
            ticket.stopped.set()
            if future.cancel() or future.done():
                del self._jobs[key]  # one that is running leaves by itself

    def _run(self, work: Work, ticket: Ticket) -> None:
        try:
            value = work.run(ticket)
        except Cancelled:
            with self._lock:
                self._jobs.pop(work.key, None)
                if any(work.key in keys for keys in self._wishes.values()):  # wished for again while it was stopping
                    fresh = Ticket()
                    self._jobs[work.key] = work, fresh, self._pool.submit(self._run, work, fresh)
            return
        except ExplainError as error:
            value = error
        with self._lock:
            self._keep(work.key, value)
            self._jobs.pop(work.key, None)


def size_of(value: Any) -> int:
    """Bytes of the arrays in a value, and a little for the rest."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value) and not isinstance(value, type):
        return sum(size_of(getattr(value, part.name)) for part in fields(value))
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, list | tuple) else 64


@st.cache_resource(show_spinner=False)
def the_worker() -> Worker:
    """The one worker of this process."""
    return Worker()


def owner() -> str:
    """What tells this browser's session from the others."""
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    context = get_script_run_ctx()
    return context.session_id if context else ""

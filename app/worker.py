"""One worker thread that computes what pages want to show, and keeps what it found.

Pages are run by a thread per browser and must never wait for a model there: whoever clicks on something that is kept
gets it at once, however much there is to do. Work is keyed by content (see `app.maps`), so that two browsers that want
the same share it. Every browser has one list of wishes, that of its last click, and browsers take turns: work that
nobody wishes for any more is never begun, or stopped between two passes.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import TracebackType
from typing import Any

import numpy as np
import streamlit as st

from explain.errors import Cancelled, ExplainError

Key = Hashable

KEPT_BYTES = 512 << 20
"""What results may take in memory; those that were not looked at for longest go first."""

GONE_S = 180
"""A browser that has not asked for so long how far its wishes are is closed; in the background it asks every minute."""


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


@dataclass
class _Wishes:
    """What one browser wants: the keys of its last wish, and of them the work that is not done, in order."""

    keys: tuple[Key, ...]
    open: dict[Key, Work]
    asked_s: float


class _Outcome:
    """`with outcome:` catches what ends a piece of work, whatever it is, for whoever looks at the result."""

    error: Exception | None = None

    def __enter__(self) -> "_Outcome":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


class Worker:
    """See the module's docstring. Safe to use from all threads.

    Args:
        kept_bytes: memory that results may take.
        gone_s: seconds after which a browser that asks for nothing is taken for closed.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES, gone_s: float = GONE_S) -> None:
        self._limit, self._bytes, self._gone_s = kept_bytes, 0, gone_s
        self._changed = threading.Condition()
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._failed: dict[Key, Exception] = {}
        self._wishes: OrderedDict[str, _Wishes] = OrderedDict()  # by whose turn it is
        self._served = ""  # whose turn it was last
        self._running: tuple[Work, Ticket] | None = None
        # a daemon: whoever ends the viewer does not wait for maps that nobody will see
        threading.Thread(target=self._work, name="viewer-worker", daemon=True).start()

    def result(self, key: Key) -> Any:
        """What was found, or the ExplainError that came instead; None when it is not there (yet).

        Raises:
            Exception: what the work raised that is no ExplainError, once; the next wish for it tries again.
        """
        with self._changed:
            if key in self._failed:
                raise self._failed.pop(key)
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
        with self._changed:
            missing = {work.key: work for work in works if work.key not in self._kept and work.key not in self._failed}
            wishes = _Wishes(tuple(work.key for work in works), missing, time.monotonic())
            self._wishes[owner] = wishes
            self._drop_unwished()
            self._changed.notify()
            return self._progress_of(wishes)

    def progress(self, owner: str) -> Progress:
        """How far the wishes of a browser are; nothing to wait for when it has none."""
        with self._changed:
            wishes = self._wishes.get(owner) or _Wishes((), {}, 0.0)
            wishes.asked_s = time.monotonic()
            return self._progress_of(wishes)

    def cancel(self, owner: str) -> None:
        """Drop the wishes of a browser."""
        with self._changed:
            self._wishes.pop(owner, None)
            self._drop_unwished()

    def keep(self, key: Key, value: Any) -> None:
        """Keep a result, dropping old ones where it does not fit."""
        with self._changed:
            size = size_of(value)
            if key in self._kept:
                self._bytes -= self._kept.pop(key)[1]
            self._kept[key] = value, size
            self._bytes += size
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]

    def _progress_of(self, wishes: _Wishes) -> Progress:
        total, left = len(set(wishes.keys)), list(wishes.open.values())
        work, ticket = self._running or (None, Ticket())
        mine = work is not None and work.key in wishes.open
        share = (total - len(left) + (ticket.share if mine else 0.0)) / total if total else 1.0
        what = work.what if work is not None and mine else left[0].what if left else ""
        return Progress(total - len(left), total, share, what)

    def _drop_unwished(self) -> None:
        """Stop what runs, and forget what failed, where nobody wants it."""
        if self._running is not None and not any(self._running[0].key in each.open for each in self._wishes.values()):
            self._running[1].stopped.set()
        wished = {key for each in self._wishes.values() for key in each.keys}
        self._failed = {key: error for key, error in self._failed.items() if key in wished}

    def _next(self) -> Work | None:
        """What to do now: the first open wish of the browser whose turn it is."""
        until = time.monotonic() - self._gone_s
        for owner in [owner for owner, each in self._wishes.items() if each.asked_s < until]:
            del self._wishes[owner]
        if self._served in self._wishes:  # only now, so that whoever came meanwhile goes first
            self._wishes.move_to_end(self._served)
        for owner, each in self._wishes.items():
            if each.open:
                self._served = owner
                return next(iter(each.open.values()))
        return None

    def _work(self) -> None:
        """The thread: one piece of work after the other, for ever."""
        while True:
            with self._changed:
                while (work := self._next()) is None:
                    self._changed.wait()
                ticket = Ticket()
                self._running = work, ticket
            value, outcome = None, _Outcome()
            with outcome:
                value = work.run(ticket)
            with self._changed:
                self._running = None
                self._settle(work.key, value, outcome.error, ticket)
            del work, ticket, value, outcome  # they may hold a browser's images while this thread waits

    def _settle(self, key: Key, value: Any, error: Exception | None, ticket: Ticket) -> None:
        """Keep what came of a piece of work; one that was stopped is begun again where it is wished for again."""
        if isinstance(error, Cancelled) and ticket.cancelled():
            return
        wished = any(key in each.open for each in self._wishes.values())
        for each in self._wishes.values():
            each.open.pop(key, None)
        if error is None or isinstance(error, ExplainError):
            self.keep(key, value if error is None else error)
        elif wished:
            self._failed[key] = error


def size_of(value: Any) -> int:
    """Bytes of the arrays and files in a value, and a little for the rest."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, bytes | bytearray | memoryview):
        return len(value)
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

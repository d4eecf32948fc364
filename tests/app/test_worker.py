"""The worker: shared work, turns, stopping, errors, and what it keeps."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from app.worker import Progress, Ticket, Work, Worker, size_of
from explain.errors import Cancelled, ExplainError, InputError

PATIENCE_S = 10.0


def until(true: Callable[[], bool]) -> None:
    """Wait for another thread."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.002)


class Piece:
    """Work that begins and ends when the test says so, and counts how often it was begun."""

    def __init__(self, key: str, value: Any = None) -> None:
        self.begun, self.let_go, self.times = threading.Event(), threading.Event(), 0
        self.value = key.upper() if value is None else value
        self.work = Work(key, f"piece {key}", self.run)

    def run(self, ticket: Ticket) -> Any:
        self.times += 1
        self.begun.set()
        while not self.let_go.wait(0.002):
            if ticket.cancelled():
                self.begun.clear()
                raise Cancelled("stopped")
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def quick(key: str, value: Any = None) -> Piece:
    piece = Piece(key, value)
    piece.let_go.set()
    return piece


def done(worker: Worker, owner: str) -> Callable[[], bool]:
    return lambda: worker.progress(owner).finished


def test_what_is_wished_for_is_found_later_and_not_computed_again() -> None:
    worker, piece = Worker(), Piece("a")
    assert worker.result("a") is None
    assert worker.wish("me", [piece.work]) == Progress(0, 1, 0.0, "piece a")
    piece.let_go.set()
    until(done(worker, "me"))
    assert worker.result("a") == "A"
    assert worker.wish("me", [piece.work]) == Progress(1, 1, 1.0, "") and piece.times == 1


def test_two_browsers_share_the_same_work() -> None:
    worker, piece = Worker(), Piece("a")
    worker.wish("me", [piece.work])
    worker.wish("you", [piece.work])
    worker.cancel("me")
    piece.let_go.set()
    until(done(worker, "you"))
    assert worker.result("a") == "A" and piece.times == 1


def test_browsers_take_turns_however_much_one_of_them_wants() -> None:
    worker, gate, order = Worker(), Piece("gate"), []

    def noting(key: str) -> Work:
        return Work(key, key, lambda ticket: order.append(key))

    worker.wish("greedy", [gate.work, *(noting(f"greedy {number}") for number in range(4))])
    until(gate.begun.is_set)
    worker.wish("modest", [noting("modest")])
    gate.let_go.set()
    until(done(worker, "greedy"))
    assert order == ["modest", "greedy 0", "greedy 1", "greedy 2", "greedy 3"]


def test_a_wish_that_waits_is_never_begun_once_it_is_dropped() -> None:
    worker, first, second, third = Worker(), Piece("a"), Piece("b"), quick("c")
    worker.wish("me", [first.work, second.work])
    until(first.begun.is_set)
    assert worker.wish("me", [first.work, third.work]).total == 2
    first.let_go.set()
    until(done(worker, "me"))
    assert worker.result("c") == "C" and second.times == 0 and worker.result("b") is None


def test_what_runs_is_stopped_once_nobody_wants_it() -> None:
    worker, piece = Worker(), Piece("a")
    worker.wish("me", [piece.work])
    until(piece.begun.is_set)
    worker.cancel("me")
    until(lambda: not piece.begun.is_set())
    assert worker.result("a") is None and worker.progress("me") == Progress(0, 0, 1.0, "")


def test_what_is_wished_for_again_while_it_stops_is_begun_again() -> None:
    worker, stopping, times = Worker(), threading.Event(), []

    def run(ticket: Ticket) -> str:
        times.append(1)
        if len(times) > 1:
            return "second"
        until(ticket.cancelled)
        stopping.wait(PATIENCE_S)  # between being told to stop and stopping
        raise Cancelled("stopped")

    work = Work("a", "a", run)
    worker.wish("me", [work])
    until(lambda: len(times) == 1)
    worker.cancel("me")
    assert worker.wish("me", [work]).finished is False
    stopping.set()
    until(done(worker, "me"))
    assert worker.result("a") == "second" and len(times) == 2


def test_work_that_ends_although_it_was_stopped_is_kept() -> None:
    worker, begun, go_on = Worker(), threading.Event(), threading.Event()

    def run(ticket: Ticket) -> str:
        begun.set()
        go_on.wait(PATIENCE_S)
        return "there"

    worker.wish("me", [Work("a", "a", run)])
    until(begun.is_set)
    worker.cancel("me")
    go_on.set()
    until(lambda: worker.result("a") == "there")


def test_an_error_that_says_what_to_do_is_the_result() -> None:
    worker, piece = Worker(), quick("a", InputError("expected this, got that"))
    worker.wish("me", [piece.work])
    until(done(worker, "me"))
    assert isinstance(worker.result("a"), InputError) and isinstance(worker.result("a"), ExplainError)
    worker.wish("you", [piece.work])
    assert piece.times == 1


def test_work_that_says_cancelled_without_being_stopped_is_not_begun_for_ever() -> None:
    worker, piece = Worker(), quick("a", Cancelled("of its own"))
    worker.wish("me", [piece.work])
    until(done(worker, "me"))
    assert isinstance(worker.result("a"), Cancelled) and piece.times == 1


def test_another_error_is_raised_once_where_the_result_is_looked_at_and_the_worker_goes_on() -> None:
    worker, piece, other = Worker(), quick("a", ZeroDivisionError("a bug")), quick("b")
    worker.wish("me", [piece.work, other.work])
    until(done(worker, "me"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        worker.result("a")
    assert worker.result("a") is None and worker.result("b") == "B"
    piece.value = "mended"
    worker.wish("me", [piece.work])
    until(done(worker, "me"))
    assert worker.result("a") == "mended"


def test_another_error_of_work_that_nobody_wants_any_more_is_forgotten() -> None:
    worker, piece = Worker(), quick("a", ZeroDivisionError("a bug"))
    worker.wish("me", [piece.work])
    until(done(worker, "me"))
    worker.wish("me", [])
    assert worker.result("a") is None


def test_progress_counts_the_piece_that_runs_in_part() -> None:
    worker, halfway, go_on = Worker(), threading.Event(), threading.Event()

    def run(ticket: Ticket) -> str:
        ticket.say(1, 2)
        halfway.set()
        go_on.wait(PATIENCE_S)
        return "there"

    first, last = quick("a"), Piece("c")
    worker.wish("me", [first.work, Work("b", "the second", run), last.work, last.work])
    until(halfway.is_set)
    assert worker.progress("me") == Progress(1, 3, 0.5, "the second")
    assert worker.progress("somebody else") == Progress(0, 0, 1.0, "")
    go_on.set()
    last.let_go.set()
    until(done(worker, "me"))


def test_old_results_go_when_memory_is_full_and_what_was_looked_at_last_stays() -> None:
    worker, array = Worker(kept_bytes=3000), np.zeros(250, np.float32)
    for key in ("a", "b", "c"):
        worker.keep(key, array)
    assert worker.result("a") is not None
    worker.keep("d", array)
    assert [key for key in "abcd" if worker.result(key) is not None] == ["a", "c", "d"]
    worker.keep("large", np.zeros(5000))
    assert [key for key in ("a", "c", "d", "large") if worker.result(key) is not None] == ["large"]
    worker.keep("large", array)
    worker.keep("small", array)
    assert worker.result("large") is array and worker.result("small") is array


def test_a_result_that_memory_has_no_room_for_is_not_computed_over_and_over() -> None:
    worker, first, second = Worker(kept_bytes=100), quick("a", b"x" * 80), quick("b", b"x" * 80)
    worker.wish("me", [first.work, second.work])
    until(done(worker, "me"))
    time.sleep(0.05)
    assert (first.times, second.times) == (1, 1) and worker.result("a") is None


def test_a_browser_that_was_closed_is_not_worked_for() -> None:
    worker, gate, never = Worker(gone_s=0.05), Piece("gate"), quick("never")
    worker.wish("closed", [gate.work, never.work])
    until(gate.begun.is_set)
    time.sleep(0.1)
    gate.let_go.set()
    until(lambda: worker.result("gate") == "GATE")
    assert worker.progress("closed").total == 0 and never.times == 0
    worker.wish("closed", [never.work])  # it comes back, as a sleeping computer does
    until(lambda: worker.result("never") == "NEVER")


def test_many_browsers_at_once() -> None:
    worker, wrong = Worker(), []

    def browse(owner: str) -> None:
        random = np.random.default_rng(int(owner))
        for _ in range(60):
            keys = [f"key {number}" for number in random.integers(0, 40, 5)]
            worker.wish(owner, [Work(key, key, lambda ticket, key=key: key) for key in keys])
            if random.random() < 0.3:
                worker.cancel(owner)
                continue
            until(done(worker, owner))
            wrong.extend(key for key in keys if worker.result(key) != key)

    threads = [threading.Thread(target=browse, args=[str(number)]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == [] and not any(thread.is_alive() for thread in threads)


def test_ending_the_viewer_does_not_wait_for_work() -> None:
    code = ("import time; from app.worker import *; Worker().wish('me', [Work('a', 'a', lambda t: time.sleep(60))]);"
            "time.sleep(0.2)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], timeout=40, check=False).returncode == 0


def test_size_of_counts_arrays_and_files_wherever_they_are() -> None:
    @dataclass
    class Pair:
        first: Any
        second: Any

    array = np.zeros((3, 5), np.float32)
    assert size_of(array) == 60 and size_of(b"x" * 1000) == 1000
    assert size_of(Pair(array, {"a": [array, (array,)]})) == 180
    assert size_of(Pair) == size_of("text") == 64

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typing_extensions import Buffer

from explain.archive.lock import KEY, Lock, writing
from explain.archive.store import Store
from explain.archive.writer import Writer
from explain.errors import InputError

HOLDER = """
import sys, time
from explain.archive.lock import writing
from explain.archive.store import Store
with writing(Store.open(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def lock_of(nonce: str = "1" * 32, **changes: object) -> bytes:
    writer = Writer.here().model_copy(update=changes)
    return Lock(writer=writer, since="2026-01-02T03:04:05+00:00", nonce=nonce).to_bytes()


def dead(nonce: str = "1" * 32) -> bytes:
    """The lock of a process that is surely gone."""
    boot, namespace, _ = Writer.here().started.split("-")
    return lock_of(nonce, pid=4_190_000, started=f"{boot}-{namespace}-17")


def test_the_lock_is_held_inside_and_gone_after(store: Store) -> None:
    with writing(store):
        assert store.exists(KEY)
        with pytest.raises(InputError, match=f"is being written by process {os.getpid()} on "), writing(store):
            raise AssertionError("unreachable")
        assert store.exists(KEY)
    assert list(store.list()) == []
    with writing(store):
        pass


def test_the_lock_is_given_back_when_the_work_fails(store: Store) -> None:
    with pytest.raises(KeyError), writing(store):
        raise KeyError
    assert not store.exists(KEY)


def test_a_second_process_is_refused_and_a_killed_one_taken_over(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid} on {Writer.here().host} since 20"), writing(store):
            raise AssertionError("unreachable")
        os.kill(holder.pid, signal.SIGKILL)
        until = time.monotonic() + 5  # it is a zombie until its parent asks for it, and gone all the same
        while not Writer.model_validate_json(_writer_of(store)).is_gone and time.monotonic() < until:
            time.sleep(0.01)
        with writing(store):
            assert f'"pid": {os.getpid()}' in store.read(KEY).decode()
    assert list(store.list()) == []


def _writer_of(store: Store) -> str:
    return Lock.from_bytes(store.read(KEY), KEY).writer.model_dump_json()


def test_a_lock_of_another_host_is_never_taken_over(store: Store) -> None:
    foreign = lock_of(host="elsewhere", pid=4_190_000)
    store.put(KEY, foreign)
    said = r"process 4190000 on elsewhere since 2026.*gone for certain, remove .*writer\.lock"
    with pytest.raises(InputError, match=said), writing(store):
        raise AssertionError("unreachable")
    assert store.read(KEY) == foreign


def test_a_damaged_lock_is_not_taken_over_but_named(store: Store) -> None:
    store.put(KEY, dead()[:-5])
    with pytest.raises(InputError, match=r"writer\.lock was changed or cut short .*remove that file"), writing(store):
        raise AssertionError("unreachable")


def test_something_that_is_no_lock_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / KEY).mkdir()
    with pytest.raises(InputError, match="cannot be taken.*remove it"), writing(Store.open(tmp_path)):
        raise AssertionError("unreachable")


def test_a_dead_lock_is_taken_over_and_nothing_is_left(store: Store) -> None:
    store.put(KEY, dead())
    with writing(store):
        assert list(store.list()) == [KEY]
        assert store.read(KEY) != dead()
    assert list(store.list()) == []


def test_a_contender_that_died_while_taking_over_is_taken_over(store: Store) -> None:
    class Dies(Exception):
        pass

    class Deadly:
        """Stops for ever before the lock is replaced, as a killed process does."""

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def create(self, key: str, data: Buffer) -> bool:
            return store.create(key, dead("2" * 32) if key != KEY else data)

        def put(self, key: str, data: Buffer) -> None:
            raise Dies

    store.put(KEY, dead())
    with pytest.raises(Dies), writing(Deadly()):  # type: ignore[arg-type]
        raise AssertionError("unreachable")
    assert len(list(store.list())) == 2
    with writing(store):
        assert list(store.list()) == [KEY]
    assert list(store.list()) == []


def test_who_comes_too_late_takes_away_no_step_of_another_take_over(store: Store) -> None:
    """Three dead ones in a row; the second gets its lock in place while a late one still looks at the first's."""
    first, second, third = (dead(nonce * 32) for nonce in "123")
    step = {data: f"{KEY}.{hashlib.sha256(data).hexdigest()[:32]}" for data in (first, second, third)}
    for key, data in ((KEY, first), (step[first], second), (step[second], third)):
        store.put(key, data)
    seen: list[list[str]] = []

    class Late:
        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def create(self, key: str, data: Buffer) -> bool:
            if key == step[third] and len(seen) == 1:
                store.put(KEY, second)
            if key == KEY:
                seen.append(list(store.list()))
            return store.create(key, data)

    with writing(Late()):  # type: ignore[arg-type]
        pass
    assert len(seen) == 2 and seen[1] == sorted([KEY, step[first], step[second]])


class Interrupted:
    """A store during whose n-th call something else happens first."""

    def __init__(self, store: Store, happenings: dict[int, Callable[[], None]]) -> None:
        self.store, self.happenings, self.calls = store, happenings, 0

    def __getattr__(self, name: str) -> object:
        if name in ("create", "read", "put", "delete"):
            self.happenings.get(self.calls, lambda: None)()
            self.calls += 1
        return getattr(self.store, name)


def test_wherever_another_takes_or_gives_back_a_dead_lock_one_holds_it() -> None:
    """Every pair of moments in the life of a contender at which the other one begins and ends."""
    taken_by_both = 0
    for begin in range(9):
        for end in range(begin, 10):
            store = Store.open(f"memory://contended-{begin}-{end}")
            store.put(KEY, dead())
            other = writing(store)
            holds: list[str] = []

            def start(other: object = other, holds: list[str] = holds) -> None:
                try:
                    other.__enter__()  # type: ignore[attr-defined]
                    holds.append("other")
                except InputError:
                    pass

            def stop(other: object = other, holds: list[str] = holds) -> None:
                if holds == ["other"]:
                    other.__exit__(None, None, None)  # type: ignore[attr-defined]
                    holds.clear()

            def both(start: Callable[[], None] = start, stop: Callable[[], None] = stop) -> None:
                start()
                stop()

            happenings = {begin: both} if begin == end else {begin: start, end: stop}
            contender = Interrupted(store, happenings)
            try:
                with writing(contender):  # type: ignore[arg-type]
                    assert holds == [], f"both hold it: the other began at call {begin}"
                    holds.append("this")
                    holds.clear()
                taken_by_both += begin < contender.calls
            except InputError:
                assert holds == ["other"]
            stop()
            assert list(store.list()) == []
    assert taken_by_both > 5


def test_one_of_many_takes_a_dead_lock(store: Store) -> None:
    for nonce in "123":
        store.put(KEY, dead(nonce * 32))
        start, done, won = threading.Barrier(6), threading.Barrier(6), []

        def contend(
            start: threading.Barrier = start, done: threading.Barrier = done, won: list[int] = won
        ) -> None:
            start.wait()
            try:
                with writing(store):
                    won.append(1)
                    done.wait()
            except InputError:
                done.wait()

        threads = [threading.Thread(target=contend) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [1]
        assert list(store.list()) == []

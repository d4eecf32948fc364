"""Lock: one process at a time writes an archive.

The lock is a file that is created only when absent, which folders and buckets both do for one of many at a time. A
lock whose writer is surely gone is taken over in two such steps: whoever creates the file named after the dead lock's
content may replace the lock, and no one else. A contender that dies between the steps is taken over in the same way.
"""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from explain.archive.sealed import Sealed
from explain.archive.store import Store
from explain.archive.writer import Writer
from explain.errors import InputError, IntegrityError, StorageError

KEY = "writer.lock"
_LOOKS = 100


class Lock(Sealed):
    """What the file says.

    Args:
        writer: who holds it.
        since: when it was taken, in UTC.
        nonce: tells it from every other lock.
    """

    writer: Writer
    since: str
    nonce: str


@contextmanager
def writing(store: Store) -> Iterator[None]:
    """Hold the lock of a store.

    Raises:
        InputError: another process holds it, or one on another host, of which it cannot be known whether it is gone.
        StorageError: nothing can be written there.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    mine = Lock(writer=Writer.here(), since=since, nonce=secrets.token_hex(16)).to_bytes()
    try:
        taken = any(_take(store, mine) for _ in range(_LOOKS))
    except (StorageError, KeyboardInterrupt):  # it may be there although its folder could not be flushed
        _give_back(store, mine)
        raise
    if not taken:
        raise InputError(f"{store.name(KEY)} cannot be taken; if no other process writes there, remove it")
    try:
        yield
    finally:
        _give_back(store, mine)


def _give_back(store: Store, mine: bytes) -> None:
    if _content(store, KEY) == mine:
        store.delete(KEY)


def _take(store: Store, mine: bytes) -> bool:
    """Take the lock; False when it changed hands while looking, and one has to look again."""
    if _create(store, KEY, mine):
        return True
    first = holder = _content(store, KEY)
    place, passed = KEY, list[str]()
    while holder is not None:
        _refuse_living(store, holder, place)
        place = f"{KEY}.{hashlib.sha256(holder).hexdigest()[:32]}"
        passed.append(place)
        if _create(store, place, mine):
            return _replace(store, first, mine, passed)
        holder = _content(store, place)
    return False


def _create(store: Store, key: str, data: bytes) -> bool:
    # a bucket whose answer was lost says on the second try that the file is there: our own
    return store.create(key, data) or _content(store, key) == data


def _replace(store: Store, dead: bytes | None, mine: bytes, passed: list[str]) -> bool:
    """Put the lock in place of a dead one, unless another took it over and cleared up before our claim was made."""
    ours = _content(store, KEY) == dead
    if ours:
        store.put(KEY, mine)
    for key in passed if ours else passed[-1:]:
        store.delete(key)
    return ours


def _content(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except IntegrityError:  # given back meanwhile
        return None


def _refuse_living(store: Store, data: bytes, key: str) -> None:
    try:
        lock = Lock.from_bytes(data, store.name(key))
    except IntegrityError as error:
        raise InputError(f"{error}; if no other process writes there, remove that file") from None
    if lock.writer.is_gone:
        return
    there = f"process {lock.writer.pid} on {lock.writer.host} since {lock.since}"
    raise InputError(f"{store.name('')} is being written by {there}; wait for it or stop it. Only if that process is "
                     f"gone for certain, remove {store.name(key)}")  # fmt: skip

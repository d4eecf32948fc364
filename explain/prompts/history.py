"""History of one name: its versions, tags, aliases and criteria, and an append-only log of who changed what.

It is one JSON file, `names/<name>.json`. A change reads it, makes the next state and writes it whole, under a lock
that the operating system gives up when its process ends. Every log entry carries the hash of the entry before it, and
tags and aliases must be what the log says: a line that was taken out or altered later shows.
"""

import fcntl
import getpass
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from explain.data.names import find_obeyed
from explain.errors import ExplainError, InputError, IntegrityError
from explain.files import read_json, sha256_json, write_json
from explain.record import Record

LOCK_WAIT_S = 30.0
"""A change takes milliseconds; who waits longer meets a stopped process or a broken disk."""

Event = Literal["add", "tag", "alias", "promote", "refuse", "rollback", "criteria", "measure", "import"]


class StoreBusyError(ExplainError):
    """Another process keeps a name locked."""

    exit_code = 4


class Version(Record):
    """One version: its number in this store, its id, and the hash of its card with everything in it."""

    number: int
    id: str = Field(pattern="^[0-9a-f]{64}$")  # also the name of a folder
    card_sha256: str


class LogEntry(Record):
    """Who did what, when.

    Args:
        when: UTC, ISO 8601.
        who: account or person.
        what: kind of the change; "refuse" is a promotion that its criteria did not allow.
        label: the tag or alias concerned.
        before, after: what it was and what it is: ids of versions, or lines of criteria.
        approver: who answers for a promotion.
        notes: each criterion with its value, values measured, where an import came from.
        previous: hash of the entry before; empty in the first.
    """

    when: str
    who: str
    what: Event
    label: str = ""
    before: str | None = None
    after: str | None = None
    approver: str = ""
    notes: tuple[str, ...] = ()
    previous: str = ""


class History(Record):
    """The state of one name; see the module's docstring.

    Args:
        versions: in the order they came.
        tags, aliases: label -> id of a version.
        criteria: lines that a promotion must fulfil.
        measured: id of a version -> metric -> value, measured or supplied after it was registered.
        log: every change, oldest first.
    """

    format: int = 1
    name: str
    versions: tuple[Version, ...] = ()
    tags: dict[str, str] = {}
    aliases: dict[str, str] = {}
    criteria: tuple[str, ...] = ()
    measured: dict[str, dict[str, float]] = {}
    log: tuple[LogEntry, ...] = ()

    def version(self, id: str) -> Version:
        """The version with an id that is known to be here."""
        return next(version for version in self.versions if version.id == id)

    def with_entry(self, what: Event, *, who: str | None, **fields: Any) -> "History":
        """This history with one more line in its log."""
        previous = sha256_json(self.log[-1].model_dump(mode="json")) if self.log else ""
        entry = LogEntry(when=datetime.now(UTC).isoformat(timespec="seconds"), who=who or account(), what=what,
                         previous=previous, **fields)  # fmt: skip
        return self.model_copy(update={"log": (*self.log, entry)})

    def pointing(self, alias: str, id: str) -> "History":
        """This history with an alias on a version."""
        return self.model_copy(update={"aliases": self.aliases | {alias: id}})

    def stack(self, alias: str) -> list[str]:
        """Versions an alias pointed at, oldest first, the present one last; a rollback takes the last away."""
        found: list[str] = []
        for entry in self.log:
            if entry.label != alias:
                continue
            if entry.what in ("alias", "promote") and entry.after is not None:
                found.append(entry.after)
            elif entry.what == "rollback" and found:
                found.pop()
        return found

    def problems(self) -> list[str]:
        """What in this history contradicts itself, one sentence each."""
        found, previous = [], ""
        for number, entry in enumerate(self.log, start=1):
            if entry.previous != previous:
                found.append(f"line {number} of the log does not follow from the line before it")
            previous = sha256_json(entry.model_dump(mode="json"))
        tags = {entry.label: entry.after for entry in self.log if entry.what == "tag"}
        moved = {entry.label for entry in self.log if entry.what in ("alias", "promote", "rollback")}
        aliases = {label: self.stack(label)[-1] for label in moved if self.stack(label)}
        if tags != self.tags or aliases != self.aliases:
            found.append("tags or aliases are not what the log says")
        added = [entry.after for entry in self.log if entry.what in ("add", "import") and entry.after]
        if [version.id for version in self.versions] != added:
            found.append("the versions are not those the log added")
        criteria = [entry.after for entry in self.log if entry.what == "criteria"]
        if (criteria[-1] if criteria else "") != "; ".join(self.criteria):
            found.append("the criteria are not those the log says")
        return found


def account() -> str:
    """Name of the account this process runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        return f"uid {os.getuid()}"


def read_history(folder: Path, name: str) -> History | None:
    """The history of a name, or None when there is none.

    Raises:
        IntegrityError: the file is no history, one of another name, or one of labels without versions.
    """
    path = _path(folder, name)
    if not path.is_file():
        return None
    try:
        history = History.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise IntegrityError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if history.name != name:
        raise IntegrityError(f"{path} is the history of {history.name!r}; restore the file from a backup")
    obeyed = find_obeyed(history.model_dump(mode="json"))
    if obeyed:
        raise IntegrityError(f"{path}: {obeyed} holds control characters; restore the file from a backup")
    known = {version.id for version in history.versions}
    lost = sorted({*history.tags.values(), *history.aliases.values()} - known)
    if lost or not known:
        wrong = f"a tag or alias points at {ascii(lost[0][:12])}…, which is no version of it" if lost else "no version"
        raise IntegrityError(f"{path}: {wrong}; restore the file from a backup")
    return history


def change_history(folder: Path, name: str, change: Callable[[History | None], History]) -> History:
    """Let `change` make the next state from the present one, and write it; nobody else writes meanwhile.

    Raises:
        InputError: a text of the next state holds control characters.
        StoreBusyError: another process kept the name locked for half a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f".{name}.lock"):
        before = read_history(folder, name)
        after = change(before)
        obeyed = find_obeyed(after.model_dump(mode="json"))
        if obeyed:
            raise InputError(f"expected plain text, but {obeyed} holds control characters; write it without")
        if after is not before:
            write_json(_path(folder, name), after.model_dump(mode="json"))
        return after


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StoreBusyError(f"another process has kept {path} locked for {LOCK_WAIT_S:.0f} s; "
                                         "end it if it hangs, then run the command again") from None  # fmt: skip
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)

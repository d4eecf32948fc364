"""The password file of the viewer: who may come in, one person a line.

    anna:scrypt$32768$8$1$<salt>$<hash>

Passwords are never written, only what scrypt makes of them. Files are untrusted: every line is checked before any is
used, and a file that other users of the machine can read is refused.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from explain.errors import InputError
from explain.files import flush_folder

COST, BLOCK, LANES = 2**15, 8, 1
"""scrypt's n, r and p: 32 MiB and about 0.1 s for one try."""
SALT_BYTES, HASH_BYTES = 16, 32
MAX_FILE_BYTES = 256 * 1024
SHORTEST, LONGEST = 8, 256
"""Characters of a password."""
LONGEST_NAME = 64
TRIES, WINDOW_S = 5, 60.0

_FORM = re.compile(r"scrypt\$(\d{1,7})\$(\d{1,3})\$(\d{1,3})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")
_AGAIN = "set the password again: explain view-password FILE NAME"
_one_at_a_time = threading.Lock()
"""A crowd at the door waits its turn: without it, every one of many tries at once would take 32 MiB."""


@dataclass(frozen=True)
class Account:
    """What the file keeps of one person.

    Args:
        salt: SALT_BYTES of chance.
        digest: HASH_BYTES that scrypt makes of the password and the salt.
    """

    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)


DECOY = Account(bytes(SALT_BYTES), bytes(HASH_BYTES))
"""Stands in for a name that is not in the file, so that such a name takes as long as any other."""


def read_accounts(path: Path) -> dict[str, Account]:
    """Everybody in a password file, by name.

    Raises:
        InputError: no file, one that others can read, too large, not UTF-8, without a line, or with a line that
            `write_account` could not have written; the message names the line, never what is in it.
    """
    accounts: dict[str, Account] = {}
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if line:
            name, account = _parse(line, f"line {number} of the password file {path}")
            if name in accounts:
                raise InputError(f"line {number} of the password file {path} names somebody a second time; remove it")
            accounts[name] = account
    if not accounts:
        raise InputError(f"the password file {path} names nobody; explain view-password {path} NAME adds a person")
    return accounts


def _read(path: Path) -> str:
    """The text of a file that is small, private and UTF-8."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"expected a password file, got something that is no file: {path}")
    try:
        with open(path, "rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"the password file {path} cannot be opened ({error.strerror}); "
                         f"explain view-password {path} NAME makes it") from None  # fmt: skip
    if os.name != "nt" and mode & 0o077:
        raise InputError(f"other users of this machine can read or change the password file {path} (mode {mode:03o}); "
                         f"run: chmod 600 {path}")  # fmt: skip
    if len(raw) > MAX_FILE_BYTES:
        raise InputError(f"the password file {path} is larger than {MAX_FILE_BYTES} bytes; expected one short line "
                         "a person")  # fmt: skip
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"the password file {path} is not UTF-8 text; {_AGAIN}") from None


def _parse(line: str, place: str) -> tuple[str, Account]:
    name, colon, rest = line.partition(":")
    found = _FORM.fullmatch(rest)
    if not colon or not found or name != tidy_name(name):
        raise InputError(f"{place} is not NAME:scrypt$n$r$p$salt$hash; {_AGAIN}")
    if tuple(map(int, found.groups()[:3])) != (COST, BLOCK, LANES):
        raise InputError(f"{place} has other scrypt numbers than {COST}, {BLOCK}, {LANES}; {_AGAIN}")
    try:
        salt, digest = (base64.b64decode(text, validate=True) for text in found.groups()[3:])
    except binascii.Error:
        raise InputError(f"{place} is damaged (no base64); {_AGAIN}") from None
    if len(salt) != SALT_BYTES or len(digest) != HASH_BYTES:
        raise InputError(f"{place} is damaged (expected {SALT_BYTES} bytes of salt and {HASH_BYTES} of hash, got "
                         f"{len(salt)} and {len(digest)}); {_AGAIN}")  # fmt: skip
    return name, Account(salt, digest)


def write_account(path: Path, name: str, password: str) -> bool:
    """Add a person to a password file, or replace the password of one; the file is made when missing.

    Args:
        path: the file; it gets mode 600.
        name: up to LONGEST_NAME printable characters, no colon.
        password: SHORTEST to LONGEST characters.

    Returns:
        True when the person was in the file already.

    Raises:
        InputError: the name or the password is not as above, or the file is damaged.
    """
    path = path.resolve()
    known = tidy_name(name)
    if known is None:
        raise InputError(f"expected a name of 1 to {LONGEST_NAME} printable characters without a colon and without a "
                         f"space at its ends, got {name[: LONGEST_NAME + 1]!r}")  # fmt: skip
    if not SHORTEST <= len(password) <= LONGEST:
        raise InputError(f"expected a password of {SHORTEST} to {LONGEST} characters, got {len(password)}")
    accounts = read_accounts(path) if path.exists() and path.stat().st_size else {}
    salt = secrets.token_bytes(SALT_BYTES)
    replaced = known in accounts
    accounts[known] = Account(salt, _digest(password, salt))
    _write(path, "".join(f"{each}:{_form(account)}\n" for each, account in accounts.items()))
    return replaced


def _form(account: Account) -> str:
    salt, digest = (base64.b64encode(part).decode() for part in (account.salt, account.digest))
    return f"scrypt${COST}${BLOCK}${LANES}${salt}${digest}"


def _write(path: Path, text: str) -> None:
    """Atomically, and at no moment readable by others: `mkstemp` makes files of mode 600."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def tidy_name(text: str) -> str | None:
    """A person's name in the one form that names are compared in; None for what can be no name."""
    name = unicodedata.normalize("NFC", text)
    good = 0 < len(name) <= LONGEST_NAME and name.isprintable() and ":" not in name and name == name.strip()
    return name if good else None


def matches(accounts: Mapping[str, Account], name: str, password: str) -> bool:
    """Whether a person of this name and password is in the file; takes the same time for a name that is not."""
    account = accounts.get(name, DECOY)
    # longer ones cannot be in the file; cut, so that a huge text costs no more than any other
    digest = _digest(password[: LONGEST + 1], account.salt)
    return hmac.compare_digest(digest, account.digest) and name in accounts


def _digest(password: str, salt: bytes) -> bytes:
    # one text may be typed as different code points, by another keyboard or system
    text = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    with _one_at_a_time:
        return hashlib.scrypt(text, salt=salt, n=COST, r=BLOCK, p=LANES, maxmem=2**26, dklen=HASH_BYTES)


class Tries:
    """Counts wrong passwords per name, for all sessions of a process; safe to use from several threads.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: dict[str, list[float]] = {}

    def begin(self, name: str) -> float:
        """Count a try, before its password is looked at: many tries at once must not all pass as the first.

        Returns:
            0.0 where the try may go on; else the seconds to wait, and it was not counted.
        """
        with self._lock:
            now = self._clock()
            recent = {each: [at for at in times if now - at < WINDOW_S] for each, times in self._times.items()}
            self._times = {each: times for each, times in recent.items() if times}
            mine = self._times.get(name, [])
            if len(mine) >= TRIES:
                return WINDOW_S - (now - mine[0])
            self._times[name] = [*mine, now]
            return 0.0

    def forget(self, name: str) -> None:
        """The password was right: the tries before it count no more."""
        with self._lock:
            self._times.pop(name, None)

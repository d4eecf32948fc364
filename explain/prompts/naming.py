"""Names of prompts, and references to one version of them.

    line-3                the newest version
    line-3@v2             the second version
    line-3@production     where an alias points now
    line-3@audit-2026     a tag, which never moves
    line-3@3fa9           the version whose id begins like this, at least four digits
"""

import re
import unicodedata
from typing import NamedTuple

from explain.errors import InputError

PRODUCTION = "production"
"""The alias that only a promotion moves, with an approver."""

MAX_NAME_BYTES = 120
"""A file system takes 255; the temporary file beside a name is longer than the name."""

MIN_PREFIX = 4
_NAME = re.compile(r"\w[\w.-]*")
_NUMBER = re.compile(r"v[0-9]+")
_PREFIX = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},64}}")


class Reference(NamedTuple):
    """A name, and what follows its "@"; None for the newest version."""

    name: str
    selector: str | None


def parse_reference(text: str) -> Reference:
    """Split `NAME[@SELECTOR]`.

    Raises:
        InputError: the name, or what follows it, could not be one.
    """
    name, at, selector = text.partition("@")
    check_name(name, "prompt name")
    if at:
        check_name(selector, "version, tag or alias")
    return Reference(name, selector if at else None)


def check_name(name: str, kind: str) -> None:
    """Raise InputError unless the name is safe as a file name everywhere and in a reference."""
    length = len(name.encode("utf-8", errors="replace"))
    safe = _NAME.fullmatch(name) and ".." not in name and not name.endswith(".")
    if not safe or length > MAX_NAME_BYTES or unicodedata.normalize("NFC", name) != name:
        raise InputError(
            f"expected a {kind} of letters, digits, '-', '_' and '.' that begins with a letter or digit, without '..', "
            f"of at most {MAX_NAME_BYTES} bytes; got {ascii(name[:60])} ({length} bytes). Choose one such as line-3"
        )


def check_label(label: str, kind: str) -> None:
    """Raise InputError unless a tag or alias is a safe name that cannot be taken for a version."""
    check_name(label, kind)
    if is_number(label) or is_prefix(label):
        raise InputError(f"expected a {kind} that cannot be taken for a version number (v2) or the beginning of a "
                         f"version's id (3fa9); got {label!r}. Choose another word")  # fmt: skip


def is_number(selector: str) -> bool:
    """True for "v2"."""
    return _NUMBER.fullmatch(selector) is not None


def is_prefix(selector: str) -> bool:
    """True for what a version's id could begin with."""
    return _PREFIX.fullmatch(selector) is not None

"""Names that can be printed and stored: file names as text that survives UTF-8, logs, tables and a PDF.

A file name may hold bytes that are no UTF-8, a line break, or a control character that reverses the text
after it. Those characters alone are percent-escaped, so ordinary names stay as they are and no two names
become one.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote_to_bytes

# Control, format (bidi and zero-width), private, lone surrogate (a byte that is no UTF-8), line and paragraph
# breaks. str.isprintable() would not do: its answer for new characters differs between Python versions.
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_LOOKS_ESCAPED = re.compile(r"%(?=[0-9A-Fa-f]{2})")


# What a terminal obeys instead of showing it, and what turns the text after it around.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def find_obeyed(value: Any, place: str = "") -> str | None:
    """Where in plain data a text holds a character that a terminal obeys or that turns text around; None for nowhere.

    Names of files are made `printable`; records that come from elsewhere are refused by this.

    Args:
        value: texts, lists and mappings, as of JSON.
        place: what leads to the value, for the answer, such as "class_names.0".
    """
    if isinstance(value, str):
        return (place or "text") if _OBEYED.search(value) else None
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    for key, item in inner:
        found = find_obeyed(key, f"a key of {place}") or find_obeyed(item, f"{place}.{key}".removeprefix("."))
        if found:
            return found
    return None


def printable(name: str | PurePath) -> str:
    """The name as printable text; paths get forward slashes.

    A "%" is escaped only where it could be taken for an escape, so "100%.jpg" stays "100%.jpg".
    """
    text = name.as_posix() if isinstance(name, PurePath) else name
    return "".join(
        "".join(f"%{byte:02X}" for byte in os.fsencode(character))
        if unicodedata.category(character) in _ESCAPED_CATEGORIES
        else character
        for character in _LOOKS_ESCAPED.sub("%25", text)
    )


def from_printable(text: str) -> str:
    """The name that `printable` was given."""
    return os.fsdecode(unquote_to_bytes(text))


def below(path: Path, root: Path | None) -> Path:
    """A file relative to a folder, or as it is where it lies elsewhere."""
    return path.relative_to(root) if root is not None and path.is_relative_to(root) else path

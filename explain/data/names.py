"""Names that can be printed and stored: file names as text that survives UTF-8, logs, tables and a PDF.

A file name may hold bytes that are no UTF-8, a line break, or a control character that reverses the text
after it. Those characters alone are percent-escaped, so ordinary names stay as they are and no two names
become one.
"""

import os
import re
import unicodedata
from pathlib import PurePath
from urllib.parse import unquote_to_bytes

# Control, format (bidi and zero-width), private, lone surrogate (a byte that is no UTF-8), line and paragraph
# breaks. str.isprintable() would not do: its answer for new characters differs between Python versions.
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_LOOKS_ESCAPED = re.compile(r"%(?=[0-9A-Fa-f]{2})")


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

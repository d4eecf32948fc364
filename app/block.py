"""What a canvas component is given: one block of bytes.

It is the length of the header (4 bytes, little-endian), the header (JSON, UTF-8), and the blobs that the header points
at by offset and length.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

FOLDER = Path(__file__).parent


class Blobs:
    """Blobs behind one another, and where each is."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._end = 0

    def add(self, data: bytes, **about: Any) -> dict[str, Any]:
        """Put a blob behind the others; its place for the header, with what else is said of it."""
        place = {"offset": self._end, "length": len(data), **about}
        self._parts.append(data)
        self._end += len(data)
        return place

    def floats(self, values: npt.NDArray[np.float32]) -> dict[str, Any]:
        """Put an array of any shape there, as float32."""
        return self.add(np.ascontiguousarray(values, "<f4").tobytes(), type="f4", shape=values.shape)

    def behind(self, header: dict[str, Any]) -> bytes:
        """The whole block."""
        text = json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
        return len(text).to_bytes(4, "little") + text + b"".join(self._parts)


def component(name: str, folder: Path, scripts: Sequence[str], style: str) -> ComponentRenderer:
    """A component from its files, behind what all of them begin with.

    Nothing of a user's ever goes into these texts: names travel in the data and are set as text.

    Args:
        name: tells it from the other components.
        folder: of its files.
        scripts: names without ".js", joined in this order into the one script that a component takes.
        style: name without ".css".
    """
    files = [FOLDER / "block.js", *(folder / f"{script}.js" for script in scripts)]
    styles = [FOLDER / "block.css", folder / f"{style}.css"]
    script, css = ("\n".join(file.read_text(encoding="utf-8") for file in part) for part in (files, styles))
    return st.components.v2.component(name, js=script, css=css)

"""Paste: an image on the clipboard goes the way of a file that was dropped on the page's uploader."""

from functools import cache

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

SCRIPT = """
export default function () {
  const onPaste = (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    const input = document.querySelector('[data-testid="stFileUploaderDropzoneInput"]');
    if (!files.length || !input) return;
    event.preventDefault();
    const transfer = new DataTransfer();
    for (const file of files) transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("paste", onPaste);
  return () => document.removeEventListener("paste", onPaste);
}
"""


def listen_for_paste() -> None:
    """Listen while the page is open; there must be one `st.file_uploader`, whose limits then hold as always."""
    _component()(key="paste", height=1)


@cache
def _component() -> ComponentRenderer:
    return st.components.v2.component("paste_into_uploader", js=SCRIPT)

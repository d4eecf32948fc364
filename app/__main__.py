"""Starts streamlit with the libraries of the pages imported before the server answers.

They take seconds, which a reader would otherwise wait for in front of an empty page. Called by `app.server.command`;
the arguments are those of streamlit.
"""

import gc
import sys
from importlib import import_module

HEAVY = ("torch", "timm", "pyarrow", "duckdb", "plotly.graph_objects", "cv2", "explain.methods.base", "explain.engine",
         "explain.archive.archive", "explain.training.pair", "explain.report.content")  # fmt: skip


def main() -> None:
    """Import, then hand over to streamlit."""
    for name in HEAVY:
        import_module(name)
    list(import_module("explain.methods.base").METHODS)  # reads the file of every method
    gc.collect()
    gc.freeze()  # what is imported stays: no later collection has to look through it

    from streamlit.web.cli import main as streamlit

    sys.exit(streamlit(prog_name="streamlit"))


if __name__ == "__main__":
    main()

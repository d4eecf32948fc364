"""How the viewer is started: streamlit's command line, with every setting on it.

Streamlit reads `.streamlit/config.toml` from the folder it is started in. The viewer may be started anywhere,
and what keeps it private (the loopback address, the host names, no telemetry) must not depend on that folder,
so the settings of the packaged `config.toml` are passed as flags, which go before any file.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def command(
    run: Path, port: int | None = None, *, maps: str | None = None, headless: bool = False
) -> list[str]:
    """The arguments that start the viewer on a run.

    Args:
        run: folder of a trained pair.
        maps: an archive of maps, looked into before a map is computed; None for `maps` in the run's folder, if there.
        port: TCP port on the loopback address; None lets streamlit take the first free one from 8501.
        headless: True does not open a browser window.

    Returns:
        A list for `subprocess.run`, beginning with this Python.
    """
    extra = {"server.headless": headless} | ({} if port is None else {"server.port": port})
    return [sys.executable, "-m", "streamlit", "run", str(FOLDER / "main.py"),
            *flags(settings() | extra), "--", str(Path(run).absolute()),
            *([] if maps is None else [f"--maps={maps}"])]  # fmt: skip


def settings() -> dict[str, Any]:
    """Every setting of the packaged config.toml by its dotted name, such as "server.address"."""
    return dict(_flatten(tomllib.loads((FOLDER / "config.toml").read_text(encoding="utf-8"))))


def flags(values: dict[str, Any]) -> list[str]:
    """Settings as command-line flags; a list becomes one flag per item."""
    return [
        f"--{name}={_text(item)}"
        for name, value in values.items()
        for item in (value if isinstance(value, list) else [value])
    ]


def _flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""How the viewer is started: streamlit's command line, with every setting on it.

Streamlit reads `.streamlit/config.toml` from the folder it is started in. The viewer may be started anywhere,
and what keeps it private (the loopback address, the host names, no telemetry) must not depend on that folder,
so the settings of the packaged `config.toml` are passed as flags, which go before any file.

Behind `--` stands what the pages are told: the run or archive, then `--maps=`, `--auth=`, `--oidc` and `--log=`.
"""

import ipaddress
import re
import socket
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from explain.errors import InputError

FOLDER = Path(__file__).parent
LOOPBACK = "127.0.0.1"
MAPS_FLAG, AUTH_FLAG, OIDC_FLAG, LOG_FLAG = "--maps=", "--auth=", "--oidc", "--log="

_LOOPBACK_NAMES = (LOOPBACK, "::1", "localhost")
_EVERY_ADDRESS = ("0.0.0.0", "::")
_HOST_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?", re.I)
_BASE_PATH = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class Entrance:
    """By which address the viewer is reached, and who may come in.

    Args:
        host: address that it listens on; 127.0.0.1 is this machine only, 0.0.0.0 every address of the machine.
        names: further host names that a browser may ask for, such as that of a reverse proxy; "*.example.com"
            stands for every name below example.com.
        base_path: first part of the path, where a reverse proxy serves the viewer below one.
        auth: a password file, see `app.passwords`.
        oidc: people sign in at the identity provider of `.streamlit/secrets.toml`.
        anyone: nobody has to sign in, also where other machines reach the viewer.

    Raises:
        InputError: an address, name or path that is none; two ways to sign in; or other machines reach the viewer and
            nothing says who may come in.
    """

    host: str = LOOPBACK
    names: tuple[str, ...] = ()
    base_path: str = ""
    auth: Path | None = None
    oidc: bool = False
    anyone: bool = False

    def __post_init__(self) -> None:
        if not _is_address(self.host) and not _HOST_NAME.fullmatch(self.host):
            raise InputError(f"--host: expected an address of this machine such as 0.0.0.0 or 192.168.1.5, got "
                             f"{self.host!r}")  # fmt: skip
        for name in self.names:
            if not _is_address(name) and not _HOST_NAME.fullmatch(name):
                raise InputError(f"--allowed-host: expected a host name alone, such as maps.example.com or "
                                 f"*.example.com, without https://, port or path; got {name!r}")  # fmt: skip
        if self.base_path and not _BASE_PATH.fullmatch(self.base_path):
            raise InputError(f"--base-path: expected a path such as explain or tools/explain, got {self.base_path!r}")
        if (self.auth is not None) + self.oidc + self.anyone > 1:
            raise InputError("--auth, --oidc and --open-to-anyone exclude each other; give one")
        if self.shared and self.auth is None and not self.oidc and not self.anyone:
            raise InputError(
                "other machines can reach the viewer with this --host or --allowed-host, and nothing says who may "
                "come in. Give one of: --auth FILE (passwords; explain view-password makes the file), --oidc (your "
                "identity provider), --open-to-anyone (no sign-in; right only behind a proxy that asks for one, or "
                "where everybody in the network may see the images)"
            )

    @property
    def shared(self) -> bool:
        """Whether other machines are meant to reach the viewer."""
        return any(name not in _LOOPBACK_NAMES for name in (self.host, *self.names))

    def settings(self) -> dict[str, Any]:
        """What streamlit has to be told, by dotted name, beside the packaged settings."""
        own = _own_names() if self.host in _EVERY_ADDRESS else []
        # the machine's own names and addresses cannot be pointed at it by a stranger's web page
        names = dict.fromkeys([*settings()["server.allowedHosts"], self.host, *self.names, *own])
        values: dict[str, Any] = {"server.address": self.host, "server.allowedHosts": list(names)}
        shown = [name for name in self.names if "*" not in name]
        if self.host == "::1":
            shown = ["localhost"]
        elif self.host in _EVERY_ADDRESS:
            shown = [*shown, *own]
        if shown and self.host != LOOPBACK:
            # otherwise streamlit asks a machine on the internet which address it has, to print it
            values["browser.serverAddress"] = shown[0]
        return values | ({"server.baseUrlPath": self.base_path} if self.base_path else {})

    def words(self) -> list[str]:
        """What the pages have to be told, see `app.access`."""
        return [*([] if self.auth is None else [f"{AUTH_FLAG}{self.auth.absolute()}"]), *[OIDC_FLAG] * self.oidc]


def command(
    location: str | Path, port: int | None = None, *, maps: str | None = None, entrance: Entrance | None = None,
    log: Path | None = None, headless: bool = False,
) -> list[str]:  # fmt: skip
    """The arguments that start the viewer.

    Args:
        location: folder of a trained pair or of an archive of maps, or the URL of an archive.
        port: TCP port; None lets streamlit take the first free one from 8501.
        maps: an archive of a pair's maps, looked into before a map is computed; None for `maps` in the pair's folder,
            if there.
        entrance: by which address it is reached and who may come in; None for this machine only.
        log: file that errors and sign-ins are written to, beside standard error.
        headless: True does not open a browser window.

    Returns:
        A list for `subprocess.run`, beginning with this Python.
    """
    entrance = entrance or Entrance()
    place = str(location) if "://" in str(location) else str(Path(location).absolute())
    extra = {"server.headless": headless} | ({} if port is None else {"server.port": port})
    # -P: the viewer may be started in a folder that has an "app" of its own
    return [sys.executable, "-P", "-m", "app", "run", str(FOLDER / "main.py"),
            *flags(settings() | entrance.settings() | extra), "--", place,
            *([] if maps is None else [f"{MAPS_FLAG}{maps}"]), *entrance.words(),
            *([] if log is None else [f"{LOG_FLAG}{log.absolute()}"])]  # fmt: skip


def word_of(flag: str, words: Sequence[str]) -> str | None:
    """What a flag such as `LOG_FLAG` was given on a command line; None where it is not there."""
    return next((word.removeprefix(flag) for word in words[1:] if word.startswith(flag)), None)


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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _own_names() -> list[str]:
    """This machine's name and addresses."""
    found = [socket.gethostname()]
    for addresses in psutil.net_if_addrs().values():
        found += [each.address.partition("%")[0] for each in addresses
                  if each.family in (socket.AF_INET, socket.AF_INET6)]  # fmt: skip
    return list(dict.fromkeys(found))


def _flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

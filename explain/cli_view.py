"""The commands round the viewer: starting it, and the passwords of those who may come in."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from explain.console import console
from explain.errors import InputError


def view(
    location: Annotated[str, typer.Argument(
        metavar="RUN_OR_ARCHIVE", help="Folder of a trained pair such as runs/demo; or an archive of maps: its folder, "
                                       "or a URL such as s3://bucket/maps.")],
    maps: Annotated[str | None, typer.Option(help="An archive that `explain attribute` made of the pair: its maps are "
                                                  "shown without being computed; default: RUN/maps, if there.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="TCP port; default: a free one from 8501 on.")
                    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. The default is this machine only; 0.0.0.0 is every "
                                           "address of this machine, and needs one of --auth, --oidc, "
                                           "--open-to-anyone.")] = "127.0.0.1",
    auth: Annotated[Path | None, typer.Option(help="Password file that `explain view-password` makes.")] = None,
    oidc: Annotated[bool, typer.Option("--oidc", help="Sign in at the identity provider that .streamlit/secrets.toml "
                                                      "names.")] = False,
    open_to_anyone: Annotated[bool, typer.Option("--open-to-anyone", help="Nobody has to sign in.")] = False,
    allowed_host: Annotated[list[str] | None, typer.Option(
        metavar="NAME", help="A host name by which browsers may ask for the viewer, such as that of a reverse proxy; "
                             "may be repeated. --host itself, localhost and, with 0.0.0.0, the name and addresses of "
                             "this machine are allowed anyway; any other name is refused (DNS rebinding).")] = None,
    base_path: Annotated[str, typer.Option(help="Path below which a reverse proxy serves the viewer, such as "
                                                "explain.")] = "",
    log: Annotated[Path | None, typer.Option(help="Also write errors and sign-ins to this file.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser window.")] = False,
) -> None:  # fmt: skip
    """Open the viewer on a pair or an archive of maps. Unless told otherwise it listens on this machine only."""
    from app.passwords import read_accounts
    from app.server import Entrance, command
    from explain.archive.archive import MapArchive

    entrance = Entrance(host.strip("[]"), tuple(allowed_host or ()), base_path.strip("/"), auth, oidc, open_to_anyone)
    if auth is not None:
        read_accounts(auth)
    if log is not None and not log.absolute().parent.is_dir():
        raise InputError(f"--log: there is no folder {log.absolute().parent}; make it first")
    is_archive = _check(location)
    if maps is not None and is_archive:
        raise InputError(f"{location} is an archive of maps itself; leave --maps away, or give the trained pair first")
    if maps is not None:
        maps = MapArchive(maps).store.url
    line = command(location, port, maps=maps, entrance=entrance, log=log, headless=no_browser)
    raise typer.Exit(_run(line))


def _run(line: list[str]) -> int:
    """Run the server to its end; who stops this process, as a service or a container does, stops the server.

    Returns:
        Its exit code; 0 where it was told to stop.
    """
    stopped = False
    with subprocess.Popen(line) as server:

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True
            server.terminate()

        before = signal.signal(signal.SIGTERM, stop)
        try:
            code = server.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    return 0 if stopped else code


def _check(location: str) -> bool:
    """Open what the viewer will open, so that a wrong folder is told here and not in the browser.

    Returns:
        True for an archive of maps, False for a pair.
    """
    from explain.archive.archive import MapArchive
    from explain.archive.job import KEY
    from explain.training.pair import load_pair

    folder = Path(location)
    if "://" in location or (folder / KEY).is_file():
        MapArchive(location)
        return True
    if not folder.is_dir():
        raise InputError(f"there is no folder {location}; expected a trained pair or an archive of maps. "
                         "explain demo makes a pair in runs/demo")  # fmt: skip
    if not any(folder.glob("*/manifest.json")):
        raise InputError(f"{location} holds neither a trained pair (no */manifest.json; explain train DATA --out "
                         f"{location}) nor an archive of maps (no {KEY}; explain attribute)")  # fmt: skip
    load_pair(folder)
    return False


def view_password(
    file: Annotated[Path, typer.Argument(help="The password file; made when missing, readable by you only.")],
    name: Annotated[str, typer.Argument(help="Who signs in with it.")],
    stdin: Annotated[bool, typer.Option("--stdin", help="Take the password from the first line of standard input, "
                                                        "instead of asking twice.")] = False,
) -> None:  # fmt: skip
    """Add a person to the password file of the viewer, or give one another password."""
    from app.passwords import LONGEST, write_account

    if stdin:
        password = sys.stdin.readline(LONGEST + 2).removesuffix("\n").removesuffix("\r")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt="The same again")
    replaced = write_account(file, name, password)
    what = "has another password" if replaced else "was added"
    console.print(f"{name} {what}: {file}", highlight=False, markup=False)

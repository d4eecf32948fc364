"""How the viewer is started."""

import os
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from small_archive import explain_all, small_models
from streamlit import config

from app.passwords import write_account
from app.server import FOLDER, Entrance, command, flags, settings, word_of
from explain import cli, cli_view
from explain.data.base import Dataset
from explain.errors import InputError
from explain.training.pair import MatchedPair

ROOT = Path(__file__).parents[2]


def test_the_repository_and_the_package_have_the_same_settings() -> None:
    assert (ROOT / ".streamlit" / "config.toml").read_bytes() == (FOLDER / "config.toml").read_bytes()


def test_every_setting_is_one_that_streamlit_knows() -> None:
    known = config.get_config_options()
    assert [name for name in settings() if name not in known] == []


def test_the_viewer_is_private() -> None:
    values = settings()
    assert values["server.address"] == "127.0.0.1"
    assert values["server.allowedHosts"] == ["localhost", "127.0.0.1"]
    assert values["server.enableXsrfProtection"] is True and values["server.enableCORS"] is True
    assert values["browser.gatherUsageStats"] is False and values["server.enableAgentApi"] is False
    assert values["server.maxUploadSize"] == 20 and values["client.showErrorDetails"] == "none"


def test_the_command_carries_every_setting_and_the_run() -> None:
    line = command(Path("runs/demo"), 8600, headless=True)
    assert line[:5] == [sys.executable, "-P", "-m", "app", "run"]
    assert Path(line[5]).is_file() and line[-2] == "--" and line[-1] == str(Path("runs/demo").absolute())
    assert {"--server.port=8600", "--server.headless=true", "--server.address=127.0.0.1"} <= set(line)
    assert not any("port" in part for part in command(Path("x")))


def test_flags_spell_booleans_and_lists_as_streamlit_reads_them() -> None:
    assert flags({"a.b": True, "c": [1, "x"]}) == ["--a.b=true", "--c=1", "--c=x"]


def test_both_themes_have_the_same_colours_named() -> None:
    theme = tomllib.loads((FOLDER / "config.toml").read_text(encoding="utf-8"))["theme"]
    assert theme["light"].keys() == theme["dark"].keys()


# ---- several people


def test_without_being_told_otherwise_it_listens_on_this_machine_only() -> None:
    values = settings() | Entrance().settings()
    assert values["server.address"] == "127.0.0.1" and values["server.allowedHosts"] == ["localhost", "127.0.0.1"]
    assert not Entrance().shared and Entrance().words() == [] and "browser.serverAddress" not in values


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_sign_in(host: str) -> None:
    assert not Entrance(host).shared
    assert host in Entrance(host).settings()["server.allowedHosts"]


@pytest.mark.parametrize(
    "way", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "192.168.1.5"}, {"names": ("maps.example.com",)}]
)
def test_whoever_can_be_reached_by_others_must_say_who_may_come_in(way: dict[str, object]) -> None:
    with pytest.raises(InputError, match="--auth FILE.*--oidc.*--open-to-anyone"):
        Entrance(**way)
    for answer in ({"auth": Path("people")}, {"oidc": True}, {"anyone": True}):
        assert Entrance(**way, **answer).shared


def test_only_one_way_to_sign_in() -> None:
    with pytest.raises(InputError, match="exclude each other"):
        Entrance("0.0.0.0", auth=Path("people"), oidc=True)
    with pytest.raises(InputError, match="exclude each other"):
        Entrance("0.0.0.0", auth=Path("people"), anyone=True)


def test_beyond_loopback_the_named_hosts_are_let_in_and_no_others() -> None:
    entrance = Entrance("192.168.1.5", ("maps.example.com", "*.works.example"), "tools/explain", anyone=True)
    values = entrance.settings()
    assert values["server.address"] == "192.168.1.5" and values["server.baseUrlPath"] == "tools/explain"
    assert values["server.allowedHosts"] == [
        "localhost", "127.0.0.1", "192.168.1.5", "maps.example.com", "*.works.example"]  # fmt: skip
    assert values["browser.serverAddress"] == "maps.example.com"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_every_address_lets_in_the_machines_own_names_and_never_a_star(host: str) -> None:
    values = Entrance(host, anyone=True).settings()
    assert {host, socket.gethostname(), "127.0.0.1"} <= set(values["server.allowedHosts"])
    assert not [name for name in values["server.allowedHosts"] if "*" in name or "%" in name]
    # where it is not set, streamlit asks a machine on the internet for an address to print
    assert values["browser.serverAddress"] == socket.gethostname()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"host": ""}, "--host"),
        ({"host": "http://0.0.0.0"}, "--host"),
        ({"host": "unix:///tmp/socket"}, "--host"),
        ({"names": ("*",)}, "--allowed-host"),
        ({"names": ("https://maps.example.com",)}, "--allowed-host"),
        ({"names": ("maps.example.com:8501",)}, "--allowed-host"),
        ({"names": ("maps.example.com --server.enableCORS=false",)}, "--allowed-host"),
        ({"base_path": "../up"}, "--base-path"),
    ],
)
def test_an_address_name_or_path_that_is_none_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Entrance(anyone=True, **wrong)


def test_what_the_pages_are_told_stands_behind_the_location() -> None:
    line = command("s3://bucket/maps", entrance=Entrance("0.0.0.0", auth=Path("people")), log=Path("a.log"))
    told = line[line.index("--") + 1 :]
    assert told == ["s3://bucket/maps", f"--auth={Path('people').absolute()}", f"--log={Path('a.log').absolute()}"]
    assert word_of("--auth=", ["main.py", *told]) == str(Path("people").absolute())
    assert word_of("--maps=", ["main.py", *told]) is None
    assert "--oidc" in command("runs/demo", entrance=Entrance(oidc=True))


# ---- the command


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that `explain view` would have run."""
    lines: list[list[str]] = []

    def run(line: list[str]) -> int:
        lines.append(line)
        return 0

    monkeypatch.setattr("explain.cli_view._run", run)
    return lines


def view(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["explain", "view", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_a_pair_is_viewed(monkeypatch: pytest.MonkeyPatch, started: list[list[str]], tiny_pair: MatchedPair) -> None:
    assert view(monkeypatch, tiny_pair.path, "--port", 8600, "--no-browser") == 0
    (line,) = started
    assert line[line.index("--") + 1 :] == [str(tiny_pair.path)]
    assert {"--server.port=8600", "--server.headless=true", "--server.address=127.0.0.1"} <= set(line)


def test_an_archive_is_viewed_by_its_folder_or_its_url(
    monkeypatch: pytest.MonkeyPatch, started: list[list[str]], pictures: Dataset, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    archive = explain_all(small_models(), pictures, tmp_path / "maps")
    url = f"file://{tmp_path}/maps"
    assert view(monkeypatch, tmp_path / "maps") == 0 and view(monkeypatch, url) == 0
    assert [line[line.index("--") + 1 :] for line in started] == [[archive.store.url], [url]]
    assert view(monkeypatch, tmp_path / "maps", "--maps", tmp_path / "maps") == 2 and len(started) == 2
    assert "is an archive of maps itself" in capsys.readouterr().err


def test_several_people_with_passwords(
    monkeypatch: pytest.MonkeyPatch, started: list[list[str]], tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    write_account(tmp_path / "people", "anna", "correct horse")
    words = ("--host", "0.0.0.0", "--auth", tmp_path / "people", "--allowed-host", "a.example", "--allowed-host",
             "b.example", "--base-path", "/maps/", "--log", tmp_path / "viewer.log")  # fmt: skip
    assert view(monkeypatch, tiny_pair.path, *words) == 0
    (line,) = started
    assert {"--server.address=0.0.0.0", "--server.allowedHosts=a.example", "--server.allowedHosts=b.example",
            "--server.baseUrlPath=maps"} <= set(line)  # fmt: skip
    assert line[line.index("--") + 2 :] == [f"--auth={tmp_path}/people", f"--log={tmp_path}/viewer.log"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "nothing says who may come in"),
        (["--allowed-host", "maps.example.com"], "nothing says who may come in"),
        (["--host", "0.0.0.0", "--open-to-anyone", "--oidc"], "exclude each other"),
        (["--auth", "/nowhere/people"], "explain view-password"),
        (["--log", "/nowhere/viewer.log"], "there is no folder /nowhere"),
        (["--port", "0"], "Invalid value"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, started: list[list[str]], tiny_pair: MatchedPair,
    capsys: pytest.CaptureFixture[str], words: list[str], told: str,
) -> None:  # fmt: skip
    assert view(monkeypatch, tiny_pair.path, *words) == 2
    assert told in capsys.readouterr().err and started == []


def test_a_folder_that_is_neither_pair_nor_archive_is_told(
    monkeypatch: pytest.MonkeyPatch, started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert view(monkeypatch, tmp_path) == 2
    assert "holds neither a trained pair" in capsys.readouterr().err
    assert view(monkeypatch, tmp_path / "none") == 2
    assert "there is no folder" in capsys.readouterr().err and started == []


def test_who_stops_the_command_stops_the_server(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text("import pathlib, os, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n")
    program = f"import sys; from explain.cli_view import _run; sys.exit(_run([sys.executable, {str(script)!r}]))"
    command = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until and command.poll() is None
        time.sleep(0.05)
    command.terminate()
    assert command.wait(timeout=30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_code_of_a_server_that_ends_by_itself_is_passed_on() -> None:
    assert cli_view._run([sys.executable, "-c", "raise SystemExit(7)"]) == 7

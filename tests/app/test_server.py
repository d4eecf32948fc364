"""How the viewer is started."""

import sys
import tomllib
from pathlib import Path

from streamlit import config

from app.server import FOLDER, command, flags, settings

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
    assert line[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert Path(line[4]).is_file() and line[-2] == "--" and line[-1] == str(Path("runs/demo").absolute())
    assert {"--server.port=8600", "--server.headless=true", "--server.address=127.0.0.1"} <= set(line)
    assert not any("port" in part for part in command(Path("x")))


def test_flags_spell_booleans_and_lists_as_streamlit_reads_them() -> None:
    assert flags({"a.b": True, "c": [1, "x"]}) == ["--a.b=true", "--c=1", "--c=x"]


def test_both_themes_have_the_same_colours_named() -> None:
    theme = tomllib.loads((FOLDER / "config.toml").read_text(encoding="utf-8"))["theme"]
    assert theme["light"].keys() == theme["dark"].keys()

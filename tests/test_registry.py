"""Registry: one file in a folder is one plug-in."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from explain.data.base import FORMATS
from explain.errors import ExplainError, InputError, UnknownNameError
from explain.methods.base import METHODS
from explain.registry import Registry
from explain.tuning.base import TUNINGS

BASE = """
from explain.registry import Registry
FRUITS = Registry("fruit", "orchard")
"""
APPLE = """
from dataclasses import dataclass
from orchard.base import FRUITS

@FRUITS.register("apple")
@dataclass(frozen=True)
class Apple:
    colour: str = "red"
    grams: int = 100
"""


@pytest.fixture
def orchard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a registry and one plug-in."""
    folder = tmp_path / "orchard"
    folder.mkdir()
    for name, text in {"__init__": "", "base": BASE, "apple": APPLE}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "orchard"]:
        del sys.modules[name]


def fruits() -> Registry[Any]:
    from orchard.base import FRUITS

    return FRUITS


def test_a_file_in_the_folder_is_a_plugin(orchard: Path) -> None:
    (orchard / "pear.py").write_text(APPLE.replace("apple", "pear").replace("Apple", "Pear"))
    assert list(fruits()) == ["apple", "pear"]
    assert fruits()["pear"].__name__ == "Pear" and fruits()["pear"].name == "pear"


def test_no_plugin_is_imported_before_somebody_looks(orchard: Path) -> None:
    registry = fruits()
    assert "orchard.apple" not in sys.modules
    assert registry.create("apple", grams=7).grams == 7
    assert "orchard.apple" in sys.modules


def test_two_plugins_of_one_name_are_an_error(orchard: Path) -> None:
    (orchard / "again.py").write_text(APPLE)
    with pytest.raises(ExplainError, match="two fruits are called 'apple'"):
        list(fruits())


def test_an_unknown_name_lists_the_known_ones(orchard: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown fruit 'aple'; known: apple"):
        fruits()["aple"]
    assert issubclass(UnknownNameError, LookupError)


def test_an_unknown_option_lists_the_known_ones(orchard: Path) -> None:
    with pytest.raises(InputError, match="fruit 'apple' has no option 'color', 'size'; it takes: colour, grams"):
        fruits().create("apple", size=3, color="green")


def test_an_option_of_the_wrong_type_is_named_as_such() -> None:
    with pytest.raises(InputError, match="option of tuning 'prompt' is of the wrong type"):
        TUNINGS.create("prompt", num_tokens="ten")


def test_a_class_without_options_takes_none() -> None:
    registry: Registry[Any] = Registry("thing", "explain.i18n")

    @registry.register("plain")
    @dataclass(frozen=True)
    class Plain:
        pass

    with pytest.raises(InputError, match="it takes: none"):
        registry.create("plain", anything=1)
    assert isinstance(registry.create("plain"), Plain)


def test_the_toolkits_plugins_are_found_under_their_files_names() -> None:
    assert {"grad_cam", "integrated_gradients", "attention_rollout"} <= set(METHODS)
    assert {"full", "linear", "prompt"} <= set(TUNINGS)
    for registry in (METHODS, TUNINGS, FORMATS):
        assert list(registry) == sorted(registry)
        assert all(registry[name].name == name for name in registry)

"""The documentation names every method, with what the code says of it."""

from pathlib import Path

import pytest

from explain.methods.base import METHODS

PAGE = Path(__file__).parents[2] / "docs/attribution.md"


def row(name: str) -> str:
    """A method's line in the table."""
    method = METHODS[name]
    traits = ["signed" if method.signed else "unsigned", "per class" if method.class_specific else "class-agnostic"]
    traits += ["random"] * method.random + ["prompts only"] * method.needs_prompts
    traits += ["no CNN"] * (not method.convolutional and not method.needs_prompts)
    return f"| `{name}` | {method.label} | {', '.join(traits)} | {method.cost} | {method.source} |"


@pytest.mark.parametrize("name", list(METHODS))
def test_the_table_of_methods_says_what_the_code_says(name: str) -> None:
    assert row(name) in PAGE.read_text(encoding="utf-8").splitlines()

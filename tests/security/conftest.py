"""What the tests of untrusted input share: a store of prompts, the command line, and which files were opened."""

import sys
from collections.abc import Callable, Iterator

import pytest

from explain import cli
from explain.prompts.store import PromptStore
from explain.training.pair import MatchedPair

_opened: list[str] = []
_watching = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event == "open" and isinstance(arguments[0], str | bytes):
        name = arguments[0]
        _opened.append(name.decode(errors="replace") if isinstance(name, bytes) else name)


@pytest.fixture(scope="session")
def audit() -> None:
    """A hook of the interpreter, which cannot be taken off again; it does nothing unless a test watches."""
    sys.addaudithook(_hook)


@pytest.fixture
def opened(audit: None) -> Iterator[list[str]]:
    """Names of the files that Python opens while the test runs."""
    global _watching
    _opened.clear()
    _watching = True
    yield _opened
    _watching = False


@pytest.fixture
def explain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run `explain …` in this process: (exit code, what it told on stderr)."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["explain", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def prompts(tiny_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> PromptStore:
    """line-3 with one version, its alias "staging" and its tag "audit"; do not change it."""
    store = PromptStore(tmp_path_factory.mktemp("store") / "prompts")
    store.add(tiny_pair.vpt, name="line-3", owner="quality", purpose="squares")
    store.alias("line-3@v1", "staging")
    store.tag("line-3@v1", "audit")
    return store

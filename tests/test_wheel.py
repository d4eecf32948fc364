import hashlib
import subprocess
from pathlib import Path

import pytest

from explain.errors import ExplainError, IntegrityError
from explain.wheel import Wheel

CONTENT = b"the content of a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def wheel(sha256: str = SHA256) -> Wheel:
    return Wheel("some-package", "1.0", sha256, 1, "MIT")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    return tmp_path


def pip_gives(monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str = "") -> list[list[str]]:
    """Stand in for pip: it puts `content` into the folder asked for, or fails with a message."""
    calls = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if content is not None:
            (Path(command[command.index("--dest") + 1]) / "some_package-1.0-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, 0 if content is not None else 1, "", message)

    monkeypatch.setattr("explain.wheel.subprocess.run", run)
    return calls


def test_a_wheel_is_fetched_once_without_its_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pip_gives(monkeypatch, CONTENT)
    assert wheel().fetch().read_bytes() == CONTENT
    assert wheel().fetch() == wheel().cached_path
    assert len(calls) == 1
    assert "--no-deps" in calls[0] and "some-package==1.0" in calls[0]


def test_another_content_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pip_gives(monkeypatch, b"something else")
    with pytest.raises(IntegrityError, match=f"expected {SHA256[:16]}"):
        wheel().fetch()
    assert not wheel().cached_path.exists()


def test_a_cached_wheel_that_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pip_gives(monkeypatch, CONTENT)
    wheel().fetch().write_bytes(b"changed")
    with pytest.raises(IntegrityError, match="Remove .*some_package"):
        wheel().fetch()


def test_no_network_is_one_line_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pip_gives(monkeypatch, None, "WARNING: retrying\nERROR: No matching distribution found for some-package==1.0\n")
    with pytest.raises(ExplainError) as caught:
        wheel().fetch()
    assert "No matching distribution" in str(caught.value) and "Check the network" in str(caught.value)
    assert "\n" not in str(caught.value)

"""What trained a run: the code, the commit, the packages."""

import hashlib
import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from explain.files import read_json
from explain.software import code_sha256, commit_of, package_list, software
from explain.training.pair import MatchedPair
from explain.training.run import Run


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two modules below a folder."""
    folder = tmp_path / "checkout" / "package"
    (folder / "room").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "room" / "noun.py").write_text("A = 1\n")
    return folder


def test_the_packages_are_what_pip_installs_from() -> None:
    lines = package_list().splitlines()
    assert lines == sorted(set(lines)) and all(line.count("==") == 1 for line in lines)
    assert f"torch=={version('torch')}" in lines


def test_every_change_of_the_code_is_another_hash(package: Path) -> None:
    found = [code_sha256(package)]
    (package / "room" / "noun.py").write_text("A = 2\n")
    found.append(code_sha256(package))
    (package / "room" / "noun.py").rename(package / "room" / "verb.py")
    found.append(code_sha256(package))
    (package / "more.py").write_text("")
    found.append(code_sha256(package))
    (package / "notes.txt").write_text("not code")
    assert len(set(found)) == 4 and code_sha256(package) == found[-1]


def test_the_commit_is_that_of_the_code(package: Path) -> None:
    checkout = package.parent
    assert commit_of(package) is None
    git(checkout, "init", "-q")
    (checkout / "other.txt").write_text("of another project")
    git(checkout, "add", "other.txt")
    git(checkout, "commit", "-qm", "one")
    assert commit_of(package) is None, "the package only lies there"
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "two")
    git(checkout, "tag", "v1")
    head = git(checkout, "rev-parse", "HEAD")
    assert commit_of(package) == head
    (package / "room" / "noun.py").write_text("A = 3\n")
    assert commit_of(package) == f"{head}-dirty"


def test_nothing_is_asked_of_a_machine_without_git(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit_of(package) is None


def test_a_run_says_what_trained_it(tiny_pair: MatchedPair) -> None:
    for run in tiny_pair.runs.values():
        assert run.manifest.software == software()
        packages = (run.path / "packages.txt").read_bytes()
        assert hashlib.sha256(packages).hexdigest() == software().packages_sha256


def test_a_run_from_before_it_was_recorded_opens(tiny_pair: MatchedPair, tmp_path: Path) -> None:
    folder = tmp_path / "vpt"
    shutil.copytree(tiny_pair.vpt.path, folder)
    (folder / "packages.txt").unlink()
    manifest = read_json(folder / "manifest.json")
    del manifest["software"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Run.load(folder).manifest.software is None

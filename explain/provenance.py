"""Versions of what decides the numbers, recorded with every run and every map."""

import platform
from importlib.metadata import version


def library_versions() -> dict[str, str]:
    """Library name -> version, Python included."""
    names = ("explain-vit", "torch", "timm", "numpy", "pillow")
    return {name: version(name) for name in names} | {"python": platform.python_version()}

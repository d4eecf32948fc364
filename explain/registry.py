"""Registry: a name for each plug-in, filled from the files of its folder.

A plug-in is one file in the folder of its family. It decorates its class with `@METHODS.register("grad_cam")`;
the folder is imported on the first look-up, so adding a file is all there is to adding a plug-in.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

from explain.errors import ExplainError, InputError, UnknownNameError

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(Generic[T]):
    """Names of one family of plug-ins, for example the attribution methods.

    Args:
        kind: what one plug-in is called in messages, such as "method".
        package: the package whose modules are the plug-ins, such as "explain.methods".
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, type[T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that gives the class its public name and sets its `name` attribute."""

        def add(cls: C) -> C:
            if name in self._classes:
                raise ExplainError(f"two {self.kind}s are called {name!r}: {self._classes[name]} and {cls}")
            cls.name = name
            self._classes[name] = cls
            return cls

        return add

    def _load(self) -> dict[str, type[T]]:
        if not self._loaded:
            folder = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(folder.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._loaded = True
        return self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._load()))

    def __getitem__(self, name: str) -> type[T]:
        classes = self._load()
        if name not in classes:
            raise UnknownNameError(f"unknown {self.kind} {name!r}; known: {', '.join(sorted(classes))}")
        return classes[name]

    def create(self, name: str, **options: Any) -> T:
        """Build the plug-in called `name`; an option it does not have is an InputError listing those it has."""
        cls = self[name]
        if is_dataclass(cls):
            known = [field.name for field in fields(cls)]
            unknown = sorted(set(options) - set(known))
            if unknown:
                raise InputError(
                    f"{self.kind} {name!r} has no option {', '.join(map(repr, unknown))}; "
                    f"it takes: {', '.join(known) or 'none'}"
                )
        try:
            return cls(**options)
        except TypeError as error:
            raise InputError(f"an option of {self.kind} {name!r} is of the wrong type: {error}") from error

"""Method: how an attribution map is made, as one file per method.

A method is a frozen dataclass of its options, called with the trace of one clean forward and the target classes. What
a method must see of that forward it says in `attention` and `layers`, so that several methods share one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from explain.model import Trace, TunedModel
from explain.registry import Registry


@dataclass(frozen=True)
class Maps:
    """What a method returns for B images.

    Args:
        values: (B, h, w) on the patch grid or (B, H, W) in pixels, raw.
        extras: further measurements by name, each (B, …).
        notes: choices made while running that the options do not show, such as the layer picked.
    """

    values: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """One attribution method; its dataclass fields are its options.

    Class attributes say what a viewer or report must know, so that nobody asks a method for its name:
    `label` (title), `source` (paper), `signed` (values below zero mean something), `class_specific` (the map depends
    on the target), `picture` ("positive": draw what is above zero; "signed": draw both sides), `attention` (it reads
    attention probabilities).
    """

    name: ClassVar[str]
    label: ClassVar[str]
    source: ClassVar[str]
    signed: ClassVar[bool]
    class_specific: ClassVar[bool]
    picture: ClassVar[Literal["positive", "signed"]]
    attention: ClassVar[bool]

    def layers(self, model: TunedModel) -> Sequence[str]:
        """Names of the layers whose output and gradient it needs."""

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """Maps for the trace's images and the target classes (B,)."""


METHODS: Registry[Method] = Registry("method", "explain.methods")

"""Method: how an attribution map is made, as one file per method or family of methods.

A method is a frozen dataclass of its options, called with the trace of one clean forward and the target classes. What
a method must see of that forward it says in `attention`, `attention_gradients` and `layers`, so that several methods
share one pass; passes beyond it run through `trace.passes`. A new method is a class with `label`, `source`, `cost` and
`__call__` on this base.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from explain.errors import InputError
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


class Method:
    """One attribution method; its dataclass fields are its options.

    Class attributes say what a viewer or report must know, so that nobody asks a method for its name:

    `label` title; `source` paper; `cost` passes beyond the shared forward, in words, where F is a forward of one image
    and G a forward with the gradient to the input; `signed` values below zero mean something; `class_specific` the map
    depends on the target; `random` the map depends on the option `seed`; `picture` "positive": draw what is above
    zero, "signed": draw both sides; `attention` it reads attention probabilities, `attention_gradients` their
    gradients too; `needs_prompts` it explains prompts and refuses a model without; `convolutional` it also explains a
    network without attention.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    source: ClassVar[str]
    cost: ClassVar[str]
    signed: ClassVar[bool] = True
    class_specific: ClassVar[bool] = True
    random: ClassVar[bool] = False
    picture: ClassVar[Literal["positive", "signed"]] = "signed"
    attention: ClassVar[bool] = False
    attention_gradients: ClassVar[bool] = False
    needs_prompts: ClassVar[bool] = False
    convolutional: ClassVar[bool] = True

    def layers(self, model: TunedModel) -> Sequence[str]:
        """Names of the layers whose output and gradient it needs."""
        return ()

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """Maps for the trace's images and the target classes (B,)."""
        raise NotImplementedError

    def each(self, trace: Trace, targets: Sequence[Tensor]) -> list[Maps]:
        """Maps for several target classes (B,) each; a method that can share passes between targets does it here."""
        return [self(trace, one) for one in targets]


def check_whole(least: int, **values: Any) -> None:
    """Raise InputError unless every option is a whole number of at least `least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"expected {name} to be a whole number of at least {least}, got {value!r}")


METHODS: Registry[Method] = Registry("method", "explain.methods")

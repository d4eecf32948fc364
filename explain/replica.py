"""Replica: a second tree of a model's modules that shares every weight.

Hooks, flags and replaced forwards on it never touch the model it was made from; that is what leaves a model as found,
also when a call fails and when several threads explain one model.
"""

from types import MethodType
from typing import Any

from torch import nn

from explain.errors import CaptureError


def replicate(module: Any, *, frozen: bool) -> Any:
    """A module of the same class whose dictionaries are its own and whose tensors are the original's.

    Args:
        module: any tree of modules.
        frozen: in evaluation mode, with parameters that need no gradient; else with the very parameters.

    Raises:
        CaptureError: the forward of a part was replaced by a plain function, which would run the original.
    """
    return _twin(module, {}, frozen)


def _twin(module: Any, memo: dict[int, Any], frozen: bool) -> Any:
    if id(module) in memo:
        return memo[id(module)]
    twin = module.__class__.__new__(module.__class__)
    memo[id(module)] = twin
    for name, value in vars(module).copy().items():
        if isinstance(value, MethodType) and value.__self__ is module:  # a replaced forward must run the twin
            value = MethodType(value.__func__, twin)
        elif name == "forward":
            raise CaptureError(
                f"the forward of a {type(module).__name__} was replaced by a plain function, which would run the live "
                "model; replace it by a method (types.MethodType) or a subclass"
            )
        twin.__dict__[name] = value.copy() if isinstance(value, dict) else value
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _twin(child, memo, frozen)
    twin._compiled_call_impl = None  # it would run the original
    if not frozen:
        return twin
    for name, value in module._parameters.items():
        if value is not None:
            shared = value.detach().clone() if value.is_inference() else value.detach()
            twin._parameters[name] = nn.Parameter(shared, requires_grad=False)
    twin.training = False
    if "fused_attn" in twin.__dict__:
        twin.fused_attn = True  # so that the recorder sees it; the twin is private
    if "grad_checkpointing" in twin.__dict__:
        twin.grad_checkpointing = False  # recomputing would record everything twice
    if "inplace" in twin.__dict__:
        twin.inplace = False  # a recorded output must not be overwritten by the layer after it
    return twin

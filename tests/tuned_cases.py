"""Every tuning on every kind of head, as tiny models: what the contracts run over."""

from functools import cache
from typing import Any

from tiny_vits import HEADS, tiny_vit

from explain.model import TunedModel
from explain.tuning.base import TUNINGS, tune

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "prompt": [{"num_tokens": 3, "deep": True}, {"num_tokens": 3, "deep": False}],
    "mixed": [{"num_tokens": 3}],
    "ft_then_pt": [{"num_tokens": 3}],
    "lora": [{}, {"rank": 2, "targets": "qkvom"}],
}
"""What to try of a tuning besides its defaults."""

ALIKE = {"bitfit": "full", "layer_decay": "full", "mixed": "prompt", "ft_then_pt": "prompt"}
"""Tunings whose model has exactly the modules of another tuning's: they differ in what trains, which no map depends on.
One test holds their maps against the other's; the contract of methods runs on the other alone, to stay within minutes.
"""

EVERY_VARIANT = [(name, options) for name in TUNINGS for options in OPTIONS.get(name, [{}])]
EVERY_CASE = [
    (name, options, head)
    for name, options in EVERY_VARIANT
    for head in HEADS
    if (name not in ALIKE and name != "lora") or head in ("cls", "distilled")  # one head, and two
]
"""What the contract of tunings runs over."""

VARIANTS = [(name, options) for name, options in EVERY_VARIANT if name not in ALIKE and (name, options) != ("lora", {})]
PROMPTED = [variant for variant in VARIANTS if variant[0] == "prompt"]
TUNED = [
    (name, options, head)
    for name, options in VARIANTS
    for head in HEADS
    if name != "lora" or head == "cls"  # its modules lie in the blocks, whatever the head
]
"""What every method is run on."""


METHODS_BY_KIND = ("attention_rollout", "attn_lrp", "grad_cam", "gradient_rollout", "integrated_gradients", "legrad")
"""One method for each way of looking into a model: probabilities, replaced parts, activations, gradients of either."""
FEW_NODES = {"integrated_gradients": {"max_nodes": 5}}


def title(case: tuple[Any, ...]) -> str:
    """A readable test id."""
    return "-".join(",".join(f"{k}={v}" for k, v in part.items()) if isinstance(part, dict) else part for part in case)


def tuned(name: str, options: dict[str, Any], head: str, **changes: Any) -> TunedModel:
    """A fresh tuned tiny model in evaluation mode, with two classes."""
    return tune(tiny_vit(head, **changes), name, class_names=("cat", "dog"), **options).eval()


@cache
def shared_tuned(index: int) -> TunedModel:
    """The model of TUNED[index]; tests that share it must leave it as it is."""
    return tuned(*TUNED[index])

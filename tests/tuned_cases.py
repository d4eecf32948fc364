"""Every tuning on every kind of head, as tiny models: what the contracts run over."""

from functools import cache
from typing import Any

from tiny_vits import HEADS, tiny_vit

from explain.model import TunedModel
from explain.tuning.base import TUNINGS, tune

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "prompt": [{"num_tokens": 3, "deep": True}, {"num_tokens": 3, "deep": False}],
}
"""What to try of a tuning besides its defaults."""

VARIANTS = [(name, options) for name in TUNINGS for options in OPTIONS.get(name, [{}])]
PROMPTED = [variant for variant in VARIANTS if variant[0] == "prompt"]
TUNED = [(name, options, head) for name, options in VARIANTS for head in HEADS]


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

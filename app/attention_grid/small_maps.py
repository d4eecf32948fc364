"""From a query's rows to small maps: what patches, prompts and other tokens get, head by head and fused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from app.attention import Floats, QueryRows
from explain.render.heatmap import scale_for
from explain.tokens import TokenLayout

FUSE: dict[str, Callable[..., Floats]] = {"mean": np.mean, "max": np.max, "min": np.min}
SCOPES = ("all", "block", "map")
"""What shares a scale: every map shown, the maps of one block, none."""


@dataclass(frozen=True)
class SmallMaps:
    """Per block its heads, then their fusion.

    Args:
        values: what each patch gets, (L, heads + 1, h, w).
        prompts: per block what each prompt gets, (heads + 1, P); P is 0 where there are none, or not counted.
        shares: what CLS, registers, prompts and patches get in all, (L, heads + 1, 4). They sum to 1; NaN for a maximum
            or minimum over heads, which is no share.
        null: the same four under uniform attention, (L, 4).
    """

    values: Floats
    prompts: tuple[Floats, ...]
    shares: Floats
    null: Floats


def small_maps(found: QueryRows, fusion: str, *, prompts: bool) -> SmallMaps:
    """Sort a query's rows by kinds of tokens.

    Args:
        found: the rows.
        fusion: "mean", "max" or "min" over heads.
        prompts: count them; else every head's row is scaled up to 1 over the other tokens.
    """
    values, strips, shares, null = [], [], [], []
    for number, row in enumerate(found.rows):
        inside = found.layout.at(number)
        parts = [np.array(row[:, part]) for part in _slices(inside, found.cls_tokens)]
        counts = np.array([part.shape[1] for part in parts], np.float32)
        if not prompts:
            parts[2], counts[2] = parts[2][:, :0], 0
            rest = sum(part.sum(axis=1, keepdims=True) for part in parts)
            parts = [np.divide(part, rest, out=np.zeros_like(part), where=rest > 0) for part in parts]
        fused = [np.concatenate((part, FUSE[fusion](part, axis=0, keepdims=True))) for part in parts]
        sums = np.stack([part.sum(axis=1) for part in fused], axis=1)
        if fusion != "mean":
            sums[-1] = np.nan
        values.append(fused[3].reshape(-1, *inside.grid))
        strips.append(fused[2])
        shares.append(sums)
        null.append(counts / counts.sum())
    return SmallMaps(np.stack(values), tuple(strips), np.stack(shares), np.stack(null))


def _slices(inside: TokenLayout, cls_tokens: int) -> tuple[slice, ...]:
    """Where CLS, registers, prompts and patches sit inside a block."""
    return slice(cls_tokens), slice(cls_tokens, inside.prefix), inside.prompt_slice, inside.patch_slice


def tops(models: Sequence[SmallMaps], scope: str) -> list[Floats]:
    """Value of the last colour of every map, (L, heads + 1) per model.

    Args:
        models: all that are shown; what shares a scale does so across models.
        scope: of `SCOPES`.
    """
    found = [np.zeros(model.values.shape[:2], np.float32) for model in models]
    if scope == "all":
        top = scale_for([model.values for model in models], False).high
        return [np.full_like(part, top) for part in found]
    for model, part in zip(models, found, strict=True):
        for number in range(len(part)):
            if scope == "block":
                same = [other.values[number] for other in models if number < len(other.values)]
                part[number] = scale_for(same, False).high
            else:
                part[number] = [scale_for(values, False).high for values in model.values[number]]
    return found

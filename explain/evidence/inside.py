"""Inside: what happens in each block of a model, reduced to a few numbers per image while the forwards run.

Attention is recorded with all of its rows: a lean replica computes only what the head reads of the last block, but the
distance that patches look is asked of every block.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from explain.attribution import Array
from explain.metrics.attention import attention_distance, attention_entropy, attention_mass
from explain.metrics.representation import weight_drift
from explain.model import Trace, TunedModel
from explain.passes import Passes
from explain.tokens import TokenLayout

CLS, OTHER_PREFIX, PROMPT, PATCH = range(4)
"""Kinds of tokens; the other prefix tokens are registers, and the second token of a distilled model."""

PER_PASS = 4
"""Images whose block outputs are held at once."""


def block_features(model: TunedModel, images: Tensor, passes: Passes) -> Array:
    """What the head would read after each block, (L, n, D) float32.

    That is the CLS token where the head reads the CLS token, and the mean of the patches where it reads that: the
    block's tokens, weighted as the head weights those of the last block. Prompts are never among them.

    Args:
        model: a vision transformer; left as found.
        images: (n, 3, H, W) in model space, on any device.
        passes: whether to stop.

    Raises:
        CaptureError: the model has no blocks, or its head does not read tokens linearly.
    """
    replica, names = model.replica(), _block_names(model)
    pooled = getattr(model.network, "attn_pool", None) is not None  # such a head's own attention says what it reads
    parts: list[Array] = []

    @torch.no_grad()  # recorded outputs carry a gradient that nobody wants here
    def work(rows: slice) -> None:
        with replica.capture(attention=pooled, layers=names, passes=passes) as trace:
            replica(images[rows].to(replica.device, replica.dtype))
        layout, weights = trace.layout, trace.readout()
        outputs = [_without_prompts(trace.activations[name], layout.at(index)) for index, name in enumerate(names)]
        read = [torch.einsum("bn,bnd->bd", weights.to(output.dtype), output) for output in outputs]
        parts.append(torch.stack(read).float().cpu().numpy())

    passes.run(work, len(images), replica.device, "features", largest=PER_PASS)
    return np.concatenate(parts, axis=1)


def block_attention(model: TunedModel, images: Tensor, passes: Passes) -> list[dict[str, Array]]:
    """What the heads of each block look at: one entry per block, name -> (n, heads).

    `attention_distance` in pixels, `attention_entropy` over all tokens and `patch_entropy` over the patches are means
    over the patches as queries. `cls_to_patch`, `register_mass` and `prompt_mass` are shares of what the CLS token
    gives out, or of what the patches give out in a model without a CLS token. A name is missing where a block has no
    such tokens. One image is held at a time, so memory does not grow with their number.

    Args:
        model: a vision transformer; left as found.
        images: (n, 3, H, W) in model space, on any device.
        passes: whether to stop.

    Raises:
        CaptureError: the model has no attention, or it cannot be seen.
    """
    replica, names = model.replica(), _block_names(model)
    seen: list[list[dict[str, Array]]] = []

    def work(rows: slice) -> None:
        # asking for the last block's output makes a lean replica compute all of it
        with torch.no_grad(), replica.capture(layers=names[-1:], passes=passes) as trace:
            replica(images[rows].to(replica.device, replica.dtype))
        seen.append(list(_read_attention(trace)))

    passes.run(work, len(images), replica.device, "attention", largest=1)
    return [{name: np.concatenate([image[block][name] for image in seen]) for name in seen[0][block]}
            for block in range(len(names))]  # fmt: skip


def prompt_chance(model: TunedModel, images: Tensor) -> list[float]:
    """Share of each block's tokens that are prompts: the mass they would get from uniform attention."""
    layout = model.layout_for(images)
    return [layout.at(block).prompts / layout.at(block).total for block in range(model.num_blocks)]


def block_drift(model: TunedModel, backbone: TunedModel) -> list[float]:
    """How far tuning moved the weights of each block, as `weight_drift` measures it.

    What tuning added beside the backbone's tensors, such as prompts, does not count; a low-rank update does, since it
    changes what a matrix does.

    Args:
        model: tuned.
        backbone: the model it was tuned from.
    """
    found = []
    for tuned, before in zip(model.network.blocks, backbone.network.blocks, strict=True):  # type: ignore[arg-type]
        names = [name for name, _ in _inner(before).named_parameters()]
        tensors = [(_effective(_inner(tuned), name), _effective(_inner(before), name)) for name in names]
        found.append(weight_drift([pair[0] for pair in tensors], [pair[1] for pair in tensors]))
    return found


def _read_attention(trace: Trace) -> Iterator[dict[str, Array]]:
    has_cls = bool(trace.model.vit.has_class_token)
    height, width = trace.images.shape[-2] / trace.grid[0], trace.images.shape[-1] / trace.grid[1]
    for block, recorded in enumerate(trace.attention):
        layout = trace.layout.at(block)
        kinds = _kinds(layout, has_cls)
        layout.check_sequence(recorded.shape[3])
        asked = layout.queries(torch.from_numpy(kinds)[None], recorded.shape[2])[0].numpy()
        probabilities = recorded.cpu().numpy()
        from_patches = probabilities[:, :, asked == PATCH]
        reader = probabilities[:, :, asked == CLS] if has_cls else from_patches
        among_patches = from_patches[..., kinds == PATCH]
        found = {
            "attention_distance": attention_distance(among_patches, layout.grid, (height, width)),
            "attention_entropy": attention_entropy(from_patches),
            "patch_entropy": attention_entropy(among_patches),
        }
        if has_cls:
            found["cls_to_patch"] = attention_mass(reader, kinds == PATCH)
        for name, kind in (("register_mass", OTHER_PREFIX), ("prompt_mass", PROMPT)):
            if (kinds == kind).any():
                found[name] = attention_mass(reader, kinds == kind)
        yield found


def _kinds(layout: TokenLayout, has_cls: bool) -> Array:
    """Kind of every token inside a block, (N,)."""
    kinds = np.full(layout.total, OTHER_PREFIX)
    kinds[layout.prompt_slice], kinds[layout.patch_slice] = PROMPT, PATCH
    if has_cls:
        kinds[0] = CLS
    return kinds


def _without_prompts(tokens: Tensor, inside: TokenLayout) -> Tensor:
    """A block's output (B, N, D) as the next block's prefix and patches; travelling prompts are still among them."""
    return tokens if tokens.shape[1] == inside.total - inside.prompts else inside.drop_prompts(tokens)


def _block_names(model: TunedModel) -> list[str]:
    return [f"blocks.{index}" for index in range(model.num_blocks)]


def _inner(block: nn.Module) -> Any:
    """The timm block, out of one that carries prompts."""
    return getattr(block, "block", block)


def _effective(block: nn.Module, name: str) -> Array:
    """A tensor of a block as it acts: what an adapted linear layer does to unit vectors is its weight."""
    owner, _, last = name.rpartition(".")
    module = block.get_submodule(owner)
    value = getattr(module, last).detach()
    if last == "weight" and isinstance(module, nn.Linear) and type(module) is not nn.Linear:
        with torch.no_grad():
            units = torch.eye(module.in_features, dtype=value.dtype, device=value.device)
            value = (module(units) - module(torch.zeros_like(units[:1]))).T
    return np.asarray(value.double().cpu().numpy())

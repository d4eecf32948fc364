"""Attention inside timm's blocks: what is recorded of it, and what of it need not be computed.

This is the only file that reaches into timm's attention. Two facts about a prompted or CLS-headed model make its
forward cheaper without changing a number:

- What a deep prompt becomes in a block is thrown away before the next, so a prompt needs no query, no projection and
  no MLP: its key and value are all the block ever reads of it.
- A head that reads the CLS token reads one row of the last block, so only that row needs a query and an MLP there.

Recording intercepts `scaled_dot_product_attention` on this thread only (a TorchFunctionMode): queries and keys are
seen as they reach the product, after any normalisation or rotation, and no module is touched.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def is_plain(block: nn.Module) -> bool:
    """True when `run_block` computes exactly what the block does: timm's pre-norm block and attention, unhooked inside.

    A hook inside the attention belongs to somebody who wants to see every token pass there.
    """
    attention: Any = getattr(block, "attn", None)
    return (
        type(block) is Block
        and type(attention) is Attention
        and type(attention.qkv) is nn.Linear
        and "forward" not in vars(attention)
        and not any(is_hooked(part) for part in (block, *attention.modules()))
    )


def is_hooked(module: nn.Module) -> bool:
    """True when somebody watches the module itself."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks)  # fmt: skip


def run_block(
    block: Any,
    tokens: Tensor,
    *,
    extra: tuple[Tensor, Tensor] | None = None,
    at: int = 0,
    rows: int | None = None,
) -> Tensor:
    """A plain block with further keys and values, computing only the rows that are read.

    Args:
        block: one for which `is_plain` holds, or held before it got a forward of ours.
        tokens: (B, N, D), prompts not among them.
        extra: keys and values of the prompts, from `prompt_keys`.
        at: where among the keys they go, so that recorded attention has its columns in layout order.
        rows: outputs wanted, the first of them; None for all.

    Returns:
        (B, N or rows, D).
    """
    attention = block.attn
    normed = block.norm1(tokens)
    query, key, value = _project(attention, normed, rows, apart=extra is not None)
    if extra is not None:
        key, value = _insert(key, extra[0], at), _insert(value, extra[1], at)
    drop = attention.attn_drop.p if attention.training else 0.0
    mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=drop)
    mixed = attention.norm(mixed.transpose(1, 2).flatten(2))
    if getattr(attention, "gate", None) is not None:  # timm has it since 1.0.27
        mixed = mixed * attention.gate(normed[:, :rows]).sigmoid()
    mixed = attention.proj_drop(attention.proj(mixed))
    tokens = tokens[:, :rows] + block.drop_path1(block.ls1(mixed))
    tokens = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
    return tokens


def prompt_keys(block: Any, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (…, heads, P, d) that a plain block reads of prompts (…, P, D)."""
    # `.forward`: a hook on the norm belongs to the tokens, and must not see the prompts as a second call
    return _keys_and_values(block.attn, block.norm1.forward(prompts))


def _project(
    attention: Any, normed: Tensor, rows: int | None, *, apart: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, heads, rows, d), keys and values (B, heads, N, d).

    When keys and values are copied afterwards, queries are better computed `apart`: as a part of one tensor they would
    keep the originals alive until the backward pass.
    """
    if rows is None and not apart:
        query, key, value = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
        key, value = attention.k_norm(key.transpose(1, 2)), value.transpose(1, 2)
    else:
        weight, bias = attention.qkv.weight, attention.qkv.bias
        width = attention.qkv.out_features // 3
        read = normed if rows is None else normed[:, :rows]
        query = F.linear(read, weight[:width], None if bias is None else bias[:width])
        query = query.unflatten(-1, (attention.num_heads, -1))
        key, value = _keys_and_values(attention, normed)
    return attention.q_norm(query.transpose(1, 2)), key, value


def _keys_and_values(attention: Any, normed: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (…, heads, N, d) of tokens (…, N, D)."""
    weight, bias = attention.qkv.weight, attention.qkv.bias
    width = attention.qkv.out_features // 3
    both = F.linear(normed, weight[width:], None if bias is None else bias[width:])
    key, value = both.unflatten(-1, (2, attention.num_heads, -1)).unbind(-3)
    return attention.k_norm(key.transpose(-3, -2)), value.transpose(-3, -2)


def _insert(tokens: Tensor, prompts: Tensor, at: int) -> Tensor:
    """Keys or values (B, heads, N, d) with those of the prompts put in at a position."""
    prompts = prompts.expand(len(tokens), -1, -1, -1)
    # the backward of two slices would fill a whole tensor with zeros for each of them
    before, behind = tokens.split((at, tokens.shape[2] - at), dim=2)
    return torch.cat((before, prompts, behind), dim=2)


def read_rows(block: Any, tokens: Tensor, **options: Any) -> Tensor:
    """The forward a replica's last block gets: `block.rows` outputs only, or all when it is None."""
    if block.rows is None or options:
        found: Tensor = type(block).forward(block, tokens, **options)
        return found
    return run_block(block, tokens, rows=block.rows)


@dataclass
class Recording:
    """What attention showed in one forward, in the order it ran.

    Args:
        gradients: also keep what `attention_gradients` needs.
        probabilities: (B, heads, queries, keys) of each call, without a graph.
        outputs: (B, heads, queries, d) of each call, with a graph that starts at the first of them.
        values: (B, heads, keys, d) of each call.
    """

    gradients: bool = False
    probabilities: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


class AttentionRecorder(TorchFunctionMode):
    """Records every scaled dot-product attention on this thread.

    On a CPU the probabilities also make the output, so the product is not computed twice; on an accelerator the fused
    kernel keeps making the output and the probabilities are computed beside it, without a graph.

    Args:
        recording: what it fills.
        explicit: make the output from the probabilities everywhere, for who needs more than a first derivative.
    """

    def __init__(self, recording: Recording, *, explicit: bool = False) -> None:
        super().__init__()
        self.recording = recording
        self.explicit = explicit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        explicit = (self.explicit or args[0].device.type == "cpu") and not kwargs.get("dropout_p")
        with torch.set_grad_enabled(explicit and torch.is_grad_enabled()):
            probabilities = _probabilities(*args[:2], **{k: v for k, v in kwargs.items() if k != "dropout_p"})
        output = probabilities @ args[2] if explicit else func(*args, **kwargs)
        self.recording.probabilities.append(_at_least_float32(probabilities.detach()))
        if self.recording.gradients:
            output = output if output.requires_grad else output.detach().requires_grad_(True)
            self.recording.outputs.append(output)
            self.recording.values.append(_at_least_float32(args[2].detach()))
        return output


def attention_gradients(recording: Recording, score: Tensor) -> list[Tensor]:
    """Gradients of a score with respect to the probabilities of each call, (B, heads, queries, keys).

    The output of attention is A·V, so dA = dO·Vᵀ: the probabilities themselves need not be in the graph.

    Args:
        recording: made with `gradients`.
        score: summed over the images.
    """
    given = torch.autograd.grad(score, recording.outputs, retain_graph=True)
    parts = zip(map(_at_least_float32, given), recording.values, strict=True)
    return [gradient @ value.transpose(-2, -1) for gradient, value in parts]


def _at_least_float32(values: Tensor) -> Tensor:
    """What is multiplied block after block must not be in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _probabilities(
    query: Tensor, key: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(q kᵀ · scale + mask), as scaled_dot_product_attention defines it."""
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1)

"""AttnLRP: the target's logit, handed back through the network layer by layer until the patches hold it.

Layer-wise relevance propagation with the epsilon rule (epsilon 0) is gradient · input in a network whose backward pass
is changed in three places, so one forward and one backward do it. Here these places are small modules put into a
private replica; what they compute forwards is what was there before:

- LayerNorm: the standard deviation is a constant, taking off the mean is not.
- Activation functions: y = x · (y / x) with the bracket a constant.
- Products inside attention: each factor takes half (the uniform rule), so a quarter of the gradient reaches queries
  and keys, half of it values. The softmax between the two products is linearised: its plain gradient.

Linear layers, LayerScale and residual sums keep their plain gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from timm.layers import Attention, AttentionPoolLatent, GELUTanh, Mlp, QuickGELU
from timm.layers.activations import GELU
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from explain.errors import CaptureError, InputError
from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace, TunedModel

ACTIVATIONS = (nn.GELU, GELU, GELUTanh, QuickGELU, nn.ReLU, nn.SiLU, nn.Identity)
"""Elementwise functions with f(0) = 0, which the identity rule takes apart without a remainder."""

FACTORS = {"taylor": (0.5, 0.5), "constant": (0.0, 1.0)}
"""Per treatment of the softmax: what queries and keys keep of the gradient, what the attention's output keeps."""

EMBEDDING, TOKENS = "patch_embed", "patch_drop"
"""Layers whose outputs are the embedded patches, and all tokens with their positions before the first block."""


class _IdentityRule(torch.autograd.Function):
    """y = f(x) forwards; backwards the gradient times y / x.

    Source: Achtibat et al. 2024, arXiv 2402.05602, in gradient · input form.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, inner: Any) -> Tensor:
        output: Tensor = inner(values)
        # f(0) = 0: nothing is handed back there
        ctx.save_for_backward(torch.where(values == 0, 0, output / torch.where(values == 0, 1, values)))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None


class _LayerNormRule(torch.autograd.Function):
    """LayerNorm forwards; backwards that of (x - mean) · weight / std with a constant std.

    Source: Achtibat et al. 2024, arXiv 2402.05602, in gradient · input form.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, inner: Any) -> Tensor:
        output: Tensor = inner(values)
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        scale = (exact.var(-1, correction=0, keepdim=True) + inner.eps).rsqrt()
        ctx.save_for_backward(scale if inner.weight is None else scale * inner.weight)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        scaled = gradients[0] * scale
        return (scaled - scaled.mean(-1, keepdim=True)).to(gradients[0].dtype), None


class _Share(torch.autograd.Function):
    """The same values; backwards a part of the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, part: float) -> Tensor:
        ctx.part = part
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.part, None


class _Ruled(nn.Module):
    """A module that runs as it did, with another backward pass."""

    def __init__(self, inner: nn.Module, rule: Any) -> None:
        super().__init__()
        self.inner = inner
        self.rule = rule

    def forward(self, values: Tensor) -> Tensor:
        output: Tensor = self.rule.apply(values, self.inner)
        return output


class _Keeps(nn.Module):
    """Hands a part of the gradient back."""

    def __init__(self, part: float) -> None:
        super().__init__()
        self.part = part

    def forward(self, values: Tensor) -> Tensor:
        if self.part == 0:
            return values.detach()  # and nothing is computed for it
        output: Tensor = _Share.apply(values, self.part)
        return output


def apply_rules(model: TunedModel, softmax: str) -> None:
    """Put the rules into a replica, which is private.

    Args:
        model: the replica.
        softmax: a key of `FACTORS`.

    Raises:
        CaptureError: a part of it has no rule here.
    """
    vit = model.vit
    for index, block in enumerate(vit.blocks):
        inner = getattr(block, "block", block)  # the block inside one that handles prompts
        _rule_block(inner, f"block {index}", *FACTORS[softmax])
    for name in ("norm_pre", "norm", "fc_norm"):
        setattr(vit, name, _normalisation(getattr(vit, name), name))
    pool: Any = vit.attn_pool
    if pool is None:
        return
    if type(pool) is not AttentionPoolLatent:
        raise _no_rule("the attention pool", pool)
    _rule_queries_and_keys(pool, "the attention pool", FACTORS[softmax][0])
    pool.proj = nn.Sequential(_Keeps(FACTORS[softmax][1]), pool.proj)
    pool.norm = _normalisation(pool.norm, "the attention pool")
    if pool.mlp is not None:
        _rule_mlp(pool.mlp, "the attention pool")


def _rule_block(block: Any, where: str, pair: float, output: float) -> None:
    if type(block) is not Block:
        raise _no_rule(where, block)
    attention = block.attn
    gated = getattr(attention, "gate", None) is not None
    if type(attention) is not Attention or "forward" in vars(attention) or gated:
        raise _no_rule(where, attention)
    block.norm1, block.norm2 = _normalisation(block.norm1, where), _normalisation(block.norm2, where)
    _rule_queries_and_keys(attention, where, pair)
    # half of what reaches the output, so that values keep half; queries and keys lose another half of that
    attention.norm = nn.Sequential(_Keeps(output), _normalisation(attention.norm, where))
    _rule_mlp(block.mlp, where)


def _rule_queries_and_keys(attention: Any, where: str, part: float) -> None:
    attention.q_norm = nn.Sequential(_normalisation(attention.q_norm, where), _Keeps(part))
    attention.k_norm = nn.Sequential(_normalisation(attention.k_norm, where), _Keeps(part))


def _rule_mlp(mlp: Any, where: str) -> None:
    if type(mlp) is not Mlp:
        raise _no_rule(where, mlp)
    if type(mlp.act) not in ACTIVATIONS:
        raise _no_rule(where, mlp.act)
    mlp.act = _Ruled(mlp.act, _IdentityRule)
    mlp.norm = _normalisation(mlp.norm, where)


def _normalisation(norm: nn.Module, where: str) -> nn.Module:
    if isinstance(norm, nn.LayerNorm):
        return _Ruled(norm, _LayerNormRule)
    if isinstance(norm, nn.Identity):
        return norm
    raise _no_rule(where, norm)


def _no_rule(where: str, part: Any) -> CaptureError:
    return CaptureError(
        f"attn_lrp has no rule for the {type(part).__name__} in {where}: it knows timm's plain pre-norm blocks with "
        "LayerNorm, ungated attention and a two-layer MLP; use a method without rules, such as integrated_gradients"
    )


@METHODS.register("attn_lrp")
@dataclass(frozen=True)
class AttnLRP(Method):
    """Relevance of each patch's embedding on the patch grid, signed.

    Relevance is read where patches enter: embedding · gradient, summed over the embedding. What else enters has its
    own part in `extras`, each (B,): `position_relevance` (the patches' position embeddings), `cls_relevance` and
    `register_relevance` (these tokens with their positions), with prompts `prompt_relevance` and
    `prompt_relevance_per_prompt` (B, E, P), one entry for each of the E blocks at which prompts enter (1 for
    VPT-Shallow), and for VPT-Deep `prompt_relevance_per_block` (B, E). `absorbed_relevance` is the logit less all of
    these: what biases took (as in the epsilon rule), and with the linearised softmax what its constant term and an
    attention pool's query took. With softmax "constant" it is exactly zero in a network without biases.

    Source: Achtibat et al. 2024, arXiv 2402.05602 (AttnLRP; the gamma rule, which they tune per layer on ViTs, is left
    out); Ali et al. 2022, arXiv 2202.07304 (attention as a constant).

    Args:
        softmax: "taylor" linearises the softmax (AttnLRP); "constant" takes attention weights as given and hands all
            relevance to the values (CP-LRP).
    """

    softmax: str = "taylor"

    label: ClassVar[str] = "AttnLRP"
    source: ClassVar[str] = "Achtibat et al. 2024, arXiv 2402.05602"
    cost: ClassVar[str] = "1 G"
    convolutional: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.softmax not in FACTORS:
            raise InputError(f"expected softmax in {tuple(FACTORS)}, got {self.softmax!r}")

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`."""
        return self.each(trace, [targets])[0]

    def each(self, trace: Trace, targets: Sequence[Tensor]) -> list[Maps]:
        """See `Method`; the forward is shared.

        Raises:
            CaptureError: a network without attention, or with parts that have no rule.
        """
        if not trace.model.num_blocks:
            raise CaptureError(f"attn_lrp has rules for attention and a {type(trace.model.network).__name__} has none; "
                               "use a method that needs none, such as grad_cam or integrated_gradients")  # fmt: skip
        twin = trace.model.replica()  # the rules are about to be put in
        apply_rules(twin, self.softmax)
        chunks: list[list[dict[str, Tensor]]] = []

        def work(rows: slice) -> None:
            with trace.passes.measuring(self.name, len(trace.images[rows])):
                found = _relevance(twin, trace.images[rows], [one[rows] for one in targets])
            chunks.append(found)

        trace.passes.run(work, len(trace.images), trace.images.device, self.name)
        joined = [{name: torch.cat([chunk[index][name] for chunk in chunks]) for name in chunks[0][index]}
                  for index in range(len(targets))]  # fmt: skip
        return [Maps(parts.pop("values"), parts) for parts in joined]


def _relevance(twin: TunedModel, images: Tensor, targets: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Per target the map `values` (B, h, w) and everything else that took relevance."""
    prompts = [value.repeat(len(images), 1, 1).requires_grad_(True) for value in twin.prompts()]
    twin.give_prompts(prompts)
    with torch.enable_grad(), twin.capture(attention=False, layers=(EMBEDDING, TOKENS)) as trace:
        twin(images)
        scores = [trace.score(target) for target in targets]
    entering = [trace.activations[TOKENS], *prompts]
    found = []
    for index, score in enumerate(scores):
        gradients = torch.autograd.grad(score, entering, torch.ones_like(score), retain_graph=index < len(scores) - 1)
        shares = [_share(value, gradient) for value, gradient in zip(prompts, gradients[1:], strict=True)]
        found.append(_parts(trace, gradients[0], shares, score.detach()))
    return found


def _share(values: Tensor, gradient: Tensor) -> Tensor:
    """Gradient · values summed over the embedding, never in half precision."""
    kind = torch.promote_types(values.dtype, torch.float32)
    return (values.detach().to(kind) * gradient.to(kind)).sum(-1)


def _parts(trace: Trace, gradient: Tensor, prompts: Sequence[Tensor], scores: Tensor) -> dict[str, Tensor]:
    """The relevance of everything that enters.

    Args:
        trace: with `EMBEDDING` and `TOKENS`.
        gradient: at `TOKENS`, (B, prefix + patches, D).
        prompts: relevance of the prompts per block that inserts some, each (B, P).
        scores: the target's logits (B,).
    """
    layout = trace.layout
    embedded = trace.activations[EMBEDDING].flatten(1, -2)  # a model for any image size keeps the grid
    patches = _share(embedded, layout.patch_tokens(gradient))
    row = _share(trace.activations[TOKENS], gradient)
    parts = {"position_relevance": (layout.patch_tokens(row) - patches).sum(1)}
    parts["cls_relevance"], parts["register_relevance"] = trace.prefix_sums(row)
    if prompts:
        each = torch.stack(list(prompts), dim=1)
        parts["prompt_relevance"] = each.sum((1, 2))
    absorbed = scores.to(row.dtype) - patches.sum(1) - torch.stack(list(parts.values())).sum(0)
    parts["absorbed_relevance"] = absorbed
    if prompts:
        parts["prompt_relevance_per_prompt"] = each
        if layout.fresh_prompts:
            parts["prompt_relevance_per_block"] = each.sum(2)
    return {"values": layout.to_grid(patches)} | parts

"""TunedModel: a timm vision transformer with its token layout, and what one forward of it shows.

This is the only file that reaches into timm's attention. Three ideas carry it:

- Attention is recorded by intercepting `scaled_dot_product_attention` on this thread only (a TorchFunctionMode), so
  queries and keys are seen as they reach the product, fused attention stays on and no module is touched.
- Everything that must hook, freeze or differentiate works on a *replica*: a second tree of the same modules that
  shares every weight but is frozen, in evaluation mode and private to the call. The model itself is left as found
  because it is never changed, also when a call fails and when several threads explain one model.
- A deep prompt's output is thrown away before the next block, so the layout, not the caller, says what is a prompt.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from explain.backbone import BackboneCard, InputTransform, transform_of
from explain.errors import CaptureError, InputError, IntegrityError
from explain.tokens import TokenLayout


@dataclass
class Trace:
    """What one recorded forward showed.

    Args:
        model: the model that ran.
        images: its input (B, 3, H, W).
        logits: its output (B, K).
        attention: per block the softmax probabilities (B, heads, N, N), rows are queries.
        pool_attention: of an attention-pooling head, (B, heads, queries, tokens), else None.
        activations: recorded layer outputs by name; they require a gradient and the graph to `logits` starts there.
    """

    model: "TunedModel"
    images: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    attention: list[Tensor] = field(default_factory=list)
    pool_attention: Tensor | None = None
    activations: dict[str, Tensor] = field(default_factory=dict)

    @property
    def layout(self) -> TokenLayout:
        """The layout for the size of these images."""
        return self.model.layout_for(self.images)


class TunedModel(nn.Module):
    """A vision transformer classifier: (B, 3, H, W) in model space -> logits (B, K).

    Args:
        vit: a timm VisionTransformer, tuned or as it stands.
        layout: its tokens.
        transform: from pictures to its input.
        class_names: one name per logit; None numbers them.
        tuning: name and options of the tuning it went through.
        card: provenance of the backbone, when it is known.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        layout: TokenLayout,
        transform: InputTransform,
        *,
        class_names: Sequence[str] | None = None,
        tuning: tuple[str, Mapping[str, Any]] = ("none", {}),
        card: BackboneCard | None = None,
    ) -> None:
        super().__init__()
        self.vit = vit
        self.layout = layout
        self.transform = transform
        outputs = vit.num_classes or vit.num_features
        self.class_names = tuple(class_names) if class_names is not None else tuple(map(str, range(outputs)))
        if len(self.class_names) != outputs:
            raise InputError(f"the model has {outputs} outputs, got {len(self.class_names)} class names")
        self.tuning, self.tuning_options = tuning[0], dict(tuning[1])
        self.card = card

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W) in model space."""
        logits: Tensor = self.vit(images)
        return logits

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights."""
        return next(self.parameters()).dtype

    def layout_for(self, images: Tensor) -> TokenLayout:
        """The token layout for images (B, 3, H, W) of this size."""
        grid = self.vit.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
        return self.layout.with_grid((int(grid[0]), int(grid[1])))

    def check_images(self, images: Tensor, first: int = 0) -> None:
        """Raise InputError unless images are finite, floating, (B, 3, H, W) and of a size the model takes.

        Args:
            images: what is checked.
            first: index of the first of them among the caller's images, for the message.
        """
        size = self.transform.size
        if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] != 3:
            raise InputError(f"expected images (B, 3, {size[0]}, {size[1]}), got shape {tuple(images.shape)}")
        if not images.is_floating_point():
            raise InputError(f"expected images in model space (floating point), got {images.dtype}; "
                             "pass uint8 pictures as a list of arrays (H, W, 3) instead")  # fmt: skip
        if not self.vit.dynamic_img_size and tuple(images.shape[-2:]) != size:
            raise InputError(
                f"expected images of {size[0]}x{size[1]} pixels, got {images.shape[-2]}x{images.shape[-1]}"
            )
        patch = self.vit.patch_embed.patch_size
        if images.shape[-2] % patch[0] or images.shape[-1] % patch[1]:  # timm may pad: the grid would overhang
            raise InputError(f"expected sides that are multiples of the {patch[0]}x{patch[1]} patch, got "
                             f"{images.shape[-2]}x{images.shape[-1]} pixels")  # fmt: skip
        finite = torch.isfinite(images).flatten(1).all(1)
        if not finite.all():
            rows = ((~finite).nonzero().flatten() + first).tolist()
            raise InputError(f"images {rows} hold NaN or infinite values")

    def default_layer(self) -> str:
        """Name of the last tensor that feeds an attention on the score's path: where GradCAM has a gradient.

        With a CLS head everything after the last attention is token-wise, so patch tokens there have exactly zero
        gradient; with a head that reads the patches, the final norm is the last tensor.
        """
        if self.vit.global_pool != "token" and not isinstance(self.vit.norm, nn.Identity):
            return "norm"
        last = len(self.vit.blocks) - 1
        if self.vit.global_pool != "token":
            return f"blocks.{last}"
        inner = getattr(self.vit.blocks[last], "block", self.vit.blocks[last])
        # other block kinds (post-norm, parallel) do not feed their attention from `norm1`
        if isinstance(inner, Block):
            return f"blocks.{last}.norm1"
        return f"blocks.{last - 1}" if last else "norm_pre"

    def readout(self, layout: TokenLayout) -> Tensor:
        """How much each token of the last block's output counts in the head, (prefix + patches,), summing to 1.

        Raises:
            CaptureError: the head does not read tokens linearly.
        """
        weights = torch.zeros(layout.prefix + layout.patches, dtype=self.dtype, device=self.device)
        pool = self.vit.global_pool
        if pool == "token" and hasattr(self.vit, "head_dist"):
            weights[:2] = 0.5  # a distilled model averages its CLS and distillation heads
        elif pool == "token":
            weights[0] = 1.0
        elif pool == "avg":
            read = weights if self.vit.pool_include_prefix else weights[layout.prefix :]
            read.fill_(1 / len(read))
        else:
            raise CaptureError(f"attention rollout needs a head that reads the CLS token, the mean of the patches or "
                               f"an attention pool; this model pools by {pool!r}")  # fmt: skip
        return weights

    def trained_state(self) -> dict[str, Tensor]:
        """The parameters that train, by name: what a run stores."""
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Put stored parameters back.

        Raises:
            IntegrityError: names or shapes are not exactly those that train.
        """
        own = {name: value for name, value in self.named_parameters() if value.requires_grad}
        wrong = sorted(own.keys() ^ tensors.keys())
        wrong = wrong or [name for name, value in own.items() if value.shape != tensors[name].shape]
        if wrong:
            raise IntegrityError(f"the stored weights do not fit this model: {len(wrong)} tensors differ in name or "
                                 f"shape, first {wrong[0]!r}")  # fmt: skip
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[name])

    def replica(self) -> "TunedModel":
        """A private twin that shares every weight: frozen, in evaluation mode, attention through SDPA."""
        twin: TunedModel = _twin(self, {})
        return twin

    @contextmanager
    def capture(self, *, attention: bool = True, layers: Sequence[str] = ()) -> Iterator[Trace]:
        """Record the next forward on this thread: `with model.capture() as trace: model(images)`.

        Args:
            attention: record every attention's probabilities.
            layers: names of modules of the timm model whose outputs are recorded and made to carry a gradient.

        Raises:
            CaptureError: a layer does not exist, or attention did not pass through the intercepted function.
        """
        trace = Trace(self)
        with ExitStack() as stack:
            for name in layers:
                stack.enter_context(_leaf_at(self.vit, name, trace))
            stack.enter_context(_hook(self, _forward_recorder(trace)))
            if attention:
                stack.enter_context(_AttentionRecorder(trace))
            yield trace
        silent = [name for name in layers if name not in trace.activations]
        if silent:
            raise CaptureError(f"layer {silent[0]!r} took no part in the forward; choose another one")
        if attention and len(trace.attention) != len(self.vit.blocks):
            raise CaptureError(
                f"recorded attention in {len(trace.attention)} of {len(self.vit.blocks)} blocks; expected exactly one "
                "forward, with fused attention on (TIMM_FUSED_ATTN) and the model not compiled"
            )


def wrap(vit: VisionTransformer, class_names: Sequence[str] | None = None) -> TunedModel:
    """A timm VisionTransformer as it stands, ready for attribution. The model is shared, not copied.

    Args:
        vit: any timm VisionTransformer (DeiT, DINOv2, registers, average-pooling heads included).
        class_names: one name per output.

    Raises:
        InputError: not a timm VisionTransformer, one that already carries prompts, or the wrong number of names.
    """
    if not isinstance(vit, VisionTransformer):
        raise InputError(f"expected a timm VisionTransformer, got {type(vit).__name__}; "
                         "build one with timm.create_model or explain.backbone.load_backbone")  # fmt: skip
    if any(hasattr(block, "prompts") for block in vit.blocks):
        raise InputError("this vision transformer already carries prompts; use the TunedModel it belongs to")
    grid = vit.patch_embed.grid_size
    return TunedModel(vit, TokenLayout(tuple(grid), vit.num_prefix_tokens), transform_of(vit), class_names=class_names)


def _twin(module: Any, memo: dict[int, Any]) -> Any:
    """A module of the same class whose dictionaries are its own and whose tensors are the original's, frozen."""
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
    for name, value in module._parameters.items():
        if value is not None:
            shared = value.detach().clone() if value.is_inference() else value.detach()
            twin._parameters[name] = nn.Parameter(shared, requires_grad=False)
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _twin(child, memo)
    twin.training = False
    twin._compiled_call_impl = None  # it would run the original
    if "fused_attn" in twin.__dict__:
        twin.fused_attn = True  # so that the recorder sees it; the twin is private
    if "grad_checkpointing" in twin.__dict__:
        twin.grad_checkpointing = False  # recomputing would record everything twice
    return twin


@contextmanager
def _hook(module: nn.Module, function: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """A forward hook that answers to the thread that set it and is gone afterwards."""
    owner = threading.get_ident()

    def only_here(module: nn.Module, inputs: Any, output: Any) -> Any:
        return function(module, inputs, output) if threading.get_ident() == owner else None

    handle = module.register_forward_hook(only_here)
    try:
        yield
    finally:
        handle.remove()


def _forward_recorder(trace: Trace) -> Callable[[nn.Module, Any, Any], None]:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        trace.images, trace.logits = inputs[0], output

    return record


@contextmanager
def _leaf_at(vit: nn.Module, name: str, trace: Trace) -> Iterator[None]:
    """Record a layer's output and start the autograd graph there: the backward is then a stub of the last blocks."""
    try:
        module = vit.get_submodule(name)
    except AttributeError:
        known = [found for found, _ in vit.named_modules() if found.count(".") <= 2 and found]
        raise CaptureError(f"the model has no layer {name!r}; layers: {', '.join(known[-12:])}, …") from None

    def record(module: nn.Module, inputs: Any, output: Any) -> Any:
        leaf = output if output.requires_grad else output.detach().requires_grad_(True)
        trace.activations[name] = leaf
        return leaf

    with _hook(module, record):
        yield


class _AttentionRecorder(TorchFunctionMode):
    """Records the probabilities of every scaled dot-product attention on this thread.

    On a CPU the probabilities also make the output, so the product is not computed twice; on an accelerator the fused
    kernel keeps making the output and the probabilities are computed beside it, without a graph.
    """

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        explicit = args[0].device.type == "cpu" and not kwargs.get("dropout_p")
        with torch.set_grad_enabled(explicit and torch.is_grad_enabled()):
            probabilities = _probabilities(*args[:2], **{k: v for k, v in kwargs.items() if k != "dropout_p"})
        self._record(probabilities.detach())
        return probabilities @ args[2] if explicit else func(*args, **kwargs)

    def _record(self, probabilities: Tensor) -> None:
        if probabilities.shape[-2] == probabilities.shape[-1]:
            self.trace.attention.append(probabilities)
        else:
            self.trace.pool_attention = probabilities  # the pooling head's few queries over all tokens


def _probabilities(
    query: Tensor, key: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(q kᵀ · scale + mask), as scaled_dot_product_attention defines it."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1)

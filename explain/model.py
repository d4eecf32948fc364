"""TunedModel: a timm vision transformer with its token layout, and what one forward of it shows.

Two ideas carry it:

- Everything that must hook, freeze or differentiate works on a *replica*: a second tree of the same modules that
  shares every weight but is frozen, in evaluation mode and private to the call. The model itself is left as found
  because it is never changed, also when a call fails and when several threads explain one model. A replica is lean:
  it computes no token that the head does not read.
- A deep prompt's output is thrown away before the next block, so the layout, not the caller, says what is a prompt.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from explain.attention import AttentionRecorder, Recording, is_hooked, is_plain, read_rows
from explain.backbone import BackboneCard, InputTransform
from explain.errors import CaptureError, InputError, IntegrityError
from explain.passes import Passes
from explain.replica import replicate
from explain.tokens import TokenLayout
from explain.trace import Trace as Trace
from explain.trace import hook, record_forward, record_layer


class TunedModel(nn.Module):
    """A vision transformer classifier: (B, 3, H, W) in model space -> logits (B, K).

    Args:
        vit: a timm VisionTransformer, tuned or as it stands.
        layout: its tokens.
        transform: from pictures to its input.
        class_names: one name per logit; None numbers them.
        tuning: name and options of the tuning it went through.
        card: provenance of the backbone, when it is known.
        stores_all: the frozen parameters are not the backbone's published ones, so a run stores them too.
    """

    stores_all = False

    def __init__(
        self,
        vit: VisionTransformer,
        layout: TokenLayout,
        transform: InputTransform,
        *,
        class_names: Sequence[str] | None = None,
        tuning: tuple[str, Mapping[str, Any]] = ("none", {}),
        card: BackboneCard | None = None,
        stores_all: bool = False,
    ) -> None:
        super().__init__()
        self.vit = vit
        self.layout = layout
        self.stores_all = stores_all
        self._describe(vit.num_classes or vit.num_features, transform, class_names, tuning, card)

    def _describe(
        self,
        outputs: int,
        transform: InputTransform,
        class_names: Sequence[str] | None,
        tuning: tuple[str, Mapping[str, Any]],
        card: BackboneCard | None,
    ) -> None:
        self.transform = transform
        self.class_names = tuple(class_names) if class_names is not None else tuple(map(str, range(outputs)))
        if len(self.class_names) != outputs:
            raise InputError(f"the model has {outputs} outputs, got {len(self.class_names)} class names")
        self.tuning, self.tuning_options = tuning[0], dict(tuning[1])
        self.card = card
        self.autocast: torch.dtype | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W) in model space; float32 when a replica runs in mixed precision."""
        with torch.autocast(images.device.type, self.autocast, enabled=self.autocast is not None):
            logits: Tensor = self.network(images)
        return logits if self.autocast is None else logits.float()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights."""
        return next(self.parameters()).dtype

    @property
    def network(self) -> nn.Module:
        """The timm model."""
        network: nn.Module = self.vit
        return network

    @property
    def num_blocks(self) -> int:
        """Transformer blocks L; 0 for a network without attention."""
        return len(self.vit.blocks)

    def grid_for(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns (h, w) of the patch grid for images of this size."""
        return self.layout_for(images).grid

    def feature_map(self, values: Tensor, images: Tensor, layer: str) -> Tensor:
        """Token values (B, N, D) at a layer on the patch grid, (B, D, h, w).

        Raises:
            TokenLayoutError: not a sequence of this model.
            CaptureError: not a sequence at all.
        """
        if values.ndim != 3:
            raise CaptureError(f"expected a layer whose output is (B, tokens, D); "
                               f"{layer!r} gives {tuple(values.shape)}")  # fmt: skip
        return self.layout_for(images).to_grid(values).permute(0, 3, 1, 2)

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
        check_pixels(images, size, first)
        if not self.vit.dynamic_img_size and tuple(images.shape[-2:]) != size:
            raise InputError(
                f"expected images of {size[0]}x{size[1]} pixels, got {images.shape[-2]}x{images.shape[-1]}"
            )
        patch = self.vit.patch_embed.patch_size
        if images.shape[-2] % patch[0] or images.shape[-1] % patch[1]:  # timm may pad: the grid would overhang
            raise InputError(f"expected sides that are multiples of the {patch[0]}x{patch[1]} patch, got "
                             f"{images.shape[-2]}x{images.shape[-1]} pixels")  # fmt: skip

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
        dtype = torch.promote_types(self.dtype, torch.float32)
        weights = torch.zeros(layout.prefix + layout.patches, dtype=dtype, device=self.device)
        pool = self.vit.global_pool
        if pool == "token" and hasattr(self.vit, "head_dist"):
            weights[:2] = 0.5  # a distilled model averages its CLS and distillation heads
        elif pool == "token":
            weights[0] = 1.0
        elif pool == "avg":
            read = weights if self.vit.pool_include_prefix else weights[layout.prefix :]
            read.fill_(1 / len(read))
        else:
            raise CaptureError(f"this method needs a head that reads the CLS token, the mean of the patches or "
                               f"an attention pool; this model pools by {pool!r}")  # fmt: skip
        return weights

    def trained_state(self) -> dict[str, Tensor]:
        """What a run stores, by name: the parameters that train, or all of them when the model `stores_all`."""
        return {name: value.detach() for name, value in self._stored()}

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Put stored parameters back.

        Raises:
            IntegrityError: names or shapes are not exactly those of `trained_state`.
        """
        own = dict(self._stored())
        wrong = sorted(own.keys() ^ tensors.keys())
        wrong = wrong or [name for name, value in own.items() if value.shape != tensors[name].shape]
        if wrong:
            raise IntegrityError(f"the stored weights do not fit this model: {len(wrong)} tensors differ in name or "
                                 f"shape, first {wrong[0]!r}")  # fmt: skip
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[name])

    def _stored(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, value) for name, value in self.named_parameters() if value.requires_grad or self.stores_all)

    def replica(self) -> "TunedModel":
        """A private twin that shares every weight: frozen, in evaluation mode, attention through SDPA, and lean."""
        twin: TunedModel = replicate(self, frozen=True)
        twin._make_lean()
        for block in twin.prompted_blocks():
            block.keeps_keys = True
        return twin

    def training_view(self) -> "TunedModel":
        """A lean twin with the very parameters of this model: training it trains this model, with fewer products."""
        twin: TunedModel = replicate(self, frozen=False)
        twin._make_lean()
        return twin

    def _make_lean(self) -> None:
        """Compute only those rows of the last block that the head reads; where that is not certain, change nothing."""
        own = vars(self.vit).keys() & {"forward", "forward_features", "forward_head", "pool"}
        watched = any(is_hooked(part) for part in (self.vit.blocks, self.vit.norm))
        if type(self.vit) not in ROWS_READ or self.vit.global_pool != "token" or own or watched:
            return
        last = self.vit.blocks[-1]
        if is_plain(last) and "forward" not in vars(last):
            last.forward = MethodType(read_rows, last)
        elif not hasattr(last, "prompts") or is_hooked(last):
            return
        last.rows = ROWS_READ[type(self.vit)]

    def prompted_blocks(self) -> list[Any]:
        """The blocks that insert prompts, in order."""
        return [block for block in getattr(self.network, "blocks", ()) if getattr(block, "prompts", None) is not None]

    def prompts(self) -> list[Tensor]:
        """Prompts (P, D) of each block that inserts some: all prompted blocks of VPT-Deep, the first of VPT-Shallow."""
        return [block.prompts.detach() for block in self.prompted_blocks()]

    def give_prompts(self, prompts: Sequence[Tensor | None]) -> None:
        """Use other prompts from now on; for a replica, which is private.

        Args:
            prompts: one entry per block that inserts prompts: (P', D) or (B, P', D); None for the trained ones. A
                prompt that is left out is one whose keys are masked: nothing attends to it.
        """
        for block, given in zip(self.prompted_blocks(), prompts, strict=True):
            block.given = given
        if not self.layout.fresh_prompts and prompts:  # the last block drops as many as the first put in
            count = self.layout.prompts if prompts[0] is None else prompts[0].shape[-2]
            last = -1 if self.layout.prompted is None else self.layout.prompted[-1]
            self.vit.blocks[last].layout = self.layout.with_prompts(count, fresh=False)

    @property
    def embeds(self) -> bool:
        """True when the patch embedding is affine in the pixels, and nobody watches or replaces what leads there."""
        part = self.vit.patch_embed
        plain = type(part) is PatchEmbed and isinstance(part.norm, nn.Identity) and "forward" not in vars(part)
        return plain and not is_hooked(part) and not is_hooked(self.vit) and type(self).forward is TunedModel.forward

    def embed(self, images: Tensor) -> Tensor:
        """The patch embedding of images, when it `embeds`."""
        embedded: Tensor = self.vit.patch_embed(images)
        return embedded

    def tail(self) -> "TunedModel":
        """A twin of a replica that takes what `embed` gives instead of images."""
        twin: TunedModel = replicate(self, frozen=True)
        part = twin.vit.patch_embed
        part.forward = MethodType(lambda patch_embed, embedded: embedded, part)
        return twin

    def split(self, at: int | None) -> tuple["TunedModel", "TunedModel"]:
        """Two twins with the very parameters of this model: the second, fed with what the first gives, is this model.

        Args:
            at: index of the block the second begins with, L for the final norm; None: with the head alone, on the
                features it reads.
        """
        first, second = replicate(self, frozen=False), replicate(self, frozen=False)
        last = self.num_blocks if at is None else at
        pooled = at is None and not hasattr(self.vit, "head_dist")  # a distilled model pools in its heads
        _skip(first.vit, "head_drop", "head", "head_dist")
        _skip(second.vit, "patch_embed", "pos_drop", "patch_drop", "norm_pre")
        _skip((second if at is None else first).vit, "norm")
        _skip((second if pooled else first).vit, "fc_norm")
        for index in range(self.num_blocks):
            _skip((second if index < last else first).vit.blocks, str(index))
        for name in ("cls_token", "reg_token", "dist_token", "pos_embed"):
            setattr(second.vit, name, None)
        second.vit._pos_embed = MethodType(_pass, second.vit)
        first.vit.forward_head = MethodType(_features if pooled else _pass, first.vit)
        if pooled:
            second.vit.pool = MethodType(_pass, second.vit)
        (second if pooled else first).vit.attn_pool = None
        return first, second

    def layers_past_attention(self, layers: Sequence[str]) -> bool:
        """True when one of the layers lies behind the keys and values of the last attention."""
        last = f"blocks.{self.num_blocks - 1}"
        early = ("patch_embed", "pos_drop", "patch_drop", "norm_pre", f"{last}.norm1")
        return any(
            not (name.startswith(early) or (name.startswith("blocks.") and not name.startswith(last)))
            for name in layers
        )

    @contextmanager
    def capture(
        self,
        *,
        attention: bool = True,
        attention_gradients: bool = False,
        layers: Sequence[str] = (),
        passes: Passes | None = None,
    ) -> Iterator[Trace]:
        """Record the next forward on this thread: `with model.capture() as trace: model(images)`.

        Args:
            attention: record every attention's probabilities.
            attention_gradients: also make `Trace.attention_gradients` possible.
            layers: names of modules of the timm model whose outputs are recorded and made to carry a gradient.
            passes: how methods run further passes; None for the defaults.

        Raises:
            CaptureError: a layer does not exist, or attention did not pass through the intercepted function.
        """
        trace = Trace(self, passes or Passes(), recording=Recording(attention_gradients))
        attention = attention or attention_gradients
        if attention and not self.num_blocks:
            raise CaptureError(f"a {type(self.network).__name__} has no attention to look at; "
                               "use a method that needs none, such as grad_cam or integrated_gradients")  # fmt: skip
        with ExitStack() as stack:
            if self.layers_past_attention(layers):
                stack.enter_context(self._all_rows())
            for name in layers:
                stack.enter_context(record_layer(self.network, name, trace))
            stack.enter_context(hook(self, record_forward(trace)))
            if attention:
                stack.enter_context(AttentionRecorder(trace.recording))
            yield trace
        silent = [name for name in layers if name not in trace.activations]
        if silent:
            raise CaptureError(f"layer {silent[0]!r} took no part in the forward; choose another one")
        if attention:
            self._take_attention(trace)

    @contextmanager
    def _all_rows(self) -> Iterator[None]:
        last = self.vit.blocks[-1]
        rows = getattr(last, "rows", None)
        if rows is None:  # a live model is never lean, and never changed
            yield
            return
        last.rows = None
        try:
            yield
        finally:
            last.rows = rows

    def _take_attention(self, trace: Trace) -> None:
        found = trace.recording.probabilities
        pools = int(getattr(self.vit, "attn_pool", None) is not None)  # the head's own attention comes last
        if len(found) != self.num_blocks + pools:
            raise CaptureError(
                f"recorded attention in {len(found) - pools} of {self.num_blocks} blocks; expected exactly one "
                "forward, with fused attention on (TIMM_FUSED_ATTN) and the model not compiled"
            )
        trace.attention = found[: self.num_blocks]
        trace.pool_attention = found[-1] if pools else None


def _skip(module: nn.Module, *names: str) -> None:
    """Let parts of a private twin pass on what they get."""
    for name in names:
        if hasattr(module, name):
            setattr(module, name, nn.Identity())


def _pass(vit: VisionTransformer, values: Tensor) -> Tensor:
    return values


def _features(vit: VisionTransformer, tokens: Tensor) -> Tensor:
    features: Tensor = vit.fc_norm(vit.pool(tokens))
    return features


def check_pixels(images: Tensor, size: tuple[int, int], first: int) -> None:
    """Raise InputError unless images are finite, floating and (B, 3, H, W)."""
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] != 3:
        raise InputError(f"expected images (B, 3, {size[0]}, {size[1]}), got shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"expected images in model space (floating point), got {images.dtype}; "
                         "pass uint8 pictures as a list of arrays (H, W, 3) instead")  # fmt: skip
    finite = torch.isfinite(images).flatten(1).all(1)
    if not finite.all():
        rows = ((~finite).nonzero().flatten() + first).tolist()
        raise InputError(f"images {rows} hold NaN or infinite values")


ROWS_READ: dict[type[VisionTransformer], int] = {VisionTransformer: 1, VisionTransformerDistilled: 2}
"""How many of the first tokens a head that pools by token reads; other classes may read what they like."""

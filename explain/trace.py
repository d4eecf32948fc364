"""Trace: what one forward showed, and the hooks that record it on this thread only."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from explain.attention import Recording, attention_gradients
from explain.errors import CaptureError
from explain.passes import Passes
from explain.tokens import TokenLayout

if TYPE_CHECKING:
    from explain.model import TunedModel


@dataclass
class Trace:
    """What one recorded forward showed.

    Args:
        model: the model that ran.
        passes: how a method runs further passes.
        images: its input (B, 3, H, W).
        logits: its output (B, K).
        attention: per block the softmax probabilities (B, heads, queries, N), with N as many tokens as the layout has
            `at` that block; the queries are the tokens the block computed, see `TokenLayout.queries`.
        pool_attention: of an attention-pooling head, (B, heads, queries, tokens), else None.
        activations: recorded layer outputs by name; they require a gradient and the graph to `logits` starts there.
    """

    model: "TunedModel"
    passes: Passes = field(default_factory=Passes)
    images: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    attention: list[Tensor] = field(default_factory=list)
    pool_attention: Tensor | None = None
    activations: dict[str, Tensor] = field(default_factory=dict)
    recording: Recording = field(default_factory=Recording, repr=False)

    @property
    def layout(self) -> TokenLayout:
        """The layout for the size of these images."""
        return self.model.layout_for(self.images)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns (h, w) of the maps that are not in pixels."""
        return self.model.grid_for(self.images)

    def readout(self) -> Tensor:
        """How much each token of the last block's output counts in the head, (B, prefix + patches), rows sum to 1.

        Raises:
            CaptureError: the head does not read tokens linearly.
        """
        layout, pooled = self.layout, self.pool_attention
        if pooled is None:
            return self.model.readout(layout).expand(len(self.images), -1)
        weights = pooled.mean((1, 2))
        skipped = layout.prefix + layout.patches - weights.shape[1]  # a pool that leaves the prefix out
        return torch.cat((weights.new_zeros(len(weights), skipped), weights), dim=1)

    def prefix_sums(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Of values (B, N) per token the sums over the CLS token and over the rest of the prefix, each (B,)."""
        cls_tokens = int(self.model.vit.has_class_token)  # a prefix may hold registers alone
        return row[:, :cls_tokens].sum(1), row[:, cls_tokens : self.layout.prefix].sum(1)

    def score(self, targets: Tensor) -> Tensor:
        """The targets' logits (B,), with the graph of the recorded forward."""
        return self.logits.gather(1, targets[:, None])[:, 0]

    def gradient(self, layer: str, targets: Tensor) -> Tensor:
        """Gradient of the targets' logits at a recorded layer, of the shape of `activations[layer]`."""
        (gradient,) = torch.autograd.grad(self.score(targets).sum(), self.activations[layer], retain_graph=True)
        return gradient

    def attention_gradients(self, targets: Tensor) -> list[Tensor]:
        """Per block the gradient of the targets' logits at `attention`; needs a method that asks for it."""
        return attention_gradients(self.recording, self.score(targets).sum())[: len(self.attention)]

    def features(self, layer: str, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A recorded layer's output and the gradient of the targets' logits there, each (B, D, h, w).

        Raises:
            CaptureError: the layer's output is no grid, or the gradient of an image is zero all over it.
        """
        features = self.model.feature_map(self.activations[layer].detach(), self.images, layer)
        gradient = self.model.feature_map(self.gradient(layer, targets), self.images, layer)
        zero = gradient.flatten(1).abs().amax(1) == 0
        if zero.any():
            raise CaptureError(
                f"the gradient at layer {layer!r} is exactly zero at every patch of image(s) "
                f"{zero.nonzero().flatten().tolist()}: what is there no longer reaches the logit. "
                f"Use a layer that feeds an attention, such as {self.model.default_layer()!r}."
            )
        return features, gradient


@contextmanager
def hook(module: nn.Module, function: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """A forward hook that answers to the thread that set it and is gone afterwards."""
    owner = threading.get_ident()

    def only_here(module: nn.Module, inputs: Any, output: Any) -> Any:
        return function(module, inputs, output) if threading.get_ident() == owner else None

    handle = module.register_forward_hook(only_here)
    try:
        yield
    finally:
        handle.remove()


def record_forward(trace: Trace) -> Callable[[nn.Module, Any, Any], None]:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        trace.images, trace.logits = inputs[0], output

    return record


@contextmanager
def record_layer(vit: nn.Module, name: str, trace: Trace) -> Iterator[None]:
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

    with hook(module, record):
        yield

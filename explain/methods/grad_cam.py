"""GradCAM: which patches' features push the target's logit up, at one layer.

The map is the features of each patch weighted by one weight per channel; the weight is the gradient averaged over
patches. On a transformer two things decide whether it means anything: only patch tokens may enter the average (the CLS
gradient would drown them), and the layer must feed an attention, because behind the last one a patch's gradient is
exactly zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from explain.errors import CaptureError
from explain.methods.base import METHODS, Maps
from explain.model import Trace, TunedModel
from explain.tokens import TokenLayout


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Signed GradCAM: Σ_d mean_patches(gradient)_d · features_d.

    Args:
        features: (B, patches, D).
        gradient: of the target's logit with respect to the features, same shape.

    Returns:
        (B, patches).
    """
    weights = gradient.mean(dim=1, keepdim=True)
    return (weights * features).sum(-1)


@METHODS.register("grad_cam")
@dataclass(frozen=True)
class GradCAM:
    """GradCAM on the patch grid: the signed weighted sum, ReLU left to the picture.

    Source: Selvaraju et al. 2017, arXiv 1610.02391, eq. 1-2, without the ReLU.

    Args:
        layer: name of a module of the timm model; None picks the input of the last attention (CLS head) or the final
            norm (heads that read the patches).
    """

    layer: str | None = None

    label: ClassVar[str] = "GradCAM"
    source: ClassVar[str] = "Selvaraju et al. 2017, arXiv 1610.02391"
    signed: ClassVar[bool] = True
    class_specific: ClassVar[bool] = True
    picture: ClassVar[Literal["positive", "signed"]] = "positive"
    attention: ClassVar[bool] = False

    def layers(self, model: TunedModel) -> Sequence[str]:
        """The one layer it looks at."""
        return (self.layer or model.default_layer(),)

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`.

        Raises:
            CaptureError: the layer's output is no token sequence, or its gradient at the patches is exactly zero.
        """
        (layer,) = self.layers(trace.model)
        features = trace.activations[layer]
        if features.ndim != 3:
            raise CaptureError(f"GradCAM needs a layer whose output is (B, tokens, D); {layer!r} gives "
                               f"{tuple(features.shape)}")  # fmt: skip
        score = trace.logits.gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
        _check_gradient(trace.layout, gradient, layer, trace.model.default_layer())
        values = grad_cam(trace.layout.patch_tokens(features.detach()), trace.layout.patch_tokens(gradient))
        return Maps(trace.layout.to_grid(values), notes={"layer": layer})


def _check_gradient(layout: TokenLayout, gradient: Tensor, layer: str, default: str) -> None:
    zero = layout.patch_tokens(gradient).flatten(1).abs().amax(1) == 0
    if zero.any():
        raise CaptureError(
            f"GradCAM: the gradient at layer {layer!r} is exactly zero at every patch of image(s) "
            f"{zero.nonzero().flatten().tolist()}: patch tokens there no longer reach the logit. "
            f"Use a layer that feeds an attention, such as {default!r}."
        )

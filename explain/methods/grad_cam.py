"""GradCAM: which patches' features push the target's logit up, at one layer.

The map is the features of each patch weighted by one weight per channel; the weight is the gradient averaged over
patches. On a transformer two things decide whether it means anything: only patch tokens may enter the average (the CLS
gradient would drown them), and the layer must feed an attention, because behind the last one a patch's gradient is
exactly zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from explain.methods.base import METHODS, Maps, Method
from explain.model import Trace, TunedModel


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Signed GradCAM: Σ_d mean_hw(gradient)_d · features_d.

    Args:
        features: (B, D, h, w).
        gradient: of the target's logit with respect to the features, same shape.

    Returns:
        (B, h, w).
    """
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1)


@METHODS.register("grad_cam")
@dataclass(frozen=True)
class GradCAM(Method):
    """GradCAM on the patch grid: the signed weighted sum, ReLU left to the picture.

    Source: Selvaraju et al. 2017, arXiv 1610.02391, eq. 1-2, without the ReLU.

    Args:
        layer: name of a module of the timm model; None picks the input of the last attention (CLS head), the final
            norm (heads that read the patches) or the last stage (a convolutional network).
    """

    layer: str | None = None

    label: ClassVar[str] = "GradCAM"
    source: ClassVar[str] = "Selvaraju et al. 2017, arXiv 1610.02391"
    cost: ClassVar[str] = "one backward pass through what follows the layer: about 0.1 F"
    picture: ClassVar[Literal["positive", "signed"]] = "positive"

    def layers(self, model: TunedModel) -> Sequence[str]:
        """The one layer it looks at."""
        return (self.layer or model.default_layer(),)

    def __call__(self, trace: Trace, targets: Tensor) -> Maps:
        """See `Method`.

        Raises:
            CaptureError: the layer's output is no grid, or its gradient there is exactly zero.
        """
        (layer,) = self.layers(trace.model)
        return Maps(grad_cam(*trace.features(layer, targets)), notes={"layer": layer})

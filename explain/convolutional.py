"""ConvolutionalModel: a timm convolutional network behind the interface of a vision transformer, as a baseline."""

import math
from collections.abc import Sequence
from typing import Any

from timm.layers import PatchEmbed
from torch import Tensor, nn

from explain.backbone import InputTransform
from explain.errors import CaptureError, InputError
from explain.model import TunedModel, check_pixels
from explain.tokens import TokenLayout


class ConvolutionalModel(TunedModel):
    """A timm convolutional network, to compare a vision transformer with: the same interface without tokens.

    Args:
        cnn: the timm model.
        transform: from pictures to its input.
        class_names: one name per logit; None numbers them.
    """

    def __init__(self, cnn: Any, transform: InputTransform, *, class_names: Sequence[str] | None = None) -> None:
        nn.Module.__init__(self)
        self.cnn = cnn
        self._describe(cnn.num_classes or cnn.num_features, transform, class_names, ("none", {}), None)

    @property
    def network(self) -> nn.Module:
        """The timm model."""
        network: nn.Module = self.cnn
        return network

    num_blocks = 0
    embeds = False

    @property
    def _last_stage(self) -> dict[str, Any]:
        """Name (`module`), channels (`num_chs`) and stride (`reduction`) of the last feature map."""
        stage: dict[str, Any] = self.cnn.feature_info[-1]
        return stage

    def layout_for(self, images: Tensor) -> TokenLayout:
        """A convolutional network has no tokens: raises CaptureError."""
        raise CaptureError(f"a {type(self.cnn).__name__} is convolutional and has no tokens; "
                           "use a method that needs none, such as grad_cam or integrated_gradients")  # fmt: skip

    def grid_for(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns (h, w) of the last feature map for images of this size."""
        stride = int(self._last_stage["reduction"])
        return math.ceil(images.shape[-2] / stride), math.ceil(images.shape[-1] / stride)

    def feature_map(self, values: Tensor, images: Tensor, layer: str) -> Tensor:
        """A feature map (B, D, h, w) as it is.

        Raises:
            CaptureError: not a feature map.
        """
        if values.ndim != 4:
            raise CaptureError(f"expected a layer whose output is (B, channels, h, w); "
                               f"{layer!r} gives {tuple(values.shape)}")  # fmt: skip
        return values

    def check_images(self, images: Tensor, first: int = 0) -> None:
        """Raise InputError unless images are finite, floating, (B, 3, H, W) and no smaller than the last stride."""
        check_pixels(images, self.transform.size, first)
        stride = int(self._last_stage["reduction"])
        if min(images.shape[-2:]) < stride:
            raise InputError(f"expected images of at least {stride}x{stride} pixels, got "
                             f"{images.shape[-2]}x{images.shape[-1]}")  # fmt: skip

    def default_layer(self) -> str:
        """The last feature map before pooling."""
        return str(self._last_stage["module"])

    def readout(self, layout: TokenLayout) -> Tensor:
        """See `layout_for`."""
        raise CaptureError("a convolutional network has no tokens to read")

    def layers_past_attention(self, layers: Sequence[str]) -> bool:
        """There is no attention."""
        return False

    def _make_lean(self) -> None:
        pass  # a pooled feature map is read whole


def is_convolutional(network: Any) -> bool:
    """A timm model of feature maps (B, D, h, w) without attention; windowed transformers also have `feature_info`."""
    stages = getattr(network, "feature_info", None)
    if not (isinstance(network, nn.Module) and stages and hasattr(network, "forward_head")):
        return False
    parts = dict(network.named_modules())
    names = {part for name in parts for part in name.split(".")}
    tokens = any(isinstance(part, PatchEmbed) for part in parts.values())
    return not tokens and not names & {"attn", "attention", "token_mixer"}

"""wrap: a timm model as it stands, ready for attribution."""

from collections.abc import Sequence

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from explain.backbone import transform_of
from explain.convolutional import ConvolutionalModel, is_convolutional
from explain.errors import InputError
from explain.model import TunedModel
from explain.tokens import TokenLayout


def wrap(network: nn.Module, class_names: Sequence[str] | None = None) -> TunedModel:
    """A timm model as it stands, ready for attribution. It is shared, not copied.

    Args:
        network: any timm VisionTransformer (DeiT, DINOv2, registers, average-pooling heads included), or a timm
            convolutional network (ResNet, ConvNeXt, …) as a baseline: methods that need attention refuse it.
        class_names: one name per output.

    Raises:
        InputError: neither, a ViT that already carries prompts, or the wrong number of names.
    """
    if is_convolutional(network):
        return ConvolutionalModel(network, transform_of(network), class_names=class_names)
    if not isinstance(network, VisionTransformer):
        raise InputError(f"expected a timm VisionTransformer or convolutional network, got {type(network).__name__}; "
                         "build one with timm.create_model or explain.backbone.load_backbone")  # fmt: skip
    if any(hasattr(block, "prompts") for block in network.blocks):
        raise InputError("this vision transformer already carries prompts; use the TunedModel it belongs to")
    layout = TokenLayout(tuple(network.patch_embed.grid_size), network.num_prefix_tokens)
    return TunedModel(network, layout, transform_of(network), class_names=class_names)

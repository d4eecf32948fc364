"""TunedModel: what capture shows, and that it leaves nothing behind."""

import threading
from types import MethodType
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from tiny_vits import BASE, GRID, SIZE, tiny_images, tiny_vit
from torch import nn

from explain.engine import attribute
from explain.errors import CaptureError, InputError
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

PROMPTED = pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(hooks) for module in model.modules() for key, hooks in vars(module).items() if "hook" in key and hooks
    )


def test_wrapping_shares_the_model_and_changes_no_logit() -> None:
    vit = tiny_vit()
    model = wrap(vit, class_names=list("abcde"))
    assert model.vit is vit and torch.equal(model(tiny_images()), vit(tiny_images()))
    assert model.layout.grid == GRID and model.class_names == tuple("abcde")
    assert wrap(tiny_vit(num_classes=0)).class_names == tuple(map(str, range(BASE["embed_dim"])))


def test_wrapping_refuses_other_models_and_wrong_names() -> None:
    with pytest.raises(InputError, match="expected a timm VisionTransformer or convolutional network, got Linear"):
        wrap(nn.Linear(2, 2))
    with pytest.raises(InputError, match="the model has 5 outputs, got 2 class names"):
        wrap(tiny_vit(), ["cat", "dog"])
    with pytest.raises(InputError, match="already carries prompts"):
        wrap(tune(tiny_vit(), "prompt").vit)


def test_capture_on_the_live_model_leaves_nothing() -> None:
    model = wrap(tiny_vit())
    attention, before = nn.functional.scaled_dot_product_attention, hooks_of(model)
    with model.capture(layers=["blocks.1"]) as trace:
        logits = model(tiny_images())
    assert hooks_of(model) == before and nn.functional.scaled_dot_product_attention is attention
    assert torch.equal(trace.logits, logits) and trace.images.shape == (3, 3, *SIZE) and len(trace.attention) == 3
    with torch.no_grad():
        assert torch.allclose(model(tiny_images()), logits, atol=1e-12)
    assert len(trace.attention) == 3, "a forward after capture must not be recorded"


def test_capture_leaves_nothing_when_the_forward_fails() -> None:
    model = wrap(tiny_vit())
    before = hooks_of(model)
    with pytest.raises(AssertionError, match="doesn't match model"), model.capture(layers=["blocks.1"]):
        model(tiny_images(1, (8, 8)))
    assert hooks_of(model) == before


def test_capture_without_exactly_one_forward_is_an_error() -> None:
    model = wrap(tiny_vit())
    for forwards in (0, 2):
        with pytest.raises(CaptureError, match=f"recorded attention in {forwards * 3} of 3 blocks"):
            with model.capture():
                for _ in range(forwards):
                    model(tiny_images())
    with (
        pytest.raises(CaptureError, match="layer 'norm' took no part"),
        model.capture(attention=False, layers=["norm"]),
    ):
        pass
    with pytest.raises(CaptureError, match="no layer 'block.1'"), model.capture(layers=["block.1"]):
        pass


@PROMPTED
def test_layers_keep_their_timm_names_under_prompts(deep: bool) -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=4, deep=deep).eval()
    names = ["blocks.0.norm1", "blocks.1.attn.qkv", "blocks.2.mlp.fc1", "blocks.2.norm1", "blocks.2"]
    with model.capture(layers=names) as trace:
        model(tiny_images())
    tokens = {name: trace.activations[name].shape[1] for name in names}
    assert tokens.pop("blocks.2") == 1 + 12, "prompts never reach the head"
    assert tokens.pop("blocks.1.attn.qkv") == 1 + 4 + 12, "whoever looks into an attention sees every token"
    assert set(tokens.values()) == ({1 + 12} if deep else {1 + 4 + 12})


def test_the_graph_starts_at_the_recorded_layer() -> None:
    replica = wrap(tiny_vit()).replica()
    with replica.capture(attention=False, layers=["blocks.1.norm1"]) as trace:
        logits = replica(tiny_images())
    leaf = trace.activations["blocks.1.norm1"]
    assert leaf.is_leaf and torch.autograd.grad(logits[:, 0].sum(), leaf)[0].abs().sum() > 0


def test_a_capture_does_not_see_another_threads_forward() -> None:
    model = wrap(tiny_vit())
    mine, other = tiny_images(2, seed=1), tiny_images(4, seed=2)
    with model.capture(layers=["blocks.1"]) as trace, torch.no_grad():
        model(mine)
        thread = threading.Thread(target=lambda: model(other))
        thread.start()
        thread.join()
    assert torch.equal(trace.images, mine) and len(trace.attention) == 3
    assert trace.activations["blocks.1"].shape[0] == 2


def test_a_replica_is_frozen_in_evaluation_mode_and_shares_every_weight() -> None:
    model = tune(tiny_vit(drop_rate=0.5), "prompt", num_tokens=2).train()
    twin = model.replica()
    assert not any(module.training for module in twin.modules()) and model.training
    assert not any(value.requires_grad for value in twin.parameters())
    own = dict(model.named_parameters())
    assert all(own[name].data_ptr() == value.data_ptr() for name, value in twin.named_parameters())
    assert {id(module) for module in twin.modules()}.isdisjoint({id(module) for module in model.modules()})
    assert torch.allclose(twin(tiny_images()), model.eval()(tiny_images()), rtol=1e-10)
    with torch.no_grad():
        model.vit.head.bias.add_(1)
    assert torch.allclose(twin(tiny_images()), model(tiny_images()), rtol=1e-10), "later training shows in the twin"


def test_a_replaced_forward_runs_on_the_replica_not_on_the_live_model() -> None:
    """Libraries replace `forward` on the instance, for example for mixed precision."""
    model = wrap(tiny_vit(drop_rate=0.5))
    expected = attribute(model, tiny_images())
    original = type(model).forward
    model.forward = MethodType(lambda self, images: original(self, images), model)
    model.vit.compile(backend="eager")
    model.train()
    for name, found in attribute(model, tiny_images()).items():
        assert (found.values == expected[name].values).all()
    model.vit.blocks[1].forward = lambda tokens: tokens
    with pytest.raises(CaptureError, match="forward of a Block was replaced by a plain function"):
        attribute(model, tiny_images())


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("block", [ResPostBlock, ParallelScalingBlock])
def test_other_blocks_are_explained_at_the_input_of_their_last_attention(block: type[nn.Module], depth: int) -> None:
    model = wrap(tiny_vit(block_fn=block, depth=depth))
    assert model.default_layer() == ("norm_pre" if depth == 1 else "blocks.1")
    assert all((found.values.std() > 0) for found in attribute(model, tiny_images()).values())


def test_attention_that_passes_elsewhere_is_an_error_not_an_empty_map() -> None:
    model = wrap(tiny_vit())

    class Silent(nn.Module):
        def forward(self, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
            return tokens.mean(1, keepdim=True).expand_as(tokens)

    model.vit.blocks[1].attn = Silent()
    with pytest.raises(CaptureError, match="recorded attention in 2 of 3 blocks"):
        attribute(model, tiny_images(), methods="attention_rollout")


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (tiny_images()[0], r"expected images \(B, 3, 24, 32\), got shape \(3, 24, 32\)"),
        (tiny_images()[:, :1], r"got shape \(3, 1, 24, 32\)"),
        (tiny_images()[:0], r"got shape \(0, 3, 24, 32\)"),
        ((tiny_images() * 9).to(torch.uint8), "floating point.*got torch.uint8.*list of arrays"),
        (tiny_images(1, (32, 24)), "expected images of 24x32 pixels, got 32x24"),
        (tiny_images() / torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1), r"images \[1\] hold NaN or infinite"),
    ],
)
def test_images_are_checked_at_the_edge(images: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        wrap(tiny_vit()).check_images(images)


def test_a_size_whose_grid_would_overhang_the_picture_is_refused() -> None:
    """timm can pad the picture; the map would then be stretched over the padding too."""
    model = wrap(tiny_vit(dynamic_img_size=True, dynamic_img_pad=True))
    model.check_images(tiny_images(1, (40, 16)))
    with pytest.raises(InputError, match="multiples of the 8x8 patch, got 29x33"):
        model.check_images(tiny_images(1, (29, 33)))


def test_device_dtype_and_layout_are_the_models() -> None:
    model: TunedModel = wrap(tiny_vit(dtype=torch.float32, dynamic_img_size=True))
    assert model.dtype == torch.float32 and model.device.type == "cpu"
    assert model.layout_for(tiny_images(1, (40, 16))).grid == (5, 2)

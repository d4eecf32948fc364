"""Prompts as keys and values, and the rows a head reads: equal to the ordinary path in logits and gradients."""

from typing import Any

import pytest
import torch
from tiny_vits import HEADS, tiny_images, tiny_vit
from torch import Tensor, nn

from explain.attention import is_plain, run_block
from explain.model import TunedModel
from explain.prompted_block import PromptedBlock
from explain.tuning.base import tune
from explain.wrapping import wrap

VARIED = [{}, {"qk_norm": True, "init_values": 0.5}, {"qkv_bias": False}, {"scale_attn_norm": True}]


def ordinary(model: TunedModel, images: Tensor) -> Tensor:
    """VPT-Deep by concatenation, written out over timm's own blocks."""
    vit = model.vit
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    prefix = model.layout.prefix
    for block in vit.blocks:
        prompts = block.prompts.expand(len(tokens), -1, -1)
        count = prompts.shape[1]
        whole = block.block(torch.cat((tokens[:, :prefix], prompts, tokens[:, prefix:]), dim=1))
        tokens = torch.cat((whole[:, :prefix], whole[:, prefix + count :]), dim=1)
    return vit.forward_head(vit.norm(tokens))


def trained(model: nn.Module) -> list[Tensor]:
    return [value for value in model.parameters() if value.requires_grad]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("count", [1, 10, 50, 100])
def test_deep_prompts_as_keys_equal_the_ordinary_path_in_fp32(head: str, count: int) -> None:
    model = tune(tiny_vit(head, dtype=torch.float32), "prompt", num_tokens=count, class_names="abc").train()
    for value in trained(model):  # away from the small first values
        nn.init.normal_(value, std=0.5, generator=torch.Generator().manual_seed(count))
    images = tiny_images().float().requires_grad_(True)
    expected, labels = ordinary(model, images), torch.tensor([0, 1, 2])
    theirs = torch.autograd.grad(nn.functional.cross_entropy(expected, labels), [*trained(model), images])
    for view in (model, model.training_view(), model.replica()):
        logits = view(images)
        assert torch.allclose(logits, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    for view in (model, model.training_view()):
        ours = torch.autograd.grad(nn.functional.cross_entropy(view(images), labels), [*trained(model), images])
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.allclose(mine, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


@pytest.mark.parametrize("options", VARIED)
@pytest.mark.parametrize("head", ["cls", "distilled", "registers"])
@pytest.mark.parametrize("tuning", [("full", {}), ("prompt", {"deep": False}), ("prompt", {"deep": True})], ids=str)
def test_reading_only_the_heads_rows_changes_nothing(head: str, options: dict[str, Any], tuning: Any) -> None:
    model = tune(tiny_vit(head, **options), tuning[0], **tuning[1]).eval()
    images = tiny_images()
    assert torch.allclose(model.replica()(images), model(images), rtol=1e-10, atol=1e-12)
    rows = model.replica().vit.blocks[-1].rows
    assert rows == (2 if head == "distilled" else 1)


def test_the_training_view_trains_the_model_itself() -> None:
    model, plain = (tune(tiny_vit(), "full", class_names="ab", seed=1).train() for _ in range(2))
    images, labels = tiny_images(), torch.tensor([0, 1, 1])
    for view, whole in ((model.training_view(), model), (plain, plain)):
        optimiser = torch.optim.SGD(whole.parameters(), lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            nn.functional.cross_entropy(view(images), labels).backward()
            optimiser.step()
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-12)
    assert not hasattr(model.vit.blocks[-1], "rows")


@pytest.mark.parametrize("head", ["mean of patches", "attention pool"])
def test_a_head_that_reads_the_patches_gets_them_all(head: str) -> None:
    replica = wrap(tiny_vit(head)).replica()
    assert getattr(replica.vit.blocks[-1], "rows", None) is None


def test_another_vit_class_may_read_what_it_likes() -> None:
    class Curious(type(tiny_vit())):  # type: ignore[misc]
        def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
            return self.head(tokens.mean(1))

    vit = tiny_vit()
    vit.__class__ = Curious
    model = wrap(vit)
    assert torch.allclose(model.replica()(tiny_images()), model(tiny_images()))


def test_a_hook_inside_the_attention_sees_every_token() -> None:
    model, seen = tune(tiny_vit(), "prompt", num_tokens=4).eval(), []
    assert is_plain(model.vit.blocks[1].block)
    model.vit.blocks[1].attn.proj.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    assert not is_plain(model.vit.blocks[1].block)
    model(tiny_images())
    model.replica()(tiny_images())
    assert seen == [1 + 4 + 12] * 2


def test_prompt_dropout_takes_the_ordinary_path() -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=4, prompt_dropout=0.5)
    images = tiny_images()
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


def test_prompt_keys_go_where_the_layout_has_them() -> None:
    model = tune(tiny_vit("registers"), "prompt", num_tokens=4).eval()
    with model.capture() as trace, torch.no_grad():
        model(tiny_images())
    hooked = tune(tiny_vit("registers"), "prompt", num_tokens=4).eval()
    for block in hooked.vit.blocks:
        block.attn.register_forward_hook(lambda module, inputs, output: None)
    with hooked.capture() as whole, torch.no_grad():
        hooked(tiny_images())
    for ours, theirs in zip(trace.attention, whole.attention, strict=True):
        rows = torch.cat((theirs[:, :, :3], theirs[:, :, 7:]), dim=2)
        assert torch.allclose(ours, rows, atol=1e-12)


def test_given_prompts_stand_in_for_the_trained_ones() -> None:
    for deep in (True, False):
        model = tune(tiny_vit(), "prompt", num_tokens=4, deep=deep).eval()
        replica, images = model.replica(), tiny_images()
        count = len(model.prompts())
        assert count == (3 if deep else 1)
        replica.give_prompts([value.expand(3, -1, -1) for value in model.prompts()])
        assert torch.allclose(replica(images), model(images), rtol=1e-10)
        replica.give_prompts([None] * count)
        assert torch.allclose(replica(images), model(images), rtol=1e-10)
        bare = wrap(tiny_vit())
        replica.give_prompts([value[:0] for value in model.prompts()])
        assert torch.allclose(replica(images), bare(images), rtol=1e-10), "no keys, no prompts"
        assert not torch.allclose(model(images), bare(images), rtol=1e-3)


def test_masking_keys_is_the_same_as_minus_infinity_in_the_scores() -> None:
    model = tune(tiny_vit(), "prompt", num_tokens=4, deep=False).eval()
    replica = model.replica()
    replica.give_prompts([model.prompts()[0][1:]])
    mask = torch.ones(17, 17, dtype=torch.bool)
    mask[:, 1] = False  # the first prompt, behind the CLS token
    mask[1, 1] = True  # a row needs something to attend to; nobody reads this one
    masked = model.vit.forward_head(model.vit.forward_features(tiny_images(), attn_mask=mask))
    assert torch.allclose(replica(tiny_images()), masked, rtol=1e-10)


def test_run_block_without_anything_special_is_the_block() -> None:
    block = tiny_vit().blocks[0]
    tokens = torch.randn(2, 7, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(run_block(block, tokens), block(tokens), rtol=1e-12, atol=1e-12)
    assert torch.allclose(run_block(block, tokens, rows=2), block(tokens)[:, :2], rtol=1e-12, atol=1e-12)
    assert isinstance(tune(tiny_vit(), "prompt").vit.blocks[0], PromptedBlock)

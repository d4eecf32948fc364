"""AttnLRP: each rule by hand, conservation, an explicit reference network, and what has no rule."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import AttentionPoolLatent, RmsNorm, SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from tiny_vits import GRID, tiny_images, tiny_vit
from torch import Tensor, nn
from torch.nn import functional as F

from explain.attribution import Attribution
from explain.engine import attribute, attribute_targets
from explain.errors import CaptureError, InputError
from explain.methods.attn_lrp import AttnLRP, apply_rules
from explain.model import TunedModel
from explain.tuning.base import tune
from explain.wrapping import wrap

TARGETS = [0, 4, 2]
CASES = [None, False, True]
NAMES = ["plain", "shallow", "deep"]


def explained(model: TunedModel, softmax: str = "taylor", **more: Any) -> Attribution:
    options = {"attn_lrp": {"softmax": softmax}}
    return attribute(model, tiny_images(), methods="attn_lrp", targets=TARGETS, options=options, **more)["attn_lrp"]


def total(found: Attribution) -> np.ndarray:
    """All relevance that was handed to something."""
    parts = ["position", "cls", "register", *(["prompt"] if "prompt_relevance" in found.extras else [])]
    return found.values.sum((1, 2)) + sum(found.extras[f"{part}_relevance"] for part in parts)


def scores(found: Attribution) -> np.ndarray:
    return found.logits[range(3), TARGETS]


def with_prompts(vit: Any, deep: bool | None) -> TunedModel:
    return (wrap(vit) if deep is None else tune(vit, "prompt", num_tokens=4, deep=deep)).eval()


def without_biases(vit: Any) -> Any:
    with torch.no_grad():
        for name, value in vit.named_parameters():
            if name.endswith("bias"):
                value.zero_()
    return vit


def ruled(vit: Any, softmax: str = "taylor") -> Any:
    """A private copy with the rules in it."""
    twin = wrap(vit).replica()
    apply_rules(twin, softmax)
    return twin.vit


def handed_back(module: nn.Module, values: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of the input when the output's is given."""
    values = values.clone().requires_grad_(True)
    output = module(values)
    (gradient,) = torch.autograd.grad(output, values, relevance / output.detach())
    return values.detach() * gradient


def test_layer_norm_takes_its_deviation_as_a_constant() -> None:
    vit = tiny_vit()
    norm, values = vit.blocks[0].norm1, torch.randn(2, 24, dtype=torch.float64)
    gradient = torch.randn(2, 24, dtype=torch.float64)
    leaf = values.clone().requires_grad_(True)
    output = ruled(vit).blocks[0].norm1(leaf)
    assert torch.equal(output, norm(values))
    (found,) = torch.autograd.grad(output, leaf, gradient)
    weighed = gradient * norm.weight.detach() / (values.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
    assert torch.allclose(found, weighed - weighed.mean(1, keepdim=True), atol=1e-12)


def test_layer_norm_without_bias_hands_everything_on() -> None:
    norm = ruled(without_biases(tiny_vit())).blocks[0].norm1
    relevance = torch.rand(5, 24, dtype=torch.float64)
    found = handed_back(norm, torch.randn(5, 24, dtype=torch.float64), relevance)
    assert torch.allclose(found.sum(1), relevance.sum(1), atol=1e-9)


@pytest.mark.parametrize("kind", ["gelu", "relu", "silu", "gelu_tanh", "quick_gelu"])
def test_an_activation_hands_on_exactly_what_it_got(kind: str) -> None:
    vit = tiny_vit(act_layer=kind)
    activation = ruled(vit).blocks[1].mlp.act
    values = torch.tensor([-2.0, -0.5, 0.25, 3.0], dtype=torch.float64)
    relevance = torch.tensor([1.0, -2.0, 0.5, 4.0], dtype=torch.float64)
    assert torch.equal(activation(values), vit.blocks[1].mlp.act(values))
    if kind == "relu":  # a unit that is off has nothing to hand on
        values, relevance = values.abs(), relevance.abs()
    assert torch.allclose(handed_back(activation, values, relevance), relevance, atol=1e-12)


def test_an_activation_at_zero_hands_nothing_on() -> None:
    activation = ruled(tiny_vit()).blocks[0].mlp.act
    leaf = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(activation(leaf).sum(), leaf)
    assert torch.equal(gradient, torch.zeros(3, dtype=torch.float64))


class Products(nn.Module):
    """Attention whose queries, keys and values are three inputs, with the parts of a ruled attention."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key = self.attention.q_norm(query), self.attention.k_norm(key)
        output: Tensor = self.attention.norm(F.scaled_dot_product_attention(query, key, value))
        return output


@pytest.mark.parametrize("softmax", ["taylor", "constant"])
def test_products_split_relevance_in_halves(softmax: str) -> None:
    """Of relevance R at A·V half goes to V. A's half passes the softmax by its gradient, then splits over Q and K."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(1, 2, 4, 8, generator=generator, dtype=torch.float64) for _ in range(3)]
    gradient = torch.randn(1, 2, 4, 8, generator=generator, dtype=torch.float64)
    leaves = [part.clone().requires_grad_(True) for part in parts]
    output = Products(ruled(tiny_vit(), softmax).blocks[0].attn)(*leaves)
    found = torch.autograd.grad(output, leaves, gradient, allow_unused=True)
    query, key, value = parts
    logits = query @ key.transpose(-2, -1) / 8**0.5
    weights = logits.softmax(-1)
    arrived = (output.detach() * gradient).sum()  # R
    at_weights = weights * (gradient @ value.transpose(-2, -1))  # A · dA, before any halving
    assert at_weights.sum().item() == pytest.approx(arrived.item(), rel=1e-10)
    taken = [(part * (0 if given is None else given)).sum().item() for part, given in zip(parts, found, strict=True)]
    if softmax == "constant":
        assert found[0] is None and found[1] is None
        assert taken[2] == pytest.approx(arrived.item(), rel=1e-10)
        return
    halved = at_weights / 2
    passed = logits * (halved - weights * halved.sum(-1, keepdim=True))  # the softmax's Taylor rule, by hand
    assert taken[2] == pytest.approx(arrived.item() / 2, rel=1e-10)
    assert taken[0] == pytest.approx(passed.sum().item() / 2, rel=1e-9)
    assert taken[1] == pytest.approx(passed.sum().item() / 2, rel=1e-9)
    # token by token as well: what a query takes is half of what reached its row of logits
    assert torch.allclose((query * found[0]).sum(-1), passed.sum(-1) / 2, atol=1e-12)
    assert torch.allclose((key * found[1]).sum(-1), passed.sum(-2) / 2, atol=1e-12)


@pytest.mark.parametrize("deep", CASES, ids=NAMES)
@pytest.mark.parametrize("head", ["cls", "registers", "distilled", "mean of patches", "attention pool"])
def test_without_biases_a_constant_softmax_conserves_the_logit(head: str, deep: bool | None) -> None:
    model = with_prompts(without_biases(tiny_vit(head, init_values=0.5)), deep)
    found = explained(model, "constant")
    assert np.abs(scores(found)).max() > 0.1
    np.testing.assert_allclose(total(found), scores(found), atol=2e-6 * np.abs(scores(found)).max())
    np.testing.assert_allclose(found.extras["absorbed_relevance"], 0, atol=1e-10)  # in float64, before rounding


@pytest.mark.parametrize("softmax", ["taylor", "constant"])
@pytest.mark.parametrize("deep", CASES, ids=NAMES)
def test_with_biases_what_is_missing_is_said(deep: bool | None, softmax: str) -> None:
    found = explained(with_prompts(tiny_vit(), deep), softmax)
    absorbed = found.extras["absorbed_relevance"]
    assert np.abs(absorbed).max() > 1e-3
    np.testing.assert_allclose(total(found) + absorbed, scores(found), rtol=1e-5, atol=1e-5)


def detached_norm(norm: Any, values: Tensor) -> Tensor:
    centred = values - values.mean(-1, keepdim=True)
    return centred / (values.var(-1, correction=0, keepdim=True) + norm.eps).sqrt().detach() * norm.weight + norm.bias


def halves(left: Tensor, right: Tensor) -> Tensor:
    """A product by the uniform rule: each factor sees half of the gradient."""
    return (left @ right.detach() + left.detach() @ right) / 2


def reference(model: TunedModel, deep: bool | None, blocks: range = range(3)) -> dict[str, np.ndarray]:
    """AttnLRP on a CLS-headed ViT written out with `detach`, all tokens of each block, prompts among them in `blocks`.

    Returns the maps, relevance of CLS, positions and prompts (B, E, P), and what the softmaxes absorbed.
    """
    vit, prompts = model.vit, [value.expand(3, -1, -1).clone().requires_grad_(True) for value in model.prompts()]
    waiting = list(prompts)
    embedded = vit.patch_embed(tiny_images()).detach().requires_grad_(True)
    position = vit.pos_embed.detach().expand(3, -1, -1).clone().requires_grad_(True)
    token = vit.cls_token.detach().expand(3, -1, -1).clone().requires_grad_(True)
    values = torch.cat((token, embedded), dim=1) + position
    before, after = [], []
    for index, block in enumerate(vit.blocks):
        if deep is not None and index in (blocks if deep else blocks[:1]):
            values = torch.cat((values[:, :1], waiting.pop(0), values[:, 1:]), dim=1)
        normed = detached_norm(block.norm1, values)
        query, key, value = block.attn.qkv(normed).reshape(3, -1, 3, 3, 8).permute(2, 0, 3, 1, 4)
        before.append(halves(query, key.transpose(-2, -1)) / 8**0.5)
        after.append(before[-1].softmax(-1))
        mixed = halves(after[-1], value).transpose(1, 2).flatten(2)
        values = values + block.attn.proj(mixed)
        hidden = block.mlp.fc1(detached_norm(block.norm2, values))
        values = values + block.mlp.fc2(hidden * (F.gelu(hidden) / hidden).detach())
        if deep is not None and index in (blocks if deep else blocks[-1:]):
            values = torch.cat((values[:, :1], values[:, 5:]), dim=1)
    scores = vit.head(detached_norm(vit.norm, values)[:, 0])[range(3), TARGETS]
    leaves = [embedded, token, position, *prompts, *before, *after]
    gradients = torch.autograd.grad(scores.sum(), leaves)
    taken = [(leaf * gradient).detach() for leaf, gradient in zip(leaves, gradients, strict=True)]
    count = len(prompts)
    logits, weights = (sum(part.sum((1, 2, 3)) for part in parts)
                       for parts in (taken[3 + count : 6 + count], taken[6 + count :]))  # fmt: skip
    found = {
        "values": taken[0].sum(-1).reshape(3, *GRID),
        "cls": (taken[1][:, 0] + taken[2][:, 0]).sum(-1),
        "position": taken[2][:, 1:].sum((1, 2)),
        "absorbed": weights - logits,
    }
    if prompts:
        found["prompts"] = torch.stack(taken[3 : 3 + count], dim=1).sum(-1)
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "bias-free"])
@pytest.mark.parametrize("deep", CASES, ids=NAMES)
def test_it_is_the_explicit_reference(deep: bool | None, biases: bool) -> None:
    vit = tiny_vit() if biases else without_biases(tiny_vit())
    model = with_prompts(vit, deep)
    found, expected = explained(model), reference(model, deep)
    close = {"rtol": 1e-4, "atol": 1e-6 * np.abs(expected["values"]).max()}
    np.testing.assert_allclose(found.values, expected["values"], **close)
    np.testing.assert_allclose(found.extras["cls_relevance"], expected["cls"], **close)
    np.testing.assert_allclose(found.extras["position_relevance"], expected["position"], **close)
    np.testing.assert_allclose(found.extras["register_relevance"], 0)
    if deep is not None:
        np.testing.assert_allclose(found.extras["prompt_relevance_per_prompt"], expected["prompts"], **close)
        np.testing.assert_allclose(found.extras["prompt_relevance"], expected["prompts"].sum((1, 2)), rtol=1e-4)
    assert ("prompt_relevance_per_block" in found.extras) == bool(deep)
    if deep:
        np.testing.assert_allclose(found.extras["prompt_relevance_per_block"], expected["prompts"].sum(2), rtol=1e-4)
    if not biases:  # then nothing but the softmax absorbs, and by this much
        np.testing.assert_allclose(found.extras["absorbed_relevance"], expected["absorbed"], **close)
        assert np.abs(expected["absorbed"]).max() > 1e-3


@pytest.mark.parametrize("blocks", [range(1, 3), range(2), range(1, 2)], ids=str)
@pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
def test_prompts_in_some_blocks_only_take_what_the_reference_gives_them(deep: bool, blocks: range) -> None:
    vit, named = without_biases(tiny_vit()), f"{blocks[0]}-{blocks[-1]}"
    model = tune(vit, "prompt", num_tokens=4, deep=deep, blocks=named).eval()
    found, expected = explained(model), reference(model, deep, blocks)
    close = {"rtol": 1e-4, "atol": 1e-6 * np.abs(expected["values"]).max()}
    assert expected["prompts"].shape == (3, len(blocks) if deep else 1, 4)
    np.testing.assert_allclose(found.values, expected["values"], **close)
    np.testing.assert_allclose(found.extras["prompt_relevance_per_prompt"], expected["prompts"], **close)
    np.testing.assert_allclose(found.extras["absorbed_relevance"], expected["absorbed"], **close)
    constant = explained(model, "constant")
    np.testing.assert_allclose(total(constant), scores(constant), atol=2e-6 * np.abs(scores(constant)).max())


def linear_vit(head: str) -> Any:
    """No norms and no activation; without queries and keys attention is uniform, whatever the image."""
    vit = tiny_vit(head, norm_layer=nn.Identity, act_layer=nn.Identity)
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.qkv.weight[:48] = 0
            block.attn.qkv.bias[:48] = 0
    return vit


def gradient_times_input(vit: Any) -> np.ndarray:
    embedded = vit.patch_embed(tiny_images()).detach().requires_grad_(True)
    logits = vit.forward_head(vit.norm(vit.blocks(vit.norm_pre(vit._pos_embed(embedded)))))
    (gradient,) = torch.autograd.grad(logits[range(3), TARGETS].sum(), embedded)
    found = (gradient * embedded).sum(-1).detach().reshape(3, *GRID).numpy()
    assert found.std() > 1e-3
    return found


@pytest.mark.parametrize("head", ["cls", "mean of patches"])
def test_in_a_linear_network_it_is_gradient_times_input(head: str) -> None:
    vit = linear_vit(head)
    np.testing.assert_allclose(explained(wrap(vit), "constant").values, gradient_times_input(vit), rtol=1e-5, atol=1e-8)


def test_without_attention_that_holds_for_the_linearised_softmax_too() -> None:
    """With attention it would hand half of an attention's relevance to weights that do not depend on the image."""
    vit = linear_vit("mean of patches")
    assert np.abs(explained(wrap(vit)).values - gradient_times_input(vit)).max() > 1e-3
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.proj.weight.zero_()
    np.testing.assert_allclose(explained(wrap(vit)).values, gradient_times_input(vit), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("options", [{"qk_norm": True}, {"init_values": 0.3}, {"scale_attn_norm": True},
                                     {"scale_mlp_norm": True}, {"pre_norm": True}, {"dynamic_img_size": True},
                                     {"pos_embed": "none"}], ids=str)  # fmt: skip
def test_timms_variants_of_a_plain_block_conserve_as_well(options: dict[str, Any]) -> None:
    found = explained(wrap(without_biases(tiny_vit(**options))), "constant")
    np.testing.assert_allclose(total(found), scores(found), atol=2e-6 * np.abs(scores(found)).max())
    np.testing.assert_allclose(found.extras["absorbed_relevance"], 0, atol=1e-10)


def test_the_forward_is_not_changed_by_a_bit() -> None:
    model = with_prompts(tiny_vit("registers"), True)
    twin = model.replica()
    apply_rules(twin, "taylor")
    with torch.no_grad():
        assert torch.equal(twin(tiny_images()), model.replica()(tiny_images()))


def test_several_targets_share_a_forward_and_chunks_do_not_show() -> None:
    model, calls = with_prompts(tiny_vit(), True), []
    handle = model.vit.norm.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    both = attribute_targets(model, tiny_images(), [TARGETS, 1], methods="attn_lrp")
    handle.remove()
    assert calls == [3, 3], "the clean forward and one more, whatever the number of targets"
    np.testing.assert_array_equal(both[0]["attn_lrp"].values, explained(model).values)
    small = explained(model, memory_budget=1)
    np.testing.assert_allclose(small.values, both[0]["attn_lrp"].values, rtol=1e-5, atol=1e-8)


NO_RULE = {
    "RmsNorm": dict(norm_layer=RmsNorm),
    "ResPostBlock": dict(block_fn=ResPostBlock),
    "ParallelScalingBlock": dict(block_fn=ParallelScalingBlock),
    "SwiGLU": dict(mlp_layer=SwiGLU),
    "Sigmoid": dict(act_layer=nn.Sigmoid),
}


@pytest.mark.parametrize("part", NO_RULE)
def test_a_part_without_a_rule_is_refused_in_one_line(part: str) -> None:
    with pytest.raises(CaptureError, match=rf"attn_lrp has no rule for the {part} in block 0.*integrated_gradients"):
        explained(wrap(tiny_vit(**NO_RULE[part])))


def test_a_gate_and_another_pool_are_refused() -> None:
    vit = tiny_vit()
    if hasattr(vit.blocks[1].attn, "gate"):
        vit.blocks[1].attn.gate = nn.Linear(24, 24).double()
        with pytest.raises(CaptureError, match="no rule for the Attention in block 1"):
            explained(wrap(vit))
    pooled = tiny_vit("attention pool")

    class OtherPool(AttentionPoolLatent):
        """It might do anything."""

    pooled.attn_pool.__class__ = OtherPool
    with pytest.raises(CaptureError, match="no rule for the OtherPool in the attention pool"):
        explained(wrap(pooled))


def test_a_network_without_attention_is_refused() -> None:
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model("resnet10t", num_classes=2).eval()
    with pytest.raises(CaptureError, match="a ResNet has none"):
        attribute(wrap(network), torch.zeros(1, 3, 64, 64), methods="attn_lrp")


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected softmax in \('taylor', 'constant'\), got 'exact'"):
        AttnLRP(softmax="exact")

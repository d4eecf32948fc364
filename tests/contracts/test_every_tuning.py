"""One contract for every tuning on every kind of head."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import BASE, HEADS, PATCH, tiny_images, tiny_vit
from torch import Tensor
from tuned_cases import ALIKE, EVERY_CASE, EVERY_VARIANT, FEW_NODES, METHODS_BY_KIND, title, tuned

from explain.engine import attribute
from explain.errors import InputError, IntegrityError, UnknownNameError
from explain.model import TunedModel
from explain.tuning.base import HEAD_STD, TUNINGS, tune

CASES = [pytest.param(case, id=title(case)) for case in EVERY_CASE]
PLAIN = [pytest.param(case, id=title(case)) for case in EVERY_VARIANT]
PROMPTED = [pytest.param(deep, id="deep" if deep else "shallow") for deep in (True, False)]


def tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def trainable(model: TunedModel) -> set[str]:
    return {name for name, value in model.named_parameters() if value.requires_grad}


def train_two_steps(model: TunedModel) -> None:
    """Two steps of gradient descent, dropout off."""
    optimiser = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(tiny_images()), torch.tensor([0, 1, 1])).backward()
        optimiser.step()


@pytest.mark.parametrize("case", CASES)
def test_exactly_the_promised_parameters_train(case: Any) -> None:
    model = tuned(*case)
    before, promised = tensors(model), trainable(model)
    train_two_steps(model)
    moved = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
    assert moved == promised and promised


@pytest.mark.parametrize("case", CASES)
def test_what_trains_is_what_the_tuning_is_about(case: Any) -> None:
    tuning, _, head = case
    model = tuned(*case)
    names = [name for name, _ in model.named_parameters()]
    heads = {name for name in names if name.startswith(("vit.head.", "vit.head_dist."))}
    prompts = {name for name in names if name.endswith(".prompts")}
    expected = {
        "linear": heads,
        "prompt": heads | prompts,
        "ft_then_pt": heads | prompts,
        "lora": heads | {name for name in names if ".updates." in name},
        "bitfit": heads | {name for name in names if name.endswith(".bias")},
        "full": set(names),
        "layer_decay": set(names),
        "mixed": set(names),
    }
    assert len(heads) == (4 if head == "distilled" else 2)
    assert expected.get(tuning, trainable(model)) == trainable(model)


@pytest.mark.parametrize("case", CASES)
def test_a_run_stores_what_trains_and_all_of_it_when_it_goes_on_from_another(case: Any) -> None:
    model = tuned(*case)
    every = {name for name, _ in model.named_parameters()}
    assert set(model.trained_state()) == (every if TUNINGS[case[0]].continues else trainable(model))


@pytest.mark.parametrize("case", CASES)
def test_training_the_lean_view_moves_weights_as_training_the_model_does(case: Any) -> None:
    model, viewed = tuned(*case), tuned(*case)
    for one, forward in ((model, model), (viewed, viewed.training_view())):
        torch.nn.functional.cross_entropy(forward(tiny_images()), torch.tensor([0, 1, 1])).backward()
        assert trainable(one) == {name for name, value in one.named_parameters() if value.grad is not None}
    for (name, value), (_, other) in zip(model.named_parameters(), viewed.named_parameters(), strict=True):
        if value.requires_grad:
            assert torch.allclose(value.grad, other.grad, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("case", PLAIN)
def test_no_parameter_learns_faster_than_asked_and_the_head_learns_as_fast(case: Any) -> None:
    model = tuned(*case, "cls")
    tuning = TUNINGS.create(model.tuning, **model.tuning_options)
    scales = {name: tuning.rate_scale(name, model.num_blocks) for name, _ in model.vit.named_parameters()}
    assert all(0 < scale <= 1 for scale in scales.values())
    assert scales["head.weight"] == scales["head.bias"] == 1
    assert tuning.label and tuning.source


@pytest.mark.parametrize("case", CASES)
def test_the_callers_model_is_never_changed(case: Any) -> None:
    tuning, options, head = case
    vit = tiny_vit(head)
    before = tensors(vit)
    model = tune(vit, tuning, class_names=("cat", "dog"), **options)
    train_two_steps(model)
    after = tensors(vit)
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    assert vit.num_classes == BASE["num_classes"] and all(value.requires_grad for value in vit.parameters())
    assert not {value.data_ptr() for value in vit.parameters()} & {value.data_ptr() for value in model.parameters()}


@pytest.mark.parametrize("case", CASES)
def test_trained_weights_travel_to_a_fresh_model(case: Any) -> None:
    model, fresh = tuned(*case), tuned(*case)
    train_two_steps(model)
    assert not torch.equal(model(tiny_images()), fresh(tiny_images()))
    fresh.load_trained({name: value.clone() for name, value in model.trained_state().items()})
    assert torch.equal(model(tiny_images()), fresh(tiny_images()))


@pytest.mark.parametrize("case", PLAIN)
def test_weights_of_other_names_or_shapes_are_refused_and_nothing_is_changed(case: Any) -> None:
    model = tuned(*case, "cls")
    state, before = model.trained_state(), tensors(model)
    first = min(state)
    ones = {name: torch.ones_like(value) for name, value in state.items()}
    wrong = [
        {name: value for name, value in ones.items() if name != first},
        ones | {"vit.extra": torch.zeros(1)},
        ones | {first: torch.ones(*state[first].shape, 2)},
    ]
    for given in wrong:
        with pytest.raises(IntegrityError, match="do not fit this model: 1 tensors"):
            model.load_trained(given)
    assert all(torch.equal(value, before[name]) for name, value in tensors(model).items())


@pytest.mark.parametrize("case", CASES)
def test_the_layout_counts_the_tokens_that_attention_sees(case: Any) -> None:
    model = tuned(*case)
    with model.capture() as trace, torch.no_grad():
        model(tiny_images())
    assert [block.shape[-1] for block in trace.attention] == [model.layout.total] * BASE["depth"]
    assert trace.layout == model.layout


@pytest.mark.parametrize(("name", "other"), ALIKE.items())
def test_a_tuning_that_differs_only_in_what_trains_is_explained_as_the_one_it_looks_like(name: str, other: str) -> None:
    options = {"num_tokens": 3} if other == "prompt" else {}
    model, like = tuned(name, options, "cls"), tuned(other, options, "cls")
    assert [type(part) for part in model.modules()] == [type(part) for part in like.modules()]
    expected = attribute(like, tiny_images(), methods=METHODS_BY_KIND, options=FEW_NODES)
    for method, found in attribute(model, tiny_images(), methods=METHODS_BY_KIND, options=FEW_NODES).items():
        assert np.array_equal(found.values, expected[method].values), method
        assert np.array_equal(found.logits, expected[method].logits)


@pytest.mark.parametrize("head", HEADS)
def test_equal_seeds_give_equal_heads_whatever_the_tuning(head: str) -> None:
    def heads(name: str, options: dict[str, Any], seed: int) -> Tensor:
        model = tune(tiny_vit(head), name, class_names=("cat", "dog"), seed=seed, **options)
        return torch.cat([value.flatten() for name, value in model.named_parameters() if "vit.head" in name])

    first, *others = [heads(*variant, seed=7) for variant in EVERY_VARIANT]
    assert all(torch.equal(first, other) for other in others)
    assert not torch.equal(first, heads(*EVERY_VARIANT[0], seed=8))
    assert 0.5 * HEAD_STD < first[first != 0].std() < 1.5 * HEAD_STD


@pytest.mark.parametrize("case", PLAIN)
def test_tuning_again_gives_the_same_model_and_leaves_the_random_state(case: Any) -> None:
    vit = tiny_vit()
    random = torch.get_rng_state()
    first, second = (tune(vit, case[0], class_names=("cat", "dog"), seed=3, **case[1]) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, tensors(second)[name]) for name, value in tensors(first).items())


@pytest.mark.parametrize("case", PLAIN)
def test_options_are_recorded_with_their_defaults(case: Any) -> None:
    model = tuned(*case, "cls")
    assert model.tuning == case[0]
    assert model.tuning_options.items() >= case[1].items()
    again = tune(tiny_vit(), model.tuning, class_names=("cat", "dog"), **model.tuning_options).eval()
    assert torch.equal(again(tiny_images()), model(tiny_images()))


@pytest.mark.parametrize("deep", PROMPTED)
@pytest.mark.parametrize("count", [1, 4])
def test_prompts_and_head_train_and_their_number_is_closed_form(deep: bool, count: int) -> None:
    model = tuned("prompt", {"num_tokens": count, "deep": deep}, "cls")
    width, depth, classes = BASE["embed_dim"], BASE["depth"], 2
    prompts = (depth if deep else 1) * count * width
    assert sum(value.numel() for value in model.trained_state().values()) == prompts + (width + 1) * classes
    assert model.layout.prompts == count and model.layout.fresh_prompts is deep


@pytest.mark.parametrize("deep", PROMPTED)
def test_prompts_start_uniform_within_the_papers_bound(deep: bool) -> None:
    model = tuned("prompt", {"num_tokens": 50, "deep": deep}, "cls")
    bound = math.sqrt(6 / (3 * PATCH * PATCH + BASE["embed_dim"]))
    for name, value in model.trained_state().items():
        if name.endswith(".prompts"):
            assert value.abs().max() <= bound
            assert value.abs().max() > 0.98 * bound and value.mean().abs() < 0.06 * bound
            assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("deep", PROMPTED)
def test_every_prompt_has_a_gradient_in_training(deep: bool) -> None:
    model = tuned("prompt", {"num_tokens": 3, "deep": deep}, "cls").train()
    model(tiny_images())[:, 1].sum().backward()
    for name, value in model.named_parameters():
        if name.endswith(".prompts"):
            assert (value.grad.abs().amax(1) > 0).all()


def test_deep_prompts_are_new_in_every_block_and_shallow_ones_travel() -> None:
    """Against a loop written by hand."""
    for deep in (True, False):
        model, images = tuned("prompt", {"num_tokens": 3, "deep": deep}, "registers"), tiny_images()
        vit, prefix = model.vit, model.layout.prefix
        tokens = vit._pos_embed(vit.patch_embed(images))
        for index, block in enumerate(vit.blocks):
            if deep or index == 0:
                prompts = block.prompts.expand(len(images), -1, -1)
                skip = 0 if index == 0 else 3
                tokens = torch.cat((tokens[:, :prefix], prompts, tokens[:, prefix + skip :]), dim=1)
            tokens = getattr(block, "block", block)(tokens)
        expected = vit.head(vit.norm(tokens)[:, 0])
        assert torch.allclose(model(images), expected, rtol=1e-12, atol=1e-12)


def test_prompt_dropout_draws_anew_for_every_image_and_only_in_training() -> None:
    model = tuned("prompt", {"num_tokens": 3, "prompt_dropout": 0.5}, "cls")
    same = tiny_images(1).expand(2, -1, -1, -1)
    quiet = model(same)
    assert torch.allclose(quiet[0], quiet[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noisy = model.train()(same)
    assert not torch.allclose(noisy[0], noisy[1])


def test_a_tuning_refuses_what_it_cannot_do_in_one_sentence() -> None:
    vit = tiny_vit()
    with pytest.raises(UnknownNameError, match=r"unknown tuning 'promt'; known: .*prompt"):
        tune(vit, "promt")
    with pytest.raises(InputError, match=r"tuning 'prompt' has no option 'tokens'; it takes: num_tokens, deep"):
        tune(vit, "prompt", tokens=3)
    with pytest.raises(InputError, match="expected num_tokens >= 1"):
        tune(vit, "prompt", num_tokens=0)
    with pytest.raises(InputError, match="wrong type"):
        tune(vit, "prompt", num_tokens="ten")
    with pytest.raises(InputError, match="image_size is for a backbone given by name"):
        tune(vit, "full", image_size=64)
    with pytest.raises(InputError, match="at least one class name"):
        tune(vit, "full", class_names=())
    with pytest.raises(InputError, match="expected a timm VisionTransformer, got Linear"):
        tune(torch.nn.Linear(2, 2), "full")
    with pytest.raises(InputError, match="already carries prompts"):
        tune(tuned("prompt", {}, "cls").vit, "full")
    with pytest.raises(IntegrityError, match="trained on 0000"):
        tune("random:vit_tiny_patch16_224", "linear", image_size=32, expect_sha256="0" * 64)

"""A model that starts from another run's weights; Mixed and FT-then-PT, the two that put prompts on all weights."""

from pathlib import Path

import pytest
import torch
from tiny_vits import BASE, tiny_images, tiny_vit
from torch import Tensor
from tuned_cases import tuned

from explain.errors import InputError, IntegrityError
from explain.model import TunedModel
from explain.tensor_files import read_tensors, write_tensors
from explain.tuning.base import tune

PROMPTS, CLASSES = 3, 2
FREEZING = ("linear", "prompt", "lora", "bitfit")


def fine_tuned() -> TunedModel:
    """A fully tuned model whose weights all differ from the backbone's."""
    model = tuned("full", {}, "cls")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.1)
    return model


def begun(name: str, start: dict[str, Tensor] | None, **options: object) -> TunedModel:
    return tune(tiny_vit(), name, class_names=("cat", "dog"), start=start, **options).eval()


def trainable_count(model: TunedModel) -> int:
    return sum(value.numel() for value in model.parameters() if value.requires_grad)


@pytest.mark.parametrize("name", ["full", "layer_decay"])
def test_before_training_a_started_model_answers_as_the_one_it_starts_from(name: str) -> None:
    ft, images = fine_tuned(), tiny_images()
    started = begun(name, ft.trained_state())
    assert torch.equal(started(images), ft(images))
    assert not torch.allclose(begun(name, None)(images), ft(images))


@pytest.mark.parametrize("name", ["mixed", "ft_then_pt"])
def test_prompts_come_onto_the_weights_it_starts_from_head_included(name: str) -> None:
    ft, images = fine_tuned(), tiny_images()
    started = begun(name, ft.trained_state(), num_tokens=PROMPTS)
    by_hand = tune(ft.vit, "prompt", num_tokens=PROMPTS).eval()  # on the tuned model itself, with its own head
    assert torch.equal(started(images), by_hand(images))
    assert not torch.allclose(started(images), begun(name, None, num_tokens=PROMPTS)(images))


def test_training_a_started_model_leaves_the_given_weights_as_they_were() -> None:
    start = fine_tuned().trained_state()
    before = {name: value.clone() for name, value in start.items()}
    model = begun("mixed", start)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in start.items())


def test_a_start_of_other_names_or_shapes_is_refused() -> None:
    start = fine_tuned().trained_state()
    for wrong in (
        {name: value for name, value in start.items() if name != "vit.norm.weight"},
        start | {"vit.extra": torch.zeros(1)},
        start | {"vit.head.weight": torch.zeros(7, BASE["embed_dim"])},
        {name.removeprefix("vit."): value for name, value in start.items()},
        tuned("prompt", {}, "cls").trained_state(),
    ):
        with pytest.raises(IntegrityError, match="do not fit this model"):
            begun("ft_then_pt", wrong)


@pytest.mark.parametrize("name", FREEZING)
def test_a_tuning_that_would_not_store_the_weights_it_starts_from_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"tuning '{name}' freezes the backbone and stores only what it trains"):
        begun(name, fine_tuned().trained_state())


def test_ft_then_pt_trains_prompts_and_head_and_stores_everything(tmp_path: Path) -> None:
    model = begun("ft_then_pt", fine_tuned().trained_state(), num_tokens=PROMPTS)
    depth, width = BASE["depth"], BASE["embed_dim"]
    assert trainable_count(model) == depth * PROMPTS * width + (width + 1) * CLASSES
    state = model.trained_state()
    assert state.keys() == dict(model.named_parameters()).keys()
    write_tensors(tmp_path / "weights.safetensors", state)
    read_back = begun("ft_then_pt", None, num_tokens=PROMPTS)  # as a run does: no start, all from the file
    assert not torch.allclose(read_back(tiny_images()), model(tiny_images()))
    read_back.load_trained(read_tensors(tmp_path / "weights.safetensors")[0])
    assert torch.equal(read_back(tiny_images()), model(tiny_images()))


def test_ft_then_pt_refuses_to_load_the_prompts_alone() -> None:
    model = begun("ft_then_pt", fine_tuned().trained_state())
    with pytest.raises(IntegrityError, match="do not fit this model"):
        model.load_trained({name: value for name, value in model.named_parameters() if value.requires_grad})


def test_mixed_trains_every_weight_and_its_prompts_and_starts_as_prompt_tuning() -> None:
    for deep in (True, False):
        model = begun("mixed", None, num_tokens=PROMPTS, deep=deep)
        prompts = (BASE["depth"] if deep else 1) * PROMPTS * BASE["embed_dim"]
        assert trainable_count(model) == trainable_count(begun("full", None)) + prompts
        prompted = begun("prompt", None, num_tokens=PROMPTS, deep=deep)
        assert torch.equal(model(tiny_images()), prompted(tiny_images()))


@pytest.mark.parametrize("name", ["mixed", "ft_then_pt"])
def test_prompts_can_be_kept_to_some_blocks_and_wrong_options_are_refused(name: str) -> None:
    model = begun(name, None, num_tokens=PROMPTS, blocks="1-2")
    assert len(model.prompts()) == 2 and model.tuning_options["blocks"] == "1-2"
    for options in ({"num_tokens": 0}, {"prompt_dropout": 1.0}):
        with pytest.raises(InputError, match="expected num_tokens >= 1"):
            begun(name, None, **options)
    with pytest.raises(InputError, match="blocks"):
        begun(name, None, blocks="2-1")

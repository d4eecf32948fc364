import pytest

from explain.errors import InputError, UnknownNameError
from explain.training.arms import arms_of, with_choices
from explain.training.recipe import Recipe
from explain.training.train import in_order
from explain.tuning.base import TUNINGS


def test_an_arm_is_a_tuning_with_its_options_and_its_own_rates() -> None:
    arms = arms_of(["prompt:num_tokens=50,blocks=6-11,deep=false", "full", "lora:targets=qkv,alpha=8.0"])
    assert list(arms) == ["vpt", "ft", "lora"]
    assert arms["vpt"].options == {"num_tokens": 50, "blocks": "6-11", "deep": False}
    assert arms["lora"].options == {"targets": "qkv", "alpha": 8.0}
    assert arms["ft"].learning_rates == TUNINGS["full"].learning_rates


def test_a_second_arm_of_one_tuning_is_numbered() -> None:
    assert list(arms_of(["prompt", "prompt:deep=false", "prompt:num_tokens=1"])) == ["vpt", "vpt2", "vpt3"]


def test_an_arm_that_goes_on_from_another_needs_it_and_comes_after_it() -> None:
    arms = arms_of(["ft_then_pt", "full"])
    assert arms["ft_then_pt"].start_from == "ft"
    assert in_order(arms) == ["ft", "ft_then_pt"]
    with pytest.raises(InputError, match="goes on from full fine-tuning; add --tuning full"):
        arms_of(["ft_then_pt"])


def test_what_is_no_arm_is_refused_in_one_sentence() -> None:
    with pytest.raises(UnknownNameError, match="unknown tuning 'promt'"):
        arms_of(["promt"])
    with pytest.raises(InputError, match="has no option 'tokens'"):
        arms_of(["prompt:tokens=3"])
    with pytest.raises(InputError, match="expected TUNING:option=value"):
        arms_of(["prompt:num_tokens"])


def test_choices_go_to_the_arms_that_have_the_option() -> None:
    recipe = Recipe(search="halving", trials=4)
    chosen = with_choices(recipe, ["num_tokens=1,5,10", "blocks=all,6-11", "weight_decay=0,0.01"])
    assert chosen.arms["vpt"].choices == {"num_tokens": (1, 5, 10), "blocks": ("all", "6-11")}
    assert chosen.arms["ft"].choices == {}
    assert all(arm.weight_decays == (0, 0.01) for arm in chosen.arms.values())
    assert {chosen.trial_count(name) for name in chosen.arms} == {4}


def test_choices_that_make_a_grid_unequal_or_fit_no_arm_are_refused() -> None:
    with pytest.raises(InputError, match="same number of trials"):
        with_choices(Recipe(), ["num_tokens=1,5"])
    with pytest.raises(InputError, match="no arm has an option 'rank' to choose; there are blocks, deep"):
        with_choices(Recipe(search="tpe", trials=2), ["rank=1,2"])
    with pytest.raises(InputError, match="expected name=value,value"):
        with_choices(Recipe(), ["num_tokens"])


def test_arms_that_start_from_each_other_are_refused() -> None:
    arms = arms_of(["full", "ft_then_pt"])
    arms["ft"] = arms["ft"].model_copy(update={"start_from": "ft_then_pt"})
    with pytest.raises(InputError, match="start from each other"):
        in_order(arms)

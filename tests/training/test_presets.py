import re
from pathlib import Path

import pytest
import timm

from explain.errors import InputError, UnknownNameError
from explain.training.course import rate_of_epoch
from explain.training.pair import MATCHED_FIELDS
from explain.training.presets import NAMES, SEEDS, preset, published_length
from explain.training.recipe import Recipe
from explain.training.search import planned_epochs
from explain.tuning.base import TUNINGS

PAGE = (Path(__file__).parents[2] / "docs/protocols.md").read_text(encoding="utf-8")

LENGTHS = {  # (shallow, deep), read off the paper's appendix
    "cifar": (100, 10), "caltech101": (5, 10), "dtd": (1, 10), "oxford_flowers102": (200, 1),
    "oxford_iiit_pet": (50, 1), "svhn": (200, 50), "sun397": (1, 5), "patch_camelyon": (5, 100), "eurosat": (50, 100),
    "resisc45": (50, 10), "diabetic_retinopathy": (10, 1), "clevr_count": (100, 50), "clevr_dist": (200, 200),
    "dmlab": (100, 100), "kitti": (100, 50), "dsprites_loc": (100, 10), "dsprites_ori": (100, 50),
    "smallnorb_azi": (200, 200), "smallnorb_ele": (200, 200),
}  # fmt: skip


@pytest.mark.parametrize(("task", "lengths"), LENGTHS.items())
def test_a_task_gets_its_published_prompt_length_in_code_and_page(task: str, lengths: tuple[int, int]) -> None:
    shallow, deep = lengths
    assert published_length(task, deep=False) == shallow
    for name in ("vpt2022", "han2024"):
        assert preset(name, task).arms["vpt"].options == {"num_tokens": deep, "deep": True, "prompt_dropout": 0.1}
        assert preset(name, task, deep=False).arms["vpt"].options == {
            "num_tokens": shallow, "deep": False, "prompt_dropout": 0.0
        }  # fmt: skip
    assert f"| `{task}` | {shallow} | {deep} |" in PAGE.splitlines()


@pytest.mark.parametrize("name", ["vpt2022", "han2024"])
def test_what_both_papers_hold_for_every_arm(name: str) -> None:
    recipe = preset(name, "cifar")
    assert (recipe.epochs, recipe.search_epochs, recipe.search, recipe.batch_size) == (100, 100, "grid", 128)
    assert (recipe.select, recipe.train_on_val, recipe.flip, recipe.image_size) == ("last", True, False, 224)
    assert recipe.seed == recipe.split_seed == 42 and SEEDS == (42, 44, 82, 100, 800)
    rates = [rate_of_epoch(epoch, 100, 1.0, recipe.warmup) for epoch in range(100)]
    assert recipe.schedule == "epoch" and rates[:11] == pytest.approx([epoch / 10 for epoch in range(11)])
    assert rates[55] == pytest.approx(0.5) and rates[99] == pytest.approx(0.0, abs=1e-3)
    assert recipe.backbone in timm.list_pretrained("vit_base_patch16_224*")


@pytest.mark.parametrize("name", ["vpt2022", "han2024"])
def test_prompts_train_by_sgd_on_40_points_and_all_weights_by_adamw_on_16(name: str) -> None:
    recipe = preset(name, "cifar")
    vpt, ft = recipe.arms["vpt"], recipe.arms["ft"]
    assert (vpt.optimizer, ft.optimizer) == ("sgd", "adamw")
    assert vpt.learning_rates == pytest.approx((25, 12.5, 5, 2.5, 1.25, 0.5, 0.25, 0.125, 0.05, 0.025))
    assert ft.learning_rates == pytest.approx((0.0025, 0.0005, 0.00025, 0.00005))
    assert vpt.weight_decays == ft.weight_decays == (0.01, 0.001, 0.0001, 0.0)
    assert [planned_epochs(recipe, arm) for arm in (vpt, ft)] == [40 * 100, 16 * 100]


def test_prompts_of_100_and_more_take_64_images_a_step_at_half_the_rate() -> None:
    short, long = preset("vpt2022", "svhn"), preset("vpt2022", "dmlab")
    assert (short.arms["vpt"].options["num_tokens"], long.arms["vpt"].options["num_tokens"]) == (50, 100)
    assert (short.arms["vpt"].batch_size or short.batch_size, long.arms["vpt"].batch_size) == (128, 64)
    assert long.arms["vpt"].learning_rates == pytest.approx(
        [rate / 2 for rate in short.arms["vpt"].learning_rates]
    )  # fmt: skip
    assert set(long.unequal) - set(short.unequal) == {"batch size", "steps"}


def test_without_a_task_the_length_is_searched_too() -> None:
    recipe = preset("vpt2022")
    assert recipe.arms["vpt"].choices == {"num_tokens": (1, 5, 10, 50, 100, 200)}
    assert {name: recipe.trial_count(name) for name in recipe.arms} == {"vpt": 240, "ft": 16}
    assert recipe.arms["vpt"].batch_size == 64


def test_han2024_adds_its_two_arms_with_the_prompts_protocol() -> None:
    arms = preset("han2024", "cifar").arms
    assert list(arms) == ["vpt", "ft", "mixed", "ft_then_pt"]
    changed = {"tuning": "prompt", "start_from": None}
    assert arms["mixed"].model_copy(update=changed) == arms["ft_then_pt"].model_copy(update=changed) == arms["vpt"]
    assert (arms["ft_then_pt"].start_from, arms["mixed"].start_from) == ("ft", None)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_names_tunings_and_unequal_fields_that_exist_and_survives_json(name: str) -> None:
    recipe = preset(name)
    for arm in recipe.arms.values():
        for tokens in arm.choices.get("num_tokens", (arm.options.get("num_tokens"),)):
            TUNINGS.create(arm.tuning, **arm.options, **({"num_tokens": tokens} if arm.choices else {}))
    assert set(recipe.unequal) <= set(MATCHED_FIELDS.values())
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe


def test_only_the_published_protocols_set_anything_unequal() -> None:
    assert preset("matched") == Recipe() and preset("matched").unequal == ()
    assert preset("vpt2022", "cifar").unequal == ("optimizer", "trials", "steps of all trials")


def test_a_wrong_name_or_task_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="vpt2023.*matched, vpt2022, han2024"):
        preset("vpt2023")
    with pytest.raises(UnknownNameError, match="imagenet.*cifar, caltech101"):
        preset("vpt2022", "imagenet")
    with pytest.raises(InputError, match="same for every task"):
        preset("matched", "cifar")
    assert preset("vpt2022", "cifar100") == preset("vpt2022", "cifar")


def test_the_page_states_the_grids_of_the_code() -> None:
    def numbers(row: str, column: int) -> list[float]:
        cell = next(line for line in PAGE.splitlines() if line.startswith(f"| {row} |")).split("|")[column + 1]
        return [float(number) for number in re.findall(r"\d[\d.]*(?:e-\d+)?", cell)]

    matched, published = preset("matched"), preset("vpt2022", "cifar")
    for row, arm in (("learning rates of prompts", "vpt"), ("learning rates of full fine-tuning", "ft")):
        assert numbers(row, 1) == list(matched.arms[arm].learning_rates)
        assert [rate / 2 for rate in numbers(row, 2)] == pytest.approx(list(published.arms[arm].learning_rates))
    assert numbers("weight decays", 1) == [matched.weight_decay]
    assert numbers("weight decays", 2) == list(published.arms["vpt"].weight_decays)
    assert numbers("seeds", 2) == list(SEEDS)
    assert numbers("epochs, of a trial and in the end", 1) == [matched.search_epochs, matched.epochs]
    assert numbers("batch", 1) == [matched.batch_size]

from pathlib import Path

import pytest

from explain.errors import InputError
from explain.training.recipe import FT, VPT, Recipe


def test_arms_with_unequal_numbers_of_learning_rates_are_refused() -> None:
    with pytest.raises(InputError, match="same number of trials.*'vpt': 1.*'ft': 3"):
        Recipe.parse({"arms": {"vpt": {"tuning": "prompt", "learning_rates": [1e-3]}, "ft": FT.model_dump()}})


def test_default_grids_span_the_stated_ranges_and_are_equally_long() -> None:
    assert (min(FT.learning_rates), max(FT.learning_rates)) == (1e-5, 3e-4)
    assert (min(VPT.learning_rates), max(VPT.learning_rates)) == (1e-3, 3e-2)
    assert len({len(arm.learning_rates) for arm in Recipe().arms.values()}) == 1


def test_an_unknown_field_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="epoch: Extra inputs.*Known fields: backbone, image_size"):
        Recipe.parse({"epoch": 3})


def test_a_recipe_file_may_not_build_python_objects(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: !!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="cannot read the recipe"):
        Recipe.read(path)


def test_the_arm_hash_ignores_the_other_arms_and_nothing_else() -> None:
    recipe = Recipe()
    without = recipe.model_copy(update={"arms": {"vpt": recipe.arms["vpt"], "ft": recipe.arms["ft"]}})
    assert recipe.arm_hash("vpt") == without.arm_hash("vpt")
    assert recipe.hash != without.hash
    assert recipe.arm_hash("vpt") != recipe.model_copy(update={"epochs": 21}).arm_hash("vpt")
    assert recipe.arm_hash("vpt") != recipe.arm_hash("ft")


def test_a_recipe_survives_json() -> None:
    recipe = Recipe(seed=3, epochs=4)
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe

import math

import pytest
import torch

from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError, NonFiniteError
from explain.training.fit import (
    EpochPlan,
    Images,
    _EpochImages,
    accelerator_for,
    fit,
    learning_rate_at,
    order_hash,
    parameter_groups,
    predict,
)  # fmt: skip
from explain.training.recipe import Recipe
from explain.tuning.base import tune

RECIPE = Recipe(batch_size=4, weight_decay=0.1, search_epochs=1)


def tiny(tuning: str = "linear", **options: object) -> torch.nn.Module:
    return tune("random:vit_tiny_patch16_224", tuning, class_names=["left", "right"], image_size=64, **options)


@pytest.fixture(scope="module")
def images(pictures: Dataset) -> Images:
    return Images.decode(pictures, tiny().transform, "")


def test_a_plan_depends_on_seed_and_epoch_only() -> None:
    plan = EpochPlan.draw(1, 2, 10, True)
    again = EpochPlan.draw(1, 2, 10, True)
    assert torch.equal(plan.order, again.order) and torch.equal(plan.flips, again.flips)
    assert not torch.equal(plan.order, EpochPlan.draw(1, 3, 10, True).order)
    assert not torch.equal(plan.order, EpochPlan.draw(2, 2, 10, True).order)
    assert sorted(plan.order.tolist()) == list(range(10))


def test_without_flips_the_order_stays_the_same() -> None:
    assert torch.equal(EpochPlan.draw(1, 2, 10, False).order, EpochPlan.draw(1, 2, 10, True).order)
    assert not EpochPlan.draw(1, 2, 10, False).flips.any()


def test_images_are_flipped_as_planned(images: Images) -> None:
    plan = EpochPlan(torch.tensor([3]), torch.zeros(len(images), 2, dtype=torch.bool))
    plan.flips[3] = torch.tensor([True, False])
    pixels, label, index = _EpochImages(images, plan)[0]
    assert index == 3 and label == images.labels[3]
    assert torch.equal(pixels, images.pixels[3].flip(-1))


def test_warm_up_rises_to_the_peak_and_the_cosine_ends_near_zero() -> None:
    rates = [learning_rate_at(step, 100, 2.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 89 / 90))
    assert learning_rate_at(0, 100, 2.0, 0.0) == 2.0


def test_weight_decay_spares_biases_norms_and_position_embeddings() -> None:
    model = tiny("full")
    decayed, spared = parameter_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0.0
    assert all(value.ndim > 1 for value in decayed["params"])
    spared_ids = {id(value) for value in spared["params"]}
    assert {id(model.vit.pos_embed), id(model.vit.cls_token), id(model.vit.norm.bias)} <= spared_ids
    count = len(decayed["params"]) + len(spared["params"])
    assert count == len(list(model.parameters()))


def test_weight_decay_really_shrinks_the_head(images: Images) -> None:
    norms = []
    for decay in (0.0, 50.0):
        model = tiny()
        recipe = RECIPE.model_copy(update={"weight_decay": decay})
        list(fit(model, images, images, recipe, learning_rate=1e-3, epochs=1, accelerator=accelerator_for("cpu")))
        norms.append(float(model.vit.head.weight.detach().norm()))
    assert norms[1] < 0.9 * norms[0]


def test_training_lowers_the_loss_and_leaves_the_random_state(images: Images) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = tiny("prompt", num_tokens=2, prompt_dropout=0.5)
    history = list(fit(model, images, images, RECIPE, learning_rate=1e-2, epochs=6, accelerator=accelerator_for("cpu")))
    assert history[-1].val_loss < history[0].val_loss
    assert torch.equal(torch.get_rng_state(), before)
    assert all(epoch.seconds > 0 and epoch.peak_mib > 0 for epoch in history)


def test_a_loss_that_is_not_a_number_names_step_and_images(images: Images) -> None:
    model = tiny()
    with torch.no_grad():
        model.vit.head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"loss became nan at step 0 .*rate 0.01.* on images (left|right)/"):
        list(fit(model, images, images, RECIPE, learning_rate=1e-2, epochs=1, accelerator=accelerator_for("cpu")))


def test_predict_leaves_the_training_flag_and_does_not_depend_on_the_batch_size(images: Images) -> None:
    model = tiny().train()
    accelerator = accelerator_for("cpu")
    torch.testing.assert_close(predict(model, images, 3, accelerator), predict(model, images, 24, accelerator))
    assert model.training


def test_a_changed_file_is_refused(pictures: Dataset, tmp_path) -> None:
    sample = pictures.samples[0]
    copy = tmp_path / "copy.png"
    copy.write_bytes(sample.path.read_bytes() + b"x")
    from dataclasses import replace

    changed = replace(pictures, samples=(replace(sample, path=copy),))
    with pytest.raises(IntegrityError, match="changed since the data set was read"):
        Images.decode(changed, tiny().transform, "")


def test_the_order_hash_sees_ids_seed_epochs_and_flips() -> None:
    ids = ("a", "b", "c")
    base = Recipe(epochs=2)
    changed = [base.model_copy(update=change) for change in ({"seed": 1}, {"epochs": 3}, {"flip": False})]
    hashes = {order_hash(ids, recipe) for recipe in [base, *changed]} | {order_hash(("a", "c", "b"), base)}
    assert len(hashes) == 5
    assert order_hash(ids, base) == order_hash(ids, base.model_copy(update={"weight_decay": 0.5}))


def test_an_unknown_or_missing_device_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="expected device 'cpu' or 'cuda', got 'tpu'"):
        accelerator_for("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="use --device cpu"):
            accelerator_for("cuda")

import math
from dataclasses import replace

import pytest
import torch

from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError, NonFiniteError
from explain.training.course import Course, parameter_groups, rate_of_epoch, rate_of_step
from explain.training.fit import Stems, fit, predict
from explain.training.images import EpochPlan, Images, ImageStore, PixelSource, flipped, order_hash
from explain.training.machine import Machine
from explain.training.recipe import Arm, Recipe
from explain.training.run import Epoch
from explain.training.trial import Point
from explain.tuning.base import tune

RECIPE = Recipe(batch_size=4, weight_decay=0.1, search_epochs=1)
CPU = Machine(device="cpu")


def tiny(tuning: str = "linear", **options: object) -> torch.nn.Module:
    return tune("random:vit_tiny_patch16_224", tuning, class_names=["left", "right"], image_size=64, **options)


def course(epochs: int = 1, rate: float = 1e-3, **changes: object) -> Course:
    arm = Arm(tuning="linear", learning_rates=(rate,))
    point = Point(learning_rate=rate, weight_decay=RECIPE.weight_decay, options={})
    return Course.of(RECIPE, arm, point, epochs).model_copy(update=changes)


def trained(model: torch.nn.Module, images: Images, way: Course, machine: Machine = CPU) -> list[Epoch]:
    return fit(model, {"train": images, "val": images, "test": images}, way, machine=machine, stems=Stems(machine))


@pytest.fixture(scope="module")
def images(pictures: Dataset) -> Images:
    return ImageStore().take(pictures.samples, tiny().transform, "")


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


def test_each_image_is_flipped_as_its_row_says(images: Images) -> None:
    pixels, flips = images.pixels[:4], torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    shown = flipped(pixels, flips)
    for row, sides in enumerate(([], [-1], [-2], [-1, -2])):
        assert torch.equal(shown[row], pixels[row].flip(sides) if sides else pixels[row])


def test_a_source_gives_the_images_asked_for_in_model_space(images: Images) -> None:
    transform = tiny().transform
    rows = PixelSource(images, transform, torch.device("cpu")).rows(torch.tensor([5, 2]), torch.zeros(2, 2).bool())
    assert torch.equal(rows, transform.normalise(images.pixels[[5, 2]]))


def test_warm_up_rises_to_the_peak_and_the_cosine_ends_near_zero() -> None:
    rates = [rate_of_step(step, 100, 2.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 89 / 90))
    assert rate_of_step(0, 100, 2.0, 0.0) == 2.0


def test_an_epoch_wise_schedule_begins_at_zero_and_holds_its_rate_within_an_epoch() -> None:
    rates = [rate_of_epoch(epoch, 100, 2.0, 0.1) for epoch in range(100)]
    assert rates[0] == 0 and rates[5] == pytest.approx(1.0) and rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    way = course(epochs=100, rate=2.0, schedule="epoch", warmup=0.1)
    assert [way.rate_at(step, 6) for step in (0, 5, 30, 35)] == [0, 0, rates[5], rates[5]]


def test_sgd_has_momentum_and_the_decay_of_the_course() -> None:
    optimiser = course(optimizer="sgd", weight_decay=0.3).optimiser(tiny())
    assert isinstance(optimiser, torch.optim.SGD)
    assert {(group["momentum"], group["weight_decay"]) for group in optimiser.param_groups} == {(0.9, 0.3), (0.9, 0.0)}


def test_weight_decay_spares_biases_norms_and_position_embeddings() -> None:
    model = tiny("full")
    decayed, spared = sorted(parameter_groups(model, 0.1), key=lambda group: -group["weight_decay"])
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
        trained(model, images, course(weight_decay=decay))
        norms.append(float(model.vit.head.weight.detach().norm()))
    assert norms[1] < 0.9 * norms[0]


def test_training_lowers_the_loss_and_leaves_the_random_state(images: Images) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = tiny("prompt", num_tokens=2, prompt_dropout=0.5)
    history = trained(model, images, course(epochs=6, rate=1e-2))
    assert history[-1].val_loss < history[0].val_loss
    assert torch.equal(torch.get_rng_state(), before)
    assert all(epoch.seconds > 0 and epoch.peak_mib > 0 for epoch in history)


def test_a_loss_that_is_not_a_number_names_step_and_images(images: Images) -> None:
    model = tiny()
    with torch.no_grad():
        model.vit.head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"loss became nan at step 0 .*rate 0.01.* on images (left|right)/"):
        trained(model, images, course(rate=1e-2))


def test_every_epoch_tells_its_figures_and_the_watched_ones_are_those_of_the_model(images: Images) -> None:
    model = tiny("full")
    history = trained(model, images, course(epochs=2, rate=1e-4))
    logits = predict(model, PixelSource(images, model.transform, torch.device("cpu")), len(images), 4, CPU)
    assert history[-1].test_loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, images.labels)))
    assert history[-1].test_loss == history[-1].val_loss
    assert 0 < history[0].gradient_norm <= history[0].gradient_norm_max
    unwatched = fit(tiny(), {"train": images, "val": images.first(0), "test": images.first(0)}, course(), machine=CPU)
    assert (unwatched[0].val_loss, unwatched[0].test_accuracy) == (None, None)


@pytest.mark.parametrize("change", [{"accumulate": 3}, {"recompute": True}, {"cache_mib": 0}])
@pytest.mark.parametrize("tuning", ["linear", "prompt", "full"])
def test_how_it_is_computed_does_not_change_what_comes_out(images: Images, tuning: str, change: dict[str, int]) -> None:
    first, second = tiny(tuning), tiny(tuning)
    way = course(epochs=2, rate=1e-4)
    expected, found = trained(first, images, way), trained(second, images, way, Machine(device="cpu", **change))
    assert found[-1].val_loss == pytest.approx(expected[-1].val_loss, abs=1e-5)
    for name, value in first.trained_state().items():
        torch.testing.assert_close(second.trained_state()[name], value, atol=2e-5, rtol=1e-3)


def test_the_best_epoch_is_kept_where_the_course_says_so(images: Images) -> None:
    model = tiny("full")
    history = trained(model, images, course(epochs=4, rate=3e-3, warmup=0.5, select="best"))
    best = max(epoch.val_accuracy for epoch in history)
    logits = predict(model, PixelSource(images, model.transform, torch.device("cpu")), len(images), 4, CPU)
    assert float((logits.argmax(1) == images.labels).float().mean()) == best
    assert len({epoch.val_loss for epoch in history}) == 4


def test_layer_wise_decay_scales_the_rate_of_each_block() -> None:
    model = tiny("layer_decay", decay=0.5)
    factors = {id(value): group["factor"] for group in parameter_groups(model, 0.1) for value in group["params"]}
    blocks = len(model.vit.blocks)
    assert factors[id(model.vit.head.weight)] == 1
    assert factors[id(model.vit.blocks[-1].attn.qkv.weight)] == pytest.approx(0.5)
    assert factors[id(model.vit.patch_embed.proj.weight)] == pytest.approx(0.5 ** (blocks + 1))


def test_predict_leaves_the_training_flag_and_does_not_depend_on_the_batch_size(images: Images) -> None:
    model = tiny().train()
    source = PixelSource(images, model.transform, torch.device("cpu"))
    torch.testing.assert_close(predict(model, source, 24, 3, CPU), predict(model, source, 24, 24, CPU))
    assert model.training


def test_a_changed_file_is_refused(pictures: Dataset, tmp_path) -> None:
    sample = pictures.samples[0]
    copy = tmp_path / "copy.png"
    copy.write_bytes(sample.path.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="changed since the data set was read"):
        ImageStore().take([replace(sample, path=copy)], tiny().transform, "")


def test_images_are_decoded_once(pictures: Dataset) -> None:
    seen: list[int] = []
    store = ImageStore(lambda what, done, total: seen.append(done))
    first = store.take(pictures.samples[:3], tiny().transform, "")
    assert store.take(pictures.samples[:3], tiny().transform, "").pixels is first.pixels
    assert seen == [1, 2, 3]


def test_the_order_hash_sees_ids_seed_epochs_and_flips() -> None:
    ids = ("a", "b", "c")
    base = (ids, 0, 2, True)
    changed = [(("a", "c", "b"), 0, 2, True), (ids, 1, 2, True), (ids, 0, 3, True), (ids, 0, 2, False)]
    assert len({order_hash(*arguments) for arguments in [base, *changed]}) == 5
    assert order_hash(*base) == order_hash(*base)


def test_an_unknown_or_missing_device_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="expected device 'cpu' or 'cuda', got 'tpu'"):
        Machine(device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="use --device cpu"):
            Machine(device="cuda")


@pytest.mark.slow
def test_a_compiled_network_trains_the_same_model(images: Images) -> None:
    first, second = tiny("prompt"), tiny("prompt")
    way = course(epochs=2, rate=1e-3)
    expected, found = trained(first, images, way), trained(second, images, way, Machine(device="cpu", compile=True))
    assert found[-1].val_loss == pytest.approx(expected[-1].val_loss, abs=1e-4)

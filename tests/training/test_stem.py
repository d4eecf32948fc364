"""The frozen stem: what it holds, that the split changes nothing, and what is kept of it."""

from types import MethodType

import pytest
import torch
from tiny_vits import BASE, HEADS, SIZE, tiny_images, tiny_vit
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from explain.backbone import InputTransform
from explain.errors import InputError
from explain.model import TunedModel
from explain.training.stem import StemCache, split_frozen
from explain.tuning.base import TUNINGS, tune

WIDTH, CLASSES = BASE["embed_dim"], ("cat", "dog")
LABELS = torch.tensor([0, 1, 1])
ALL_FLIPS = [(False, False), (False, True), (True, False), (True, True)]
on_all_heads = pytest.mark.parametrize("head", HEADS)


def linear(head: str = "cls", **options: object) -> TunedModel:
    return tune(tiny_vit(head, **options), "linear", class_names=CLASSES)


def upper_prompts(head: str = "cls", *, deep: bool = True, **options: object) -> TunedModel:
    return tune(tiny_vit(head, **options), "prompt", class_names=CLASSES, num_tokens=2, deep=deep, blocks="1-2")


def upper_layers(head: str = "cls", first: int = 2, **options: object) -> TunedModel:
    """Full fine-tuning of the last blocks, the norm, the pool and the head."""
    model = tune(tiny_vit(head, **options), "full", class_names=CLASSES)
    behind = tuple(f"vit.blocks.{index}." for index in range(first, 3)) + ("vit.norm", "vit.fc_norm", "vit.attn_pool",
                                                                           "vit.head")  # fmt: skip
    for name, value in model.named_parameters():
        value.requires_grad_(name.startswith(behind))
    return model


def biases(head: str = "cls") -> TunedModel:
    model = tune(tiny_vit(head), "full", class_names=CLASSES)
    for name, value in model.named_parameters():
        value.requires_grad_(name.endswith("bias") or ".head" in name)
    return model


def trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def results(model: TunedModel, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradient of the loss for every trained parameter."""
    names = trained(model)
    gradients = torch.autograd.grad(cross_entropy(logits, LABELS), list(names.values()))
    return logits, dict(zip(names, gradients, strict=True))


def assert_splits(model: TunedModel, blocks: int) -> Tensor:
    """The two parts are the model, bit for bit; returns what passes between them."""
    images, view = tiny_images(), model.training_view().train()
    stem, rest = split_frozen(view)
    assert stem is not None and stem.blocks == blocks
    rest.train()
    between = stem(images)
    assert not between.requires_grad
    logits, gradients = results(model, view(images))
    split_logits, split_gradients = results(model, rest(between))
    assert torch.equal(split_logits, logits)
    assert all(torch.equal(split_gradients[name], gradients[name]) for name in gradients)
    assert all(bool(value.any()) for value in gradients.values()), "a gradient of zero proves nothing"
    return between


@on_all_heads
def test_the_stem_of_a_linear_probe_gives_the_features_that_the_head_reads(head: str) -> None:
    between = assert_splits(linear(head), blocks=3)
    assert between.shape == ((3, 2, WIDTH) if head == "distilled" else (3, WIDTH))


@on_all_heads
@pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
def test_prompts_in_the_upper_blocks_leave_the_lower_ones_to_the_stem(head: str, deep: bool) -> None:
    between = assert_splits(upper_prompts(head, deep=deep), blocks=1)
    assert between.shape[1:] == (tiny_vit(head).num_prefix_tokens + 12, WIDTH)


@on_all_heads
@pytest.mark.parametrize("first", [1, 2, 3])
def test_frozen_lower_layers_are_the_stem(head: str, first: int) -> None:
    assert_splits(upper_layers(head, first), blocks=first)


def test_frozen_prompts_belong_to_the_stem() -> None:
    model = tune(tiny_vit(), "prompt", class_names=CLASSES, num_tokens=2, deep=False)
    model.vit.blocks[0].prompts.requires_grad_(False)
    assert_splits(model, blocks=3)


@pytest.mark.parametrize("name", list(TUNINGS))
def test_every_tuning_is_split_exactly_or_not_at_all(name: str) -> None:
    for head in HEADS:
        model = tune(tiny_vit(head), name, class_names=CLASSES)
        stem, rest = split_frozen(model.training_view().eval())
        if stem is None:
            continue
        view, images = model.training_view().eval(), tiny_images()
        logits, gradients = results(model, view(images))
        split_logits, split_gradients = results(model, rest(stem(images)))
        assert torch.equal(split_logits, logits)
        assert all(torch.equal(split_gradients[key], gradients[key]) for key in gradients)


@on_all_heads
def test_nothing_is_split_off_when_the_first_block_or_the_embedding_trains(head: str) -> None:
    deep, shallow = (tune(tiny_vit(head), "prompt", class_names=CLASSES, deep=deep) for deep in (True, False))
    for model in (deep, shallow, tune(tiny_vit(head), "full", class_names=CLASSES), biases(head)):
        view = model.training_view()
        assert split_frozen(view) == (None, view)


@pytest.mark.parametrize(
    ("rate", "head"),
    [("pos_drop_rate", "cls"), ("patch_drop_rate", "cls"), ("proj_drop_rate", "cls"), ("attn_drop_rate", "cls"),
     ("drop_path_rate", "cls"), ("attn_drop_rate", "mean of patches")],
)  # fmt: skip
def test_a_stem_that_drops_something_at_each_step_is_not_split_off(rate: str, head: str) -> None:
    assert split_frozen(linear(head, **{rate: 0.5}).training_view())[0] is None


def test_dropout_behind_the_stem_stays_where_it_is() -> None:
    model = linear(drop_rate=0.5)
    stem, rest = split_frozen(model.training_view().train())
    assert stem is not None
    features = stem(tiny_images())
    assert torch.equal(stem(tiny_images()), features), "the stem drops nothing"
    rest.train()
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(rest(features), rest(features))
    assert torch.allclose(rest.eval()(features), model.eval()(tiny_images()), atol=1e-12)


def with_batch_norm(model: TunedModel) -> None:
    model.vit.norm_pre = nn.BatchNorm1d(13).double().requires_grad_(False)


def with_a_hook(model: TunedModel) -> None:
    model.vit.blocks[1].norm2.register_forward_hook(lambda module, inputs, output: None)


def with_its_own_features(model: TunedModel) -> None:
    model.vit.forward_features = MethodType(lambda vit, images: vit.norm(vit.patch_embed(images)), model.vit)


def with_another_class(model: TunedModel) -> None:
    model.vit.__class__ = type("Unknown", (type(model.vit),), {})


def with_a_parameter_elsewhere(model: TunedModel) -> None:
    model.vit.scale = nn.Parameter(torch.ones(1))


def with_a_block_that_shares(model: TunedModel) -> None:
    model.vit.blocks[0].norm1 = model.vit.blocks[2].norm1.requires_grad_(True)


@pytest.mark.parametrize("change", [with_batch_norm, with_a_hook, with_its_own_features, with_another_class,
                                    with_a_parameter_elsewhere, with_a_block_that_shares])  # fmt: skip
def test_a_model_that_is_not_understood_is_not_split(change) -> None:
    model = linear()
    assert split_frozen(model.training_view())[0] is not None
    change(model)
    view = model.training_view()
    assert split_frozen(view) == (None, view)


def test_the_rest_holds_the_very_parameters_under_their_names() -> None:
    for model in (linear(), upper_prompts(), upper_layers("attention pool")):
        _, rest = split_frozen(model.training_view())
        own = dict(model.named_parameters())
        assert trained(rest).keys() == trained(model).keys()
        assert all(value is own[name] for name, value in rest.named_parameters())
        assert len(dict(rest.named_parameters())) < len(own)


def test_splitting_leaves_the_model_as_found() -> None:
    model = upper_prompts().train()
    before, logits = dict(model.named_modules()), model(tiny_images())
    stem, rest = split_frozen(model.training_view())
    stem(tiny_images())
    rest.eval()
    assert dict(model.named_modules()) == before and all(module.training for module in model.modules())
    assert torch.equal(model(tiny_images()), logits)


def test_equal_hashes_are_equal_stems() -> None:
    def stem(model: TunedModel):
        return split_frozen(model.training_view())[0]

    first, other_head = linear(), linear()
    nn.init.ones_(other_head.vit.head.weight)
    assert stem(first).hash == stem(other_head).hash, "the head is none of the stem's business"
    others = [linear(seed=1), upper_prompts(), upper_layers(first=3), upper_layers(first=2)]
    hashes = [stem(model).hash for model in (first, *others)]
    assert stem(upper_prompts()).hash == stem(upper_layers(first=1)).hash
    assert len(set(hashes)) == len(hashes)


# --------------------------------------------------------------------------------------------------------------------
# the cache


def pixels(count: int = 7) -> Tensor:
    return torch.randint(0, 256, (count, 3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def transform() -> InputTransform:
    return InputTransform(SIZE)


def build(stem, images: Tensor, **options) -> StemCache | None:
    options = {"variants": ALL_FLIPS, "batch_size": 3, "device": "cpu"} | options
    return StemCache.build(stem, images, transform(), **options)


def flipped(images: Tensor, left_right: bool, up_down: bool) -> Tensor:
    images = images.flip(3) if left_right else images
    return images.flip(2) if up_down else images


def test_each_row_is_the_stem_of_the_flipped_picture() -> None:
    images = pixels()
    stem, _ = split_frozen(upper_prompts(dtype=torch.float32).training_view())
    cache = build(stem, images)
    assert cache.size_mib == pytest.approx(4 * 7 * 13 * WIDTH * 4 / 2**20)
    for flip in ALL_FLIPS:
        expected = stem(transform().normalise(flipped(images, *flip)))
        found = cache.rows(torch.arange(7), torch.tensor([flip] * 7))
        assert torch.allclose(found, expected, atol=1e-5)
    indices, flips = torch.tensor([4, 0, 6, 4]), torch.tensor([ALL_FLIPS[2], ALL_FLIPS[0], ALL_FLIPS[3], ALL_FLIPS[1]])
    one_by_one = [cache.rows(index[None], flip[None]) for index, flip in zip(indices, flips, strict=True)]
    assert torch.equal(cache.rows(indices, flips), torch.cat(one_by_one))


def test_the_outputs_depend_on_the_arguments_alone() -> None:
    images, view = pixels(), linear(dtype=torch.float32).training_view()
    state = torch.random.get_rng_state()
    first = build(split_frozen(view.train())[0], images)
    second = build(split_frozen(view.eval())[0], images)
    assert torch.equal(first.outputs, second.outputs) and torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(images, pixels())


def test_one_variant_in_use_is_one_variant_stored() -> None:
    seen: list[tuple[int, int]] = []
    cache = build(lambda images: images.mean((2, 3)), pixels(), variants=[(True, False)],
                  progress=lambda *done: seen.append(done))  # fmt: skip
    assert cache.outputs.shape == (7, 3) and seen == [(3, 7), (6, 7), (7, 7)]
    assert cache.rows(torch.tensor([2]), torch.tensor([[True, False]])).shape == (1, 3)
    with pytest.raises(InputError, match="not cached"):
        cache.rows(torch.tensor([2]), torch.tensor([[False, False]]))


def test_outputs_keep_the_stems_precision() -> None:
    assert build(lambda images: images.mean((2, 3)).bfloat16(), pixels()).outputs.dtype == torch.bfloat16


def test_outputs_that_do_not_fit_are_not_computed() -> None:
    passes: list[int] = []

    def stem(images: Tensor) -> Tensor:
        passes.append(len(images))
        return images

    needed = 4 * 7 * 3 * SIZE[0] * SIZE[1] * 4 / 2**20
    assert build(stem, pixels(), limit_mib=needed * 0.999) is None and passes == [1]
    assert build(stem, pixels(), limit_mib=needed) is not None


@pytest.mark.parametrize(
    ("images", "options", "problem"),
    [(pixels().float(), {}, "expected pixels uint8"), (pixels()[0], {}, "expected pixels uint8"),
     (pixels()[:0], {}, "expected pixels uint8"), (pixels(), {"variants": []}, "each once"),
     (pixels(), {"variants": [(True, True)] * 2}, "each once"), (pixels(), {"batch_size": 0}, "at least 1")],
)  # fmt: skip
def test_wrong_arguments_are_one_clear_line(images: Tensor, options: dict, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        build(lambda given: given, images, **options)


@pytest.mark.parametrize("make", [linear, upper_prompts])
def test_training_on_cached_outputs_is_training_on_the_images(make) -> None:
    images, labels = pixels(), torch.arange(7) % 2
    generator = torch.Generator().manual_seed(1)
    plans = [(torch.randint(7, (4,), generator=generator), torch.rand((4, 2), generator=generator) < 0.5)
             for _ in range(5)]  # fmt: skip
    cached, direct = make(dtype=torch.float32), make(dtype=torch.float32)
    stem, rest = split_frozen(cached.training_view().train())
    cache = build(stem, images)
    view = direct.training_view().train()

    def from_images(indices: Tensor, flips: Tensor) -> Tensor:
        chosen = [flipped(images[index][None], *flip.tolist()) for index, flip in zip(indices, flips, strict=True)]
        return view(transform().normalise(torch.cat(chosen)))

    for model, forward in ((cached, lambda *plan: rest(cache.rows(*plan))), (direct, from_images)):
        optimizer = torch.optim.AdamW(trained(model).values(), lr=1e-2)
        for indices, flips in plans:
            cross_entropy(forward(indices, flips), labels[indices]).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.allclose(value, trained(direct)[name], atol=2e-5) for name, value in trained(cached).items())
    untouched = trained(make(dtype=torch.float32))
    assert not any(torch.allclose(value, untouched[name], atol=1e-2) for name, value in trained(cached).items())

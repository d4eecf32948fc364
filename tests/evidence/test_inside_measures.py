"""What happens inside a model, how its maps go when it is destroyed, and how they move with the picture."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import GRID, tiny_images, tiny_vit
from torch import Tensor

from explain.attribution import Array
from explain.evidence.base import MEASURES, Row
from explain.evidence.changes import compressed, shifted
from explain.evidence.inside import block_attention, block_drift, block_features, prompt_chance
from explain.evidence.measures.drift import disturbed
from explain.evidence.measures.randomisation import cascade_stages, permute
from explain.evidence.subject import Subject
from explain.model import TunedModel
from explain.passes import Passes
from explain.tuning.base import tune
from explain.wrapping import wrap

IMAGES = tiny_images(3)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "full": ("cls", "full", {}),
    "deep": ("cls", "prompt", {"num_tokens": 3, "deep": True}),
    "shallow in some blocks, registers": ("registers", "prompt", {"num_tokens": 2, "deep": False, "blocks": "0-1"}),
    "deep in some blocks, mean of patches": ("mean of patches", "prompt", {"num_tokens": 3, "blocks": "1-2"}),
    "low rank, distilled": ("distilled", "lora", {"targets": "qkvom"}),
    "attention pool, shallow": ("attention pool", "prompt", {"num_tokens": 3, "deep": False}),
}
EVERY = pytest.mark.parametrize("case", CASES)
METHODS = ("attention_rollout", "grad_cam", "integrated_gradients")


def built(case: str, **options: Any) -> TunedModel:
    head, tuning, chosen = CASES[case]
    return tune(tiny_vit(head, **options), tuning, class_names=("a", "b"), **chosen).eval()


def subject_of(model: TunedModel, methods: tuple[str, ...] = METHODS, **changes: Any) -> Subject:
    count = len(IMAGES)
    subject = Subject(
        arm="vpt", seed=0, model=model, ids=tuple(f"{index}.png" for index in range(count)), images=IMAGES,
        labels=np.array([0, 1, 1]), masks=np.zeros((count, *IMAGES.shape[2:]), bool),
        maps={name: np.zeros((count, *GRID), np.float32) for name in methods},
        options={"integrated_gradients": {"max_nodes": 5}} if "integrated_gradients" in methods else {},
    )  # fmt: skip
    subject = replace(subject, **changes)
    return replace(subject, maps=subject.explain(IMAGES)) if methods else subject


def rows_of(measure: str, subject: Subject) -> dict[tuple[str | None, str | None, str], Row]:
    rows = list(MEASURES[measure]()(subject))
    found = {row[:3]: row for row in rows}
    known = MEASURES[measure].metrics
    assert len(found) == len(rows) and {row.metric.split("/")[0] for row in rows} <= set(known)
    return found


def state_of(model: TunedModel) -> dict[str, Any]:
    values = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    flags = [(module.training, *(p.requires_grad for p in module.parameters(False))) for module in model.modules()]
    return {"values": values, "hooks": hooks, "flags": flags, "grads": [p.grad for p in model.parameters()]}


def assert_same_state(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    assert all(torch.equal(value, after["values"][name]) for name, value in before["values"].items())
    assert before["hooks"] == after["hooks"] and before["flags"] == after["flags"]
    assert all(grad is None for grad in after["grads"])


# ---- features and attention of each block


@pytest.mark.parametrize("case", ["full", "deep", "shallow in some blocks, registers"])
def test_features_are_the_cls_token_that_enters_the_next_block_and_the_head(case: str) -> None:
    model = built(case)
    found = block_features(model, IMAGES, Passes())
    assert found.shape == (3, 3, 24) and found.dtype == np.float32
    with torch.no_grad():
        last = torch.from_numpy(found[-1]).double()
        assert torch.allclose(model.vit.head(model.vit.norm(last)), model(IMAGES), atol=1e-5)
        for block in (1, 2):
            entering = model.split(block)[0](IMAGES)
            assert np.allclose(found[block - 1], entering[:, 0], atol=1e-5)


def test_features_are_the_mean_patch_where_the_head_reads_that() -> None:
    model = built("deep in some blocks, mean of patches")
    with torch.no_grad():
        entering = model.split(2)[0](IMAGES)
    assert np.allclose(block_features(model, IMAGES, Passes())[1], entering[:, -12:].mean(1), atol=1e-5)


@EVERY
def test_uniform_attention_gives_every_number_its_closed_form(case: str) -> None:
    model = built(case)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "attn.qkv" in name:
                value.zero_()
    places = [(8 * row, 8 * column) for row in range(3) for column in range(4)]
    apart = np.mean([np.hypot(a - c, b - d) for a, b in places for c, d in places])
    blocks = block_attention(model, IMAGES, Passes())
    prefix, has_cls = model.layout.prefix, model.vit.has_class_token
    assert len(blocks) == 3
    for block, (found, chance) in enumerate(zip(blocks, prompt_chance(model, IMAGES), strict=True)):
        total = prefix + 12 + model.layout.at(block).prompts
        expected = {"attention_distance": apart, "attention_entropy": 1.0, "patch_entropy": 1.0}
        expected |= {"cls_to_patch": 12 / total} if has_cls else {}
        expected |= {"register_mass": (prefix - has_cls) / total} if prefix > has_cls else {}
        expected |= {"prompt_mass": chance} if chance else {}
        assert found.keys() == expected.keys() and (chance > 0) == (model.layout.at(block).prompts > 0)
        for name, value in expected.items():
            assert found[name] == pytest.approx(np.full((3, 3), value), abs=1e-6), name


def test_the_last_block_is_seen_with_all_its_patches() -> None:
    model = built("deep")
    with torch.no_grad(), model.capture() as trace:
        model(IMAGES)
    rows = trace.attention[-1][:, :, 1:, 4:].numpy()  # queries: CLS and patches; keys: CLS, 3 prompts and patches
    rows /= rows.sum(-1, keepdims=True)
    places = np.array([(8 * row, 8 * column) for row in range(3) for column in range(4)])
    distance = (rows * np.linalg.norm(places[:, None] - places[None], axis=2)).sum(-1).mean(-1)
    found = block_attention(model, IMAGES, Passes())[-1]
    assert found["attention_distance"] == pytest.approx(distance, rel=1e-5)
    assert found["prompt_mass"] == pytest.approx(trace.attention[-1][:, :, 0, 1:4].sum(-1).numpy(), rel=1e-5)


def test_looking_inside_leaves_model_images_and_random_state_as_they_were() -> None:
    model = built("deep").train()
    before, images, torch_state = state_of(model), IMAGES.clone(), torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].tolist()
    block_attention(model, IMAGES, Passes())
    block_features(model, IMAGES, Passes())
    list(MEASURES["randomisation"]()(subject_of(model, ("grad_cam",))))
    assert_same_state(before, state_of(model))
    assert torch.equal(images, IMAGES) and torch.equal(torch_state, torch.random.get_rng_state())
    assert np.random.get_state()[1].tolist() == numpy_state


# ---- weights


def test_a_frozen_backbone_has_not_drifted_and_a_scaled_block_has() -> None:
    backbone = wrap(tiny_vit())
    assert block_drift(built("deep"), backbone) == [0, 0, 0]
    tuned = built("full")
    with torch.no_grad():
        for value in tuned.vit.blocks[1].parameters():
            value *= 1.1
    assert block_drift(tuned, backbone) == pytest.approx([0, 0.1, 0])


def test_a_low_rank_update_counts_as_the_change_of_its_matrix() -> None:
    backbone, tuned = wrap(tiny_vit()), tune(tiny_vit(), "lora", rank=2, alpha=4.0, targets="o").eval()
    assert block_drift(tuned, backbone) == pytest.approx([0, 0, 0], abs=1e-12)
    projection = tuned.vit.blocks[2].attn.proj
    update = projection.updates["0"]
    with torch.no_grad():
        update.b.fill_(0.3)
    change = 2 * float(torch.linalg.norm(update.b @ update.a).detach())
    before = np.sqrt(sum(float((value.detach() ** 2).sum()) for value in backbone.vit.blocks[2].parameters()))
    assert block_drift(tuned, backbone) == pytest.approx([0, 0, change / before], abs=1e-9)


# ---- internals


@EVERY
def test_internals_measure_every_block_of_every_tuning(case: str) -> None:
    model = built(case)
    found = rows_of("internals", subject_of(model, ()))
    assert all(row.value is not None and row.method is None for row in found.values())
    for block in range(3):
        per_image = [found[name, None, f"attention_distance/{block}"].value for name in ("0.png", "1.png", "2.png")]
        per_head = [found[None, None, f"attention_distance/{block}/{head}"].value for head in range(3)]
        assert np.mean(per_image) == pytest.approx(np.mean(per_head)) and 0 < min(per_head) < 50
        prompted = model.layout.at(block).prompts > 0
        assert ((None, None, f"prompt_chance/{block}") in found) == prompted
        assert (("0.png", None, f"prompt_mass/{block}") in found) == prompted
    assert not any("drift" in key[2] or "cka" in key[2] for key in found)


def test_internals_of_an_untouched_backbone_show_no_change() -> None:
    model, count = built("full"), 6
    more = tiny_images(count, seed=1)
    subject = replace(subject_of(model, ()), ids=tuple(map(str, range(count))), images=more, backbone=wrap(tiny_vit()))
    found = rows_of("internals", subject)
    for block in range(3):
        assert found[None, None, f"weight_drift/{block}"].value == 0
        assert found["0", None, f"feature_drift/{block}"].value == pytest.approx(0, abs=1e-6)
        assert found["0", None, f"feature_cosine/{block}"].value == pytest.approx(1, abs=1e-6)
        similarity = found[None, None, f"backbone_cka/{block}"]
        assert similarity.value == pytest.approx(1, abs=1e-6) and similarity.flag == "few_images"


def test_internals_of_a_changed_block_show_the_change_from_there_on() -> None:
    tuned = built("full")
    with torch.no_grad():
        tuned.vit.blocks[1].mlp.fc2.weight *= -2
    found = rows_of("internals", replace(subject_of(tuned, ()), backbone=wrap(tiny_vit())))
    drift = [found["0.png", None, f"feature_drift/{block}"].value for block in range(3)]
    assert drift[0] == pytest.approx(0, abs=1e-6) and min(drift[1:]) > 0.01
    few = found[None, None, "backbone_cka/1"]
    assert few.value is None and few.flag == "few_images"  # three images have no debiased CKA


# ---- randomisation


@EVERY
def test_the_cascade_reaches_every_weight_once_with_prompts_at_the_end(case: str) -> None:
    stages = dict(cascade_stages(built(case, depth=7)))
    assert list(stages) == ["head", "blocks.4", "blocks.1", "all"]
    names = [name for tensors in stages.values() for name in tensors]
    assert len(names) == len(set(names)) == len(list(built(case, depth=7).parameters()))
    assert all(name.startswith("head") for name in stages["head"])
    assert any(name.startswith("blocks.5.attn.qkv.") for name in stages["blocks.4"])
    assert {"patch_embed.proj.weight", "pos_embed", "blocks.0.norm1.weight"} <= stages["all"].keys()
    assert not any("prompts" in name for stage in list(stages)[:-1] for name in stages[stage])


def test_arms_of_one_backbone_randomise_the_same_tensors_in_each_stage() -> None:
    vpt, ft = dict(cascade_stages(built("deep"))), dict(cascade_stages(built("full")))
    assert {stage: [name for name in found if "prompts" not in name] for stage, found in vpt.items()} == {
        stage: list(found) for stage, found in ft.items()
    }


def test_permuting_keeps_the_values_and_depends_on_nothing_but_the_numbers() -> None:
    value = torch.arange(12.0).view(3, 4)
    once, again = value.clone(), value.clone()
    permute(once, np.random.default_rng(0))
    permute(again, np.random.default_rng(0))
    assert torch.equal(once, again) and not torch.equal(once, value)
    assert torch.equal(once.flatten().sort().values, value.flatten())


@pytest.mark.parametrize("case", ["full", "deep", "shallow in some blocks, registers"])
def test_a_cascade_leaves_rollout_alone_at_the_head_and_reaches_every_method_at_the_end(case: str) -> None:
    found = rows_of("randomisation", subject_of(built(case)))
    for image in ("0.png", "1.png", "2.png"):
        for metric in ("cascade_signed/head", "cascade_absolute/head"):
            row = found[image, "attention_rollout", metric]
            assert row.value == pytest.approx(1, abs=1e-12) and row.flag == "class_agnostic"
        assert found[image, "grad_cam", "cascade_signed/head"].value < 0.999
        for method in METHODS:
            row = found[image, method, "cascade_signed/all"]
            assert row.value < 0.99 and row.flag is None
            assert found[image, method, "emprt"].value > -1
    assert {key[2] for key in found} == {"emprt", *(f"cascade_{kind}/{stage}" for kind in ("signed", "absolute")
                                                   for stage in ("head", "blocks.0", "all"))}  # fmt: skip


def test_equal_draws_give_equal_rows_and_other_draws_others() -> None:
    def measured(draw_seed: int) -> list[Row]:
        subject = subject_of(built("deep"), ("attention_rollout",), draw_seed=draw_seed)
        return list(MEASURES["randomisation"]()(subject))

    assert measured(3) == measured(3)
    assert measured(3) != measured(4)


def test_path_methods_pay_for_few_nodes_in_the_cascade(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []

    def explain(self: Subject, images: Tensor, labels: Any = None, **options: Any) -> dict[str, Array]:
        used.append(dict(self.options))
        return {name: np.zeros((3, *GRID), np.float32) for name in self.methods}

    subject = subject_of(built("full"))
    monkeypatch.setattr(Subject, "explain", explain)
    chosen: dict[str, Any] = {"integrated_gradients": {"baseline": "mean"}, "grad_cam": {}}
    rows = list(MEASURES["randomisation"]()(replace(subject, options=chosen)))
    expected = {"baseline": "mean", "max_nodes": 17}
    assert all(options["integrated_gradients"] == expected and options["grad_cam"] == {} for options in used)
    assert all(row.value is None and row.flag == "flat_map" for row in rows)


# ---- drift


def test_maps_that_follow_the_picture_do_not_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean grey per patch is proportional to brightness and moves exactly with the picture."""

    def grey(self: Subject, images: Tensor, labels: Any = None, **options: Any) -> dict[str, Array]:
        pixels = self.model.transform.denormalise(images)
        return {name: pixels.mean(1).unflatten(1, (3, 8)).unflatten(3, (4, 8)).mean((2, 4)).numpy()
                for name in self.methods}  # fmt: skip

    monkeypatch.setattr(Subject, "explain", grey)
    model = built("full")
    drawn = torch.rand(3, 3, 24, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = model.transform.normalise(0.8 * drawn)  # 20 % brighter stays below white
    subject = subject_of(model, ("grad_cam",), images=images)
    subject = replace(subject, maps=subject.explain(images))
    found = rows_of("drift", subject)
    for image in subject.ids:
        for name, least in (("brightness", 1 - 1e-9), ("shift", 1 - 1e-9), ("blur", 0.8), ("jpeg", 0.9)):
            assert least <= found[image, "grad_cam", f"drift_{name}"].value <= 1 + 1e-9, name


@pytest.mark.parametrize("case", ["deep", "attention pool, shallow"])
def test_drift_states_the_change_of_the_targets_probability(case: str) -> None:
    subject = subject_of(built(case), ("attention_rollout",))
    found = rows_of("drift", subject)
    for name in ("brightness", "blur", "shift", "jpeg"):
        with torch.no_grad():
            after, before = (subject.model(images).softmax(1) for images in (disturbed(subject, name), IMAGES))
        for index, (image, label) in enumerate(zip(subject.ids, subject.labels, strict=True)):
            change = float(after[index, label] - before[index, label])
            assert found[image, None, f"score_change_{name}"].value == pytest.approx(change, abs=1e-5)
            assert -1 <= found[image, "attention_rollout", f"drift_{name}"].value < 1


def test_a_flat_map_has_no_drift_and_says_so() -> None:
    subject = subject_of(built("full"), ("attention_rollout",))
    flat = replace(subject, maps={"attention_rollout": np.ones((3, *GRID), np.float32)})
    drift = [row for row in rows_of("drift", flat).values() if row.method]
    assert {(row.value, row.flag) for row in drift} == {(None, "flat_map")}


def test_a_shift_repeats_the_edge_and_jpeg_stays_close() -> None:
    pixels = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    moved = shifted(pixels, 2)
    assert torch.equal(moved[..., 2:], pixels[..., :-2]) and torch.equal(moved[..., 1], pixels[..., 0])
    smooth = torch.linspace(0, 1, 32).expand(1, 3, 32, 32).clone()
    found = compressed(smooth)
    assert found.shape == smooth.shape and 0 < float((found - smooth).abs().max()) < 0.1

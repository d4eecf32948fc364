"""Faithfulness measures on models whose answers are known in closed form."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from tiny_vits import GRID, SIZE, tiny_images, tiny_vit
from torch import Tensor

from explain.baselines import baseline_images
from explain.engine import attribute
from explain.evidence.base import MEASURES, Row
from explain.evidence.measures import removal, road, sensitivity
from explain.evidence.subject import Subject
from explain.metrics.faithfulness import removal_counts
from explain.model import TunedModel
from explain.wrapping import wrap

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the peer's imports
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

PATCHES = GRID[0] * GRID[1]


def additive_vit() -> TunedModel:
    """No attention and a mean head: the logits are the mean of what each patch gives on its own."""
    vit = tiny_vit("mean of patches", fc_norm=False)
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.proj.weight.zero_()
    return wrap(vit)


def contributions(model: TunedModel, images: Tensor) -> np.ndarray:
    """What every patch of (n, 3, H, W) gives to the logits, (n, patches, K)."""
    with torch.no_grad():
        return (model.vit.forward_features(images)[:, 1:] @ model.vit.head.weight.T / PATCHES).numpy()


def random_maps(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *GRID)).astype(np.float32)


def subject_of(model: TunedModel, count: int = 6, *, images: Tensor | None = None, **fields: Any) -> Subject:
    images = tiny_images(count) if images is None else images
    given: dict[str, Any] = dict(maps={"guess": random_maps(len(images))}, options={})
    return Subject(
        arm="ft", seed=0, model=model, ids=tuple(f"image {index}" for index in range(len(images))), images=images,
        labels=np.arange(len(images)) % 5, masks=np.zeros((len(images), *SIZE), bool), **(given | fields),
    )  # fmt: skip


def rows_of(name: str, subject: Subject) -> list[Row]:
    return list(MEASURES.create(name)(subject))


def values(rows: list[Row], method: str | None, metric: str) -> np.ndarray:
    found = [row.value for row in rows if (row.method, row.metric) == (method, metric)]
    return np.array([np.nan if value is None else value for value in found])


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def closed_form(model: TunedModel, subject: Subject, maps: np.ndarray) -> dict[str, np.ndarray]:
    """Deletion and insertion areas of an additive model, from what its patches give."""
    transform, images = model.transform, subject.images
    full = contributions(model, images)
    black = contributions(model, baseline_images("black", images, transform)[0].expand_as(images))
    blur = contributions(model, baseline_images("blur", images, transform)[0])
    bias = model.vit.head.bias.detach().numpy()
    counts, found = removal_counts(PATCHES, removal.STEPS), {"deletion": [], "insertion": []}
    for index in range(len(images)):
        order = np.argsort(-maps[index].ravel())
        for metric, first, second in (("deletion", black, full), ("insertion", full, blur)):
            sums = [first[index, order[:k]].sum(0) + second[index, order[k:]].sum(0) + bias for k in counts]
            curve = softmax(np.array(sums))[:, subject.labels[index]]
            found[metric].append(trapezoid(curve, dx=1 / removal.STEPS))
    return {metric: np.array(areas) for metric, areas in found.items()}


def test_removal_of_an_additive_model_equals_the_closed_form_in_any_order() -> None:
    model = additive_vit()
    subject = subject_of(model)
    subject = replace(subject, maps={"guess": random_maps(6), "other": random_maps(6, seed=1)})
    rows = rows_of("removal", subject)
    for name, maps in subject.maps.items():
        expected = closed_form(model, subject, maps)
        for metric, areas in expected.items():
            np.testing.assert_allclose(values(rows, name, metric), areas, atol=1e-5)
    assert np.ptp(values(rows, "guess", "deletion") - values(rows, "other", "deletion")) > 0.01
    random = [values(rows, None, f"random_{metric}") for metric in ("insertion", "deletion")]
    gained = expected["insertion"] - random[0] + random[1] - expected["deletion"]
    np.testing.assert_allclose(values(rows, "other", "gain"), gained, atol=2e-5)


def test_the_ends_are_the_image_black_and_the_blur() -> None:
    model = wrap(tiny_vit())
    subject = subject_of(model)
    rows = rows_of("removal", subject)
    black, blur = (baseline_images(name, subject.images, model.transform)[0] for name in ("black", "blur"))
    for metric, images in (("full", subject.images), ("black", black.expand_as(blur)), ("blur", blur)):
        with torch.no_grad():
            expected = softmax(model(images).numpy())[np.arange(6), subject.labels]
        np.testing.assert_allclose(values(rows, None, f"score_{metric}"), expected, atol=1e-6)


def test_an_order_read_over_columns_gives_other_areas() -> None:
    subject = subject_of(additive_vit())
    turned = subject.maps["guess"].transpose(0, 2, 1).reshape(6, *GRID)
    rows = rows_of("removal", replace(subject, maps={**subject.maps, "turned": turned}))
    for metric in ("insertion", "deletion"):
        assert np.abs(values(rows, "guess", metric) - values(rows, "turned", metric)).max() > 1e-2


def test_a_random_map_gains_nothing_and_the_true_one_does() -> None:
    images, model = tiny_images(60), additive_vit()
    subject = subject_of(model, images=images)
    given = contributions(model, images)[np.arange(60), :, subject.labels].reshape(60, *GRID)
    rows = rows_of("removal", replace(subject, maps={"random": random_maps(60), "true": given}))
    chance, true = values(rows, "random", "gain"), values(rows, "true", "gain")
    assert np.abs(chance).max() > 0.05 and abs(chance.mean()) < 3 * chance.std() / np.sqrt(60)
    assert true.mean() > 10 * true.std() / np.sqrt(60)


def test_the_random_order_is_that_of_the_image_whatever_else_is_measured() -> None:
    first = subject_of(additive_vit())
    second = replace(first, ids=first.ids[::-1], images=first.images.flip(0), labels=first.labels[::-1].copy(),
                     maps={"a": random_maps(6, seed=3), "b": random_maps(6, seed=4)}, arm="vpt", seed=7)  # fmt: skip
    areas = [values(rows_of("removal", subject), None, "random_deletion") for subject in (first, second)]
    np.testing.assert_allclose(areas[0], areas[1][::-1], atol=1e-6)
    other = values(rows_of("removal", replace(first, draw_seed=1)), None, "random_deletion")
    assert np.abs(areas[0] - other).max() > 1e-3


def test_a_flat_map_has_a_flag_and_no_number_and_costs_no_forward() -> None:
    maps = random_maps(6)
    maps[2] = 0.25
    asked = []
    subject = Counting(**vars(subject_of(additive_vit(), maps={"guess": maps})))
    subject.asked = asked
    rows = rows_of("removal", subject)
    for metric in ("insertion", "deletion", "gain"):
        flags = [(row.value is None, row.flag) for row in rows if (row.method, row.metric) == ("guess", metric)]
        assert flags == [(True, "flat_map") if index == 2 else (False, None) for index in range(6)]
    inner = 2 * (removal.STEPS - 1)
    assert asked == [6 * 3 + 6 * inner + 5 * inner]  # ends, reference, maps: one call


class Counting(Subject):
    """Notes how many forwards each call asked for."""

    asked: list[int]
    __setattr__ = object.__setattr__

    def logits(self, count: int, make: Any) -> np.ndarray:
        self.asked.append(count)
        return super().logits(count, make)


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """The global random numbers are those of before."""
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    yield
    assert torch.equal(torch.random.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize("name", ["removal", "road", "infidelity", "max_sensitivity"])
def test_neither_batch_nor_memory_budget_changes_a_number(name: str) -> None:
    subject = subject_of(wrap(tiny_vit()))
    rollout = subject.explain(subject.images, methods=("attention_rollout",))
    subject = replace(subject, maps=rollout | dict(subject.maps), controls=("guess",))
    before = subject.images.clone()
    with nothing_drawn():
        together = rows_of(name, subject)
    assert len(together) >= 6
    small = rows_of(name, replace(subject, memory_budget=1))
    singles = [one for index in range(6) for one in rows_of(name, only(subject, index))]
    for other in (small, singles):
        assert {row[:3] for row in other} == {row[:3] for row in together} and len(other) == len(together)
        found = {row[:3]: row.value for row in other}
        expected = [row.value for row in together]
        np.testing.assert_allclose([found[row[:3]] for row in together], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(subject.images, before)


def only(subject: Subject, index: int) -> Subject:
    """The subject with one of its images."""
    rows = slice(index, index + 1)
    return replace(
        subject, ids=subject.ids[rows], images=subject.images[rows], labels=subject.labels[rows],
        masks=subject.masks[rows], maps={name: maps[rows] for name, maps in subject.maps.items()},
    )  # fmt: skip


def test_road_removes_whole_patches_from_both_ends_and_fills_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(road, "NOISE", 0.0)
    subject, impute = subject_of(wrap(tiny_vit()), count=2), NoisyLinearImputer(noise=0.0)
    rows = rows_of("road", subject)
    for index in range(2):
        scores = {}
        for metric, sign in (("road_morf", -1), ("road_lerf", 1)):
            order = np.argsort(sign * subject.maps["guess"][index].ravel())
            gone = [np.isin(np.arange(PATCHES), order[:count]).reshape(GRID) for count in (1, 4, 6, 8, 11)]
            kept = [torch.from_numpy(1 - np.kron(mask, np.ones((8, 8)))) for mask in gone]
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of numpy, at the peer
                filled = torch.stack([impute(subject.images[index].float(), mask) for mask in kept])
            with torch.no_grad():
                logits = subject.model(filled.double())
            scores[metric] = softmax(logits.numpy())[:, subject.labels[index]].mean()
            assert values(rows, "guess", metric)[index] == pytest.approx(scores[metric], abs=1e-5)
        combined = (scores["road_lerf"] - scores["road_morf"]) / 2
        assert values(rows, "guess", "road_combined")[index] == pytest.approx(combined, abs=1e-5)


def test_road_of_a_flat_map_has_a_flag_and_no_number() -> None:
    rows = rows_of("road", subject_of(additive_vit(), count=2, maps={"guess": np.ones((2, *GRID), np.float32)}))
    assert len(rows) == 6 and all(row.value is None and row.flag == "flat_map" for row in rows)


class LinearModel(TunedModel):
    """A TunedModel whose logits are linear in the pixels."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(tiny_vit(), wrap(tiny_vit()).layout, wrap(tiny_vit()).transform)
        generator = torch.Generator().manual_seed(0)
        self.slope = scale * torch.randn(5, 3, *SIZE, generator=generator, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.slope)


def test_integrated_gradients_of_a_linear_model_foretell_every_change() -> None:
    model = LinearModel()
    subject = subject_of(model)
    maps = subject.explain(subject.images, methods=("integrated_gradients",))
    black = baseline_images("black", subject.images, model.transform)[0]
    exact = (model.slope[subject.labels] * (subject.images - black)).sum(1).reshape(6, GRID[0], 8, GRID[1], 8)
    np.testing.assert_allclose(maps["integrated_gradients"], exact.mean((2, 4)), rtol=1e-4, atol=1e-5)
    turned = -maps["integrated_gradients"]
    maps |= {"guess": random_maps(6), "turned": turned, "no": np.zeros_like(turned)}
    rows = rows_of("infidelity", replace(subject, maps=maps))
    assert values(rows, "integrated_gradients", "infidelity").max() <= 1e-6
    assert values(rows, "guess", "infidelity").min() > 0.3
    assert {row.flag for row in rows if row.method == "turned"} == {"opposite_sign"}
    assert {(row.value, row.flag) for row in rows if row.method == "no"} == {(None, "blank_map")}
    assert {row.flag for row in rows if row.method == "integrated_gradients"} == {None}


def test_a_score_that_does_not_change_has_no_infidelity() -> None:
    rows = rows_of("infidelity", subject_of(LinearModel(scale=0.0)))
    assert [(row.value, row.flag) for row in rows] == [(None, "no_score_change")] * 6


class Pooling(Subject):
    """Its maps are the mean over colours and patches, of the pictures it was asked about."""

    asked: list[Tensor]
    __setattr__ = object.__setattr__

    def explain(self, images: Tensor, *rest: Any, **more: Any) -> dict[str, np.ndarray]:
        self.asked.append(images)
        return {"pooling": images.mean(1).reshape(-1, GRID[0], 8, GRID[1], 8).mean((2, 4)).numpy()}


def test_sensitivity_is_the_worst_of_six_draws_from_the_ball() -> None:
    maps = Pooling.explain(SimpleNamespace(asked=[]), tiny_images(3))  # type: ignore[arg-type]
    maps["pooling"][2] = 0
    subject = Pooling(**vars(subject_of(wrap(tiny_vit()), count=3, maps=maps | {"control": random_maps(3)},
                                        controls=("control",))))  # fmt: skip
    subject.asked = []
    rows = rows_of("max_sensitivity", subject)
    noise = torch.stack(subject.asked) - subject.images
    assert len(noise) == sensitivity.DRAWS and 0.0199 < noise.abs().max() <= 0.02
    assert (noise[0] - noise[1]).abs().mean() > 0.01
    moved = noise.mean(2).reshape(6, 3, GRID[0], 8, GRID[1], 8).mean((3, 5)).flatten(2).norm(dim=2).numpy()
    expected = moved.max(0)[:2] / np.linalg.norm(maps["pooling"][:2].reshape(2, -1), axis=1)
    np.testing.assert_allclose(values(rows, "pooling", "max_sensitivity")[:2], expected, rtol=1e-6)
    assert [row.flag for row in rows] == [None, None, "blank_map"] and rows[2].value is None


def test_completeness_passes_on_what_the_method_reported_and_says_where_it_is_poor() -> None:
    name, told = "integrated_gradients", {
        "completeness_gap": [0.01, 0.2, 0.5], "score_difference": [3.0, -2.0, 1e-6],
        "nodes": [9.0, 513.0, 17.0], "converged": [1.0, 0.0, 1.0],
    }  # fmt: skip
    subject = subject_of(additive_vit(), count=3, maps={name: random_maps(3), "attention_rollout": random_maps(3)},
                         extras={f"{name}.{key}": np.array(values) for key, values in told.items()})  # fmt: skip
    rows = [row[2:] for row in rows_of("completeness", subject)]
    assert rows == [
        ("completeness_gap", 0.01, None), ("score_difference", 3.0, None), ("ig_nodes", 9.0, None),
        ("completeness_gap", 0.2, "gap_above_5_percent"), ("score_difference", -2.0, None),
        ("ig_nodes", 513.0, "not_converged"),
        ("completeness_gap", None, "no_score_change"), ("score_difference", 1e-6, None), ("ig_nodes", 17.0, None),
    ]  # fmt: skip
    assert rows_of("completeness", replace(subject, extras={})) == []


def test_completeness_of_real_maps_is_that_of_the_engine() -> None:
    name, subject = "integrated_gradients", subject_of(wrap(tiny_vit()), count=2)
    found = attribute(subject.model, subject.images, methods=name, targets=[0, 1], options={name: {"n_steps": 4}})[name]
    extras = {f"{name}.{key}": extra for key, extra in found.extras.items() if extra.ndim == 1}
    rows = rows_of("completeness", replace(subject, maps={name: random_maps(2)}, extras=extras))
    np.testing.assert_allclose(values(rows, name, "completeness_gap"), found.extras["completeness_gap"])
    assert values(rows, name, "ig_nodes").tolist() == [4, 4]

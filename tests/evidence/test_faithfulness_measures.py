"""Faithfulness measures on models whose answers are known in closed form."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import GRID, SIZE, tiny_images, tiny_vit
from torch import Tensor

from explain.baselines import baseline_images
from explain.evidence.base import MEASURES, Row
from explain.evidence.measures import removal
from explain.evidence.subject import Subject
from explain.metrics.faithfulness import curve_area, removal_counts
from explain.model import TunedModel
from explain.wrapping import wrap

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
            found[metric].append(curve_area(softmax(np.array(sums))[:, subject.labels[index]]))
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
    images, model = tiny_images(120), additive_vit()
    subject = subject_of(model, images=images)
    given = contributions(model, images)[np.arange(120), :, subject.labels].reshape(120, *GRID)
    rows = rows_of("removal", replace(subject, maps={"random": random_maps(120), "true": given}))
    chance, true = values(rows, "random", "gain"), values(rows, "true", "gain")
    assert np.abs(chance).max() > 0.05 and abs(chance.mean()) < 3 * chance.std() / np.sqrt(120)
    assert true.mean() > 10 * true.std() / np.sqrt(120)


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


@pytest.mark.parametrize("name", ["removal"])
def test_neither_batch_nor_memory_budget_changes_a_number(name: str) -> None:
    subject = subject_of(wrap(tiny_vit()))
    before = subject.images.clone()
    with nothing_drawn():
        together = rows_of(name, subject)
    small = rows_of(name, replace(subject, memory_budget=1))
    singles = [
        row for index in range(6)
        for row in rows_of(name, replace(
            subject, ids=subject.ids[index:][:1], images=subject.images[index:][:1],
            labels=subject.labels[index:][:1], masks=subject.masks[index:][:1],
            maps={key: maps[index:][:1] for key, maps in subject.maps.items()},
        ))
    ]  # fmt: skip
    for other in (small, singles):
        assert [row[:3] for row in other] == [row[:3] for row in together]
        np.testing.assert_allclose([row.value for row in other], [row.value for row in together], rtol=1e-5, atol=1e-6)
    assert torch.equal(subject.images, before)

"""Grid game and inserted defect: right numbers for models whose maps are known, and a reason where there is none."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vits import GRID, SIZE, tiny_images, tiny_vit
from torch import Tensor

from explain.evidence.base import MEASURES, Row
from explain.evidence.measures import inserted_defect
from explain.evidence.measures.grid_game import quads_of
from explain.evidence.measures.inserted_defect import nearby, with_spots
from explain.evidence.subject import Subject
from explain.evidence.truth import additive_vit, cam_identity, mosaic
from explain.metrics.localisation import grid_game
from explain.model import TunedModel
from explain.wrapping import wrap

COUNT = 12


def sure_model() -> TunedModel:
    """Additive, and sure of its answers: of `tiny_images(12)` all have 50 % at least."""
    model = additive_vit()
    with torch.no_grad():
        model.vit.head.weight.mul_(40)
        model.vit.head.bias.copy_(-model(tiny_images(40, seed=1)).mean(0))
    return model


def subject_of(model: TunedModel, images: Tensor, methods: tuple[str, ...], **changes: Any) -> Subject:
    with torch.no_grad():
        labels = model(images).argmax(1).numpy()
    subject = Subject(
        arm="ft", seed=0, model=model, ids=tuple(f"{index}.png" for index in range(len(images))), images=images,
        labels=labels, masks=np.zeros((len(images), *SIZE), bool), options={},
        maps={name: np.zeros((len(images), *GRID), np.float32) for name in methods},
    )  # fmt: skip
    subject = replace(subject, **changes)
    return replace(subject, maps=subject.explain(images, methods=methods)) if methods else subject


def rows_of(measure: str, subject: Subject) -> dict[tuple[str | None, str | None, str], Row]:
    rows = list(MEASURES.create(measure)(subject))
    found = {row[:3]: row for row in rows}
    assert len(found) == len(rows) and {row.metric for row in rows} <= set(MEASURES[measure].metrics)
    assert all((row.value is None) <= (row.flag is not None) for row in rows)
    return found


# ---- grid game


def test_mosaics_have_four_classes_and_use_an_image_once() -> None:
    labels = np.repeat([0, 1, 2, 3, 4], [4, 4, 3, 3, 2])
    quads = quads_of(labels, np.random.default_rng(0))
    used = [index for quad in quads for index in quad]
    assert len(quads) == 4 and len(set(used)) == 16
    assert all(len(set(labels[list(quad)])) == 4 for quad in quads)
    cells = Counter((cell, labels[index]) for quad in quads for cell, index in enumerate(quad))
    assert len({cell for cell, label in cells if label == 0}) > 1, "a class must not always lie in the same cell"


def test_mosaics_of_two_or_three_classes_have_each_class_on_a_diagonal() -> None:
    labels = np.repeat([0, 1, 2], [4, 5, 7])
    quads = quads_of(labels, np.random.default_rng(0))
    used = [index for quad in quads for index in quad]
    assert len(quads) >= 3 and len(set(used)) == len(used)
    for quad in quads:
        a, b, c, d = labels[list(quad)]
        assert a == d and b == c and a != b
    assert quads_of(np.zeros(8, int), np.random.default_rng(0)) == []
    assert quads_of(np.array([0, 1, 1, 1]), np.random.default_rng(0)) == []


def test_a_row_is_the_share_of_the_own_cell_for_the_own_class() -> None:
    """GradCAM of the additive model is known, so every share is."""
    subject = subject_of(sure_model(), tiny_images(COUNT), ("grad_cam",))
    found = rows_of("grid_game", subject)
    quads = quads_of(subject.labels, subject.rng("grid_game"))
    assert len(set(subject.labels)) >= 4 and len(quads) >= 2 and len(found) == 4 * len(quads)
    values = []
    for quad in quads:
        truth = cam_identity(subject.model, mosaic(subject.images[list(quad)])[None])[0].numpy()
        for cell, index in enumerate(quad):
            row = found[subject.ids[index], "grad_cam", "grid_game"]
            if row.flag != "not_recognised":
                values.append((row.value, grid_game(truth[subject.labels[index]][None], [cell])[0]))
    assert len(values) >= 6
    np.testing.assert_allclose(*np.array(values).T, atol=1e-6)
    assert np.std(values) > 0.01


def test_a_map_that_ignores_the_class_gets_exactly_a_quarter_and_says_so() -> None:
    controls = {name: np.ones((COUNT, *GRID), np.float32) for name in ("random", "centre", "sobel")}
    subject = subject_of(sure_model(), tiny_images(COUNT), ("attention_rollout",))
    subject = replace(subject, maps={**subject.maps, **controls}, controls=tuple(controls))
    found = rows_of("grid_game", subject)
    assert {method for _, method, _ in found} == {"attention_rollout", *controls}
    assert {row.flag for row in found.values()} == {"class_agnostic"}
    assert [row.value for row in found.values()] == pytest.approx([0.25] * len(found), abs=1e-9)


def test_images_that_the_model_does_not_recognise_have_no_number() -> None:
    subject = subject_of(sure_model(), tiny_images(COUNT), ("grad_cam",))
    wrong = rows_of("grid_game", replace(subject, labels=(subject.labels + 1) % 5))
    assert {row[3:] for row in wrong.values()} == {(None, "not_recognised")}


def test_two_classes_are_marked_and_one_class_has_no_mosaic() -> None:
    subject = subject_of(sure_model(), tiny_images(COUNT), ("grad_cam",))
    two = np.flatnonzero(np.isin(subject.labels, [label for label, _ in Counter(subject.labels).most_common(2)]))
    chosen = replace(
        subject, ids=tuple(subject.ids[index] for index in two), images=subject.images[two], labels=subject.labels[two],
        maps={name: maps[two] for name, maps in subject.maps.items()},
    )  # fmt: skip
    flags = {row.flag for row in rows_of("grid_game", chosen).values()}
    assert "two_classes" in flags and flags <= {"two_classes", "not_recognised"}
    assert not rows_of("grid_game", replace(subject, labels=np.zeros(COUNT, int)))


def test_a_control_without_relevance_is_blank() -> None:
    grey = torch.zeros(4, 3, *SIZE, dtype=torch.float64)
    subject = subject_of(sure_model(), grey, (), labels=np.arange(4))
    sobel = {"sobel": np.ones((4, *GRID), np.float32)}
    subject = replace(subject, labels=np.arange(4), maps=sobel, controls=("sobel",))
    assert {row[3:] for row in rows_of("grid_game", subject).values()} == {(None, "blank_map")}


def test_every_model_plays_the_same_mosaics() -> None:
    images = tiny_images(COUNT)
    first = subject_of(sure_model(), images, ("grad_cam",))
    second = subject_of(wrap(tiny_vit()), images, ("grad_cam",), labels=first.labels)
    assert rows_of("grid_game", first).keys() == rows_of("grid_game", replace(second, labels=first.labels)).keys()


# ---- inserted defect


def test_the_change_of_an_additive_models_map_lies_at_the_spot() -> None:
    subject = subject_of(additive_vit(), tiny_images(6), ("grad_cam",))
    found = rows_of("inserted_defect", subject)
    inside = [row for row in found.values() if row.metric == "defect_change_inside"]
    assert len(inside) == 6 and sum(row.value is not None for row in inside) >= 4
    assert all(row.value == pytest.approx(1, abs=1e-9) for row in inside if row.value is not None)
    areas = [row.value for row in found.values() if row.metric == "defect_area"]
    assert {round(12 * area) for area in areas} <= {4, 6, 9} and max(areas) < 1


def test_the_change_of_the_score_is_that_of_the_model() -> None:
    subject = subject_of(wrap(tiny_vit()), tiny_images(4), ("grad_cam",))
    found = rows_of("inserted_defect", subject)
    spots = np.array([inserted_defect._draw_spot(subject, name) for name in subject.ids])
    with torch.no_grad():
        before, after = subject.model(subject.images), subject.model(with_spots(subject, spots))
    expected = (after - before).numpy()[np.arange(4), subject.labels]
    values = [found[name, None, "defect_score_change"].value for name in subject.ids]
    np.testing.assert_allclose(values, expected, atol=1e-5)
    moved = np.abs(subject.explain(with_spots(subject, spots))["grad_cam"] - subject.maps["grad_cam"])
    shares = (moved * nearby(spots, GRID)).sum((1, 2)) / moved.sum((1, 2))
    rows = [found[name, "grad_cam", "defect_change_inside"] for name in subject.ids]
    assert all(row.value == pytest.approx(share, abs=1e-6) for row, share in zip(rows, shares, strict=True))
    assert shares.max() < 1, "attention spreads a change"


def test_a_spot_is_half_of_the_range_in_its_patch_and_nothing_outside_its_neighbours() -> None:
    grey = wrap(tiny_vit())
    levels = torch.tensor([0.2, 0.45, 0.8], dtype=torch.float64)[:, None, None, None].expand(3, 3, *SIZE)
    images = grey.transform.normalise(levels)
    subject = subject_of(grey, images, ())
    spots = np.array([[0, 0], [1, 2], [2, 3]])
    change = (grey.transform.denormalise(with_spots(subject, spots)) - levels).numpy()
    for one, (row, column), sign in zip(change, spots, (1, 1, -1), strict=True):
        patch = one[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        # the four pixels in the middle are half a pixel from it, a sixteenth of the patch, in both directions
        assert sign * patch[:, 3:5, 3:5] == pytest.approx(0.5 * np.exp(-(2 / 16**2) / (2 * 0.25**2)), abs=1e-9)
        assert np.abs(patch).sum() > 0.9 * np.abs(one).sum()
    far = ~nearby(spots, GRID).repeat(8, 1).repeat(8, 2)
    same = (with_spots(subject, spots) == images).all(1).numpy()
    assert same[far].all() and not same.all()
    assert nearby(np.array([[0, 0]]), GRID)[0].tolist() == [[True, True, False, False]] * 2 + [[False] * 4]


def test_a_model_that_does_not_react_has_nothing_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(wrap(tiny_vit()), tiny_images(3), ("grad_cam", "attention_rollout"))
    monkeypatch.setattr(inserted_defect, "LEAST_CHANGE", 1e9)
    rows = rows_of("inserted_defect", subject)
    shares = [row for row in rows.values() if row.metric == "defect_change_inside"]
    assert len(shares) == 6 and {row[3:] for row in shares} == {(None, "no_score_change")}
    assert all(rows[name, None, "defect_score_change"].value is not None for name in subject.ids)


def test_the_place_depends_on_the_image_and_the_draw_seed_alone() -> None:
    subject = subject_of(additive_vit(), tiny_images(6), ("grad_cam",))
    whole, part = rows_of("inserted_defect", subject), rows_of("inserted_defect", subject.last(2))
    assert part.keys() < whole.keys()
    assert all(part[key].value == pytest.approx(whole[key].value, abs=1e-6) for key in part)
    spots = [[inserted_defect._draw_spot(replace(subject, draw_seed=seed), name) for name in subject.ids]
             for seed in (0, 1)]  # fmt: skip
    assert spots[0] != spots[1]


@pytest.mark.parametrize("measure", ["grid_game", "inserted_defect"])
def test_measuring_leaves_model_images_and_global_draws_alone(measure: str) -> None:
    subject = subject_of(sure_model(), tiny_images(8), ("grad_cam",))
    images, state, drawn = subject.images.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()
    training = [module.training for module in subject.model.modules()]
    first = rows_of(measure, subject)
    assert torch.equal(subject.images, images) and torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == drawn).all() and all(p.grad is None for p in subject.model.parameters())
    assert training == [module.training for module in subject.model.modules()]
    assert rows_of(measure, subject) == first

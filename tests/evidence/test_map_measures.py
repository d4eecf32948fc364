"""Localisation and complexity as rows: right numbers on the right image, and a reason where there is none."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from tiny_vits import GRID, SIZE

from explain.evidence.base import MEASURES, Row
from explain.metrics.complexity import gini
from explain.metrics.localisation import relevance_mass

IDS = ("none", "corner", "all")


@dataclass
class Maps:
    """What the two measures see of a subject: maps and regions; they never ask the model."""

    ids: tuple[str, ...]
    masks: np.ndarray
    maps: dict[str, np.ndarray]
    grid: tuple[int, int] = GRID


def subject() -> Maps:
    """Three images: without a region, with one of 2 of 12 patches, and one that is all region."""
    masks = np.zeros((3, *SIZE), dtype=bool)
    masks[1, :8, :16] = masks[2] = True
    rng = np.random.default_rng(0)
    maps = {
        "integrated_gradients": rng.normal(size=(3, *GRID)),
        "grad_cam": np.zeros((3, *GRID)),
        "negative": -1 - rng.random((3, *GRID)),
        "random": rng.random((3, *GRID)),
    }
    return Maps(IDS, masks, {name: values.astype(np.float32) for name, values in maps.items()})


def rows(measure: str, seen: Maps) -> dict[tuple[str | None, str | None, str], Row]:
    found = list(MEASURES.create(measure)(seen))
    table = {(one.image, one.method, one.metric): one for one in found}
    assert len(table) == len(found)
    assert {one.metric for one in found} <= set(MEASURES[measure].metrics)
    assert all((one.value is None) <= (one.flag is not None) for one in found)
    assert all(one.value is None or math.isfinite(one.value) for one in found)
    return table


def test_localisation_has_rows_for_images_with_a_region_only_with_every_metric() -> None:
    table = rows("localisation", subject())
    assert {image for image, _, _ in table} == {"corner", "all"}
    assert {metric for _, _, metric in table} == set(MEASURES["localisation"].metrics)
    assert {method for _, method, _ in table} == {None, "integrated_gradients", "grad_cam", "negative", "random"}
    assert len(table) == 2 + 2 * 4 * 5


def test_localisation_measures_the_image_it_names() -> None:
    seen = subject()
    table, inside = rows("localisation", seen), np.zeros((1, *GRID))
    inside[0, 0, :2] = 1
    assert table["corner", None, "area_share"].value == pytest.approx(2 / 12)
    for method in ("integrated_gradients", "random"):
        expected = relevance_mass(seen.maps[method][1:2], inside)[0]
        assert table["corner", method, "relevance_mass"] == Row("corner", method, "relevance_mass", expected)


def test_localisation_of_a_blank_map_is_null_by_mass_and_chance_by_order_and_says_so() -> None:
    table = rows("localisation", subject())
    assert table["corner", "grad_cam", "relevance_mass"][3:] == (None, "blank_map")
    assert table["corner", "grad_cam", "pixel_auroc"][3:] == (0.5, "flat_map")
    assert table["corner", "grad_cam", "pointing_game"][3:] == (pytest.approx(2 / 12), "flat_map")
    assert table["corner", "negative", "relevance_mass"][3:] == (None, "blank_map")
    assert table["corner", "negative", "pixel_auroc"].flag is None


def test_localisation_in_a_region_of_everything_is_null() -> None:
    table = rows("localisation", subject())
    assert table["all", None, "area_share"].value == 1
    whole = [one for (image, method, _), one in table.items() if image == "all" and method]
    assert {(one.value, one.flag) for one in whole} == {(None, "full_mask")}


def test_localisation_of_images_without_regions_says_nothing() -> None:
    seen = subject()
    seen.masks[:] = False
    assert not rows("localisation", seen)


def test_complexity_describes_every_map_and_flags_a_blank_one() -> None:
    seen = subject()
    table = rows("complexity", seen)
    assert len(table) == 3 * 4 * 3
    expected = gini(seen.maps["random"])
    for image, number in zip(IDS, expected, strict=True):
        assert table[image, "random", "gini"] == Row(image, "random", "gini", number)
        assert {table[image, "grad_cam", metric][3:] for metric in ("gini", "entropy", "effective_area")} == {
            (None, "blank_map")
        }


def test_neither_measure_of_complexity_nor_the_area_is_better_in_one_direction() -> None:
    assert {metric.better for metric in MEASURES["complexity"].metrics.values()} == {"neither"}
    better = {name: metric.better for name, metric in MEASURES["localisation"].metrics.items()}
    assert better.pop("area_share") == "neither" and set(better.values()) == {"higher"}

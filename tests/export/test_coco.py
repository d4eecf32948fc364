import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from explain import MapArchive
from explain.errors import InputError
from explain.export.base import export
from explain.export.coco import LONGEST, Region, _write_list
from explain.render.heatmap import resize


def refuse(token: str) -> None:
    raise AssertionError(f"{token} is not JSON")


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_images_classes_and_answers_are_those_of_the_archive(archive: MapArchive, tmp_path: Path) -> None:
    found = load(export(archive, tmp_path / "out.json", format="coco"))
    assert [(one["id"], one["file_name"]) for one in found["images"]] == list(enumerate(archive.ids()))
    assert {(one["width"], one["height"], one["status"]) for one in found["images"]} == {(64, 64, "ok")}
    assert found["categories"] == [{"id": 0, "name": "left"}, {"id": 1, "name": "right"}]
    assert found["info"]["job"] == archive.job.sha256
    assert [one["id"] for one in found["annotations"]] == list(range(1, len(found["annotations"]) + 1))
    lines = archive.to_pandas().set_index("row")
    for one in found["annotations"]:
        line = lines.loc[one["image_id"]]
        assert one["category_id"] == line[f"{one['model']}_target"]
        assert one["score"] == line[f"{one['model']}_target_probability"]


def test_regions_are_where_the_stored_map_is_high(archive: MapArchive, tmp_path: Path) -> None:
    found = load(export(archive, tmp_path / "out.json", format="coco", share=0.7))
    expected = {}
    for image in archive:
        for model in archive.models:
            for method, stored in image[model].items():
                large = resize(stored.on_grid, (64, 64))
                if large.max() > 0:
                    expected[image.row, model, method] = large >= 0.7 * float(large.max())
    assert {(one["image_id"], one["model"], one["method"]) for one in found["annotations"]} == set(expected)
    assert len(found["annotations"]) == len(expected) > 24 * 4
    for one in found["annotations"]:
        inside = expected[one["image_id"], one["model"], one["method"]]
        rows, columns = np.nonzero(inside)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert one["bbox"] == box
        assert one["area"] == inside.sum()


def drawn(polygons: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside."""
    canvas = np.zeros((8 * size[0], 8 * size[1]), np.uint8)
    for corners in polygons:
        points = np.rint(8 * np.array(corners).reshape(-1, 2)).astype(np.int32)
        cv2.fillPoly(canvas, [points], 1)
    return canvas[4::8, 4::8] > 0


def test_polygons_cover_the_region_along_the_edges_of_its_pixels() -> None:
    values = np.zeros((12, 10), np.float32)
    values[2:5, 3:9] = 1
    values[8, 1] = 1
    region = Region.of(values, (12, 10), 0.5)
    assert (region.box, region.area, len(region.polygons)) == ([1, 2, 8, 7], 19, 2)
    assert np.array_equal(drawn(region.polygons, (12, 10)), values > 0)
    single = min(region.polygons, key=max)
    assert sorted(zip(single[::2], single[1::2], strict=True)) == [(1, 8), (1, 9), (2, 8), (2, 9)]


def test_polygons_of_a_smooth_map_cover_its_region_to_a_few_pixels(archive: MapArchive) -> None:
    values = archive["left/00.png"]["vpt"]["grad_cam"].values
    large = resize(values, (200, 300))
    inside = large >= 0.5 * large.max()
    region = Region.of(values, (200, 300), 0.5)
    wrong = drawn(region.polygons, (200, 300)) ^ inside
    assert wrong.mean() < 0.005
    assert sum(map(len, region.polygons)) < 400


def test_a_huge_image_is_looked_at_smaller_and_told_in_its_own_pixels() -> None:
    values = np.zeros((4, 8), np.float32)
    values[:, :4] = 1
    region = Region.of(values, (40_000, 80_000), 0.5)
    step = 80_000 / LONGEST
    assert np.allclose(region.box, [0, 0, 40_000, 40_000], atol=step)
    assert region.area == pytest.approx(40_000 * 40_000, rel=0.01)


def test_a_map_without_anything_positive_has_no_region() -> None:
    assert Region.of(np.full((4, 4), -1, np.float32), (64, 64), 0.5) is None
    assert Region.of(np.zeros((4, 4), np.float32), (64, 64), 0.5) is None


def test_a_failed_image_is_listed_with_its_status_and_has_no_annotation(odd: MapArchive, tmp_path: Path) -> None:
    found = load(export(odd, tmp_path / "out.json", format="coco"))
    assert [one["name"] for one in found["images"]] == list(odd.ids())
    last = found["images"][-1]
    assert (last["status"], last["width"], last["height"]) == ("truncated", None, None)
    assert last["id"] not in {one["image_id"] for one in found["annotations"]}
    assert {one["image_id"] for one in found["annotations"]} == set(range(22))


def test_each_line_is_written_before_the_next_is_made() -> None:
    stream = io.StringIO()
    lengths: list[int] = []

    def items() -> Iterator[dict[str, Any]]:
        for number in range(4):
            lengths.append(len(stream.getvalue()))
            yield {"number": number}

    _write_list(stream, "items", items())
    assert lengths == sorted(set(lengths))
    assert json.loads("{" + stream.getvalue().lstrip(",") + "}") == {"items": [{"number": each} for each in range(4)]}


@pytest.mark.parametrize("options", [{"share": 0}, {"share": 1.5}, {"share": "half"}, {"share": True}, {"grid": 1}])
def test_options_out_of_range_are_refused(options: dict[str, object], archive: MapArchive, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        export(archive, tmp_path / "out.json", format="coco", **options)

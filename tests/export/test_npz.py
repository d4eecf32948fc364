import json
from pathlib import Path

import numpy as np
import pytest

from explain import MapArchive
from explain.export.base import export

NAMES = ["ft.attention_rollout", "ft.grad_cam", "ft.integrated_gradients", "ft.target", "id", "row", "status",
         "vpt.attention_rollout", "vpt.grad_cam", "vpt.integrated_gradients", "vpt.target"]  # fmt: skip


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def test_arrays_are_the_maps_of_the_archive_bit_by_bit(archive: MapArchive, tmp_path: Path) -> None:
    export(archive, tmp_path / "out", format="npz")
    parts = [load(tmp_path / f"out/maps_00000{shard}.npz") for shard in (0, 1)]
    assert [sorted(part) for part in parts] == [NAMES, NAMES]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in NAMES}
    assert whole["vpt.integrated_gradients"].shape == (24, 64, 64)
    assert whole["id"].tolist() == list(archive.ids())
    assert whole["row"].tolist() == list(range(24))
    for row, image in enumerate(archive):
        for model in archive.models:
            for method, stored in image[model].items():
                found = whole[f"{model}.{method}"][row]
                assert found.dtype == np.float32
                assert np.array_equal(found, stored.values)
                assert whole[f"{model}.target"][row] == stored.target


def test_an_image_without_maps_is_nan_and_one_without_pixels_has_its_grid(odd: MapArchive, tmp_path: Path) -> None:
    export(odd, tmp_path / "pixels", format="npz")
    export(odd, tmp_path / "grid", format="npz", grid=True)
    for shard in range(3):
        pixels, grid = (load(tmp_path / f"{kind}/maps_00000{shard}.npz") for kind in ("pixels", "grid"))
        for inner, row in enumerate(pixels["row"].tolist()):
            image = odd.at(row)
            fine, coarse = (part["vpt.integrated_gradients"][inner] for part in (pixels, grid))
            if not len(image):
                assert pixels["status"][inner] == "truncated" and pixels["vpt.target"][inner] == -1
                assert np.isnan(fine).all() and np.isnan(coarse).all()
                continue
            stored = image["vpt"]["integrated_gradients"]
            assert np.array_equal(coarse, stored.on_grid)
            assert np.array_equal(fine, stored.values) if stored.shape == (64, 64) else np.isnan(fine).all()


def test_ids_come_back_as_they_are(odd: MapArchive, tmp_path: Path) -> None:
    export(odd, tmp_path / "out", format="npz")
    names = [name for shard in range(3) for name in load(tmp_path / f"out/maps_00000{shard}.npz")["id"].tolist()]
    assert names == list(odd.ids())


def test_equal_maps_give_equal_bytes(archive: MapArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(archive, tmp_path / "a", format="npz")
    monkeypatch.setattr("time.time", lambda: 1e9)
    export(archive, tmp_path / "b", format="npz")
    files = [path.name for path in sorted((tmp_path / "a").iterdir())]
    assert len(files) == 3
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_what_was_computed_is_told_and_not_where_images_and_runs_lie(archive: MapArchive, tmp_path: Path) -> None:
    export(archive, tmp_path / "out", format="npz")
    text = (tmp_path / "out/about.json").read_text(encoding="utf-8")
    about = json.loads(text)
    assert about["models"]["vpt"]["class_names"] == ["left", "right"]
    assert about["methods"]["integrated_gradients"]["n_steps"] == 3
    assert (about["job"], about["content"]) == (archive.job.sha256, archive.content_sha256)
    assert str(tmp_path.parent.parent) not in text

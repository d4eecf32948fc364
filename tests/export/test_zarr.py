import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from explain import MapArchive
from explain.errors import InputError
from explain.export.base import export


def test_arrays_are_the_maps_of_the_archive_bit_by_bit(archive: MapArchive, tmp_path: Path) -> None:
    group = zarr.open_group(export(archive, tmp_path / "out", format="zarr"), mode="r")
    assert group.metadata.zarr_format == 3
    assert list(group["id"][:]) == list(archive.ids())
    assert group["row"][:].tolist() == list(range(24))
    for model in archive.models:
        for method in archive.methods:
            found = group[f"{model}/{method}"]
            expected = np.stack([image[model][method].values for image in archive])
            assert found.dtype == np.float32
            assert np.array_equal(found[:], expected)
            assert group[f"{model}/target"][:].tolist() == [image[model][method].target for image in archive]


def test_one_map_is_a_chunk_and_a_shard_of_them_a_file(archive: MapArchive, tmp_path: Path) -> None:
    out = export(archive, tmp_path / "out", format="zarr")
    found = zarr.open_group(out, mode="r")["vpt/integrated_gradients"]
    assert (found.chunks, found.shards) == ((1, 64, 64), (16, 64, 64))
    assert found.metadata.dimension_names == ("image", "y", "x")
    assert len([path for path in (out / "vpt/integrated_gradients/c").rglob("*") if path.is_file()]) == 2


def test_large_maps_share_a_file_with_fewer(
    archive: MapArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explain.export.zarr.SHARD_BYTES", 5 * 4 * 64 * 64)
    group = zarr.open_group(export(archive, tmp_path / "out", format="zarr"), mode="r")
    assert group["vpt/integrated_gradients"].shards == (5, 64, 64)
    assert group["vpt/grad_cam"].shards == (16, 4, 4)
    expected = np.stack([image["vpt"]["integrated_gradients"].values for image in archive])
    assert np.array_equal(group["vpt/integrated_gradients"][:], expected)


def test_an_image_without_maps_is_nan(odd: MapArchive, tmp_path: Path) -> None:
    group = zarr.open_group(export(odd, tmp_path / "out", format="zarr", grid=True), mode="r")
    assert list(group["id"][:]) == list(odd.ids())
    assert group["status"][:].tolist()[-1] == "truncated"
    assert group["vpt/target"][:].tolist()[-1] == -1
    found = group["vpt/integrated_gradients"][:]
    assert found.shape == (23, 4, 4)
    assert np.isnan(found[22]).all() and np.isfinite(found[:22]).all()


def test_a_few_images_may_come_from_several_shards(archive: MapArchive, tmp_path: Path) -> None:
    ids = ["left/03.png", "right/05.png", "right/11.png"]
    group = zarr.open_group(export(archive, tmp_path / "out", format="zarr", ids=ids), mode="r")
    assert list(group["id"][:]) == ids
    expected = [archive[name]["ft"]["grad_cam"].values for name in ids]
    assert np.array_equal(group["ft/grad_cam"][:], np.stack(expected))


def test_the_group_says_what_was_computed(archive: MapArchive, tmp_path: Path) -> None:
    facts = zarr.open_group(export(archive, tmp_path / "out", format="zarr"), mode="r").attrs.asdict()
    assert facts["models"]["ft"]["class_names"] == ["left", "right"]
    assert facts["job"] == archive.job.sha256


def test_without_the_package_the_command_that_installs_it_is_told(
    archive: MapArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match=r"pip install explain-vit\[zarr\]"):
        export(archive, tmp_path / "out", format="zarr")
    assert list(tmp_path.iterdir()) == []

"""What every export format promises: whole or absent, never over something else, and only what is committed."""

import errno
from pathlib import Path

import numpy as np
import pytest

from explain import MapArchive
from explain.archive.job import FINISHED
from explain.errors import InputError, IntegrityError, StorageError, UnknownNameError
from explain.export.base import EXPORTS, export

FORMATS = tuple(EXPORTS)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def seen(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_there_are_four_formats_and_each_says_what_it_is() -> None:
    assert FORMATS == ("coco", "npz", "png", "zarr")
    assert all(EXPORTS[name].label for name in FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_shard_is_named_and_nothing_is_left_behind(name: str, copied: Path, tmp_path: Path) -> None:
    flip(copied / "maps/000/000001.parquet")
    before = seen(tmp_path)
    with pytest.raises(IntegrityError, match="000001"):
        export(MapArchive(copied), tmp_path / "new/out", format=name)
    assert seen(tmp_path) == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_table_is_named_and_an_empty_folder_stays_empty(name: str, copied: Path, tmp_path: Path) -> None:
    flip(copied / "metrics/000/000001.parquet")
    out = tmp_path / "out"
    if not EXPORTS[name].single:
        out.mkdir()
    with pytest.raises(IntegrityError, match="000001"):
        export(MapArchive(copied), out, format=name)
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_written_over(name: str, archive: MapArchive, tmp_path: Path) -> None:
    for there in (tmp_path / "file", tmp_path / "folder/file"):
        there.parent.mkdir(exist_ok=True)
        there.write_text("mine", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(InputError, match="is there already"):
            export(archive, out, format=name)
    assert [path.read_text(encoding="utf-8") for path in seen(tmp_path)] == ["mine", "mine"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_nothing_behind(
    name: str, archive: MapArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert "left/00.png" in archive  # the index is there, which could not be made on a full disk
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device; nothing was left behind"):
        export(archive, tmp_path / "out", format=name, ids=["left/00.png"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_only_committed_shards_are_written(name: str, copied: Path, tmp_path: Path) -> None:
    (copied / FINISHED).unlink()
    (copied / "receipts/000/000000.json").unlink()
    told: list[tuple[int, int]] = []
    written = EXPORTS.create(name).write(MapArchive(copied), tmp_path / "out", None,
                                         lambda what, done, total: told.append((done, total)))  # fmt: skip
    assert written == 8
    assert told[-1] == (8 * 6, 8 * 6)
    (copied / "receipts/000/000001.json").unlink()
    with pytest.raises(InputError, match="0 of its 2 shards"):
        export(MapArchive(copied), tmp_path / "other", format=name)


@pytest.mark.parametrize("name", FORMATS)
def test_images_of_any_name_stay_inside(name: str, odd: MapArchive, tmp_path: Path) -> None:
    out = tmp_path / "deep/down/out"
    before = set(seen(Path(odd.store.folder).parent))
    assert export(odd, out, format=name) == out
    assert all(path.is_relative_to(out) and not path.is_symlink() for path in seen(tmp_path))
    assert seen(tmp_path)
    assert set(seen(Path(odd.store.folder).parent)) - before <= {Path(odd.store.folder) / "index.sqlite"}


def test_an_empty_folder_may_be_there_and_stays_the_same_folder(archive: MapArchive, tmp_path: Path) -> None:
    out = tmp_path / "mounted"
    out.mkdir()
    number = out.stat().st_ino
    export(archive, out, format="npz")
    assert out.stat().st_ino == number
    assert [path.name for path in seen(tmp_path)] == ["about.json", "maps_000000.npz", "maps_000001.npz"]


def test_chosen_images_come_once_and_in_the_order_of_the_archive(archive: MapArchive, tmp_path: Path) -> None:
    export(archive, tmp_path / "out", format="npz", ids=["right/11.png", "left/01.png", "left/00.png", "left/01.png"])
    files = seen(tmp_path / "out")[1:]
    names = [np.load(path)["id"].tolist() for path in files]
    assert names == [["left/00.png", "left/01.png"], ["right/11.png"]]


def test_what_cannot_be_written_is_said_before_anything_is_made(archive: MapArchive, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UnknownNameError, match="unknown export format 'tiff'; known: coco, npz, png, zarr"):
        export(archive, out, format="tiff")
    with pytest.raises(InputError, match="has no option 'plane'"):
        export(archive, out, format="png", plane=True)
    with pytest.raises(InputError, match="true or false"):
        export(archive, out, format="npz", grid="yes")
    with pytest.raises(UnknownNameError, match="no image 'nobody'"):
        export(archive, out, format="npz", ids=["nobody"])
    with pytest.raises(InputError, match="at least one image"):
        export(archive, out, format="npz", ids=[])
    for place in ("s3://bucket/out", Path("s3://bucket/out")):
        with pytest.raises(InputError, match="expected a file or folder"):
            export(archive, place, format="npz")
    assert list(tmp_path.iterdir()) == []

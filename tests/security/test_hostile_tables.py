"""Tables and lists of images damaged at random: read, or refused by an error with an exit code."""

import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import damage_bytes

from explain.data.base import Dataset, load_data
from explain.errors import ExplainError

Make = Callable[[Path, list[Path]], Path]
"""Write a small data set into a folder, given four images; the file that is damaged."""


def csv_table(folder: Path, images: list[Path]) -> Path:
    lay(folder, images)
    (folder / "labels.csv").write_text("path,label,mask\n0.png,a,\n1.png,a,\n2.png,b,3.png\n3.png,b,\n")
    return folder / "labels.csv"


def parquet(folder: Path, images: list[Path]) -> Path:
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in images]
    pq.write_table(pa.table({"image": rows, "label": [0, 0, 1, 1]}), folder / "train-0.parquet")
    return folder / "train-0.parquet"


def idx(folder: Path, images: list[Path]) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8), dtype=np.uint8)
    (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 4, 8, 8) + pixels.tobytes())
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 4) + bytes([0, 1, 0, 1]))
    return folder / "train-images-idx3-ubyte"


def idx_packed(folder: Path, images: list[Path]) -> Path:
    plain = idx(folder, images)
    packed = plain.with_name(f"{plain.name}.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return packed


def vtab(folder: Path, images: list[Path]) -> Path:
    lay(folder, images)
    for name, lines in {"train800": "0.png 0\n1.png 1\n", "val200": "2.png 0\n", "test": "3.png 1\n"}.items():
        (folder / f"{name}.txt").write_text(lines)
    return folder / "train800.txt"


def lay(folder: Path, images: list[Path]) -> None:
    for number, image in enumerate(images):
        shutil.copyfile(image, folder / f"{number}.png")


MAKERS: dict[str, Make] = {"csv": csv_table, "parquet": parquet, "idx": idx, "idx.gz": idx_packed, "vtab": vtab}


def damaged(make: Make, pictures: Dataset, folder: Path, seeds: range) -> int:
    """How many of the damaged files were refused."""
    path = make(folder, [sample.path for sample in (*pictures.samples[:2], *pictures.samples[-2:])])
    location = path if path.suffix == ".csv" else folder
    sound, refused = path.read_bytes(), 0
    assert len(load_data(location)) > 1
    for seed in seeds:
        path.write_bytes(damage_bytes(sound, seed))
        try:
            assert len(load_data(location)) > 0, seed
        except ExplainError as error:
            refused += 1
            assert error.exit_code in (2, 5) and str(error), seed
    return refused


@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_table_is_read_or_refused(
    kind: str, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    assert damaged(MAKERS[kind], pictures, tmp_path / "set", range(25)) > 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_a_table_damaged_in_five_hundred_ways_likewise(
    kind: str, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    assert damaged(MAKERS[kind], pictures, tmp_path / "set", range(1_000, 1_500)) > 200

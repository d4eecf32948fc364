"""Every byte of an archive is vouched for: damage is found, named by its shard, never read as a map or number."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_archive import explain_all, files_of, small_model

from explain.archive.archive import MapArchive
from explain.archive.paths import shard_of
from explain.archive.verify import drop, verify
from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError
from explain.model import TunedModel

SETTINGS: dict[str, Any] = {
    "methods": ("grad_cam", "integrated_gradients"), "options": {"integrated_gradients": {"n_steps": 2}},
    "shard_size": 2,
}  # fmt: skip
FIRST_SHARD = ("maps/000/000000.parquet", "metrics/000/000000.parquet", "receipts/000/000000.json")
SECOND_SHARD = tuple(name.replace("000000.", "000001.") for name in FIRST_SHARD)
WHOLE = ("finished.json", "job.json", "manifest/000.parquet", "table/000.parquet")


@dataclass(frozen=True)
class Made:
    """A finished archive of four images in two shards, and what is needed to make it again."""

    folder: Path
    model: TunedModel
    data: Dataset
    content: str

    def again(self, **settings: Any) -> MapArchive:
        """The same call once more."""
        return explain_all(self.model, self.data, self.folder, **SETTINGS | settings)


@pytest.fixture(scope="module")
def original(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Not to be changed."""
    model, data = small_model(), pictures.select([sample.id for sample in pictures.samples[::6]])
    found = explain_all(model, data, tmp_path_factory.mktemp("archive") / "maps", **SETTINGS)
    assert next(found.ids()) in found  # the index by id is there before anything is damaged
    return Made(Path(found.store.url), model, data, found.content_sha256)


@pytest.fixture
def made(original: Made, tmp_path: Path) -> Made:
    """A copy to damage."""
    folder = shutil.copytree(original.folder, tmp_path / "maps")
    return Made(folder, original.model, original.data, original.content)


Numbers = dict[str, Any]
Maps = dict[str, np.ndarray]


def contents(archive: MapArchive, name: str) -> tuple[Maps, Numbers]:
    """Every map and number of an image."""
    image = archive[name]
    maps = {f"{model}.{method}": np.asarray(found) for model in image for method, found in image[model].items()}
    return maps | {f"{model} logits": values for model, values in image.logits.items()}, image.metrics


def is_same(found: tuple[Maps, Numbers], expected: tuple[Maps, Numbers]) -> bool:
    return found[1] == expected[1] and all(np.array_equal(found[0][name], expected[0][name]) for name in expected[0])


def problems_of(folder: Path) -> list[Any]:
    """What `verify` finds; an archive that cannot be opened is one problem without a shard."""
    try:
        return [problem.shard for problem in verify(MapArchive(folder))]
    except IntegrityError:
        return [None]


def flips(size: int, step: int) -> Iterator[tuple[int, int]]:
    """(byte, bits that are turned): each byte of the sample once, its bits in turn."""
    return ((place, 1 << place % 8) for place in range(0, size, step))


@pytest.mark.parametrize("step", [37, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [*FIRST_SHARD, *WHOLE])
@pytest.mark.timeout(1200)
def test_a_flipped_byte_is_found_and_changes_no_map_and_no_number(name: str, step: int, made: Made) -> None:
    good = MapArchive(made.folder)
    ids = list(good.ids())
    expected, table = {one: contents(good, one) for one in (ids[0], ids[2])}, good.to_arrow()
    path, shard = made.folder / name, shard_of(name)
    data = path.read_bytes()
    for place, bits in flips(len(data), step):
        path.write_bytes(data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :])
        assert set(problems_of(made.folder)) == {shard}, place
        try:
            damaged = MapArchive(made.folder)
        except IntegrityError:
            continue
        for one, values in expected.items():
            try:
                assert is_same(contents(damaged, one), values), (place, one)
            except IntegrityError:
                assert one == ids[0] or shard is None, place
        try:
            assert damaged.to_arrow().equals(table), place
        except IntegrityError:
            pass


@pytest.mark.parametrize("name", [*FIRST_SHARD, *SECOND_SHARD, *WHOLE])
@pytest.mark.parametrize("left", [0, 0.5, -1], ids=["empty", "half", "one byte short"])
def test_a_file_cut_short_is_found(name: str, left: float, made: Made) -> None:
    path = made.folder / name
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if left >= 0 else -1])
    assert set(problems_of(made.folder)) == {shard_of(name)}


@pytest.mark.parametrize("name", [*FIRST_SHARD, *SECOND_SHARD, *WHOLE])
def test_a_longer_file_is_found(name: str, made: Made) -> None:
    with (made.folder / name).open("ab") as stream:
        stream.write(b"\n")
    assert set(problems_of(made.folder)) == {shard_of(name)}


@pytest.mark.parametrize("name", [*FIRST_SHARD, *SECOND_SHARD, "job.json", "manifest/000.parquet", "table/000.parquet"])
def test_a_missing_file_is_found(name: str, made: Made) -> None:
    (made.folder / name).unlink()
    assert set(problems_of(made.folder)) == {shard_of(name)}


def test_without_finished_json_nothing_is_lost_and_the_next_run_writes_it(made: Made) -> None:
    (made.folder / "finished.json").unlink()
    assert problems_of(made.folder) == []
    assert len(MapArchive(made.folder).to_arrow()) == 4
    again = made.again()
    assert again.finished is not None and again.content_sha256 == made.content


def test_files_of_two_shards_that_changed_places_are_found(made: Made) -> None:
    for kind in range(3):
        one, other = made.folder / FIRST_SHARD[kind], made.folder / SECOND_SHARD[kind]
        data = one.read_bytes(), other.read_bytes()
        one.write_bytes(data[1])
        other.write_bytes(data[0])
        assert set(problems_of(made.folder)) == {0, 1}
        one.write_bytes(data[0])
        other.write_bytes(data[1])
    assert problems_of(made.folder) == []


def test_a_shard_of_another_archive_is_found(made: Made, tmp_path: Path) -> None:
    other = explain_all(small_model(4), made.data, tmp_path / "other", **SETTINGS)
    for name in FIRST_SHARD:
        shutil.copyfile(Path(other.store.url) / name, made.folder / name)
    assert set(problems_of(made.folder)) == {0}
    with pytest.raises(IntegrityError, match="another shard or job"):
        next(iter(MapArchive(made.folder)))


def test_a_link_in_an_archive_is_damage_and_is_not_followed(made: Made, tmp_path: Path) -> None:
    path = made.folder / FIRST_SHARD[0]
    kept = path.rename(tmp_path / "kept.parquet")
    path.symlink_to(kept)
    assert set(problems_of(made.folder)) == {0}
    with pytest.raises(IntegrityError, match="link"):
        next(iter(MapArchive(made.folder)))


def test_a_problem_names_the_file(made: Made) -> None:
    (made.folder / SECOND_SHARD[1]).unlink()
    assert [str(problem) for problem in verify(MapArchive(made.folder))] == [
        f"shard 1: {made.folder / SECOND_SHARD[1]} is missing; the archive is not complete"
    ]


def test_what_is_not_computed_yet_is_no_problem(made: Made) -> None:
    for name in (*SECOND_SHARD, "finished.json", "table/000.parquet"):
        (made.folder / name).unlink()
    told: list[tuple[int, int]] = []
    assert verify(MapArchive(made.folder), lambda done, total: told.append((done, total))) == []
    assert told[-1] == (2, 2)


# ---- repair


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", SECOND_SHARD)
@pytest.mark.parametrize("harm", [empty, flip, Path.unlink])
def test_repair_computes_the_damaged_shard_and_no_other(
    name: str, harm: Callable[[Path], None], made: Made, computed: list[int]
) -> None:
    before = files_of(made.folder)
    harm(made.folder / name)
    again = made.again(repair=True)
    assert computed == [1]
    assert again.content_sha256 == made.content
    assert verify(again) == []
    after = files_of(made.folder)
    same = {one for one in before if not one.startswith(("events", "index", "finished", "receipts/000/000001"))}
    assert {one: after[one] for one in same} == {one: before[one] for one in same}


def test_a_damaged_shard_is_taken_out_whole(made: Made) -> None:
    flip(made.folder / FIRST_SHARD[0])
    archive = MapArchive(made.folder)
    assert drop(archive, verify(archive)) == [0]
    left = files_of(made.folder)
    assert not set(left) & {*FIRST_SHARD, "finished.json"}
    assert set(SECOND_SHARD) <= set(left)
    assert list(archive.pending()) == [0]


@pytest.mark.parametrize("name", ["table/000.parquet", "finished.json"])
@pytest.mark.parametrize("harm", [empty, flip])
def test_what_is_joined_from_shards_is_made_again_from_them(
    name: str, harm: Callable[[Path], None], made: Made, computed: list[int]
) -> None:
    harm(made.folder / name)
    again = made.again(repair=True)
    assert computed == []
    assert (verify(again), again.content_sha256) == ([], made.content)
    assert len(again.to_arrow()) == 4


def test_a_damaged_list_of_images_cannot_be_repaired(made: Made) -> None:
    flip(made.folder / "manifest/000.parquet")
    archive = MapArchive(made.folder)
    with pytest.raises(IntegrityError, match="restore it from a copy"):
        drop(archive, verify(archive))
    assert set(files_of(made.folder)) >= {*FIRST_SHARD, *SECOND_SHARD}


@pytest.mark.parametrize("name", [FIRST_SHARD[0], FIRST_SHARD[1]])
@pytest.mark.parametrize("harm", [empty, Path.unlink])
def test_without_repair_a_run_does_not_go_on_from_a_missing_file(
    name: str, harm: Callable[[Path], None], made: Made, computed: list[int]
) -> None:
    harm(made.folder / name)
    with pytest.raises(IntegrityError, match="repair=True"):
        made.again()
    assert computed == []


def test_numbers_without_the_joined_table_come_from_the_shards(made: Made) -> None:
    expected = MapArchive(made.folder).to_arrow()
    (made.folder / "table/000.parquet").unlink()
    assert MapArchive(made.folder).to_arrow().equals(expected)


def test_an_archive_without_shards_has_no_table(made: Made) -> None:
    for name in (*FIRST_SHARD, *SECOND_SHARD, *WHOLE[:1], *WHOLE[3:]):
        (made.folder / name).unlink()
    with pytest.raises(InputError, match="no shard"):
        MapArchive(made.folder).to_pandas()

"""MapArchive: what is read back, from which kind of store, and what a stranger's archive cannot do."""

import copy
import hashlib
import json
import random
import secrets
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_archive import CLASSES, METHODS, explain_all, files_of, small_model, small_models

from explain.archive.archive import MapArchive
from explain.archive.job import Job
from explain.archive.store import Store
from explain.archive.verify import drop, verify
from explain.data.base import Dataset
from explain.errors import ExplainError, InputError, UnknownNameError

QUICK: dict[str, Any] = {"methods": "attention_rollout", "shard_size": 2}


def few(pictures: Dataset) -> Dataset:
    """Four images, two of each class."""
    return pictures.select([sample.id for sample in pictures.samples[::6]])


@pytest.fixture(scope="module")
def folder(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of eight images in two shards, by two models; not to be changed."""
    data = pictures.select([sample.id for sample in pictures.samples[::3]])
    return Path(explain_all(small_models(), data, tmp_path_factory.mktemp("archive") / "maps").store.url)


@pytest.fixture
def archive(folder: Path) -> MapArchive:
    return MapArchive(folder)


@pytest.fixture
def begun(folder: Path, tmp_path: Path) -> MapArchive:
    """A copy whose first shard is not computed yet."""
    copied = shutil.copytree(folder, tmp_path / "begun")
    for name in ("receipts/000/000000.json", "finished.json"):
        (copied / name).unlink()
    return MapArchive(copied)


# ---- reading


def test_an_archive_says_what_it_holds(archive: MapArchive, folder: Path) -> None:
    assert (len(archive), archive.models, archive.methods) == (8, ("vpt", "ft"), METHODS)
    assert archive.class_names == CLASSES
    assert repr(archive) == (
        f"MapArchive('{folder}': 8 images, models vpt, ft, methods grad_cam, integrated_gradients, attention_rollout)"
    )


def test_images_come_by_id_by_row_and_in_order(archive: MapArchive) -> None:
    ids = list(archive.ids())
    assert [image.id for image in archive] == ids
    assert [archive.at(row).id for row in range(8)] == ids
    assert all(archive[name].id == name and name in archive for name in ids)
    assert [archive[name].row for name in reversed(ids)] == list(range(7, -1, -1))


@pytest.mark.parametrize(
    "name", ["nobody", "", "left/00.png' OR 1=1 --", "../left/00.png", "\ud800", "x" * 100_000, "\0"]
)
def test_an_id_that_is_not_there_is_refused(name: str, archive: MapArchive) -> None:
    assert name not in archive
    with pytest.raises(UnknownNameError, match="its ids are like 'left/00.png'"):
        archive[name]


@pytest.mark.parametrize("row", [-1, 8, 10**9])
def test_a_row_that_is_not_there_is_refused(row: int, archive: MapArchive) -> None:
    with pytest.raises(UnknownNameError, match="row from 0 to 7"):
        archive.at(row)


def test_an_image_is_a_mapping_of_models_and_methods(archive: MapArchive) -> None:
    image = archive["left/00.png"]
    assert list(image) == ["vpt", "ft"] and len(image) == 2
    assert list(image["vpt"]) == list(METHODS)
    assert repr(image) == "Explained('left/00.png': vpt, ft)"
    assert (image.status, image.label, image.path.name) == ("ok", 0, "00.png")
    assert image.metrics["vpt_prediction"] == image.logits["vpt"].argmax()
    with pytest.raises(UnknownNameError, match="it has vpt, ft"):
        image["third"]


def test_a_map_is_an_array(archive: MapArchive) -> None:
    found = archive["left/00.png"]["ft"]["integrated_gradients"]
    values = np.asarray(found)
    assert values.dtype == np.float32 and values.shape == found.shape == (24, 32)
    assert np.array(found, dtype=np.float64).dtype == np.float64
    copied = np.array(found)
    copied[:] = 0
    assert np.asarray(found).any()
    assert found.resized((48, 64)).shape == (48, 64)
    np.testing.assert_array_equal(found.resized((24, 32)), values)
    with pytest.raises(InputError, match=r"\(H, W\)"):
        found.resized((0, 3))


def test_a_shard_that_is_not_computed_yet_says_so(begun: MapArchive) -> None:
    assert len(begun) == 8
    assert begun.committed() == [1] and list(begun.pending()) == [0]
    assert [image.row for image in begun] == [4, 5, 6, 7]
    assert begun.to_pandas()["row"].tolist() == [4, 5, 6, 7]
    assert begun.finished is None
    with pytest.raises(UnknownNameError, match="not computed yet; run the same"):
        begun["left/00.png"]


def test_the_table_can_be_asked_in_sql(archive: MapArchive) -> None:
    found = archive.table.filter("vpt_prediction <> ft_prediction").project("id").fetchall()
    table = archive.to_pandas()
    expected = table[table["vpt_prediction"] != table["ft_prediction"]]["id"].tolist()
    assert sorted(name for name, in found) == sorted(expected)
    assert archive.to_arrow().num_rows == archive.table.count("*").fetchall()[0][0] == 8


def test_maps_come_as_a_torch_dataset(archive: MapArchive) -> None:
    found = archive.to_torch("vpt", "grad_cam")
    assert len(found) == 8
    item = found[5]
    assert item["id"] == list(archive.ids())[5] and item["label"] == 1
    np.testing.assert_array_equal(item["map"].numpy(), archive.at(5)["vpt"]["grad_cam"].values)
    elsewhere = copy.copy(found)  # as in a worker, which opens the archive for itself
    np.testing.assert_array_equal(elsewhere[5]["map"].numpy(), item["map"].numpy())
    with pytest.raises(UnknownNameError, match="the models vpt, ft"):
        archive.to_torch("third", "grad_cam")


def test_many_threads_read_what_one_reads(archive: MapArchive, folder: Path) -> None:
    expected = {image.id: np.asarray(image["vpt"]["integrated_gradients"]) for image in archive}
    fresh, barrier = MapArchive(folder), threading.Barrier(8)

    def read(seed: int) -> bool:
        names = list(expected)
        random.Random(seed).shuffle(names)
        barrier.wait()
        return all(
            np.array_equal(fresh[name]["vpt"]["integrated_gradients"], expected[name])
            and fresh[name].path.name == Path(name).name and fresh[name].metrics["id"] == name
            for name in names
        )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_a_folder_that_moved_reads_the_same(folder: Path, tmp_path: Path) -> None:
    before = MapArchive(folder)
    moved = MapArchive(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert verify(moved) == [] and moved.content_sha256 == before.content_sha256
    name = next(before.ids())
    np.testing.assert_array_equal(moved[name]["vpt"]["grad_cam"], before[name]["vpt"]["grad_cam"])


# ---- the index by id, which can be made again


@pytest.mark.parametrize(
    "harm",
    [
        lambda path, other: path.unlink(),
        lambda path, other: path.write_bytes(b""),
        lambda path, other: path.write_bytes(path.read_bytes()[:5000]),
        lambda path, other: path.write_bytes(random.Random(0).randbytes(20_000)),
        lambda path, other: shutil.copyfile(other, path),
    ],
    ids=["deleted", "empty", "cut short", "random bytes", "of another archive"],
)
def test_a_damaged_index_changes_no_answer(
    harm: Callable[[Path, Path], object], folder: Path, pictures: Dataset, tmp_path: Path
) -> None:
    copied = shutil.copytree(folder, tmp_path / "maps")
    other = explain_all(small_model(), few(pictures), tmp_path / "other", **QUICK)
    assert next(other.ids()) in other  # its index is written
    expected = {name: MapArchive(copied)[name].row for name in MapArchive(copied).ids()}
    harm(copied / "index.sqlite", tmp_path / "other" / "index.sqlite")
    found = MapArchive(copied)
    assert {name: found[name].row for name in expected} == expected
    assert "nobody" not in found
    assert verify(found) == []


# ---- every kind of store


def test_a_whole_run_on_every_kind_of_store(store: Store, pictures: Dataset, tmp_path: Path) -> None:
    model, data = small_model(), few(pictures)
    first = explain_all(model, data, store.url, **QUICK)
    local = explain_all(model, data, tmp_path / "local", **QUICK)
    assert first.content_sha256 == local.content_sha256
    assert verify(first) == []
    assert first.to_arrow().equals(local.to_arrow())
    assert first.table.filter("model_target = 1").count("*").fetchall() == (
        local.table.filter("model_target = 1").count("*").fetchall()
    )
    for image, other in zip(first, local, strict=True):
        np.testing.assert_array_equal(image["model"]["attention_rollout"], other["model"]["attention_rollout"])
        assert first[image.id].metrics == other.metrics and image.path == other.path
    store.put("maps/000/000001.parquet", store.read("maps/000/000001.parquet")[:-1])
    assert [problem.shard for problem in verify(MapArchive(store.url))] == [1]
    again = explain_all(model, None, store.url, repair=True, **QUICK)
    assert verify(again) == [] and again.content_sha256 == local.content_sha256
    left = {name for name in store.list() if name != "events.jsonl" and not name.startswith("index")}
    assert left == {name for name in files_of(tmp_path / "local") if name not in ("events.jsonl", "index.sqlite")}


def test_a_bucket_is_written_by_one_process_at_a_time(bucket: str, pictures: Dataset) -> None:
    from explain.archive.lock import writing

    url = f"{bucket}/{secrets.token_hex(8)}"
    with writing(Store.open(url)), pytest.raises(InputError, match="is being written by process"):
        explain_all(small_model(), few(pictures), url, **QUICK)


# ---- archives of strangers


def sealed(value: dict[str, Any]) -> bytes:
    """A record with the hash that belongs to it, whatever it says."""

    def text(rest: dict[str, Any]) -> bytes:
        return (json.dumps(rest, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()

    rest = {name: part for name, part in value.items() if name != "digest"}
    return text(rest | {"digest": hashlib.sha256(text(rest)).hexdigest()})


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a sealed record and seal it again."""
    value = json.loads(path.read_bytes())
    edit(value)
    path.write_bytes(sealed(value))


def adopt(folder: Path) -> None:
    """Make receipts and finished.json those of the job that is there, as far as that is a job."""
    try:
        job = Job.from_bytes((folder / "job.json").read_bytes(), "job.json").sha256
    except ExplainError:
        return
    for path in (*folder.glob("receipts/*/*"), folder / "finished.json"):
        change(path, lambda value: value.update(job=job))


def look_at_everything(folder: Path) -> None:
    """Read an archive in every way that there is."""
    archive = MapArchive(folder)
    assert len(archive) < 2**62 and repr(archive) and archive.job.columns
    problems = verify(archive)
    for row in range(min(8, len(archive))):
        image = archive.at(row)
        assert image.id and image.status and list(image) is not None
        maps = [np.asarray(found) for model in image for found in image[model].values()]
        assert all(np.isfinite(values).all() for values in maps)
        assert image.entry is not None and image.metrics
    archive.to_arrow()
    assert "nobody" not in archive
    drop(archive, problems)


def edit_job(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.update(changes)


def edit(*place: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def editing(value: Any) -> None:
        for name in place[:-1]:
            value = value[name]
        value[place[-1]] = to

    return editing


REFUSED = {
    "model named like a way up": edit("models", 0, "name", to="../../up"),
    "model named with a dot": edit("models", 0, "name", to="a.b"),
    "model with an empty name": edit("models", 0, "name", to=""),
    "model with a very long name": edit("models", 0, "name", to="x" * 100_000),
    "no models": edit_job(models=[]),
    "two models of one name": edit("models", 1, "name", to="vpt"),
    "map of an unknown model": edit("maps", 0, "model", to="third"),
    "map of an unknown method": edit("maps", 0, "method", to="../grad_cam"),
    "no maps": edit_job(maps=[]),
    "huge map": edit("maps", 0, "shape", to=[10**9, 10**9]),
    "negative map": edit("maps", 0, "shape", to=[-3, -4]),
    "empty map": edit("maps", 0, "shape", to=[0, 4]),
    "another map": edit("maps", 0, "shape", to=[4, 3]),
    "huge grid": edit("models", 0, "grid", to=[10**6, 10**6]),
    "10^18 images": edit("manifest", "count", to=10**18),
    "10^30 images": edit("manifest", "count", to=10**30),
    "10^12 images in as many shards": edit(
        "manifest", to={"count": 10**12, "shard_size": 1, "ids_sha256": "", "parts": ["0" * 64]}
    ),
    "more images than there are": edit("manifest", "count", to=1000),
    "no images": edit("manifest", "count", to=0),
    "-8 images": edit("manifest", "count", to=-8),
    "shards of nothing": edit("manifest", "shard_size", to=0),
    "shards of -4": edit("manifest", "shard_size", to=-4),
    "shards of 10^30": edit("manifest", "shard_size", to=10**30),
    "no parts": edit("manifest", "parts", to=[]),
    "policy that is none": edit("store_maps", to="sample:../x"),
    "format of the future": edit("format", to=2),
    "field of the future": edit("run_this", to="rm -rf"),
}  # fmt: skip


@pytest.fixture
def strange(folder: Path, tmp_path: Path) -> Path:
    """A copy of an archive, in a stranger's hands."""
    return shutil.copytree(folder, tmp_path / "strange")


@pytest.mark.parametrize("name", REFUSED)
def test_a_job_that_cannot_be_one_is_refused(name: str, strange: Path) -> None:
    change(strange / "job.json", REFUSED[name])
    adopt(strange)
    with pytest.raises(ExplainError):
        look_at_everything(strange)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edit("tables", to={"../../outside.parquet": "0" * 64}), "relative name"),
        (edit("tables", to={"/etc/passwd": "0" * 64}), "relative name"),
        (edit("tables", to={"job.json": "JOB"}), "cannot be read"),
        (edit("tables", to={"linked.parquet": "0" * 64}), "link"),
        (edit("job", to="0" * 64), "another job's"),
    ],
)
def test_a_table_that_finished_json_should_not_name_is_not_read(
    edit: Callable[[dict[str, Any]], None], words: str, strange: Path, tmp_path: Path
) -> None:
    (strange / "linked.parquet").symlink_to(tmp_path / "strange" / "table" / "000.parquet")
    change(strange / "finished.json", edit)
    of_job = hashlib.sha256((strange / "job.json").read_bytes()).hexdigest()
    path = strange / "finished.json"
    change(path, lambda value: value.update(tables={
        name: of_job if digest == "JOB" else digest for name, digest in value["tables"].items()
    }))  # fmt: skip
    with pytest.raises(ExplainError, match=words):
        MapArchive(strange).to_arrow()


def test_where_a_stranger_says_that_models_lie_is_never_looked_at(strange: Path, tmp_path: Path) -> None:
    def elsewhere(value: dict[str, Any]) -> None:
        for model in value["models"]:
            model["run"] = str(tmp_path / "trap")
        value["data"]["root"] = "/proc/self"

    change(strange / "job.json", elsewhere)
    look_at_everything(strange)


def test_images_of_a_stranger_are_opened_as_images_and_nothing_else(strange: Path) -> None:
    def leading_away(name: str) -> None:
        path = strange / "manifest/000.parquet"
        table = pa.parquet.read_table(path)
        paths = ["/etc/passwd", "a%00b.png", "/dev/zero", "/proc/self/mem", *table["path"].to_pylist()[4:]]
        table = table.set_column(1, "path", pa.array(paths))
        pa.parquet.write_table(table, path, row_group_size=4)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        change(strange / "job.json", edit("manifest", "parts", to=[digest]))

    leading_away("path")
    for name in ("receipts", "finished.json", "maps", "metrics", "table"):
        target = strange / name
        target.unlink() if target.is_file() else shutil.rmtree(target)
    found = explain_all(small_models(), None, strange)
    assert found.to_pandas()["status"].tolist()[:4] == ["outside_root", "missing", "outside_root", "outside_root"]


# ---- random harm, as a stranger or a bad disk does it


HOSTILE: tuple[Any, ...] = (
    None, "", -1, 0, 2**63, 10**30, 1.5, True, [], {}, [[]], "../..", "\0", "x" * 5000, "é", {"a": 1}
)  # fmt: skip
"""What takes the place of a value."""


def harm_record(path: Path, draw: random.Random) -> None:
    """Put something else in the place of one value, and seal it again."""
    value = json.loads(path.read_bytes())
    place: Any = value
    while True:
        names = list(place) if isinstance(place, dict) else list(range(len(place)))
        name = draw.choice(names)
        inside = place[name]
        if not isinstance(inside, dict | list) or not inside or draw.random() < 0.2:
            break
        place = inside
    if draw.random() < 0.2 and isinstance(place, dict):
        del place[name]
    else:
        place[name] = draw.choice(HOSTILE)
    path.write_bytes(sealed(value))


def harm_bytes(path: Path, draw: random.Random) -> None:
    """Turn bits, cut or repeat a stretch."""
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 3, 20))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    if draw.random() < 0.3:
        start = draw.randrange(len(data))
        data[start : start + draw.randrange(200)] = draw.randbytes(draw.randrange(200))
    path.write_bytes(data)


def vouch(folder: Path, name: str) -> None:
    """Let receipts, job or finished.json say that a file is as it is now."""
    data = (folder / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if name.startswith("manifest"):
        change(folder / "job.json", edit("manifest", "parts", to=[digest]))
        adopt(folder)
    elif name.startswith("table"):
        change(folder / "finished.json", edit("tables", to={name: digest}))
    else:
        kind, number = name.split("/")[0], name.split("/")[-1].removesuffix(".parquet")
        facts = {"bytes": len(data), "sha256": digest, "footer_sha256": None}
        if kind == "maps" and len(data) > 8:
            length = min(int.from_bytes(data[-8:-4], "little") + 8, len(data))
            facts["footer_sha256"] = hashlib.sha256(data[-length:]).hexdigest()
        change(folder / f"receipts/000/{number}.json", edit(kind, to=facts))


RECORDS = ("job.json", "finished.json", "receipts/000/000000.json", "receipts/000/000001.json")
TABLES = ("manifest/000.parquet", "maps/000/000000.parquet", "metrics/000/000001.parquet", "table/000.parquet")


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_random_harm_gives_errors_of_the_toolkit_and_no_others(count: int, folder: Path, tmp_path: Path) -> None:
    refused = 0
    for seed in range(count):
        draw = random.Random(seed)
        strange = shutil.copytree(folder, tmp_path / "strange")
        name = draw.choice(RECORDS + TABLES)
        if name in RECORDS and draw.random() < 0.8:
            harm_record(strange / name, draw)
            if name == "job.json":
                adopt(strange)
        else:
            harm_bytes(strange / name, draw)
            if name in TABLES and draw.random() < 0.8:
                vouch(strange, name)
        try:
            look_at_everything(strange)
        except ExplainError:
            refused += 1
        shutil.rmtree(strange)
    assert refused > count // 2

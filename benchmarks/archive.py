"""The archive at its limits: one image out of 100,000, and questions to a table of 1,000,000 rows.

    python benchmarks/batch.py --out batch.json
    python benchmarks/archive.py --batch batch.json --into docs/benchmarks_archive.md

The archive is synthetic: random maps in the shapes of two ViTs of 16x16 patches at 224 px, written by the code that
writes real ones. Beside it, in the same process, the same maps as one NPZ file per image, as a safetensors file and as
plain Parquet without checks. Everything is in the page cache. Jobs take turns; a ratio is taken within a turn.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import batch
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from attribution import machine, spread
from page import publish, say, table
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from timm.models.vision_transformer import VisionTransformer

import explain
import explain.archive.archive as reading
from explain.archive.archive import MapArchive
from explain.archive.commit import commit
from explain.archive.finish import finish
from explain.archive.job import KEY
from explain.archive.manifest import Entry, Manifest
from explain.archive.maps_file import Column, MapsWriter, Row
from explain.archive.paths import METRICS, RECEIPTS, key
from explain.archive.quantise import decode
from explain.archive.receipt import Receipt, StoredFile
from explain.archive.store import Store
from explain.batch.numbers import table_schema

CLASSES = ("nominal", "local", "global")
SHARD = 1024
DISTINCT = 64
"""Different sets of maps that the rows repeat."""

QUERY_TURNS = 9

Read = Callable[[int], Mapping[str, np.ndarray]]
"""Every map of one image, float32, by a number that says which."""

QUERIES = {
    "the 50 lowest agreements": lambda rows: rows.order("agreement_grad_cam_vpt_ft").limit(50).project("id"),
    "unsure and wrong: 1 row in 100": lambda rows: rows.filter(
        "vpt_confidence < 0.02 and not vpt_correct").project("id, vpt_confidence"),
    "images per status": lambda rows: rows.aggregate("status, count(*)", "status"),
    "VPT right, FT wrong, lowest agreement first": lambda rows: rows.filter("vpt_correct and not ft_correct").order(
        "agreement_integrated_gradients_vpt_ft").limit(50).project("id, agreement_integrated_gradients_vpt_ft"),
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------
# a synthetic archive


def template(folder: Path) -> MapArchive:
    """A real archive of one image by two tiny models, whose description the large ones share."""
    folder.mkdir()
    models = {}
    for seed, name in enumerate(("vpt", "ft")):
        torch.manual_seed(seed)
        vit = VisionTransformer(img_size=224, patch_size=14, embed_dim=24, depth=2, num_heads=3, num_classes=3)
        models[name] = explain.wrap(vit.eval(), class_names=CLASSES)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "noise.png")
    return explain.attribute_dataset(models, [folder / "noise.png"], out=folder / "maps")


def begun(like: MapArchive, folder: Path, count: int) -> MapArchive:
    """An empty archive of so many images that are nowhere."""
    store = Store.open(folder)
    store.check_writable()
    entries = (Entry(f"class/image_{row:07d}.jpg", Path(f"/images/image_{row:07d}.jpg"), row % 3)
               for row in range(count))  # fmt: skip
    manifest = Manifest.write(store, entries, SHARD)
    store.put(KEY, like.job.model_copy(update={"manifest": manifest.facts}).to_bytes())
    return MapArchive(store)


def random_maps(columns: Sequence[Column], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One image's maps; those in pixels shrink on the disk as Integrated Gradients of photographs do."""
    maps = {}
    for column in columns:
        values = rng.standard_normal(column.shape, np.float32)
        if column.part == "pixels":
            rough = torch.from_numpy(rng.random((1, 1, 14, 14), np.float32)) ** 2
            values *= torch.nn.functional.interpolate(rough, column.shape, mode="bilinear")[0, 0].numpy()
        maps[column.name] = values
    return maps


def random_table(archive: MapArchive, shard: int, entries: Sequence[Entry], rng: np.random.Generator) -> pa.Table:
    """Numbers for every column of a shard's table."""
    schema, count = table_schema(archive.job), len(entries)
    first = archive.manifest.facts.first_row(shard)
    known: dict[str, Any] = {
        "row": range(first, first + count), "id": [entry.id for entry in entries], "detail": [""] * count,
        "status": rng.choice(["ok", "truncated"], count, p=[0.999, 0.001]), "flags": [[]] * count,
        "label": [entry.label for entry in entries],
    }  # fmt: skip
    makers: dict[pa.DataType, Callable[[], np.ndarray]] = {
        pa.float32(): lambda: rng.random(count, np.float32), pa.bool_(): lambda: rng.random(count) < 0.5,
        pa.int32(): lambda: rng.integers(0, 3, count, np.int32),
    }  # fmt: skip
    return pa.table([pa.array(known[kind.name] if kind.name in known else makers[kind.type](), kind.type)
                     for kind in schema], schema)  # fmt: skip


def large_archive(like: MapArchive, folder: Path, count: int, full: int) -> tuple[MapArchive, list[str]]:
    """A finished archive, and the ids whose maps are all there: those of the first `full` shards.

    The other shards lack their maps in pixels, as with the policy "sample", so that the disk holds it.
    """
    rng, archive = np.random.default_rng(0), begun(like, folder, count)
    columns, ids = archive.job.columns, []
    pool = [random_maps(columns, rng) for _ in range(DISTINCT)]
    grids = [{column.name: maps[column.name] for column in columns if column.part == "grid"} for maps in pool]
    logits = {model: rng.standard_normal(3, np.float32) for model in archive.models}
    for shard in range(archive.job.manifest.shards):
        entries, chosen = archive.manifest.shard(shard), pool if shard < full else grids
        writer = MapsWriter(columns, dict.fromkeys(archive.models, 3))
        for row, entry in enumerate(entries):
            writer.add(Row(entry.id, chosen[(row + shard) % DISTINCT], logits, dict.fromkeys(archive.models, row % 3)))
        commit(archive, shard, entries, writer, random_table(archive, shard, entries, rng), 1.0)
        ids += [entry.id for entry in entries] if shard < full else []
    finish(archive)
    return MapArchive(archive.store), ids


def large_table(like: MapArchive, folder: Path, count: int) -> MapArchive:
    """A finished archive whose table is there and whose maps are not."""
    rng, archive = np.random.default_rng(1), begun(like, folder, count)
    nothing = StoredFile(bytes=1, sha256="0" * 64, footer_sha256="0" * 64)
    for shard in range(archive.job.manifest.shards):
        entries, sink = archive.manifest.shard(shard), pa.BufferOutputStream()
        pq.write_table(random_table(archive, shard, entries, rng), sink, compression="zstd", write_page_checksum=True)
        archive.store.put(key(METRICS, shard), sink.getvalue())
        receipt = Receipt(
            shard=shard, first_row=archive.job.manifest.first_row(shard), count=len(entries), job=archive.job.sha256,
            manifest_slice="0" * 64, maps=nothing, metrics=StoredFile.of(sink.getvalue()),
            statuses={"ok": len(entries)}, versions={}, host="", seconds=1, finished="",
        )  # fmt: skip
        archive.store.put(key(RECEIPTS, shard), receipt.to_bytes())
    finish(archive)
    return MapArchive(archive.store)


# --------------------------------------------------------------------------------------------------------------------
# reading one image


def readers(archive: MapArchive, ids: Sequence[str], folder: Path) -> Iterator[tuple[str, int, Read]]:
    """(what it is called, how many images it has, how one is read) of the archive and its peers."""

    def all_of(opened: MapArchive, index: int) -> dict[str, np.ndarray]:
        image = opened[ids[index]]
        return {f"{model}.{method}": image[model][method].values for model in image for method in image[model]}

    evicting, keeping = MapArchive(archive.store.url), MapArchive(archive.store.url)

    def evicted(index: int) -> dict[str, np.ndarray]:
        kept, reading.OPEN_FILES = reading.OPEN_FILES, 0
        try:
            return all_of(evicting, index)
        finally:
            reading.OPEN_FILES = kept

    yield "archive, opened for each image", len(ids), lambda index: all_of(MapArchive(archive.store.url), index)
    yield "archive open, its file opened", len(ids), evicted
    yield "archive and file open", len(ids), lambda index: all_of(keeping, index)
    yield from peers(archive, folder)


def peers(archive: MapArchive, folder: Path) -> Iterator[tuple[str, int, Read]]:
    """The maps of shard 0 in other files: the same encoded bytes, opened, read and decoded for each image."""
    path = archive.store.folder / "maps/000/000000.parquet"
    rows, columns = pq.read_table(path), archive.job.columns
    pq.write_table(rows, folder / "plain.parquet", compression="zstd", row_group_size=8, use_dictionary=False,
                   write_statistics=False)  # fmt: skip
    kinds = {column.name: (np.int8 if column.form == "int8" else np.float16, column.shape) for column in columns}
    whole: dict[str, np.ndarray] = {}
    for name, (kind, shape) in kinds.items():
        cells = b"".join(rows[name].to_pylist())
        whole[name] = np.frombuffer(cells, kind).reshape(len(rows), *shape)
        whole[f"{name}.scale"] = rows[f"{name}.scale"].to_numpy()
    save_file(whole, folder / "flat.safetensors")
    for row in range(len(rows)):
        np.savez_compressed(folder / f"{row}.npz", **{name: values[row] for name, values in whole.items()})

    def decoded(cell: Callable[[str], Any]) -> dict[str, np.ndarray]:
        return {column.name: decode(bytes(cell(column.name)), float(cell(f"{column.name}.scale")), column.shape,
                                    column.form) for column in columns}  # fmt: skip

    def npz(row: int) -> dict[str, np.ndarray]:
        with np.load(folder / f"{row}.npz") as stored:
            return decoded(lambda name: stored[name].tobytes() if name in kinds else stored[name])

    def flat(row: int) -> dict[str, np.ndarray]:
        with safe_open(folder / "flat.safetensors", "numpy") as stored:
            one = {name: stored.get_slice(name)[row : row + 1] for name in whole}
            return decoded(lambda name: one[name].tobytes() if name in kinds else one[name][0])

    def plain(row: int) -> dict[str, np.ndarray]:
        group = pq.ParquetFile(folder / "plain.parquet").read_row_group(row // 8, use_threads=False)
        return decoded(lambda name: group[name][row % 8].as_py())

    yield "one NPZ per image", len(rows), npz
    yield "safetensors, uncompressed", len(rows), flat
    yield "plain Parquet, no checks", len(rows), plain


def read_times(archive: MapArchive, ids: Sequence[str], folder: Path, turns: int, each: int) -> dict[str, np.ndarray]:
    """Reader -> milliseconds (turns, each, 2) of reads of random images, on the clock and of the processor."""
    jobs, rng = list(readers(archive, ids, folder)), np.random.default_rng(2)
    for _, count, read in jobs:
        for index in rng.integers(0, count, 10):
            read(int(index))  # makes the index, warms the page cache
    taken: dict[str, list[np.ndarray]] = {name: [] for name, _, _ in jobs}
    for turn in range(turns):
        for name, count, read in jobs if turn % 2 else jobs[::-1]:
            taken[name].append(np.array([timed(read, int(at)) for at in rng.integers(0, count, each)]))
        medians = {name: np.median(values[-1], axis=0).round(2).tolist() for name, values in taken.items()}
        say(f"turn {turn + 1}: {medians}")
    return {name: np.array(values) for name, values in taken.items()}


def timed(job: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Milliseconds on the clock, and of the processor, which others on the machine disturb less."""
    started, used = time.perf_counter(), time.process_time()
    job(*arguments)
    return 1e3 * (time.perf_counter() - started), 1e3 * (time.process_time() - used)


# --------------------------------------------------------------------------------------------------------------------
# asking the table


def asked(ask: Callable[[Any], Any], relation: Any) -> list[Any]:
    """The answer to a question."""
    return list(ask(relation).fetchall())


def query_times(archive: MapArchive, turns: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Question -> milliseconds per turn through `archive.table`, and by DuckDB alone, which checks nothing."""
    connection, url = duckdb.connect(), archive.store.url
    files = [str(archive.store.folder / name) for name in archive.finished.tables]
    relations = {"archive": archive.table, "plain": connection.read_parquet(files)}
    jobs: dict[str, dict[str, Callable[[], Any]]] = {"open the table": {
        "archive": lambda: MapArchive(url).table, "plain": lambda: duckdb.connect().read_parquet(files)}}  # fmt: skip
    for name, ask in QUERIES.items():
        jobs[name] = {way: partial(asked, ask, relation) for way, relation in relations.items()}
        if sorted(jobs[name]["archive"]()) != sorted(jobs[name]["plain"]()):
            raise SystemExit(f"{name}: two ways to ask give two answers")
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, ways in jobs.items():
        found[name] = {way: [] for way in ways}
        for turn in range(turns):
            for way in sorted(ways, reverse=bool(turn % 2)):
                found[name][way].append(timed(ways[way]))
        say(f"{name}: {({way: np.median(values, 0).round(1).tolist() for way, values in found[name].items()})}")
    return found


# --------------------------------------------------------------------------------------------------------------------
# the page


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where, given = results["machine"], results["given"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    reads = {name: np.array(values) for name, values in results["reads"].items()}
    base = np.median(reads["archive, opened for each image"], axis=1)
    lines = [f"Measured on {where['cpu']}, {where['cores']} cores; {versions}. {given['images']:,} images in "
             f"{results['shards']} shards, {results['gigabytes']:.1f} GB; {given['turns']} turns of {given['reads']} "
             f"random images, {QUERY_TURNS} of each question; medians (lowest-highest).", ""]  # fmt: skip
    lines += table(
        ["all 6 maps of one image", "p50 ms", "p99 ms", "processor, p50 ms", "processor, p99 ms",
         "÷ archive opened for each, processor"],
        [[name, *(f"{np.percentile(values[..., kind], percent):.2f}" for kind in (0, 1) for percent in (50, 99)),
          spread((np.median(values, axis=1) / base)[:, 1].tolist())] for name, values in reads.items()],
    )  # fmt: skip
    lines += table(
        [f"{given['rows']:,} rows", "archive.table, ms", "processor, ms", "DuckDB alone, nothing checked, ms",
         "processor, ms", "archive.table ÷ DuckDB alone, processor"],
        [[name, *(spread(part.tolist()) for way in ("archive", "plain") for part in ways[way].T),
          spread((ways["archive"] / ways["plain"])[:, 1].tolist())]
         for name, timings in results["queries"].items()
         for ways in ({way: np.array(values) for way, values in timings.items()},)],
    )  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the results as JSON here")
    parser.add_argument("--into", type=Path, help="a Markdown file: the tables replace what stands between its marks")
    parser.add_argument("--batch", type=Path, help="what benchmarks/batch.py kept; its tables go to the same page")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--full", type=int, default=32, help="shards of 1,024 images with maps in pixels, 80 MB each")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--reads", type=int, default=200, help="images per turn and reader")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": machine(), "given": {
        name: getattr(arguments, name) for name in ("images", "full", "rows", "turns", "reads")}}  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        like = template(Path(name) / "like")
        archive, ids = large_archive(like, Path(name) / "maps", arguments.images, arguments.full)
        results["shards"] = archive.job.manifest.shards
        results["gigabytes"] = sum(receipt.maps.bytes + receipt.metrics.bytes for receipt in archive.receipts()) / 1e9
        say(f"an archive of {results['gigabytes']:.2f} GB is there")
        (Path(name) / "peers").mkdir()
        reads = read_times(archive, ids, Path(name) / "peers", arguments.turns, arguments.reads)
        results["reads"] = {reader: values.tolist() for reader, values in reads.items()}
        joined = large_table(like, Path(name) / "table", arguments.rows)
        say("a table is there")
        results["queries"] = query_times(joined, QUERY_TURNS)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = tables(results)
    if arguments.batch:
        text += "\n" + batch.tables(json.loads(arguments.batch.read_text(encoding="utf-8")))
    publish(text, arguments.into)


if __name__ == "__main__":
    main()

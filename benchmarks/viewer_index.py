"""The viewer's index and gallery at 100,000 and 1,000,000 images.

    python benchmarks/viewer_index.py --images ~/.cache/explain/datasets/textile-0.1.4
    python benchmarks/viewer_index.py --images FOLDER --keep /tmp/maps100k     then: explain view /tmp/maps100k

The archive of 100,000 images is synthetic, written by the code that writes real ones: its files are the given ones in
turn, its maps, logits and numbers are random and fit one another. At 1,000,000 there is only the table of numbers.
"""

import argparse
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from page import say, table
from PIL import Image
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright
from timm.models.vision_transformer import VisionTransformer

import app.index as searching
import explain
from app.index import Index, Query
from app.server import command
from explain.archive.archive import MapArchive
from explain.archive.commit import commit
from explain.archive.finish import finish
from explain.archive.job import KEY, Job
from explain.archive.manifest import Entry, Manifest
from explain.archive.maps_file import MapsWriter, Row
from explain.archive.store import Store
from explain.batch.numbers import table_schema

CLASSES = ("nominal", "local", "global")
METHODS = ("grad_cam", "attention_rollout", "integrated_gradients")
MODELS = ("vpt", "ft")
RIGHT = {"vpt": 0.8, "ft": 0.93}
"""Share of the images that each model answers rightly."""

SHARD = 1024
DISTINCT = 64
"""Different sets of maps that the rows repeat."""

FAILED = 0.001
COLUMN = "agreement_grad_cam_vpt_ft"
TURNS = 7
MARK, PAINTED = "grid-painted", "[data-painted]"

QUERIES = {
    "all images, order of the data set": Query(),
    "only VPT right": Query(outcome="only_first"),
    "one class, both wrong": Query(outcome="both_wrong", label=1),
    "text in the id": Query(contains="4711"),
    "FT's confidence 0.4 to 0.6": Query(confidence=("ft", 0.4, 0.6)),
    "all images, lowest agreement first": Query(sort=COLUMN),
    "different answers, lowest agreement first": Query(outcome="disagree", sort=COLUMN),
}


# --------------------------------------------------------------------------------------------------------------------
# a synthetic archive


def synthetic_archive(folder: Path, count: int, images: Sequence[Path]) -> MapArchive:
    """A finished archive of `count` images with ids like "synthetic/000123", two models and three methods.

    Args:
        folder: a new one.
        count: images.
        images: the files that the images are, in turn; a file in a folder that is named as a class has its label.
    """
    with tempfile.TemporaryDirectory() as name:
        job = _template(Path(name)).job
    store = Store.open(folder)
    store.check_writable()
    labels = [CLASSES.index(path.parent.name) if path.parent.name in CLASSES else number % len(CLASSES)
              for number, path in enumerate(images)]  # fmt: skip
    entries = (Entry(f"synthetic/{row:06d}", images[row % len(images)], labels[row % len(images)])
               for row in range(count))  # fmt: skip
    manifest = Manifest.write(store, entries, SHARD)
    store.put(KEY, job.model_copy(update={"manifest": manifest.facts}).to_bytes())
    archive, rng = MapArchive(store), np.random.default_rng(0)
    pool = [_maps(job, rng) for _ in range(DISTINCT)]
    for shard in range(manifest.facts.shards):
        _write_shard(archive, shard, pool, rng)
    finish(archive)
    return MapArchive(store)


def _template(folder: Path) -> MapArchive:
    """A real archive of one image by two tiny models, whose description the large one shares."""
    models = {}
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)
        vit = VisionTransformer(img_size=224, patch_size=14, embed_dim=24, depth=2, num_heads=3, num_classes=3)
        models[name] = explain.wrap(vit.eval(), class_names=CLASSES)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "noise.png")
    return explain.attribute_dataset(
        models, [folder / "noise.png"], out=folder / "maps", methods=METHODS, store_maps="grid",
        options={"integrated_gradients": {"n_steps": 2}},
    )  # fmt: skip


def _maps(job: Job, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One image's maps: a spot, noise, and both signs where the method has them."""
    found = {}
    centre = rng.uniform(-0.7, 0.7, 2)
    for column in job.columns:
        rows, columns = np.meshgrid(*(np.linspace(-1, 1, side) for side in column.shape), indexing="ij")
        spot = np.exp(-6 * ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2))
        found[column.name] = (spot + rng.normal(0, 0.12, column.shape)).astype(np.float32)
    return found


def _write_shard(
    archive: MapArchive, shard: int, pool: Sequence[dict[str, np.ndarray]], rng: np.random.Generator
) -> None:
    entries = archive.manifest.shard(shard)
    labels = np.array([entry.label for entry in entries])
    logits = {model: _logits(labels, RIGHT[model], rng) for model in MODELS}
    numbers = synthetic_numbers(archive.job, archive.manifest.facts.first_row(shard), labels, logits, rng)
    writer = MapsWriter(archive.job.columns, dict.fromkeys(MODELS, len(CLASSES)))
    for row, (entry, status) in enumerate(zip(entries, numbers["status"].to_pylist(), strict=True)):
        if status != "ok":
            writer.add(Row(entry.id, {}, {}, {}))
            continue
        writer.add(Row(entry.id, pool[(row + shard) % DISTINCT], {model: logits[model][row] for model in MODELS},
                       {model: int(logits[model][row].argmax()) for model in MODELS}))  # fmt: skip
    commit(archive, shard, entries, writer, numbers, 1.0)


def _logits(labels: np.ndarray, right: float, rng: np.random.Generator) -> np.ndarray:
    """Logits (n, K) of a model that is right so often, float32."""
    found = rng.normal(0, 1, (len(labels), len(CLASSES)))
    answers = np.where(rng.random(len(labels)) < right, labels, (labels + 1) % len(CLASSES))
    found[np.arange(len(labels)), answers] = found.max(axis=1) + rng.gamma(2, 1, len(labels))
    return np.asarray(found, np.float32)


def synthetic_numbers(
    job: Job, first: int, labels: np.ndarray, logits: dict[str, np.ndarray], rng: np.random.Generator
) -> pa.Table:
    """The table of a job's images from row `first` on, by the columns of `explain.batch.numbers`."""
    count, schema = len(labels), table_schema(job)
    failed = rng.random(count) < FAILED
    columns: dict[str, Any] = {
        "row": np.arange(first, first + count), "id": [f"synthetic/{row:06d}" for row in range(first, first + count)],
        "status": np.where(failed, "truncated", "ok"), "detail": np.where(failed, "the file ends early", ""),
        "flags": [[]] * count, "label": labels, "width": np.full(count, 250), "height": np.full(count, 250),
    }  # fmt: skip
    for model, values in logits.items():
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        answers, shares = values.argmax(axis=1), (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
        columns |= {f"{model}_prediction": answers, f"{model}_confidence": shares, f"{model}_target": answers,
                    f"{model}_target_probability": shares, f"{model}_correct": answers == labels}  # fmt: skip
    given = ("row", "id", "status", "detail", "flags", "label", "width", "height")
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        values = np.tanh(rng.normal(0.8, 0.5, count)) if values is None else values
        if field.name in ("detail", "flags", "id"):
            arrays.append(pa.array(values, field.type))
        else:
            gone = None if field.name in given else failed
            arrays.append(pa.array(np.asarray(values), from_pandas=False, mask=gone).cast(field.type, safe=False))
    return pa.table(arrays, schema=schema)


# --------------------------------------------------------------------------------------------------------------------
# measuring


def large_table(job: Job, count: int) -> pa.Table:
    """The table of so many images, without their maps."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, len(CLASSES), count)
    return synthetic_numbers(job, 0, labels, {model: _logits(labels, RIGHT[model], rng) for model in MODELS}, rng)


def timed(job: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    job()
    return 1e3 * (time.perf_counter() - started)


def measure(name: str, numbers: pa.Table) -> list[list[str]]:
    """Rows of the table: building the index, and each question with counts and a page of its answer."""
    searching.KEPT_QUERIES = 0  # every question is answered anew
    index: list[Index] = []
    building = timed(lambda: index.append(Index([numbers], MODELS, {})))
    rows = [[name, "building the index", f"{building:.0f}", "", ""]]
    for what, query in QUERIES.items():
        find, counts, page = [], [], []
        for _ in range(TURNS):
            find.append(timed(lambda: index[0].find(query)))  # noqa: B023
            counts.append(timed(lambda: (index[0].outcomes(query), index[0].counts("label", query))))  # noqa: B023
            page.append(timed(lambda: index[0].fetch(index[0].find(query)[:48])))  # noqa: B023
        rows.append([name, what, *(f"{np.median(part):.1f}" for part in (find, counts, page))])
        say(" | ".join(rows[-1]))
    return rows


@contextmanager
def viewing(folder: Path) -> Iterator[Any]:
    """A page of Debian's Chromium on the gallery of an archive."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(command(folder, port, headless=True), stdout=subprocess.DEVNULL)
    try:
        with sync_playwright() as tool:
            browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900}, locale="en-US")
            page.set_default_timeout(120_000)
            while True:
                try:
                    page.goto(f"http://127.0.0.1:{port}/gallery")
                    break
                except PlaywrightError:  # the server is not there yet
                    time.sleep(0.5)
            page.wait_for_selector(PAINTED)
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait()


def measure_clicks(folder: Path, turns: int = TURNS) -> list[list[str]]:
    """Rows of the table: from the click that chooses something until the thumbnails are painted."""
    choices = (("Which images", "Only VPT right"), ("Which images", "Different answers"), ("True class", "local"),
               ("Sort by", "Agreement, GradCAM"), ("Which images", "All"), ("True class", "All classes"),
               ("Sort by", "Order of the data set"))  # fmt: skip
    taken: dict[str, list[float]] = {}
    with viewing(folder) as page:
        page.evaluate("addEventListener('click', () => { window.clicked = performance.now(); }, true)")
        for box, choice in choices * turns:
            before = page.evaluate(f"performance.getEntriesByName('{MARK}').length")
            page.get_by_label(box).first.click()
            page.get_by_role("option", name=choice).first.click()
            page.wait_for_function(f"before => performance.getEntriesByName('{MARK}').length > before", arg=before)
            time.sleep(0.5)
            last = page.evaluate(f"performance.getEntriesByName('{MARK}').at(-1).startTime - window.clicked")
            taken.setdefault(f"{box}: {choice}", []).append(last)
    return [[name, f"{np.median(times):.0f}", f"{min(times):.0f} - {max(times):.0f}"] for name, times in taken.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG or PNG files")
    parser.add_argument("--keep", type=Path, help="leave the archive in this new folder")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the table without maps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(path for path in arguments.images.expanduser().rglob("*") if path.suffix in (".jpg", ".png"))
    with tempfile.TemporaryDirectory() as name:
        made: list[MapArchive] = []
        seconds = timed(lambda: made.append(
            synthetic_archive(arguments.keep or Path(name) / "maps", arguments.count, files))) / 1e3  # fmt: skip
        say(f"an archive of {arguments.count:,} images was written in {seconds:.0f} s")
        rows = measure(f"{arguments.count:,}", made[0].to_arrow())
        rows += measure(f"{arguments.rows:,}", large_table(made[0].job, arguments.rows))
        clicks = measure_clicks(Path(made[0].store.url))
    print("\n".join(table(["click, then 48 thumbnails painted", "ms, median", "ms, range"], clicks)))
    print("\n".join(table(["images", "what", "find, ms", "counts, ms", "page of 48, ms"], rows)))


if __name__ == "__main__":
    main()

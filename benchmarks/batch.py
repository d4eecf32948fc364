"""A whole data set beside the engine alone, and the memory of the process that drives 100,000 images.

    python benchmarks/batch.py --out batch.json      # benchmarks/archive.py puts it on docs/benchmarks_archive.md

The floor is `explain.attribute` on prepared tensors that are in memory already: same models, methods, images, threads
and batch size. What a batch adds is listing, decoding, resizing, numbers, storing and committing. Both take turns; a
ratio is taken within a turn.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from page import say, table
from PIL import Image

import explain
from explain.archive.maps_file import MapsWriter
from explain.archive.store import Store
from explain.backbone import InputTransform
from explain.batch import shard
from explain.batch.base import Backend, Done, Work
from explain.batch.shard import Step
from explain.data.base import Dataset, load_data
from explain.engine import load_images
from explain.files import sha256_file
from explain.model import TunedModel
from explain.training.pair import MatchedPair
from explain.training.recipe import Arm, Recipe
from explain.training.train import train_pair

BACKBONE = "random:vit_small_patch14_dinov2"
CLASSES = ("nominal", "local", "global")
ARMS: dict[str, tuple[str, dict[str, Any]]] = {"vpt": ("prompt", {"num_tokens": 10, "deep": True}), "ft": ("full", {})}
BATCH = 8

Times = list[tuple[float, float]]
"""Seconds per turn: on the clock, and of the processor."""

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "maps (the engine)": ((shard, "attribute"),),
    "read, hash, decode": ((shard, "read_image"), (shard, "load_mask")),
    "resize": ((InputTransform, "pixels"),),
    "numbers": ((shard, "numbers"), (shard, "degenerate"), (shard.OnGrid, "of")),
    "encode maps": ((MapsWriter, "add"), (MapsWriter, "finish")),
    "write and flush": ((Store, "put"), (Store, "create")),
}
"""What a shard spends its time on, and the functions that do it."""


# --------------------------------------------------------------------------------------------------------------------
# throughput


@dataclass(frozen=True)
class Case:
    """One comparison."""

    name: str
    models: Mapping[str, TunedModel]
    data: Dataset
    asked: Mapping[str, Any]


@dataclass
class Clocked(Backend):
    """Shards in this process, each timed; `is_working` is True meanwhile."""

    spent: Times = field(default_factory=list)
    is_working: bool = False

    def run(self, work: Work, shards: Iterator[int], done: Done, step: Step) -> None:
        """See `Backend.run`."""
        worker = work.open()
        for number in shards:
            self.is_working = True
            self.spent.append(timed(lambda number=number: done(number, worker.run(number).statuses)))
            self.is_working = False


def timed(job: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of the processor, which others on the machine disturb less."""
    started, used = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - started, time.process_time() - used


def untrained(side: int) -> dict[str, TunedModel]:
    """Both models of a pair, as they are before training; how long a map takes does not depend on it."""
    models = {}
    for name, (tuning, options) in ARMS.items():
        torch.manual_seed(0)
        models[name] = explain.tune(BACKBONE, tuning, class_names=CLASSES, image_size=side, **options).eval()
    return models


def enlarged(data: Dataset, folder: Path, size: tuple[int, int]) -> Dataset:
    """The same pictures as large JPEG files, without masks."""
    samples = []
    for index, sample in enumerate(data.samples):
        path = folder / f"{index}.jpg"
        with Image.open(sample.path) as image:
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        samples.append(replace(sample, path=path, mask=None, sha256=sha256_file(path)))
    return replace(data, samples=tuple(samples), root=folder)


def cases(arguments: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """The usual work, and the worst: a method of one forward, and images far larger than the models' input."""
    whole = load_data("textile")
    order = np.random.default_rng(0).permutation(len(whole.samples))
    chosen = replace(whole, samples=tuple(whole.samples[index] for index in order[: arguments.images]), rejected=())
    steps = {"integrated_gradients": {"n_steps": 4}}
    models: Mapping[str, TunedModel] = untrained(98)
    if arguments.run:
        pair = MatchedPair.load(arguments.run)
        models = {name: pair.runs[name].model for name in ARMS}
    yield Case("three methods, 98 px", models, chosen, {"options": steps})
    few = replace(chosen, samples=chosen.samples[: arguments.images // 2])
    yield Case("rollout alone, 224 px, photos of 1600x1200", untrained(224), enlarged(few, folder, (1600, 1200)),
               {"methods": ("attention_rollout",)})  # fmt: skip


def measure(case: Case, turns: int) -> dict[str, Any]:
    """Seconds of the floor, of the shards, and of the whole call, turn by turn; and where the shards' time goes."""
    labels = [sample.label for sample in case.data.samples]
    tensors = {name: load_images(case.data.samples, model.transform) for name, model in case.models.items()}
    clocked = Clocked()

    def bare() -> None:
        for name, model in case.models.items():
            explain.attribute(model, tensors[name], targets=labels, batch_size=BATCH, **case.asked)

    def batch(data: Dataset = case.data) -> None:
        with tempfile.TemporaryDirectory() as name:
            explain.attribute_dataset(case.models, data, out=Path(name) / "maps", backend=clocked,
                                      batch_size=BATCH, threads=1, device="cpu", **case.asked)  # fmt: skip

    batch(replace(case.data, samples=case.data.samples[:BATCH]))  # warms up both
    clocked.spent.clear()
    seconds: dict[str, Times] = {"bare": [], "whole": []}
    for turn in range(turns):
        for name, job in (("bare", bare), ("whole", batch))[:: 1 if turn % 2 else -1]:
            seconds[name].append(timed(job))
        say(f"{case.name}, turn {turn + 1}: bare {seconds['bare'][-1]}, shards {clocked.spent[-1]}")
    return {"name": case.name, "images": len(labels), "seconds": seconds | {"shards": list(clocked.spent)},
            "parts": parts_of(batch, clocked)}  # fmt: skip


def parts_of(batch: Callable[[], None], clocked: Clocked) -> dict[str, float]:
    """Share of the processor's time of a shard that each part takes, on whichever thread."""
    spent = dict.fromkeys(PARTS, 0.0)

    def watched(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                spent[part] += (time.thread_time() - started) * clocked.is_working

        return run

    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, watched(part, getattr(owner, name))))
        batch()
    whole = clocked.spent[-1][1]
    shares = {part: seconds / whole for part, seconds in spent.items()}
    return shares | {"everything else": 1 - sum(shares.values())}


# --------------------------------------------------------------------------------------------------------------------
# memory of the driver


def many_names(folder: Path, count: int) -> Path:
    """A folder of so many images, which are ten small files under many names."""
    rng = np.random.default_rng(0)
    originals = [folder / f"original_{index}.png" for index in range(10)]
    folder.mkdir()
    for path in originals:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    below = folder / "images"
    for index in range(count):
        place = below / f"{index // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        try:
            os.link(originals[index % 10], place / f"{index:06d}.png")
        except OSError:
            shutil.copy(originals[index % 10], place / f"{index:06d}.png")
    return below


def tiny_pair(folder: Path) -> Path:
    """A trained pair, as the backend Ray needs it, so small that 100,000 images take minutes."""
    rng = np.random.default_rng(0)
    for index in range(24):
        place = folder / "squares" / ("dark", "light")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 100, (32, 32, 3), np.uint8) + np.uint8(100 * (index % 2))
        Image.fromarray(picture).save(place / f"{index:02d}.png")
    arms = {name: Arm(tuning=tuning, options={**options, **({"num_tokens": 2} if options else {})},
                      learning_rates=(1e-3,)) for name, (tuning, options) in ARMS.items()}  # fmt: skip
    recipe = Recipe(backbone="random:test_vit", image_size=32, train_per_class=6, val_per_class=2,
                    test_per_class=4, epochs=1, search_epochs=1, batch_size=6, arms=arms)  # fmt: skip
    train_pair(load_data(folder / "squares"), recipe, out=folder / "pair", device="cpu")
    return folder / "pair"


def drive(backend: str, run: str, images: str, out: str) -> None:
    """In a process of its own: one batch; its peak memory before and after, as JSON."""
    torch.set_num_threads(1)
    before, started = peak_mib(), time.perf_counter()
    archive = explain.attribute_dataset(run, images, out=out, methods="attention_rollout", store_maps="grid",
                                        backend=backend, batch_size=64, threads=1, device="cpu")  # fmt: skip
    print(json.dumps({"before": before, "peak": peak_mib(), "seconds": time.perf_counter() - started,
                      "statuses": archive.finished.statuses, "shards": archive.job.manifest.shards}))  # fmt: skip


def peak_mib() -> float:
    """The most memory this process has had in use so far, MiB; Linux says."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def memory(backend: str, folder: Path, run: Path, counts: tuple[int, int]) -> dict[str, Any]:
    """Peak memory of the driver for few and many images."""
    found: dict[str, Any] = {"backend": backend}
    for name, count in zip(("few", "many"), counts, strict=True):
        images, out = folder / f"{count}", folder / f"{backend}_{count}"
        if not images.exists():
            many_names(images, count)
        command = [sys.executable, __file__, "--drive", backend, str(run), str(images / "images"), str(out)]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found[name]["images"] = count
        shutil.rmtree(out)
        say(f"driver, {backend}, {count:,} images: {found[name]}")
    return found


# --------------------------------------------------------------------------------------------------------------------
# the page


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    from attribution import spread

    where, given = results["machine"], results["given"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines = [f"Measured on {where['cpu']}, {where['cores']} cores, {where['threads']} threads; {versions}. Batches of "
             f"{BATCH}, {given['turns']} turns; medians (lowest-highest).", ""]  # fmt: skip
    rows = []
    for case in results["cases"]:
        seconds = {name: np.array(values) for name, values in case["seconds"].items()}
        ratio = seconds["bare"] / seconds["shards"]
        start = statistics.median((seconds["whole"] - seconds["shards"])[:, 1].tolist())
        rows.append([case["name"], str(case["images"]), *(spread(part.tolist()) for part in ratio.T),
                     f"{case['images'] / statistics.median(seconds['shards'][:, 1].tolist()):.1f}",
                     f"{start:.1f}"])  # fmt: skip
    lines += table(["two models", "images", "throughput ÷ explain.attribute, clock", "the same, processor",
                    "images per processor s", "begin and finish once, processor s"], rows)  # fmt: skip
    lines += table(["share of a shard's processor time", *(case["name"] for case in results["cases"])],
                   [[part, *(f"{100 * case['parts'][part]:.1f} %" for case in results["cases"])]
                    for part in results["cases"][0]["parts"]])  # fmt: skip
    lines += table(
        ["peak memory of the driver, MiB (of it by the call)", f"{given['few']:,} images", f"{given['many']:,} images",
         "ratio", "target"],
        [[found["backend"], *(f"{found[name]['peak']:.0f} ({found[name]['peak'] - found[name]['before']:.0f})"
                              for name in ("few", "many")),
          f"{found['many']['peak'] / found['few']['peak']:.2f}", "<= 1.2"] for found in results["memory"]],
    )  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the results as JSON here")
    parser.add_argument("--run", type=Path, help="a trained pair of textile images; none: an untrained ViT-S/14")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--few", type=int, default=1000, help="images of the small archive whose driver is measured")
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--backend", nargs="*", default=["inline", "ray"], help="whose driver is measured")
    parser.add_argument("--drive", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        return drive(*arguments.drive)
    from attribution import machine

    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": machine(), "given": {
        name: getattr(arguments, name) for name in ("images", "turns", "few", "many")}}  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["cases"] = [measure(case, arguments.turns) for case in cases(arguments, folder)]
        run = tiny_pair(folder)
        counts = (arguments.few, arguments.many)
        results["memory"] = [memory(backend, folder, run, counts) for backend in arguments.backend]
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(tables(results))
    return None


if __name__ == "__main__":
    main()

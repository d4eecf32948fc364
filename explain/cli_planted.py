"""The command `explain planted`: which attribution methods can tell what a model of yours uses."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from explain.cli_train import Device, settings
from explain.console import console, progress_bars
from explain.errors import UnknownNameError

if TYPE_CHECKING:
    from explain.evidence.borrowed import Borrowed
    from explain.evidence.planted import PlantedResult, Shares
    from explain.training.recipe import Recipe

COLOURS = {"PASSED": "bold green", "FAILED": "bold red", "NOT TESTED": "yellow"}


def planted(
    data: Annotated[str, typer.Argument(help="A trained pair or study, such as runs/demo, whose images, backbone, "
                                             "arms and rates are taken over; or images as for `explain train`.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the result; default DATA/planted for a trained pair, "
                                                  "else runs/<name of the data>-planted.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="An arm, such as vpt; may be given several times; default vpt "
                                                       "and ft.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="A name from `explain methods`; may be given several times; "
                                                          "default grad_cam, integrated_gradients and "
                                                          "attention_rollout.")] = None,
    train_images: Annotated[int, typer.Option(help="Pictures with cues to train on.")] = 256,
    test_images: Annotated[int, typer.Option(help="Pictures with cues that are explained.")] = 100,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One recipe field, such as --set epochs=12; may be "
                                                                 "given several times.")] = None,
    seed: Annotated[int, typer.Option(help="Of the cues, the split and the trainings.")] = 0,
    device: Device = None,
) -> None:  # fmt: skip
    """Plant two equal cues in your images, train models on either, and see which methods tell them apart.

    An interrupted test continues with the same command.
    """
    from explain.data.base import load_data
    from explain.engine import DEFAULT_METHODS
    from explain.evidence.borrowed import borrow, trained_folder
    from explain.evidence.found import PLANTED as PLANTED_FOLDER
    from explain.evidence.planted import PLANTED, planted_cues
    from explain.methods.base import METHODS
    from explain.training.machine import Machine

    methods = tuple(dict.fromkeys(method or DEFAULT_METHODS))
    for name in methods:
        METHODS[name]  # a wrong name is told before anything is trained
    changes, trained = settings(set_ or []), trained_folder(data)
    with progress_bars() as progress:
        if trained is None:
            images = load_data(data, lambda done, total: progress("checking the images", done, total))
            recipe, split = _chosen(PLANTED, arm or []), None
            folder = out or Path("runs") / f"{images.name}-planted"
        else:
            borrowed: Borrowed = borrow(trained, arm)
            images, recipe, split = borrowed.data, borrowed.recipe, borrowed.split
            folder = out or Path(data) / PLANTED_FOLDER
        result = planted_cues(
            images, _changed(recipe, changes), out=folder, methods=methods, split=split, train_images=train_images,
            test_images=test_images, seed=seed, machine=Machine(device=device), progress=progress,
        )  # fmt: skip
    print_planted(result)
    console.print(f"result: {folder / 'planted.json'}    pictures: {folder / 'pictures'}", highlight=False)


def print_planted(result: "PlantedResult") -> None:
    """The gate of each arm, then one row per arm and method, and how to read them."""
    from explain.methods.base import METHODS
    from explain.metrics.controls import CONTROL_LABELS

    console.print(_gates(result), _trusts(result, CONTROL_LABELS | {name: METHODS[name].label for name in METHODS}))
    console.print(
        "How to read it: both models of an arm got the same pixels, so a method whose maps show what a model uses puts "
        "more of its relevance on cue A under the model trained on A (difference near 1), and one that only follows "
        "the picture, as the controls do, the same under both (difference 0).", highlight=False, soft_wrap=True,
    )  # fmt: skip
    few = result.test_images - result.distinct_test_images
    if few > 0:
        console.print(f"The {result.test_images} test pictures are made of {result.distinct_test_images} images, each "
                      "with several draws of the cues.", highlight=False, soft_wrap=True)  # fmt: skip


def _gates(result: "PlantedResult") -> Table:
    table = Table(title=f"does each model use its own cue? (gate: what the logit loses with each cue, difference of "
                        f"{result.gate_difference:g} or more)")  # fmt: skip
    for heading in ("arm", "rate", "accuracy A", "accuracy B", "dropped", "under A", "under B", "difference",
                    "gate"):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("arm", "gate") else "right")
    for gate in result.gates:
        word = Text("passed", COLOURS["PASSED"]) if gate.passed else Text("not passed", COLOURS["NOT TESTED"])
        table.add_row(gate.arm, f"{result.learning_rates[gate.arm]:g}", f"{gate.accuracy_a:.3f}",
                      f"{gate.accuracy_b:.3f}", str(gate.dropped), *_shares(gate), word)  # fmt: skip
    return table


def _trusts(result: "PlantedResult", labels: dict[str, str]) -> Table:
    table = Table(title=f"{result.data}: does the map follow the model? ({result.test_images} test pictures)",
                  caption="under A, under B: of what a map gives to both cues, the share that lies in cue A, under the "
                          "model trained on A and on B. In brackets the 95 % interval over the pictures. Not counted: "
                          "dropped pictures, which a model got wrong, and blank maps, which give neither cue anything.",
                  caption_justify="left")  # fmt: skip
    for heading in ("arm", "method", "counted", "blank", "under A", "under B", "difference", "status"):
        table.add_column(heading, justify="left" if heading in ("arm", "method", "status") else "right")
    for arm in result.arms:
        for row in (row for row in result.trusts if row.arm == arm):
            control = row.method in result.controls
            label = f"{labels.get(row.method, row.method)}{' (control)' if control else ''}"
            table.add_row(row.arm, label, str(row.images), str(row.blank), *_shares(row),
                          Text(row.status, "dim" if control else COLOURS[row.status]))  # fmt: skip
        table.add_section()
    return table


def _shares(row: "Shares") -> tuple[str, str, str]:
    values: list[Any] = [row.share_a, row.share_b, row.difference, row.low, row.high]
    if None in values:
        return "-", "-", "-"
    a, b, difference, low, high = (float(value) for value in values)
    return f"{a:.3f}", f"{b:.3f}", f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"


def _chosen(recipe: "Recipe", arms: list[str]) -> "Recipe":
    """The recipe with only these arms."""
    missing = [name for name in arms if name not in recipe.arms]
    if missing:
        raise UnknownNameError(f"no arm {', '.join(missing)}; there are {', '.join(recipe.arms)}, and those of a "
                               "trained pair or study")  # fmt: skip
    return recipe.model_copy(update={"arms": {name: recipe.arms[name] for name in arms}}) if arms else recipe


def _changed(recipe: "Recipe", changes: dict[str, object]) -> "Recipe":
    from explain.training.recipe import Recipe

    return Recipe.parse(recipe.model_dump(mode="json") | changes) if changes else recipe

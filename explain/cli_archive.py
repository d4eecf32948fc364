"""The commands about maps of many images: `explain attribute`, and `explain archive`."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from explain.cli_train import Device, settings
from explain.console import console, errors, progress_bars
from explain.errors import Cancelled, InputError, IntegrityError

archive = typer.Typer(no_args_is_help=True, help="Archives of maps: what is in them, is it whole, and other formats.")

PICTURES = 100
"""Up to so many images, pictures are drawn unless asked not to."""

SHOWN = 20
"""Images that are named on the screen when they have no maps; the table has all."""

Archive = Annotated[str, typer.Argument(help="Folder of an archive, or its URL such as s3://bucket/maps.")]


def attribute(
    run: Annotated[Path, typer.Argument(help="A trained run, such as runs/demo/vpt, or a pair, such as runs/demo: both "
                                             "models then explain the same images.")],
    images: Annotated[list[str] | None, typer.Argument(help="Image files, folders of images, or a data set as in "
                                                            "`explain train`; none: those of --out.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the archive, or a URL such as s3://bucket/maps; default: "
                                                 "RUN/maps, where the viewer finds it.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="A name from `explain methods`; may be given several "
                                                             "times; default grad_cam, integrated_gradients and "
                                                             "attention_rollout.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="One option of a method, such as --option "
                                                             "integrated_gradients.n_steps=50; may be given several "
                                                             "times.")] = None,
    target: Annotated[str | None, typer.Option(help="Class that is explained: a name, 'label' or 'predicted'; default: "
                                                    "the label where a pair explains labelled images, else what is "
                                                    "predicted.")] = None,
    store_maps: Annotated[str, typer.Option(help="How maps in pixels are kept: int8, fp16, grid (only sums per patch), "
                                                 "or sample:1000.")] = "int8",
    pictures: Annotated[bool | None, typer.Option(help="Draw each map over its image into OUT/pictures; default: for "
                                                       "up to 100 images.")] = None,
    backend: Annotated[str, typer.Option(help="inline: this process; ray: a cluster, or several processes "
                                              "here.")] = "inline",
    workers: Annotated[int | None, typer.Option(help="Processes of the backend ray; default: one per GPU, or per "
                                                     "core.")] = None,
    shard_size: Annotated[int, typer.Option(help="Images that are computed and kept, or not, as one.")] = 1024,
    batch_size: Annotated[int, typer.Option(help="Images per pass.")] = 8,
    memory: Annotated[int | None, typer.Option(help="MiB that a pass may take; default 1024 on a CPU, half of a "
                                                    "GPU's memory.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for mixed precision on a GPU.")] = "fp32",
    threads: Annotated[int | None, typer.Option(help="CPU threads of each process.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Check what is there first, and compute damaged shards "
                                                          "again.")] = False,
    device: Device = None,
) -> None:  # fmt: skip
    """Saliency maps of one model or both of a pair for a whole data set, kept in an archive.

    Ctrl-C stops it and loses at most one shard; the same command goes on. Images that cannot be explained are named
    with a reason, and all others are explained. docs/archive.md says how to read an archive from Python.
    """
    from explain.batch.dataset import attribute_dataset
    from explain.engine import DEFAULT_METHODS

    data: Any = None if not images else images[0] if len(images) == 1 else images
    try:
        with terminable(), progress_bars() as progress:
            found = attribute_dataset(
                run, data, out=out or run / "maps", options=method_options(option or []), targets=_target(target),
                store_maps=store_maps, backend=_backend(backend, workers), shard_size=shard_size, batch_size=batch_size,
                memory_budget="auto" if memory is None else memory * 2**20, precision=precision, device=device,
                methods=tuple(method or DEFAULT_METHODS), threads=threads, repair=repair, progress=progress, say=_say,
            )  # fmt: skip
            if pictures or (pictures is None and len(found) <= PICTURES):
                _draw(found, progress)
    except Cancelled as stop:
        raise Cancelled(f"{stop}: {_again()}") from None
    except IntegrityError as error:
        raise IntegrityError(f"{error}. To compute damaged shards again: {_again('--repair')}") from None
    _tell(found)


def method_options(pairs: list[str]) -> dict[str, dict[str, object]]:
    """`method.option=value` -> options per method."""
    options: dict[str, dict[str, object]] = {}
    for name, value in settings(pairs, "--option method.name=value").items():
        method, dot, option = name.partition(".")
        if not dot:
            raise InputError(f"expected --option method.name=value, got {name!r}")
        options.setdefault(method, {})[option] = value
    return options


def _target(target: str | None) -> str | int | None:
    return int(target) if target is not None and target.isdecimal() else target


def _backend(name: str, workers: int | None) -> Any:
    from explain.batch.base import BACKENDS

    return BACKENDS.create(name) if workers is None else BACKENDS.create(name, workers=workers)


def _say(line: str) -> None:
    (errors if line.startswith(("warning", "damaged")) else console).print(line, highlight=False, markup=False)


def _draw(found: Any, progress: Any) -> None:
    """Pictures beside the maps; the maps are there whether or not they can be drawn."""
    from explain.export.base import export as write

    if found.store.folder is None:
        _say("no pictures were drawn, since the archive is no folder; explain archive export draws them elsewhere")
        return
    folder = found.store.folder / "pictures"
    if folder.exists():
        return
    try:
        write(found, folder, format="png", progress=progress)
    except InputError as error:
        _say(f"warning: no pictures: {error}")
    else:
        console.print(f"pictures in {folder}", highlight=False)


def _tell(found: Any) -> None:
    """What came of it, each failed image by name, and the exit code that goes with it."""
    done = found.finished
    counts = ", ".join(f"{count:,} {status}" for status, count in done.statuses.items())
    console.print(f"{done.images:,} images in {found.store.url}: {counts}", highlight=False, soft_wrap=True)
    failed = found.table.filter("status <> 'ok'").project("id, status, detail").order('"id"').limit(SHOWN).fetchall()
    for name, status, detail in failed:
        line = f"left out: {ascii(name)[1:-1]}: {status}: {detail}"
        errors.print(line, highlight=False, markup=False, soft_wrap=True)
    left = done.images - done.statuses.get("ok", 0)
    if left > SHOWN:
        errors.print(f"and {left - SHOWN:,} more: explain archive info {found.store.url}", highlight=False)
    if left:
        raise typer.Exit(3)


def _again(*more: str) -> str:
    """The command that was given, to be given again."""
    return shlex.join(["explain", *sys.argv[1:], *more])


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, end the work as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@archive.command()
def info(location: Archive) -> None:
    """What an archive holds: images, models, methods, statuses, size."""
    from rich.table import Table

    from explain.archive.archive import MapArchive
    from explain.batch.estimate import bytes_per_image

    found = MapArchive(location)
    job, finished = found.job, found.finished
    done = sum(receipt.count for receipt in found.receipts())
    facts = {
        "images": f"{len(found):,} of {job.data.name}, in {job.manifest.shards:,} shards",
        "computed": "all" if finished else f"{done:,}; the same `explain attribute` goes on",
        "targets": str(job.targets),
        "maps": f"{job.store_maps}, about {bytes_per_image(job) / 1000:.3g} kB per image",
        "begun": job.created,
        "content": found.content_sha256,
    }
    for name, value in facts.items():
        console.print(f"{name:10} {value}", highlight=False, markup=False, soft_wrap=True)
    table = Table("model", "tuning", "input", "method", "map", "form")
    for column in job.columns:
        model = job.facts_of[column.model]
        table.add_row(column.model, model.tuning, "×".join(map(str, model.image_size)), column.method,
                      f"{column.shape[0]}×{column.shape[1]} {column.part}", column.form)  # fmt: skip
    console.print(table)
    if done:
        counts = found.table.aggregate("status, count(*) as images", "status").order("images desc").fetchall()
        for status, count in counts:
            console.print(f"{status:20} {count:,}", highlight=False, markup=False)


@archive.command()
def verify(location: Archive) -> None:
    """Read every byte of an archive and compare it with what was recorded; exit 5 names what is damaged."""
    from explain.archive.archive import MapArchive
    from explain.archive.verify import verify as find_problems

    found = MapArchive(location)
    with progress_bars() as progress:
        problems = find_problems(found, lambda done, total: progress("checking shards", done, total))
    for problem in problems:
        errors.print(f"[bold red]damaged:[/] {escape(str(problem))}", highlight=False, soft_wrap=True)
    if problems:
        raise IntegrityError(f"{len(problems)} files are not as they were written; explain archive repair {location}")
    left = sum(1 for _ in found.pending())
    if left:
        raise Cancelled(f"{found.store.url} is whole as far as it goes, but {left:,} shards are not computed yet; run "
                        "the same `explain attribute` to go on")  # fmt: skip
    console.print(f"{found.store.url} is whole: {len(found):,} images, content {found.content_sha256}", soft_wrap=True)


@archive.command()
def repair(location: Archive) -> None:
    """Take damaged shards out of an archive, so that `explain attribute` computes exactly those again."""
    from explain.archive.archive import MapArchive
    from explain.archive.lock import writing
    from explain.archive.verify import drop
    from explain.archive.verify import verify as find_problems

    found = MapArchive(location)
    with writing(found.store), progress_bars() as progress:
        problems = find_problems(found, lambda done, total: progress("checking shards", done, total))
        for problem in problems:
            errors.print(f"damaged: {escape(str(problem))}", highlight=False, soft_wrap=True)
        dropped = drop(found, problems)
    if not problems:
        console.print("nothing is damaged", highlight=False)
    elif dropped:
        numbers = ", ".join(map(str, dropped[:10])) + (", …" if len(dropped) > 10 else "")
        raise Cancelled(f"{len(dropped)} damaged shards were taken out ({numbers}); run the same `explain attribute` "
                        "again to compute them")  # fmt: skip
    else:
        console.print("what was damaged could be made again from the shards", highlight=False)


@archive.command()
def export(
    location: Archive,
    out: Annotated[Path, typer.Argument(help="A new folder, or a file, depending on the format.")],
    format: Annotated[str, typer.Option(help="npz, zarr, png or coco.")] = "npz",
    id: Annotated[list[str] | None, typer.Option(help="Only this image; may be given several times.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="One option of the format, such as --option plain=true; may "
                                                             "be given several times.")] = None,
) -> None:  # fmt: skip
    """Write maps in another format: NPZ per shard, Zarr, a folder of PNG pictures, or COCO-like JSON."""
    from explain.archive.archive import MapArchive
    from explain.export.base import export as write

    with progress_bars() as progress:
        written = write(MapArchive(location), out, format=format, ids=id, progress=progress,
                        **settings(option or [], "--option name=value"))  # fmt: skip
    console.print(f"{format}: {written}", highlight=False)

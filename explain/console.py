"""What the command line prints: progress bars, the result table, lists of rejected images."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from explain.data.base import Dataset
from explain.training.fit import Progress as Report
from explain.training.pair import MatchedPair
from explain.tuning.base import TUNINGS

# a pipe or a log has no width of its own, and 80 columns would fold the result table
console = Console(width=None if Console().is_terminal else 120)
errors = Console(stderr=True)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A callable (what, done, total) that shows one bar per piece of work, with the time it will still take.

    Where the output is no terminal, each piece of work is one plain line when it is finished.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            was_done = bars.tasks[tasks[what]].finished
            bars.update(tasks[what], completed=done)
            if done >= total and not was_done and not console.is_terminal:
                task = bars.tasks[tasks[what]]
                console.print(f"{what}: {total} done in {task.elapsed or 0:.0f} s", highlight=False)

        yield report


def result_table(pair: MatchedPair) -> Table:
    """One row per arm: accuracy with its interval, trained parameters, bytes, time and memory."""
    count = pair.vpt.manifest.test.count
    table = Table(title=f"{pair.path}: {count} test images, {len(pair.split.train)} training images, all arms matched")
    for heading in ("arm", "tuning", "accuracy (95 % interval)", "trained", "bytes", "s/epoch", "peak MiB", "rate"):
        table.add_column(heading, justify="left" if heading in ("arm", "tuning") else "right")
    for run in pair:
        m = run.manifest
        options = ", ".join(f"{name} {value}" for name, value in m.tuning_options.items())
        table.add_row(
            m.arm, f"{TUNINGS[m.tuning].label} {f'({options})' if options else ''}",
            f"{m.test.accuracy:.3f} ({m.test.low:.3f} to {m.test.high:.3f})", f"{m.trained_parameters:,}",
            f"{m.weights_bytes:,}", f"{m.seconds_per_epoch:.1f}", f"{m.peak_mib:,.0f}", f"{m.learning_rate:g}",
        )  # fmt: skip
    return table


def print_rejected(data: Dataset) -> None:
    """Name every image that was left out, with its reason."""
    if data.rejected:
        table = Table(title=f"{len(data.rejected)} files left out; the other {len(data)} are used")
        for heading in ("file", "reason", "detail"):
            table.add_column(heading, overflow="fold")
        for item in data.rejected:
            inside = item.path.relative_to(data.root) if item.path.is_relative_to(data.root) else item.path
            table.add_row(ascii(str(inside))[1:-1], item.reason, item.detail)
        console.print(table)

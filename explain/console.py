"""What the command line prints: progress bars, the result table, lists of rejected images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from explain.data.base import Dataset
from explain.data.leaks import Leaks
from explain.data.names import below
from explain.files import read_json
from explain.metrics.statistics import seed_interval
from explain.training.images import Progress as Report
from explain.training.run import Run
from explain.training.study import Study
from explain.training.trial import Trial, best_trial
from explain.tuning.base import TUNINGS

# a pipe or a log has no width of its own, and 80 columns would fold the result table
console = Console(width=None if Console().is_terminal else 120)
errors = Console(stderr=True)

SECONDS_PER_LINE = 60.0
"""In a log, where no bar can move."""


@contextmanager
def progress_bars(*, shown: bool = True) -> Iterator[Report]:
    """A callable (what, done, total) that shows one bar per piece of work, with its rate and the time still to go.

    A total of 0 is one that is not known yet. Where the output is no terminal, each piece of work is one plain line
    when it is finished, and one every minute until then. Of several processes, let one have its progress `shown`.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        plain = _PlainLines()

        def report(what: str, done: int, total: int) -> None:
            if not shown:
                return
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None, completed=done)
            bars.update(tasks[what], completed=done)
            if not console.is_terminal:
                plain.tell(what, done, total)

        yield report


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s")


class _PlainLines:
    """Progress in a log: a line when a piece of work is finished, and one every minute until then."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}
        self._told: dict[str, float] = {}

    def tell(self, what: str, done: int, total: int) -> None:
        """So many steps of so many are done."""
        now = monotonic()
        start, first = self._begun.setdefault(what, (now, done))
        told, elapsed = self._told.setdefault(what, now), now - start
        if told == inf or (done < total or not total) and now - told < SECONDS_PER_LINE:
            return
        self._told[what] = inf if total and done >= total else now
        if total and done >= total:
            console.print(f"{what}: {total} done in {elapsed:.0f} s", highlight=False)
            return
        rate = (done - first) / elapsed
        left = f", {(total - done) / rate / 60:.0f} min left" if total and rate else ""
        console.print(f"{what}: {done}{f' of {total}' if total else ''}, {rate:.3g}/s{left}", highlight=False)


def result_table(runs: Mapping[str, Run]) -> Table:
    """One row per arm: accuracy with its interval, trained parameters, bytes, time and memory."""
    any_run = next(iter(runs.values()))
    table = Table(title=f"{any_run.path.parent}: {any_run.manifest.test.count} test images, "
                        f"{any_run.manifest.train_count} training images")  # fmt: skip
    for heading in ("arm", "tuning", "accuracy (95 % interval)", "trained", "bytes", "s/epoch", "peak MiB", "rate"):
        table.add_column(heading, justify="left" if heading in ("arm", "tuning") else "right")
    for run in runs.values():
        m = run.manifest
        options = ", ".join(f"{name} {value}" for name, value in m.tuning_options.items())
        table.add_row(
            m.arm, f"{TUNINGS[m.tuning].label} {f'({options})' if options else ''}",
            f"{m.test.accuracy:.3f} ({m.test.low:.3f} to {m.test.high:.3f})", f"{m.trained_parameters:,}",
            f"{m.weights_bytes:,}", f"{m.seconds_per_epoch:.1f}", f"{m.peak_mib:,.0f}", f"{m.learning_rate:g}",
        )  # fmt: skip
    return table


def study_table(study: Study) -> Table:
    """One row per arm: mean accuracy over the seeds with its interval, and how it compares with the first arm."""
    first, any_run = study.arms[0], next(iter(next(iter(study.runs.values())).values()))
    table = Table(title=f"{study.path}: {any_run.manifest.test.count} test images, {any_run.manifest.train_count} "
                        f"training images, seeds {', '.join(map(str, study.seeds))}", caption_justify="left",
                  caption="95 % intervals: Student's over the seeds; in brackets a bootstrap of seeds and test images. "
                          "A difference counts only where both leave out 0.")  # fmt: skip
    for heading in ("arm", "accuracy of each seed", "mean (over seeds)", f"less {first}", "verdict"):
        table.add_column(heading, justify="left" if heading in ("arm", "verdict") else "right")
    for arm in study.arms:
        accuracies = study.correct(arm).mean(axis=1)
        low, high = seed_interval(accuracies)
        row = [arm, " ".join(f"{value:.3f}" for value in accuracies),
               f"{accuracies.mean():.3f} ({low:.3f} to {high:.3f})"]  # fmt: skip
        if arm == first:
            table.add_row(*row, "", "")
            continue
        found = study.compare(arm, first)
        better = arm if found.seeds.mean > 0 else first
        table.add_row(
            *row, f"{found.seeds.mean:+.3f} ({found.seeds.low:+.3f} to {found.seeds.high:+.3f}) "
            f"\\[{found.images.low:+.3f} to {found.images.high:+.3f}]", "tie" if found.tie else f"{better} is better",
        )  # fmt: skip
    return table


def trial_table(trials: Mapping[str, Sequence[Trial]]) -> Table:
    """Every trial of every arm; the chosen one is marked."""
    table = Table(caption="Every arm is searched equally long; * is the point that trains the arm.")
    for heading in ("arm", "rate", "decay", "options", "epochs", "steps", "validation", "loss", "s", ""):
        table.add_column(heading, justify="left" if heading in ("arm", "options", "") else "right")
    for arm, rows in trials.items():
        best = best_trial(rows)
        for trial in rows:
            options = ", ".join(f"{name} {value}" for name, value in trial.options.items())
            loss = "diverged" if trial.val_loss is None else f"{trial.val_loss:.3f}"
            table.add_row(
                arm, f"{trial.learning_rate:.3g}", f"{trial.weight_decay:g}", options, str(trial.epochs),
                str(trial.steps), f"{trial.val_accuracy:.3f}", loss, f"{trial.seconds:.1f}",
                "*" if trial is best else "",
            )  # fmt: skip
    return table


def print_leaks(folder: Path) -> None:
    """One sentence about images that are in training and test both, when there are some."""
    leaks = Leaks.model_validate(read_json(folder / "leaks.json"))
    if leaks.pairs:
        errors.print(f"[bold yellow]warning:[/] {escape(leaks.sentence)}", highlight=False, soft_wrap=True)


def print_rejected(data: Dataset) -> None:
    """Name every image that was left out, with its reason."""
    if data.rejected:
        table = Table(title=f"{len(data.rejected)} files left out; the other {len(data)} are used")
        for heading in ("file", "reason", "detail"):
            table.add_column(heading, overflow="fold")
        for item in data.rejected:
            table.add_row(ascii(str(below(item.path, data.root)))[1:-1], item.reason, item.detail)
        console.print(table)

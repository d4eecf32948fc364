"""`explain prompts …`: register, find, compare, promote and carry prompts; see `explain.prompts`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from explain.console import console
from explain.errors import InputError

if TYPE_CHECKING:
    from explain.prompts.compare import Comparison
    from explain.prompts.store import PromptStore

prompts = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="Prompts under version control: every version is kept, named, compared, and promoted by criteria.\n\n"
         "A version is written [bold]line-3[/] (the newest), [bold]line-3@v2[/], [bold]line-3@production[/] (an alias, "
         "which moves), [bold]line-3@audit-2026[/] (a tag, which does not) or [bold]line-3@3fa9[/] (the beginning of "
         "its id).",
    epilog="Start with: explain prompts add runs/demo/vpt --name line-3 --owner quality --purpose 'weaving defects'",
)  # fmt: skip

Store = Annotated[Path, typer.Option(envvar="EXPLAIN_PROMPTS", help="Folder of the store.")]
Who = Annotated[str | None, typer.Option(help="Name in the log; default: this account.")]
Ref = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Such as line-3, line-3@v2, line-3@production.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Such as line-3.")]
Metric = Annotated[list[str] | None, typer.Option(help='A measurement from elsewhere, such as "completeness gap=0.01"; '
                                                       "may be given several times.")]  # fmt: skip
Images = Annotated[Path | None, typer.Option(help="Folder of probe images.")]
STORE = Path("prompts")


@prompts.command()
def add(
    run: Annotated[Path, typer.Argument(help="A trained run, such as runs/demo/vpt.")],
    name: Annotated[str, typer.Option(help="Of the prompt, such as line-3; made when new.")],
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    purpose: Annotated[str, typer.Option(help="What it is for.")],
    approver: Annotated[str, typer.Option(help="Who agreed to its registration.")] = "",
    metric: Metric = None,
    who: Who = None,
    store: Store = STORE,
) -> None:
    """Register a run as the next version of a name. Registering it again changes nothing."""
    stored = _store(store).add(run, name=name, owner=owner, purpose=purpose, approver=approver,
                               metrics=_metrics(metric), who=who)  # fmt: skip
    _say(f"{name}@v{stored.version.number}  {stored.version.id}")


@prompts.command("list")
def list_prompts(store: Store = STORE) -> None:
    """Every name: its newest version, aliases and accuracy."""
    found = _store(store)
    table = Table(title=f"prompts in {store}")
    for heading in ("name", "versions", "newest", "aliases", "accuracy (95 % interval)", "bytes", "owner", "purpose"):
        table.add_column(heading, overflow="fold")
    for name in found.names():
        history = found.history(name)
        card, number = found.get(name).card, {version.id: version.number for version in history.versions}
        aliases = ", ".join(f"{alias} v{number[id]}" for alias, id in history.aliases.items())
        _row(table, name, str(len(number)), history.versions[-1].id[:12], aliases, _accuracy(card.test),
                      f"{card.weights_bytes:,}", card.owner, card.purpose)  # fmt: skip
    console.print(table)


@prompts.command()
def show(reference: Ref, store: Store = STORE) -> None:
    """The card of a version, and the history of its name."""
    found = _store(store)
    stored = found.get(reference)
    history = found.history(stored.card.name)
    table = Table(title=f"{stored.card.name}@v{stored.version.number}  {stored.version.id}", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    measured = history.measured.get(stored.version.id, {})
    for field, value in {**stored.card.model_dump(mode="json"), "measured since": measured}.items():
        _row(table, field, _shown(value))
    for kind, labels in (("tags", history.tags), ("aliases", history.aliases)):
        _row(table, kind, ", ".join(label for label, id in labels.items() if id == stored.version.id))
    _row(table, "criteria", "\n".join(history.criteria))
    console.print(table)
    number = {version.id: f"v{version.number}" for version in history.versions}
    log = Table(title=f"log of {stored.card.name}")
    for heading in ("when", "who", "what", "label", "from", "to", "approver", "notes"):
        log.add_column(heading, overflow="fold")
    for entry in history.log:
        ends = [number.get(end or "", end or "") for end in (entry.before, entry.after)]
        _row(log, entry.when, entry.who, entry.what, entry.label, *ends, entry.approver, "\n".join(entry.notes))
    console.print(log)


@prompts.command()
def tag(
    reference: Ref, tag: Annotated[str, typer.Argument(help="Such as audit-2026.")], who: Who = None,
    store: Store = STORE,
) -> None:  # fmt: skip
    """Give a version a label that never moves."""
    _store(store).tag(reference, tag, who=who)
    _say(f"{tag} is {reference}")


@prompts.command()
def alias(
    reference: Ref, alias: Annotated[str, typer.Argument(help="Such as staging; production needs `promote`.")],
    who: Who = None, store: Store = STORE,
) -> None:  # fmt: skip
    """Point a movable label at a version, without criteria."""
    _store(store).alias(reference, alias, who=who)
    _say(f"{alias} is {reference}")


@prompts.command()
def criteria(
    name: Name,
    lines: Annotated[list[str] | None, typer.Argument(help='Such as "recall of defect >= 0.95".')] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Declare none.")] = False,
    who: Who = None,
    store: Store = STORE,
) -> None:
    """Declare what a promotion must fulfil; without lines, show what is declared.

    A line is a metric, one of >= <= > <, and a number, plain or in percent. Metrics: accuracy, lower bound of accuracy,
    balanced accuracy, recall of CLASS, ece, trained bytes, completeness gap, and any that was supplied with --metric.
    """
    from explain.prompts.acceptance import set_criteria

    if lines and clear:
        raise InputError("give lines, or --clear, not both")
    found = _store(store)
    declared = set_criteria(found, name, lines or [], who=who) if lines or clear else found.history(name).criteria
    _say("\n".join(declared) or f"no criteria are declared for {name}")


@prompts.command()
def measure(
    reference: Ref, images: Images = None, metric: Metric = None, who: Who = None, store: Store = STORE
) -> None:
    """Measure the completeness gap on probe images, or record a measurement from elsewhere."""
    from explain.prompts.acceptance import probe_images, record_measured

    probe = probe_images(images) if images else []
    measured = record_measured(_store(store), reference, _metrics(metric), probe=probe, who=who)
    _say("\n".join(f"{name}  {value:.6g}" for name, value in measured.items()))


@prompts.command()
def promote(
    reference: Ref,
    to: Annotated[str, typer.Option(help="The alias that moves.")] = "production",
    approver: Annotated[str, typer.Option(help="Who answers for it; needed for production.")] = "",
    images: Images = None,
    metric: Metric = None,
    who: Who = None,
    store: Store = STORE,
) -> None:
    """Move an alias onto a version that fulfils every criterion of its name; else exit 2, each line with its value."""
    from explain.prompts.acceptance import probe_images, promote

    probe = probe_images(images) if images else []
    outcomes = promote(_store(store), reference, to=to, approver=approver, who=who, supplied=_metrics(metric),
                       probe=probe)  # fmt: skip
    _say("\n".join(map(str, outcomes)) or "no criteria are declared for this name: nothing was checked")
    _say(f"{to} is {reference}")


@prompts.command()
def rollback(
    name: Name, alias: Annotated[str, typer.Option(help="The alias that goes back.")] = "production", who: Who = None,
    store: Store = STORE,
) -> None:  # fmt: skip
    """Point an alias at what it pointed at before; again, and it goes one further back."""
    version = _store(store).rollback(name, alias, who=who)
    _say(f"{alias} is {name}@v{version.number}")


@prompts.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Such as line-3@production.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Such as line-3.")],
    images: Images = None,
    store: Store = STORE,
) -> None:
    """How two versions differ: settings, metrics, cosine of the prompts per block, agreement of the answers."""
    from explain.prompts.acceptance import probe_images
    from explain.prompts.compare import compare

    found = _store(store)
    _print_diff(compare(found.get(a), found.get(b), images=probe_images(images) if images else []), a, b)


@prompts.command()
def verify(store: Store = STORE) -> None:
    """Hash every file, check every card and log; exit 5 naming what is wrong."""
    found = _store(store)
    problems = found.verify()
    for problem in problems:
        console.print(problem, style="red", highlight=False, markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(5)
    _say(f"{sum(len(found.history(name).versions) for name in found.names())} versions of {len(found.names())} names: "
         "every byte is as it was registered")  # fmt: skip


@prompts.command()
def export(
    name: Name, out: Annotated[Path, typer.Argument(help="A file that ends in .zip, or a new folder.")],
    store: Store = STORE,
) -> None:  # fmt: skip
    """Write a name with all its versions and its log, to carry to another store."""
    from explain.prompts.parcel import export

    _say(str(export(_store(store), name, out)))


@prompts.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="What `export` wrote.")], who: Who = None, store: Store = STORE
) -> None:
    """Take in an export, once all of it is checked. Where the name is known, only versions come, never aliases."""
    from explain.prompts.parcel import import_parcel

    for stored in import_parcel(_store(store), source, who=who):
        _say(f"{stored.card.name}@v{stored.version.number}  {stored.version.id}")


@prompts.command()
def push(
    reference: Ref, to: Annotated[str, typer.Argument(help="A folder, or hf:OWNER/NAME.")], store: Store = STORE
) -> None:
    """Write one version laid out as a Hugging Face model repository (private when it is made)."""
    from explain.prompts.hub import push

    _say(push(_store(store), reference, to))


@prompts.command()
def pull(
    source: Annotated[str, typer.Argument(help="A folder, or hf:OWNER/NAME.")], who: Who = None, store: Store = STORE
) -> None:
    """Take in what `push` wrote, checked against its card."""
    from explain.prompts.hub import pull

    stored = pull(_store(store), source, who=who)
    _say(f"{stored.card.name}@v{stored.version.number}  {stored.version.id}")


def _store(path: Path) -> "PromptStore":
    from explain.prompts.store import PromptStore

    return PromptStore(path)


def _metrics(pairs: list[str] | None) -> dict[str, float]:
    from explain.prompts.acceptance import check_supplied

    values: dict[str, float] = {}
    for pair in pairs or []:
        name, equals, text = pair.rpartition("=")
        try:
            values[name] = float(text)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise InputError(f'expected --metric "NAME=NUMBER", such as "completeness gap=0.01"; got {pair!r}')
    return check_supplied(values)


def _print_diff(result: "Comparison", a: str, b: str) -> None:
    settings = Table("setting", a, b, title="settings that differ")
    for field, left, right in result.settings:
        _row(settings, field, _shown(left), _shown(right))
    metrics = Table("metric", a, b, title="metrics")
    for metric, *values in result.metrics:
        _row(metrics, metric, *("" if value is None else f"{value:.6g}" for value in values))
    console.print(settings, metrics)
    if result.cosines:
        cosines = Table("block", "in order", f"matched ({result.matching})", title="mean cosine of the prompts")
        for row in result.cosines:
            _row(cosines, str(row.block), "" if row.in_order is None else f"{row.in_order:.4f}", f"{row.matched:.4f}")
        console.print(cosines)
    if result.agreement:
        _say(f"same class on {result.agreement.share:.1%} of {result.agreement.count} {result.agreement.images}")
    for note in result.notes:
        _say(note)


def _row(table: Table, *cells: str) -> None:
    """Cells as they are: a class may be called "[red]"."""
    table.add_row(*map(Text, cells))


def _accuracy(test: Any) -> str:
    return f"{test.accuracy:.3f} ({test.low:.3f} to {test.high:.3f})"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_shown(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

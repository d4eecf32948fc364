"""The commands of the audit report: `explain report`, `explain verify`."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from explain.cli_train import Device
from explain.console import console, progress_bars
from explain.errors import InputError

if TYPE_CHECKING:
    from explain.report.compare import Comparison
    from explain.report.verify import Verification

PASSPHRASE = "EXPLAIN_SIGN_PASSPHRASE"
BOTH = ("en", "ja")
NOT_WHOLE, DIFFERS = 3, 5
"""Exit codes: some runs were left out; a report is not what it says."""


def report(
    run: Annotated[list[Path], typer.Argument(help="Folder of a trained pair or study, such as runs/demo; several give "
                                                   "a folder of reports with an index page. With --compare: the old "
                                                   "and the new PDF.")],
    out: Annotated[Path | None, typer.Option(help="The PDF, or the folder for several; default RUN/report.pdf, or "
                                                  "reports/.")] = None,
    lang: Annotated[str, typer.Option(help="en, ja, or both: audit.en.pdf and audit.ja.pdf.")] = "en",
    brief: Annotated[bool, typer.Option("--brief", help="Two pages instead of all sections.")] = False,
    criteria: Annotated[Path | None, typer.Option(help="Criteria for runs that were trained without; the report says "
                                                       "that they came late. A run's own need no naming.")] = None,
    audit: Annotated[Path | None, typer.Option(help="What people state: use, owner, operation, sign-off; default "
                                                    "RUN/audit.yaml. `explain declare` writes one to begin "
                                                    "with.")] = None,
    per_rule: Annotated[int | None, typer.Option(help="Images that each rule chooses; default 2, or those whose maps "
                                                      "are there.")] = None,
    scale: Annotated[str, typer.Option(help="What shares a colour scale: each map, the maps of a sample, or the "
                                            "dataset.")] = "map",
    sign: Annotated[Path | None, typer.Option(help="PKCS #12 key (.p12): also writes a signed copy, audit.signed.pdf. "
                                                   f"Its passphrase is read from ${PASSPHRASE}, or asked for.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Say what changed between two reports instead: explain "
                                                            "report --compare OLD.pdf NEW.pdf")] = False,
    device: Device = None,
) -> None:  # fmt: skip
    """Write the audit report of a pair as a PDF (PDF/A-3a and PDF/UA-1) that can be verified.

    It holds its own evidence: `explain verify audit.pdf` recomputes everything in it and builds it again. What was
    not measured is printed as "not evaluated"; `explain evaluate` and `explain planted` measure what an audit asks of
    maps, `explain view` takes reviews of the mistakes. docs/report.md tells the whole way.
    """
    if compare:
        _compare(run, out, lang)
        return
    from explain.render.heatmap import SCOPES
    from explain.report.many import write_reports
    from explain.report.write import write_report

    if scale not in SCOPES:
        raise InputError(f"expected --scale {', '.join(SCOPES)}, got {scale!r}")
    langs = BOTH if lang == "both" else (lang,)
    passphrase = _passphrase() if sign else ""
    with progress_bars() as progress:
        options: dict[str, Any] = {
            "brief": brief, "criteria": criteria, "audit": audit, "per_rule": per_rule, "scope": scale,
            "device": device,
            "progress": lambda done, total, what: progress("explaining chosen test images", done, total),
        }  # fmt: skip
        if len(run) > 1:
            found = write_reports(run, out or Path("reports"), langs, **options)
            written = [found.folder / one.file for one in found.written]
            failed = found.failed
        else:
            target, failed = out or run[0] / "report.pdf", ()
            names = {each: target.with_name(f"{target.stem}.{each}.pdf") for each in langs}
            written = [write_report(run[0], name if len(langs) > 1 else target, each, **options)
                       for each, name in names.items()]  # fmt: skip
    for file in written:
        console.print(f"report: {file}", highlight=False)
        if sign:
            from explain.report.sign import sign_report

            console.print(f"signed: {sign_report(file, sign, passphrase)}", highlight=False)
    if len(run) > 1 and written:
        console.print(f"index:  {found.folder / 'index.pdf'}", highlight=False)
    if written:
        console.print(f"check:  explain verify {written[0]} --run {run[0]}", highlight=False)
    for one in failed:
        console.print(f"[red]left out[/red] {escape(one.run)}: {escape(one.why)}", highlight=False)
    if failed:
        raise typer.Exit(NOT_WHOLE)


def verify(
    pdf: Annotated[list[Path], typer.Argument(help="Reports, signed or not.")],
    run: Annotated[Path | None, typer.Option(help="Folder of the run that the report is about: its files are hashed "
                                                  "again, and the evidence is gathered again.")] = None,
    audit: Annotated[Path | None, typer.Option(help="With --run: what people stated, where it is not "
                                                    "RUN/audit.yaml.")] = None,
    trust: Annotated[list[Path] | None, typer.Option(help="Certificate (PEM) of a signer that is trusted; may be given "
                                                          "several times.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:  # fmt: skip
    """Is a report what it says? Leaves with 0 when it is, and with 5 when anything differs.

    Reads the evidence out of the PDF, recomputes every hash, every criterion and the decision, builds the PDF again and
    compares it byte by byte. With --run the run has to say the same.
    """
    from explain.report.verify import verify_report

    results = [verify_report(file, run, audit=audit, trust=trust or ()) for file in pdf]
    if as_json:
        print(json.dumps([_plain(result) for result in results], ensure_ascii=False, indent=1))
    else:
        for result in results:
            _print(result)
    if not all(result.passed for result in results):
        raise typer.Exit(DIFFERS)


def _compare(files: list[Path], out: Path | None, lang: str) -> None:
    from explain.files import write_atomically
    from explain.report.compare import compare_reports, listing_of
    from explain.report.pdf import render_listing

    if len(files) != 2:
        raise InputError(f"expected two reports, the old and the new one, got {len(files)}")
    found = compare_reports(*files)
    _print_changes(found)
    if out is not None:
        content = render_listing(listing_of(found, "en" if lang == "both" else lang))
        write_atomically(out, lambda temporary: temporary.write_bytes(content))
        console.print(f"written: {out}", highlight=False)


def _print_changes(found: "Comparison") -> None:
    if not found.changes:
        console.print(f"nothing changed from document {found.old} to {found.new}", highlight=False)
        return
    table = Table(title=f"document {found.old} to {found.new}", caption_justify="left",
                  caption="within: the two 95 % intervals overlap, so that other test images could have made the "
                          "difference")  # fmt: skip
    for heading in ("part", "what", "before", "after", ""):
        table.add_column(heading, overflow="fold")
    for one in found.changes:
        table.add_row(*map(escape, (one.part, one.what, one.old or "–", one.new or "–", one.kind)))
    console.print(table)


def _print(result: "Verification") -> None:
    verdict = "[green]verified[/green]" if result.passed else "[red]DIFFERS[/red]"
    console.print(f"{verdict}  {escape(str(result.path))}  document {escape(result.document or '?')}", highlight=False)
    for step in result.steps:
        console.print(f"  {'[green]ok[/green]  ' if step.passed else '[red]FAIL[/red]'} {step.what}", highlight=False)
        for finding in step.findings:
            console.print(f"         {finding}", highlight=False, markup=False)
    for note in result.notes:
        console.print(f"  note {note}", highlight=False, markup=False)
    console.print(f"  SHA-256 {result.sha256}", highlight=False)


def _plain(result: "Verification") -> dict[str, object]:
    return {
        "file": str(result.path), "sha256": result.sha256, "document": result.document, "passed": result.passed,
        "steps": [{"name": step.name, "passed": step.passed, "findings": list(step.findings)} for step in result.steps],
        "notes": list(result.notes),
    }  # fmt: skip


def _passphrase() -> str:
    """From the environment, or asked for where somebody sits there; never an argument, which others can read."""
    given = os.environ.get(PASSPHRASE)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise InputError(f"the key's passphrase is read from ${PASSPHRASE}, which is not set")
    return str(typer.prompt("passphrase of the key", hide_input=True, default="", show_default=False))

"""Making the report: in the worker, with what the page needs to show and to hand out."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from app.worker import Key, Ticket, Work
from explain.errors import Cancelled
from explain.evidence.found import evidence_file, planted_file
from explain.files import write_atomically
from explain.render.heatmap import SCOPES, Scope
from explain.report.panels import PER_RULE
from explain.reviews import FILE as REVIEWS
from explain.training.pair import MatchedPair

PAGE_PPI = 80.0
"""Of the pages that are shown."""


@dataclass(frozen=True)
class Choice:
    """What a reader wants of a report.

    Args:
        lang: "en" or "ja".
        brief: two pages instead of all sections.
        per_rule: images that each rule chooses.
        scope: what shares a colour scale.
    """

    lang: str = "en"
    brief: bool = False
    per_rule: int = PER_RULE
    scope: Scope = SCOPES[0]


@dataclass(frozen=True)
class Made:
    """A finished report.

    Args:
        pdf: the file's bytes.
        sha256: of them.
        pages: every page as PNG.
        decision: the final decision in words.
        met, criteria: how many criteria are met, of how many.
    """

    pdf: bytes
    sha256: str
    pages: tuple[bytes, ...]
    decision: str = ""
    met: int = 0
    criteria: int = 0


def work_of(pair: MatchedPair, choice: Choice, what: str) -> Work:
    """What the worker has to do for a report; `what` is the report in words."""

    def run(ticket: Ticket) -> Made:
        from explain.report.pdf import render_pages, render_pdf  # the typesetter and its fonts
        from explain.report.write import collect

        def tell(done: int, total: int, _: str) -> None:
            if ticket.cancelled():
                raise Cancelled("the report was stopped; maps that are finished are kept")
            ticket.say(done, total)

        evidence, pictures = collect(pair, choice.lang, brief=choice.brief, per_rule=choice.per_rule,
                                     scope=choice.scope, progress=tell)  # fmt: skip
        tell(1, 1, what)
        pdf = render_pdf(evidence, pictures)
        judged = evidence.decision.judged
        return Made(
            pdf, hashlib.sha256(pdf).hexdigest(), tuple(render_pages(evidence, pictures, ppi=PAGE_PPI)),
            evidence.decision.final_label, sum(one.status == "pass" for one in judged), len(judged),
        )  # fmt: skip

    return Work(key_of(pair, choice), what, run)


def key_of(pair: MatchedPair, choice: Choice) -> Key:
    """What a report is known by: the trained weights, what was measured, said and reviewed, and the choices."""
    said = [pair.path / name for name in ("criteria.yaml", "audit.yaml", REVIEWS)]
    files = [file for file in (evidence_file(pair), planted_file(pair), *said) if file is not None and file.is_file()]
    dated = tuple((str(file), file.stat().st_mtime_ns) for file in files)
    identities = tuple(run.manifest.identity for run in pair.runs.values())
    return ("report", str(pair.path), identities, dated, choice)


def place_of(made: Made, folder: Path) -> Path:
    """Where a report is kept in a run's folder: as report.pdf, but never over another one."""
    plain = folder / "report.pdf"
    if not plain.exists() or hashlib.sha256(plain.read_bytes()).hexdigest() == made.sha256:
        return plain
    return folder / f"report-{made.sha256[:8]}.pdf"


def keep(made: Made, folder: Path) -> Path:
    """Write a report into a run's folder; it appears whole or not at all.

    Returns:
        The file.
    """
    target = place_of(made, folder)
    write_atomically(target, lambda temporary: temporary.write_bytes(made.pdf))
    return target

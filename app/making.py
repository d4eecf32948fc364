"""Making the report: in the worker, with what the page needs to show and to hand out."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.worker import Key, Ticket, Work
from explain.errors import Cancelled
from explain.evidence.found import evidence_file, planted_file
from explain.files import write_atomically
from explain.render.heatmap import Scope
from explain.training.pair import MatchedPair


@dataclass(frozen=True)
class Made:
    """A finished report.

    Args:
        pdf: the file's bytes.
        sha256: of them.
        pages: every page as PNG.
    """

    pdf: bytes
    sha256: str
    pages: tuple[bytes, ...]


def work_of(pair: MatchedPair, lang: str, scope: Scope, what: str) -> Work:
    """What the worker has to do for a report; `what` is the report in words."""

    def run(ticket: Ticket) -> Made:
        from explain.report.write import draw_pages, write_report  # the typesetter and its fonts

        def tell(done: int, total: int, _: str) -> None:
            if ticket.cancelled():
                raise Cancelled("the report was stopped; maps that are finished are kept")
            ticket.say(done, total)

        with tempfile.TemporaryDirectory(prefix="explain-viewer-") as folder:
            pdf = write_report(pair, Path(folder) / "report.pdf", lang, scope=scope, progress=tell).read_bytes()
        tell(1, 1, what)
        return Made(pdf, hashlib.sha256(pdf).hexdigest(), tuple(draw_pages(pair, lang, scope=scope)))

    return Work(key_of(pair, lang, scope), what, run)


def key_of(pair: MatchedPair, lang: str, scope: Scope) -> Key:
    """What a report is known by: the trained weights, what was measured of them, and the choices."""
    measured = [(str(file), file.stat().st_mtime_ns)
                for file in (evidence_file(pair), planted_file(pair)) if file is not None]  # fmt: skip
    identities = tuple(run.manifest.identity for run in pair.runs.values())
    return ("report", str(pair.path), identities, tuple(measured), lang, scope)


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

"""Write: from the folder of a pair to the report on it."""

from pathlib import Path

import torch

from explain.errors import InputError
from explain.files import write_atomically
from explain.i18n import translate
from explain.render.heatmap import Scope
from explain.report.content import gather
from explain.report.panels import Panels, Progress, draw_pictures, finished_panels, make_panels
from explain.report.pdf import render_pages, render_pdf
from explain.report.schema.evidence import Evidence
from explain.training.pair import MatchedPair
from explain.training.study import StudyRecord, seed_folder

PAGE_PPI = 80.0


def write_report(
    run_or_pair: MatchedPair | str | Path,
    out: str | Path = "report.pdf",
    lang: str = "en",
    *,
    panels: Panels | None = None,
    scope: Scope = "map",
    progress: Progress | None = None,
    device: str | torch.device | None = None,
) -> Path:
    """Write the audit report of a matched pair.

    Args:
        run_or_pair: a pair, or its folder. A study's folder stands for its first seed; the report on any seed of a
            study tells of all of them.
        out: the PDF; appears whole or not at all.
        lang: "en" or "ja".
        panels: maps to show; None takes those in the pair's folder, or makes them.
        scope: what shares a colour scale: each "map", the maps of one "sample", or all of the "dataset".
        progress, device: of making the maps, as in `make_panels`.

    Returns:
        The path written.

    Raises:
        InputError: not a pair, or `out` does not end in .pdf.
        IntegrityError: the folder is not a finished pair, or its files changed.
    """
    target = Path(out)
    if target.suffix.lower() != ".pdf":
        raise InputError(f"expected a file name that ends in .pdf, got {str(out)!r}")
    content = render_pdf(*_material(run_or_pair, lang, panels, scope, progress, device))
    write_atomically(target, lambda temporary: temporary.write_bytes(content))
    return target


def draw_pages(
    run_or_pair: MatchedPair | str | Path,
    lang: str = "en",
    *,
    panels: Panels | None = None,
    scope: Scope = "map",
    ppi: float = PAGE_PPI,
    progress: Progress | None = None,
    device: str | torch.device | None = None,
) -> list[bytes]:
    """The pages that `write_report` writes, as pictures to look at before anything is written.

    Args:
        run_or_pair, lang, panels, scope, progress, device: as in `write_report`.
        ppi: pixels per inch of a page of 8.3 by 11.7 inches.

    Returns:
        PNG bytes, page by page.

    Raises:
        InputError: not a pair.
        IntegrityError: the folder is not a finished pair, or its files changed.
    """
    return render_pages(*_material(run_or_pair, lang, panels, scope, progress, device), ppi=ppi)


def _material(
    run_or_pair: object, lang: str, panels: Panels | None, scope: Scope, progress: Progress | None,
    device: str | torch.device | None,
) -> tuple[Evidence, dict[str, bytes]]:  # fmt: skip
    """What a report is made of; maps that are not there are computed."""
    translate(lang)  # an unknown language is an error before any map is computed
    pair = _open(run_or_pair)
    panels = panels or finished_panels(pair) or make_panels(pair, progress=progress, device=device)
    return gather(pair, panels, lang, scope=scope), draw_pictures(panels, scope=scope)


def _open(run_or_pair: object) -> MatchedPair:
    if isinstance(run_or_pair, MatchedPair):
        return run_or_pair
    if not isinstance(run_or_pair, str | Path):
        raise InputError(f"expected a matched pair or its folder, got {type(run_or_pair).__name__}; a report compares "
                         "two runs: use explain.load_pair on the folder that holds both")  # fmt: skip
    folder = Path(run_or_pair)
    if (folder / "manifest.json").is_file():
        raise InputError(f"{folder} is a single run; a report compares two: give the folder above it, {folder.parent}")
    if (folder / "study.json").is_file():
        folder = seed_folder(folder, StudyRecord.read(folder).seeds[0])
    return MatchedPair.load(folder)

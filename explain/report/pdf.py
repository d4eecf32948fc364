"""The PDF of a report: the only file that knows the typesetter.

The page is a pure function of the evidence and its pictures: the same record gives the same bytes. Data reaches the
page as JSON, never as markup. The file is written as PDF/A-3a and PDF/UA-1, which the typesetter enforces, with the
whole evidence attached.
"""

import hashlib
import io
import json
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import torch
import typst
from matplotlib.ft2font import FT2Font
from PIL import Image

from explain.errors import ExplainError, InputError, IntegrityError
from explain.files import write_atomically
from explain.i18n import translate
from explain.render.evidence_plots import model_colour
from explain.render.heatmap import Scope, colour_bar
from explain.report.content import Evidence, evidence_id, gather
from explain.report.evidence_part import COMMANDS
from explain.report.panels import Panels, Progress, draw_pictures, finished_panels, make_panels
from explain.training.pair import MatchedPair
from explain.training.study import StudyRecord, seed_folder

TEMPLATES = {"template.typ": "report.typ", "pieces.typ": "pieces.typ", "evidence.typ": "evidence.typ"}
"""Files of the page, and what they are called beside its data."""

PAGE_PPI = 80.0

MISSING = "\ufffd"
"""Printed for a character that no font has a glyph for; evidence.json keeps the original."""


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
    pages = _typeset(*_material(run_or_pair, lang, panels, scope, progress, device), format="png", ppi=ppi)
    return list(pages) if isinstance(pages, list) else [pages]


def render_pdf(evidence: Evidence, pictures: Mapping[str, bytes]) -> bytes:
    """The PDF of a record: the same record and pictures give the same bytes.

    Args:
        evidence: from `gather`.
        pictures: JPEG bytes by file name, at least those the record names.

    Raises:
        IntegrityError: a picture is missing or not the recorded one, or the record was changed after it got its id.
        ExplainError: the typesetter refused; its hints are in the message.
    """
    content: bytes = _typeset(evidence, pictures, format="pdf", pdf_standards=["a-3a", "ua-1"],
                              timestamp=int(evidence.created_at.timestamp()))  # fmt: skip
    return content


def _material(
    run_or_pair: object, lang: str, panels: Panels | None, scope: Scope, progress: Progress | None,
    device: str | torch.device | None,
) -> tuple[Evidence, dict[str, bytes]]:  # fmt: skip
    """What a report is made of; maps that are not there are computed."""
    translate(lang)  # an unknown language is an error before any map is computed
    pair = _open(run_or_pair)
    panels = panels or finished_panels(pair) or make_panels(pair, progress=progress, device=device)
    return gather(pair, panels, lang, scope=scope), draw_pictures(panels, scope=scope)


def _typeset(evidence: Evidence, pictures: Mapping[str, bytes], **output: Any) -> Any:
    """What the typesetter makes of a record; `output` is its format and settings."""
    if evidence_id(evidence) != evidence.id:
        raise IntegrityError(
            f"the evidence does not have the content its id {evidence.id!r} stands for; gather it again"
        )
    _check_pictures(evidence, pictures)
    with tempfile.TemporaryDirectory(prefix="explain-report-") as name:
        folder = Path(name)
        _fill(folder, evidence, pictures)
        try:
            return typst.compile(str(folder / "report.typ"), root=str(folder), font_paths=[str(folder / "fonts")],
                                 ignore_system_fonts=True, **output)  # fmt: skip
        except typst.TypstError as error:
            hints = " ".join(error.hints) or "this is a fault of the report's template, not of your data"
            raise ExplainError(f"the report could not be typeset: {error.message} ({hints})") from None


def fonts() -> tuple[Path, Path]:
    """The fonts of the page: IPAexGothic, and DejaVu Sans for letters it lacks, such as Turkish or Cyrillic ones.

    IPAexGothic is found without importing the package that carries it, because that import changes matplotlib.

    Raises:
        ExplainError: the package is not installed.
    """
    spec = find_spec("matplotlib_fontja")
    if spec is None or spec.origin is None:
        raise ExplainError("the report needs the font of the package matplotlib-fontja; install it with pip")
    plain = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return Path(spec.origin).parent / "fonts" / "ipaexg.ttf", plain


def printable(value: Any) -> Any:
    """A JSON value whose text holds only what the page can and may draw; anything else becomes `MISSING`.

    PDF/A allows no letter without a glyph, and an invisible character could turn a name around or hide a part of it.
    """
    if isinstance(value, str):
        return "".join(letter if _drawable(letter) else MISSING for letter in re.sub(r"[\t\r\n]+", " ", value))
    if isinstance(value, Mapping):
        return {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    return value


def _drawable(letter: str) -> bool:
    """True for a letter with a glyph that is not a control, formatting, private or unassigned character."""
    return ord(letter) in _glyphs() and unicodedata.category(letter)[0] != "C"


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    return frozenset(code for font in fonts() for code in FT2Font(str(font)).get_charmap())


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


def _check_pictures(evidence: Evidence, pictures: Mapping[str, bytes]) -> None:
    for sample in evidence.panels.samples:
        for picture in (sample.input, *(entry.picture for entry in sample.maps)):
            content = pictures.get(picture.file)
            if content is None or hashlib.sha256(content).hexdigest() != picture.sha256:
                raise IntegrityError(f"picture {picture.file} is missing or not the one the evidence records")


def _fill(folder: Path, evidence: Evidence, pictures: Mapping[str, bytes]) -> None:
    """Everything the template reads, in one folder that is also its sandbox."""
    record = evidence.model_dump(mode="json")
    t = translate(evidence.lang)
    words = {
        "words": {f"{room}.{key}": text for room in ("report", "term") for key, text in t.section(f"{room}.").items()},
        "colours": {model: model_colour(model) for model in _models(evidence)},
        "commands": COMMANDS,
        "author": f"explain-vit {evidence.versions['explain-vit']}",
        "description": t("report.description", data=evidence.data.name),
        "created": f"{evidence.created_at:%Y-%m-%d %H:%M %Z}",
    }
    for name, value in (("evidence.json", record), ("shown.json", printable(record)), ("text.json", printable(words))):
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
        (folder / name).write_text(text, encoding="utf-8")
    for name, content in pictures.items():
        (folder / Path(name).name).write_bytes(content)
    for kind in ("positive", "signed"):
        stream = io.BytesIO()
        Image.fromarray(colour_bar(signed=kind == "signed")).save(stream, "PNG")
        (folder / f"bar.{kind}.png").write_bytes(stream.getvalue())
    (folder / "fonts").mkdir()
    for font in fonts():
        shutil.copyfile(font, folder / "fonts" / font.name)
    for source, name in TEMPLATES.items():
        (folder / name).write_bytes(files(__package__).joinpath(source).read_bytes())


def _models(evidence: Evidence) -> set[str]:
    """Every arm that the page names, and every two that it compares."""
    measured, planted = evidence.measured, evidence.dissociation
    models = {arm.name for arm in evidence.arms} | {line.arm for line in (planted.lines if planted else ())}
    if measured is not None:
        models |= set(measured.labels) | {curve.model for panel in measured.panels for curve in panel.curves}
    return models

"""The PDF of a report: the only file that knows the typesetter.

The page is a pure function of the evidence and its pictures: the same record gives the same bytes, and no model is
needed for it. Data reaches the page as JSON, never as markup. The file is written as PDF/A-3a and PDF/UA-1, which the
typesetter enforces, with the whole evidence attached.
"""

import hashlib
import json
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import typst
from matplotlib.ft2font import FT2Font

from explain.errors import ExplainError, IntegrityError
from explain.i18n import translate
from explain.report.attachments import attachments_of
from explain.report.schema.evidence import COMMANDS, Evidence, evidence_id

MISSING = "\ufffd"
"""Printed for a character that no font has a glyph for; evidence.json keeps the original."""


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


def render_pages(evidence: Evidence, pictures: Mapping[str, bytes], *, ppi: float) -> list[bytes]:
    """The pages of that PDF as PNG, for the screen.

    Args:
        evidence, pictures: as in `render_pdf`, which says what is raised.
        ppi: pixels per inch of a page of 8.3 by 11.7 inches.
    """
    pages = _typeset(evidence, pictures, format="png", ppi=ppi)
    return list(pages) if isinstance(pages, list) else [pages]


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


def engine_version() -> str:
    """Version of the typesetter, which decides the bytes."""
    return version("typst")


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


def _check_pictures(evidence: Evidence, pictures: Mapping[str, bytes]) -> None:
    for picture in evidence.pictures:
        content = pictures.get(picture.file)
        if content is None or hashlib.sha256(content).hexdigest() != picture.sha256:
            raise IntegrityError(f"picture {picture.file} is missing or not the one the evidence records")


def _fill(folder: Path, evidence: Evidence, pictures: Mapping[str, bytes]) -> None:
    """Everything the template reads, in one folder that is also its sandbox."""
    record = evidence.model_dump(mode="json")
    t = translate(evidence.lang)
    words = {
        "words": {f"{room}.{key}": text for room in ("report", "term") for key, text in t.section(f"{room}.").items()},
        "commands": COMMANDS,
        "author": f"explain-vit {evidence.versions['explain-vit']}",
        "description": t("report.description", data=evidence.data.name),
        "created": f"{evidence.created_at:%Y-%m-%d %H:%M %Z}",
    }
    for name, value in (("evidence.json", record), ("shown.json", printable(record)), ("text.json", printable(words))):
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
        (folder / name).write_text(text, encoding="utf-8")
    for name, content in attachments_of(evidence).items():
        (folder / name).write_bytes(content)
    for picture in evidence.pictures:
        (folder / Path(picture.file).name).write_bytes(pictures[picture.file])
    (folder / "fonts").mkdir()
    for font in fonts():
        shutil.copyfile(font, folder / "fonts" / font.name)
    for page in files(__package__).joinpath("page").iterdir():
        (folder / page.name).write_bytes(page.read_bytes())

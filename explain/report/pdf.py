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
from datetime import UTC, datetime
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
from explain.report.schema.listing import Listing

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
    t = translate(evidence.lang)
    record = evidence.model_dump(mode="json")
    texts = {"description": t("report.description", data=evidence.data.name), "commands": COMMANDS,
             "author": f"explain-vit {evidence.versions['explain-vit']}",
             "created": f"{evidence.created_at:%Y-%m-%d %H:%M %Z}"}  # fmt: skip
    inside = {picture.file: pictures[picture.file] for picture in evidence.pictures} | attachments_of(evidence)
    inside["evidence.json"] = _json(record)
    return _compile("report.typ", record, evidence.lang, inside, texts, **output)


def render_listing(listing: Listing) -> bytes:
    """The PDF of a page that lists things; the same listing gives the same bytes.

    Raises:
        ExplainError: the typesetter refused; its hints are in the message.
    """
    moment = datetime.fromisoformat(listing.created)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    content: bytes = _compile(
        "listing.typ", listing.model_dump(mode="json"), listing.lang, {}, {}, format="pdf",
        pdf_standards=["a-3a", "ua-1"], timestamp=int(moment.timestamp()),
    )  # fmt: skip
    return content


def _compile(
    main: str, record: Any, lang: str, inside: Mapping[str, bytes], texts: Mapping[str, Any], **output: Any
) -> Any:
    """Typeset a page file on a record, in a folder of its own that is also its sandbox."""
    with tempfile.TemporaryDirectory(prefix="explain-report-") as name:
        folder = Path(name)
        t = translate(lang)
        words = {f"{room}.{key}": text for room in ("report", "term") for key, text in t.section(f"{room}.").items()}
        shown = {"words": words, "author": f"explain-vit {version('explain-vit')}", **texts}
        data = {"shown.json": _json(printable(record)), "text.json": _json(printable(shown))}
        for file, content in (data | dict(inside)).items():
            (folder / Path(file).name).write_bytes(content)
        (folder / "fonts").mkdir()
        for font in fonts():
            shutil.copyfile(font, folder / "fonts" / font.name)
        for page in files(__package__).joinpath("page").iterdir():
            (folder / page.name).write_bytes(page.read_bytes())
        try:
            return typst.compile(str(folder / main), root=str(folder), font_paths=[str(folder / "fonts")],
                                 ignore_system_fonts=True, **output)  # fmt: skip
        except typst.TypstError as error:
            hints = " ".join(error.hints) or "this is a fault of the report's template, not of your data"
            raise ExplainError(f"the report could not be typeset: {error.message} ({hints})") from None


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode()


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

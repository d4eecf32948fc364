"""The pages of a report as pictures: as many as the file has, and of its content."""

import io
from pathlib import Path

import numpy as np
import pypdf
import pytest
from PIL import Image

from explain.errors import InputError, UnknownNameError
from explain.report.pdf import render_pages
from explain.report.write import collect, write_report
from explain.training.pair import MatchedPair

PPI = 40.0


def pages_of(pair: MatchedPair, lang: str = "en") -> list[bytes]:
    return render_pages(*collect(pair, lang, brief=True), ppi=PPI)


def test_pages_are_those_of_the_file(fake_pair: MatchedPair, tmp_path: Path) -> None:
    pages = [Image.open(io.BytesIO(page)).convert("L") for page in pages_of(fake_pair)]
    file = pypdf.PdfReader(write_report(fake_pair, tmp_path / "report.pdf", brief=True))
    assert len(pages) == len(file.pages) == 2
    width, height = (float(side) / 72 * PPI for side in file.pages[0].mediabox[2:])
    assert pages[0].size == pytest.approx((width, height), abs=1)
    assert all(np.asarray(page).std() > 5 for page in pages)  # none is empty


def test_language_changes_the_pages_and_nothing_else_does(fake_pair: MatchedPair) -> None:
    assert pages_of(fake_pair)[0] != pages_of(fake_pair, "ja")[0] and pages_of(fake_pair) == pages_of(fake_pair)


def test_what_is_no_report_is_refused(fake_pair: MatchedPair) -> None:
    with pytest.raises(InputError, match="single run"):
        collect(fake_pair.path / "vpt")
    with pytest.raises(UnknownNameError):
        collect(fake_pair, "de")

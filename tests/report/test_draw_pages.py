"""The pages of a report as pictures: as many as the file has, and of its content."""

import io

import numpy as np
import pypdf
import pytest
from PIL import Image

from explain.errors import InputError, UnknownNameError
from explain.report.write import PAGE_PPI, draw_pages, write_report
from explain.training.pair import MatchedPair


def test_pages_are_those_of_the_file(fake_pair: MatchedPair, tmp_path) -> None:
    pages = [Image.open(io.BytesIO(page)).convert("L") for page in draw_pages(fake_pair)]
    file = pypdf.PdfReader(write_report(fake_pair, tmp_path / "report.pdf"))
    assert len(pages) == len(file.pages)
    width, height = (float(side) / 72 * PAGE_PPI for side in file.pages[0].mediabox[2:])
    assert pages[0].size == pytest.approx((width, height), abs=1)
    assert all(np.asarray(page).std() > 5 for page in pages)  # none is empty


def test_resolution_and_language_change_the_pages(fake_pair: MatchedPair) -> None:
    small, japanese = draw_pages(fake_pair, ppi=20), draw_pages(fake_pair, "ja", ppi=20)
    assert Image.open(io.BytesIO(small[0])).width == pytest.approx(8.27 * 20, abs=1)
    assert small[0] != japanese[0] and draw_pages(fake_pair, ppi=20) == small


def test_what_is_no_report_is_refused(fake_pair: MatchedPair) -> None:
    with pytest.raises(InputError, match="single run"):
        draw_pages(fake_pair.path / "vpt")
    with pytest.raises(UnknownNameError):
        draw_pages(fake_pair, "de")

"""What changed between two audits: facts by name, numbers by whether their intervals overlap."""

from pathlib import Path

import pypdf
import pytest
from fake_report import FakeReport, make_fake_report

from explain.errors import InputError, IntegrityError
from explain.report.compare import Change, compare_reports, listing_of
from explain.report.pdf import render_listing, render_pdf
from explain.report.schema.evidence import Evidence, with_id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    return make_fake_report(tmp_path_factory.mktemp("compared") / "pair")


def changed(made: FakeReport, folder: Path, **fields: object) -> tuple[Path, Path]:
    """The PDFs of the report and of one with other fields."""
    evidence = made.evidence(length="brief")
    other = with_id(Evidence.model_validate(evidence.model_dump() | fields))
    files = folder / "old.pdf", folder / "new.pdf"
    for file, one in zip(files, (evidence, other), strict=True):
        file.write_bytes(render_pdf(one, made.pictures))
    return files


def test_a_report_differs_from_itself_in_nothing(made: FakeReport, tmp_path: Path) -> None:
    old, new = changed(made, tmp_path)
    found = compare_reports(old, new)
    assert found.changes == () and found.old == found.new
    assert "Nothing changed" in listing_of(found).lead


def test_a_number_has_changed_only_where_the_intervals_part(made: FakeReport, tmp_path: Path) -> None:
    arms = list(made.evidence(length="brief").model_dump()["arms"])
    arms[0] |= {"accuracy": 0.99, "low": 0.97, "high": 1.0}
    arms[1] |= {"accuracy": arms[1]["accuracy"] + 0.01}
    found = {one.what: one for one in compare_reports(*changed(made, tmp_path, arms=arms)).changes}
    assert found["vpt, accuracy"].kind == "changed" and found["vpt, accuracy"].new == "0.99 (0.97 to 1)"
    assert found["ft, accuracy"].kind == "within"


def test_facts_are_named_with_both_values(made: FakeReport, tmp_path: Path) -> None:
    record = made.evidence(length="brief").model_dump()
    decision = record["decision"] | {"final": "reject"}
    decision["judged"] = ({**decision["judged"][0], "status": "fail"}, *decision["judged"][1:])
    files = [dict(file) | ({"value": "ab" * 32} if file["name"] == "ft/weights.safetensors" else {})
             for file in record["files"]]  # fmt: skip
    control = record["control"] | {"revision": "C", "owner": ""}
    found = compare_reports(*changed(made, tmp_path, decision=decision, files=files, control=control,
                                     not_evaluated=("planted",))).changes  # fmt: skip
    assert Change("control", "revision", "B", "C", "changed") in found
    assert Change("control", "owner", "Quality, 2nd factory", "", "removed") in found
    assert Change("models", "weights of ft", found[[one.what for one in found].index("weights of ft")].old,
                  "ab" * 6, "changed") in found  # fmt: skip
    assert Change("limitations", "planted", "", "not evaluated", "added") in found
    assert any(one.part == "decision" and one.what == decision["judged"][0]["line"] and one.new == "fail"
               for one in found)  # fmt: skip


def test_a_comparison_is_a_page_in_both_languages(made: FakeReport, tmp_path: Path) -> None:
    old, new = changed(made, tmp_path, title="another", image_size=99)
    found = compare_reports(old, new)
    for lang, words in (("en", "What changed between two audits"), ("ja", "二つの監査の差異")):
        content = render_listing(listing_of(found, lang))
        assert content == render_listing(listing_of(found, lang))
        (tmp_path / "page.pdf").write_bytes(content)
        text = "".join(page.extract_text() for page in pypdf.PdfReader(tmp_path / "page.pdf").pages)
        assert words in text and "99" in text and found.new in text


def test_what_is_no_report_is_refused(made: FakeReport, tmp_path: Path) -> None:
    old, _ = changed(made, tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        compare_reports(old, tmp_path / "nothing.pdf")
    (tmp_path / "text.pdf").write_text("no PDF")
    with pytest.raises(IntegrityError, match="cannot be read"):
        compare_reports(old, tmp_path / "text.pdf")

"""The first page holds on one page and the brief report on two, whatever the names and however many the arms."""

from typing import Any

import pypdf
import pytest
from fake_report import (
    AUDIT,
    LINES,
    FakeReport,
    criteria_yaml,
    make_fake_report,
    read_pdf,
    text_of_pages,
    with_arms,
    words_of,
)

from explain.criteria import parse_criteria
from explain.i18n import LANGUAGES, translate
from explain.report.audit import Audit
from explain.report.content import gather
from explain.report.panels import Panels, draw_pictures
from explain.report.schema.evidence import Evidence, with_id
from explain.training.pair import MatchedPair

LONG = "A very long name that somebody gave it because nothing shorter would do " * 4
LABELS = ["A label of an arm that goes on and on and on and on", "LoRA"]
FIRST = slice(2)
SMALLEST_PT = 4.0
"""Letters below this cannot be read on paper."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    return make_fake_report(tmp_path_factory.mktemp("covered") / "pair")


def long_named(evidence: Evidence, text: str = LONG) -> Evidence:
    """The record with five arms, two of them with long labels, and a long name wherever people may give one."""
    record = with_arms(evidence, LABELS).model_dump(mode="json")
    record["control"] |= dict.fromkeys(("product", "line", "revision", "owner", "valid_until"), text[:300])
    record["control"]["stamps"] = [stamp | {"name": text[:300], "date": text[:300]}
                                   for stamp in record["control"]["stamps"]]  # fmt: skip
    record["backbone"]["architecture"] = text[:120]
    for sample in record["panels"]["samples"]:
        sample |= {"truth": text[:200], "id": text[:200]}
        for answer in sample["answers"]:
            answer["name"] = text[:200]
    return with_id(Evidence.model_validate(record))


def overridden(report: FakeReport, lang: str, length: Any) -> Evidence:
    """A person decided otherwise, under a long name and for a long reason."""
    override = {"decision": "conditional", "name": LONG[:300], "reason": LONG * 3, "date": "2026-05-11"}
    audit = Audit.model_validate(AUDIT.model_dump() | {"override": override})
    return report.evidence(lang, length, audit=audit)


def page_of(pages: list[str], text: str) -> int:
    """The first page with a text, from 1."""
    return next(number for number, page in enumerate(pages, start=1) if words_of(text) in page)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_first_page_says_what_matters_in_short(report: FakeReport, lang: str) -> None:
    evidence, t = report.evidence(lang), translate(lang)
    first, second = text_of_pages(read_pdf(evidence, report.pictures), FIRST)
    expected = [evidence.title, evidence.id, "explain-vit", evidence.backbone.architecture,
                *(evidence.control.model_dump()[name] for name in ("product", "line", "revision", "owner",
                                                                   "valid_until")),
                evidence.decision.final_label, t("report.control.criteria", met=10, count=15),
                *evidence.statements, evidence.data.fingerprint[:12], f"1 {t('report.section.control')}"]  # fmt: skip
    expected += [f"{stamp.name} {stamp.date}" for stamp in evidence.control.stamps]
    for arm in ("vpt", "ft"):
        expected.append(report.pair.runs[arm].manifest.weights_sha256[:12])
    expected += [f"{100 * arm.accuracy:.1f}" for arm in evidence.arms]
    assert [entry for entry in expected if words_of(entry) not in first] == []
    assert words_of(f"2 {t('report.section.decision')}") in second[:200]


@pytest.mark.parametrize(("lang", "length"), [("en", "full"), ("ja", "brief")])
def test_every_page_names_the_document_and_its_number(report: FakeReport, lang: str, length: Any) -> None:
    evidence, t = report.evidence(lang, length), translate(lang)
    pages = text_of_pages(read_pdf(evidence, report.pictures))
    hashes = [report.pair.runs[arm].manifest.weights_sha256[:8] for arm in ("vpt", "ft")]
    for number, page in enumerate(pages, start=1):
        for entry in (t("report.page", page=number, pages=len(pages)), evidence.id, *hashes,
                      evidence.data.fingerprint[:8]):  # fmt: skip
            assert words_of(entry) in page, (number, entry)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("kind", ["bare", "long", "overridden"])
def test_the_cover_is_one_page(
    report: FakeReport, fake_pair: MatchedPair, fake_panels: Panels, lang: str, kind: str
) -> None:
    pictures = report.pictures
    if kind == "bare":  # every part of an audit is named as not evaluated
        evidence, pictures = with_arms(gather(fake_pair, fake_panels, lang), LABELS), draw_pictures(fake_panels)
        assert len(evidence.not_evaluated) == 10
    else:
        evidence = overridden(report, lang, "full") if kind == "overridden" else long_named(report.evidence(lang))
    t = translate(lang)
    reader = read_pdf(evidence, pictures)
    pages = text_of_pages(reader, FIRST)
    assert page_of(pages, f"2 {t('report.section.decision')}") == 2
    for text in (*evidence.statements, *(t(f"report.stamp.{role}") for role in ("prepared", "checked", "approved")),
                 evidence.decision.final_label, t("report.page", page=1, pages=len(reader.pages))):  # fmt: skip
        assert words_of(text) in pages[0]
    if kind == "overridden":
        assert words_of(t("report.decision.overridden", name="")[:10]) in pages[0]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_long_name_of_the_data_does_not_break_the_cover(report: FakeReport, lang: str) -> None:
    record = report.evidence(lang).model_dump(mode="json")
    name = "images_of_the_second_line_" * 9  # longer than a folder's name can be
    record["title"] = record["title"].replace("textile", name)
    record["data"]["name"] = name
    record["statements"] = [text.replace("textile", name) for text in record["statements"]]
    pages = text_of_pages(read_pdf(with_id(Evidence.model_validate(record)), report.pictures), FIRST)
    assert page_of(pages, f"2 {translate(lang)('report.section.decision')}") == 2


@pytest.mark.parametrize("lang", LANGUAGES)
def test_names_of_arms_do_not_lie_on_each_other(report: FakeReport, lang: str) -> None:
    evidence = with_arms(report.evidence(lang), LABELS)
    rows: dict[str, list[float]] = {"label": [], "LoRA": []}

    def note(text: str, current: list[float], matrix: list[float], *rest: Any) -> None:
        for word, heights in rows.items():
            if word in text:
                heights.append(current[5] + current[3] * matrix[5])

    read_pdf(evidence, report.pictures).pages[0].extract_text(visitor_text=note)
    assert max(rows["LoRA"]) < min(rows["label"]) - 9, rows  # a line of 9 points has room between them


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("kind", ["whole", "long", "overridden", "none", "many"])
def test_a_brief_report_is_two_pages(report: FakeReport, lang: str, kind: str) -> None:
    if kind == "long":
        evidence = long_named(report.evidence(lang, "brief"))
    elif kind == "overridden":
        evidence = overridden(report, lang, "brief")
    elif kind == "none":
        evidence = report.evidence(lang, "brief", declaration=None, before=False, audit=None)
    elif kind == "many":
        lines = (*LINES, *(f"accuracy over ft >= -{number} %" for number in range(61, 90)))
        evidence = report.evidence(lang, "brief", declaration=parse_criteria(criteria_yaml(lines), "many"))
        assert len(evidence.decision.judged) == 44
    else:
        evidence = report.evidence(lang, "brief")
        assert len(evidence.decision.judged) == 15
    reader = read_pdf(evidence, report.pictures)
    pages, t = text_of_pages(reader), translate(lang)
    assert len(pages) == 2
    for one in evidence.decision.judged:
        assert words_of(one.label) in pages[1] and words_of(one.status_label) in pages[1]
    assert words_of(evidence.difference.test_statement) in pages[1]
    assert [text for text in evidence.limitations[:4] if words_of(text) not in pages[1]] == []
    assert words_of(t("report.brief.verify")) in pages[1]
    for sample in evidence.panels.samples[:1]:
        assert any(words_of(t(f"term.rule.{sample.rule}")) in page for page in pages[1:])


def sizes(page: pypdf.PageObject) -> list[float]:
    """The height of every piece of text, in points."""
    found: list[float] = []

    def note(text: str, current: list[float], matrix: list[float], _: Any, size: float) -> None:
        if text.strip():
            found.append(abs(size * matrix[3] * current[3]))

    page.extract_text(visitor_text=note)
    return found


@pytest.mark.parametrize("lang", LANGUAGES)
def test_fifteen_criteria_can_still_be_read_on_paper(report: FakeReport, lang: str) -> None:
    first, second = (sizes(page) for page in read_pdf(report.evidence(lang, "brief"), report.pictures).pages)
    assert min(first) > SMALLEST_PT and max(first) < 30  # what is measured here are points
    assert min(second) >= SMALLEST_PT, sorted(set(round(size, 2) for size in second))


def test_the_brief_evidence_still_holds_all_numbers(report: FakeReport) -> None:
    full, brief = report.evidence(), report.evidence("en", "brief")
    same = {"arms", "rates", "slices", "decision", "measured", "dissociation", "disturbed", "config", "data"}
    assert {name: getattr(brief, name) for name in same} == {name: getattr(full, name) for name in same}
    assert 0 < len(brief.panels.samples) < len(full.panels.samples) and brief.id != full.id
    assert {picture.file for picture in brief.pictures} < {picture.file for picture in full.pictures}

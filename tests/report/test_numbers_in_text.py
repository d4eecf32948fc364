"""Every number that a section names is in the text of that section, in its row and rounded as the page rounds."""

import math
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from fake_report import FakeReport, make_fake_report, read_pdf, text_of_pages, words_of

from explain.evidence.summary import Estimate
from explain.i18n import LANGUAGES, Translator, translate
from explain.report.schema.decision import Judged
from explain.report.schema.evidence import SECTIONS, Evidence
from explain.report.schema.rates import Rate


def fixed(value: float, digits: int) -> str:
    """Half away from zero, with a true minus sign and no negative zero."""
    shown = str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "\u2212")


def percent(value: float) -> str:
    return fixed(100 * value, 1)


def significant(value: float) -> str:
    """Three digits."""
    return "0" if value == 0 else fixed(value, max(0, 2 - math.floor(math.log10(abs(value)))))


class Printed:
    """A report's text section by section, without white space, and what its rows have to look like."""

    def __init__(self, report: FakeReport, lang: str) -> None:
        self.evidence: Evidence = report.evidence(lang)
        self.t: Translator = translate(lang)
        text, at, ends = "".join(text_of_pages(read_pdf(self.evidence, report.pictures))), 0, []
        for number, section in enumerate(SECTIONS, start=1):
            heading = words_of(f"{number} {self.t(f'report.section.{section}')}")
            at = text.index(heading, at)
            ends.append(at)
        self.sections = {section: text[start:end] for section, start, end
                         in zip(SECTIONS, ends, [*ends[1:], len(text)], strict=True)}  # fmt: skip

    def lacks(self, section: str, rows: Iterable[str]) -> list[str]:
        """Rows that are not in a section."""
        found = list(rows)
        assert found
        return [row for row in found if words_of(row) not in self.sections[section]]

    def interval(self, low: float, high: float) -> str:
        return self.t("term.range", low=percent(low), high=percent(high))

    def rate(self, it: Rate | None) -> str:
        assert it is not None
        return f"{percent(it.value)} ({self.interval(it.low, it.high)})"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    return make_fake_report(tmp_path_factory.mktemp("numbered") / "pair")


@pytest.fixture(scope="module", params=LANGUAGES)
def printed(report: FakeReport, request: pytest.FixtureRequest) -> Printed:
    return Printed(report, request.param)


def test_a_section_is_only_its_own_text(printed: Printed) -> None:
    assert printed.lacks("decision", [printed.evidence.arms[0].training.sentence]) != []
    assert all(len(text) > 60 for text in printed.sections.values())


def in_unit(it: Judged, value: float | None) -> str:
    """A number of a criterion in the unit that its limit was declared in."""
    if value is None:
        return "\u2013"
    if it.percent:
        return f"{percent(value)} %"
    return f"{int(value):,}" if abs(value) >= 10 and value == int(value) else significant(value)


def test_every_criterion_is_a_row_with_its_numbers(printed: Printed) -> None:
    signs = {">=": "\u2265", "<=": "\u2264", ">": ">", "<": "<"}
    rows = []
    for it in printed.evidence.decision.judged:
        low, high = in_unit(it, it.low), in_unit(it, it.high)
        interval = "\u2013" if it.low in (None, it.high) else printed.t("term.range", low=low, high=high)
        rows.append(f"{it.label} {it.why} {it.note} {signs[it.comparison]} {in_unit(it, it.limit)} "
                    f"{in_unit(it, it.value)} {interval} {in_unit(it, it.bound)} {it.status_label}")  # fmt: skip
    assert len({it.status for it in printed.evidence.decision.judged}) == 3
    assert printed.lacks("decision", rows) == []
    d, control = printed.evidence.decision, printed.evidence.control
    said = [d.final_label, *d.sentences, d.sha256, *d.conditions, control.owner, control.valid_until,
            printed.t("report.decision.declared_by", name=d.declared_by, date=d.declared_on)]  # fmt: skip
    assert printed.lacks("decision", said) == []


def test_every_number_of_the_performance_is_in_its_row(printed: Printed) -> None:
    evidence, rows = printed.evidence, []
    for arm in evidence.arms:
        interval = printed.interval(arm.low, arm.high)
        rows.append(f"{arm.label} {percent(arm.accuracy)} {interval} {arm.count} {fixed(arm.loss, 3)}")
        it = arm.calibration
        rows.append(f"{arm.label} {percent(it.confidence)} {percent(arm.accuracy)} {percent(it.error)} "
                    f"{printed.interval(it.low, it.high)} {percent(it.floor)} {percent(it.adaptive)}")  # fmt: skip
        rows.append(f"{arm.label}: {it.sentence}")
        for number, (name, counts) in enumerate(zip(evidence.data.class_names, arm.confusion, strict=True), start=1):
            rows.append(f"{number} {name} {' '.join(map(str, counts))}")
    two = evidence.difference
    rows.append(f"{two.both_right} {two.only_vpt} {two.only_ft} {two.both_wrong} {percent(two.mean)} "
                f"{printed.interval(two.low, two.high)} {two.statement} {two.test_statement}")  # fmt: skip
    for one in evidence.rates:
        cells = [next(arm.label for arm in evidence.arms if arm.name == one.arm)]
        for rate in (one.miss, one.overkill, one.auroc, one.balanced):
            if rate is one.auroc:  # an area, not a percentage
                ends = {end: fixed(getattr(rate, end), 3) for end in ("low", "high")}
                cells.append(f"{fixed(rate.value, 3)} ({printed.t('term.range', **ends)})")
            else:
                cells.append(printed.rate(rate))
            if rate is not None and rate.hits is not None:
                cells.append(printed.t("report.rates.of", hits=rate.hits, count=rate.count))
        rows.append(" ".join(cells))
    assert len(evidence.slices) == 9
    for part in evidence.slices:
        accuracies = " ".join(printed.rate(part.accuracies[arm.name]) for arm in evidence.arms)
        rows.append(f"{part.by} {part.part} {part.count} {accuracies}")
    for number, name in enumerate(evidence.data.class_names):
        recalls = [arm.recalls[number] for arm in evidence.arms]
        own = " ".join(f"{percent(it.recall)} ({printed.interval(it.low, it.high)})" for it in recalls)
        rows.append(f"{name} {recalls[0].count} {own}")
    assert printed.lacks("performance", rows) == []


def test_every_failure_is_a_row_with_its_answers_and_its_review(printed: Printed) -> None:
    evidence, t = printed.evidence, printed.t
    found = evidence.failures
    rows = [t("report.failures.lead", arm=found.arm_label, wrong=found.wrong, tested=found.tested,
              reviewed=found.reviewed)]  # fmt: skip
    rows += [f"{it.truth} {it.answer} {it.count}" for it in found.confused]
    for it in found.rows:
        answers = " ".join(f"{one.label} {one.name} {percent(one.probability)} %" for one in it.answers)
        review = t("report.failures.unreviewed")
        if it.verdict:
            cause = f"{t('report.failures.cause')}: {it.cause}"
            review = f"{it.verdict} {cause} {it.note} {t('report.failures.by', who=it.who, when=it.when[:10])}"
            review += t("report.failures.stale") if it.stale else ""
        rows.append(f"{it.id} {t('report.failures.truth')}: {it.truth} {answers} {it.panel or '–'} {review}")
    assert found.wrong == len(found.rows) == sum(it.count for it in found.confused) and found.reviewed == 2
    assert {it.stale for it in found.rows if it.verdict} == {True, False}
    assert printed.lacks("failures", rows) == []


def test_a_failure_names_the_panel_that_shows_it(printed: Printed) -> None:
    evidence = printed.evidence
    shown = {sample.id: number for number, sample in enumerate(evidence.panels.samples, start=1)}
    assert {it.id: it.panel for it in evidence.failures.rows} == {it.id: shown.get(it.id)
                                                                  for it in evidence.failures.rows}  # fmt: skip
    rows = [f"{printed.t('report.panels.sample', number=number, count=len(shown))} {printed.t(f'term.rule.{it.rule}')} "
            f"{it.id}" for number, it in enumerate(evidence.panels.samples, start=1)]  # fmt: skip
    assert printed.lacks("panels", rows) == []


def estimate(printed: Printed, it: Estimate | None) -> str:
    """A mean above its interval, with as many digits for one as for the other."""
    if it is None or it.mean is None or it.low is None or it.high is None:
        return "\u2013"
    size = max(abs(it.mean), abs(it.low), abs(it.high))
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    low, high = fixed(it.low, digits), fixed(it.high, digits)
    return f"{fixed(it.mean, digits)} {printed.t('term.range', low=low, high=high)}"


def test_every_number_of_the_robustness_is_in_its_row(printed: Printed) -> None:
    evidence, rows = printed.evidence, []
    for change in evidence.disturbed:
        cells: list[Any] = [change.label, change.accuracies["vpt"].count]
        for arm in evidence.arms:
            cells.append(printed.rate(change.accuracies[arm.name]))
            cells += [printed.rate(change.changes[arm.name])] if change.changes else []
        rows.append(" ".join(map(str, cells)))
    assert [change.name for change in evidence.disturbed] == ["unchanged", "brightness", "blur", "shift", "jpeg"]
    assert evidence.measured is not None
    tables = [table for table in evidence.measured.tables if table.name == "robustness"]
    for line in (line for table in tables for line in table.lines):
        values = [estimate(printed, value) for value in line.values]
        assert len(values) <= 3  # then interval and mean share a line: mean (interval)
        shown = [f"{value.split(' ', 1)[0]} ({value.split(' ', 1)[1]})" if " " in value else value for value in values]
        rows.append(f"{line.model_label} {line.missing} {' '.join(shown)}")
    assert tables and printed.lacks("robustness", rows) == []


def test_every_file_and_number_of_the_reproduction_is_in_its_row(printed: Printed) -> None:
    it, evidence = printed.evidence.reproducing, printed.evidence
    rows = [*it.commands, it.determinism, ", ".join(f"{name} {value}" for name, value in evidence.versions.items())]
    rows += [f"{one.name} {one.value}" for one in it.environment]
    rows += [f"{', '.join(one.arms)} explain {one.code_sha256} git {one.commit} packages.txt {one.packages_sha256}"
             for one in it.software]  # fmt: skip
    rows += [f"{one.file} {one.description} {one.bytes:,} {one.sha256}" for one in it.attachments]
    rows += [f"{file.name} {file.value}" for file in evidence.files]
    rows += ["; ".join(f"{arm.label}: {arm.device}, {arm.precision}" for arm in evidence.arms)]
    assert printed.lacks("reproducing", rows) == []


def test_an_audit_without_gaps_prints_no_empty_list_of_them(printed: Printed) -> None:
    assert printed.evidence.not_evaluated == ()
    assert words_of(printed.t("report.missing.lead")) not in printed.sections["limitations"]
    assert printed.lacks("limitations", printed.evidence.limitations) == []

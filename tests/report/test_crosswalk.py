"""The crosswalk: what a report says of rules and standards follows from which of its sections have data."""

import re
import subprocess
import sys
from typing import Any

import pytest
from fake_report import FakeReport, make_fake_report, read_pdf, text_of_pages, words_of

from explain.i18n import LANGUAGES, translate
from explain.report.audit import Audit
from explain.report.content import gather
from explain.report.panels import Panels
from explain.report.parts.crosswalk import FRAMEWORKS, crosswalk_of, sections_with_data
from explain.report.parts.missing import missing_of
from explain.report.schema.crosswalk import Crosswalk
from explain.report.schema.evidence import SECTIONS, Evidence
from explain.training.pair import MatchedPair

ALWAYS = {"models", "matched", "data", "performance", "settings", "limitations", "reproducing"}
ALL = set(SECTIONS) - {"crosswalk"}
"""Sections that can speak to a point: the crosswalk itself cannot."""

REAL = {
    "eu_ai_act": r"Annex IV [1-9](\([a-h]\)(-\([a-h]\))?)?(, Art\. 1[2-5])?|Art\. 1[2-5]",
    "nist_ai_rmf": r"MAP [1-5]\.\d|MEASURE ([134]\.\d|2\.(1[0-3]|[1-9]))|MANAGE [1-4]\.\d",
    "iso_42001": r"A\.(6\.1\.[23]|6\.2\.[2-8]|7\.[2-6]|8\.[2-5]|9\.[2-4])",
}
"""What a number of a point can look like: the points that these texts have."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    return make_fake_report(tmp_path_factory.mktemp("crossed") / "pair")


@pytest.fixture(scope="module")
def whole(report: FakeReport) -> Evidence:
    return report.evidence()


@pytest.fixture(scope="module")
def bare(fake_pair: MatchedPair, fake_panels: Panels) -> Evidence:
    """Nothing but a training and its maps."""
    return gather(fake_pair, fake_panels)


def states(crosswalk: Crosswalk) -> dict[str, str]:
    return {row.clause: row.state for framework in crosswalk.frameworks for row in framework.rows}


def without(evidence: Evidence, **parts: Any) -> Evidence:
    """The record with parts of another content."""
    return Evidence.model_validate(evidence.model_dump(mode="json") | parts)


def unstated(evidence: Evidence, section: str) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") | {"text": None} for one in getattr(evidence, section)]


def test_every_point_of_a_whole_report_has_data(whole: Evidence) -> None:
    assert sections_with_data(whole) == ALL
    assert set(states(whole.crosswalk).values()) == {"covered"}


def test_a_bare_report_claims_no_more_than_it_holds(bare: Evidence) -> None:
    assert sections_with_data(bare) == ALWAYS | {"panels"}
    found = states(bare.crosswalk)
    expected = {
        "Annex IV 1": "partly", "Annex IV 2(a)-(c)": "covered", "Annex IV 2(d)": "covered", "Annex IV 2(g)": "partly",
        "Annex IV 6": "missing", "Annex IV 9": "missing", "Art. 12": "covered", "Art. 15": "partly",
        "MAP 2.2": "partly", "MEASURE 2.3": "covered", "MEASURE 2.5": "partly", "MEASURE 2.9": "partly",
        "MEASURE 2.13": "missing", "MANAGE 1.1": "missing", "A.6.2.3": "covered", "A.6.2.4": "partly",
        "A.6.2.6": "missing", "A.9.4": "missing",
    }  # fmt: skip
    assert {clause: found[clause] for clause in expected} == expected


def without_drift(whole: Evidence) -> dict[str, Any]:
    """What was measured of the maps, but for how far they move."""
    assert whole.measured is not None
    measured = whole.measured.model_dump(mode="json")
    return measured | {"cells": [cell for cell in measured["cells"] if not cell["metric"].startswith("drift_")]}


@pytest.mark.parametrize("section", sorted(ALL - ALWAYS))
def test_a_section_without_data_counts_for_nothing(whole: Evidence, section: str) -> None:
    control = whole.control.model_dump(mode="json")
    failures = whole.failures.model_dump(mode="json")
    gone: dict[str, dict[str, Any]] = {
        "control": {"control": control | {"product": ""}},
        "decision": {"decision": whole.decision.model_dump(mode="json") | {"judged": []}},
        "scope": {"scope": unstated(whole, "scope")},
        "operation": {"operation": unstated(whole, "operation")},
        "panels": {"panels": whole.panels.model_dump(mode="json") | {"samples": []}},
        "faithfulness": {"measured": None, "dissociation": None},
        "agreement": {"measured": None},
        "failures": {"failures": failures | {"reviewed": 0}},
        "robustness": {"disturbed": [], "measured": without_drift(whole)},
        "signoff": {"control": control | {"stamps": [stamp | {"name": ""} for stamp in control["stamps"]]}},
    }
    changed = without(whole, **gone[section])
    lost = {"faithfulness", "agreement"} if section == "faithfulness" else {section}
    assert sections_with_data(changed) == ALL - lost
    for framework in crosswalk_of(changed, translate("en")).frameworks:
        for row in framework.rows:
            named = set(row.sections) & lost
            expected = "covered" if not named else "missing" if named == set(row.sections) else "partly"
            assert row.state == expected, (framework.name, row.clause)


def test_one_answer_of_many_is_not_the_whole_section(report: FakeReport) -> None:
    """A part that is listed as not evaluated must not have data in the crosswalk."""
    audit = Audit.model_validate({"intended_use": {"task": "sorting"}, "operation": {"decides": "somebody"}})
    evidence = report.evidence(audit=audit)
    assert {"intended_use", "operation"} <= set(missing_of(evidence))
    assert not {"scope", "operation"} & sections_with_data(evidence)


def test_a_model_that_is_never_wrong_needs_no_review(whole: Evidence) -> None:
    none = whole.failures.model_dump(mode="json") | {"wrong": 0, "reviewed": 0, "rows": [], "confused": []}
    assert "failures" in sections_with_data(without(whole, failures=none))


def test_points_are_real_and_there_once_and_their_sections_are_sections() -> None:
    for name, points in FRAMEWORKS.items():
        clauses = [clause for clause, _ in points.values()]
        assert len(clauses) == len(set(clauses)), name
        assert [clause for clause in clauses if name in REAL and not re.fullmatch(REAL[name], clause)] == []
        for sections in (sections for _, sections in points.values()):
            assert sections and set(sections) <= ALL and len(set(sections)) == len(sections)
    assert len(FRAMEWORKS) == 5


@pytest.mark.parametrize("lang", LANGUAGES)
def test_it_says_that_it_is_a_self_assessment(report: FakeReport, lang: str) -> None:
    crosswalk = report.evidence(lang).crosswalk
    said = {"en": ("self-assessment", "not a certification", "primary text"), "ja": ("自己評価", "認証", "原文")}
    assert [word for word in said[lang] if word not in crosswalk.statement] == []
    act, *others = crosswalk.frameworks
    usual = {"en": ("usually not", "high-risk", "safety component"), "ja": ("外観検査", "高リスク", "安全")}
    assert [word for word in usual[lang] if word not in act.caveat] == []
    assert "2024/1689" in act.edition and "NIST AI 100-1" in others[0].edition and "2023" in others[1].edition
    # no row claims to be more than data: no "compliant", "certified", "conforms", "fulfilled", 適合, 準拠
    claims = re.compile(r"complian|certif|conform|fulfil|satisf|適合|準拠|認証", re.IGNORECASE)
    rows = [row for framework in crosswalk.frameworks for row in framework.rows]
    assert [row for row in rows if claims.search(row.asks + row.state_label)] == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_row_is_printed_with_the_numbers_of_its_sections(report: FakeReport, lang: str) -> None:
    evidence = report.evidence(lang, audit=None)
    text = "".join(text_of_pages(read_pdf(evidence, report.pictures), slice(-5, None)))
    assert {"covered", "partly", "missing"} == set(states(evidence.crosswalk).values())
    missing = []
    assert words_of(evidence.crosswalk.statement) in text
    for framework in evidence.crosswalk.frameworks:
        assert words_of(f"{framework.name} ({framework.edition}) {framework.caveat}") in text
        for row in framework.rows:
            numbers = ", ".join(str(SECTIONS.index(section) + 1) for section in row.sections)
            line = words_of(row.clause, row.asks, numbers, row.state_label)
            missing += [] if line in text else [line]
    assert missing == []


def test_what_verify_runs_again_needs_no_torch() -> None:
    modules = ("parts.crosswalk", "parts.reproducing", "parts.decision", "attachments", "schema.evidence", "pdf")
    code = "import sys\n" + "".join(f"import explain.report.{name}\n" for name in modules)
    code += "assert 'torch' not in sys.modules, 'torch'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""The crosswalk to rules and standards, for the evidence: a self-assessment, computed from which sections have data.

What each point asks is in our own words. Numbers of points follow: Regulation (EU) 2024/1689, Annex IV and Articles 12
to 15; NIST AI 100-1 (2023), tables of the core; ISO/IEC 42001:2023, Annex A; the common principles of Japan's AI
guidelines for business; AIST's machine learning quality management guideline. They change with editions, which the
page says.
"""

from typing import Literal

from explain.i18n import Translator
from explain.report.parts.missing import missing_of
from explain.report.schema.crosswalk import Crosswalk, CrosswalkRow, Framework
from explain.report.schema.evidence import Evidence

State = Literal["covered", "partly", "missing"]

FRAMEWORKS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "eu_ai_act": {
        "general": ("Annex IV 1", ("control", "scope", "models")),
        "development": ("Annex IV 2(a)-(c)", ("models", "matched", "settings", "reproducing")),
        "data": ("Annex IV 2(d)", ("data",)),
        "oversight_measures": ("Annex IV 2(e), Art. 14", ("operation", "limitations")),
        "tests": ("Annex IV 2(g)", ("performance", "decision", "signoff")),
        "limits": ("Annex IV 3, Art. 13", ("limitations", "panels", "scope")),
        "metrics": ("Annex IV 4", ("performance", "decision")),
        "changes": ("Annex IV 6", ("signoff",)),
        "post_market": ("Annex IV 9", ("operation",)),
        "records": ("Art. 12", ("reproducing",)),
        "robustness": ("Art. 15", ("performance", "robustness")),
    },
    "nist_ai_rmf": {
        "knowledge_limits": ("MAP 2.2", ("limitations", "operation")),
        "test_sets": ("MEASURE 2.1", ("data", "performance")),
        "performance": ("MEASURE 2.3", ("performance",)),
        "validity": ("MEASURE 2.5", ("performance", "robustness", "limitations")),
        "explained": ("MEASURE 2.9", ("settings", "panels", "faithfulness")),
        "test_quality": ("MEASURE 2.13", ("faithfulness", "agreement")),
        "go": ("MANAGE 1.1", ("decision",)),
    },
    "iso_42001": {
        "design": ("A.6.2.3", ("models", "matched", "settings")),
        "verification": ("A.6.2.4", ("performance", "faithfulness", "robustness", "decision")),
        "operation": ("A.6.2.6", ("operation",)),
        "technical": ("A.6.2.7", ("reproducing", "control")),
        "data_quality": ("A.7.4", ("data",)),
        "provenance": ("A.7.5", ("data", "reproducing")),
        "users": ("A.8.2", ("limitations", "panels")),
        "intended_use": ("A.9.4", ("scope",)),
    },
    "japan_business": {
        "human": ("human", ("operation", "failures")),
        "safety": ("safety", ("performance", "robustness", "failures")),
        "transparency": ("transparency", ("reproducing", "settings", "panels")),
        "accountability": ("accountability", ("control", "signoff", "matched")),
    },
    "aist_quality": {
        "performance": ("external", ("performance", "decision")),
        "coverage": ("data", ("data",)),
        "correctness": ("correctness", ("performance", "failures")),
        "stability": ("stability", ("robustness", "agreement")),
        "operation": ("operation", ("operation",)),
    },
}
"""Framework -> point -> its number in the framework, and the sections of this report that speak to it."""

NAMED = ("japan_business", "aist_quality")
"""Frameworks whose points have names instead of numbers, which the texts hold."""


def crosswalk_of(evidence: Evidence, t: Translator) -> Crosswalk:
    """Which points of which framework the sections of this report speak to; `evidence` is whole but for this."""
    there = sections_with_data(evidence)
    frameworks = []
    for name, points in FRAMEWORKS.items():
        rows = []
        for point, (number, sections) in points.items():
            state = _state(sections, there)
            key = f"report.crosswalk.{name}.{point}"
            rows.append(CrosswalkRow(
                clause=t(f"{key}.clause") if name in NAMED else number, asks=t(key), sections=sections, state=state,
                state_label=t(f"report.crosswalk.state.{state}"),
            ))  # fmt: skip
        key, caveat = f"report.crosswalk.{name}", f"report.crosswalk.{name}.caveat"
        frameworks.append(Framework(name=t(f"{key}.name"), edition=t(f"{key}.edition"),
                                    caveat=t(caveat) if caveat in t else "", rows=tuple(rows)))  # fmt: skip
    return Crosswalk(statement=t("report.crosswalk.statement"), frameworks=tuple(frameworks))


def _state(sections: tuple[str, ...], there: set[str]) -> State:
    found = sum(section in there for section in sections)
    return "covered" if found == len(sections) else "partly" if found else "missing"


def sections_with_data(evidence: Evidence) -> set[str]:
    """Keys of the sections that do not say "not evaluated" of what they are about."""
    missing, control = set(missing_of(evidence)), evidence.control
    found = {
        "control": bool(control.product and control.owner),
        "decision": "decision" not in missing,
        "scope": "intended_use" not in missing,
        "panels": bool(evidence.panels.samples),
        "faithfulness": not {"faithfulness", "planted"} <= missing,
        "agreement": "agreement" not in missing,
        "failures": "failure_review" not in missing,
        "robustness": "robustness" not in missing,
        "operation": "operation" not in missing,
        "signoff": bool(evidence.history) and "signature" not in missing,
    }
    always = {"models", "matched", "data", "performance", "settings", "limitations", "reproducing"}
    return always | {section for section, there in found.items() if there}

"""Criteria: what a file of them says, what is refused, and with which words."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from explain.criteria import (
    COUNTS,
    EVALUATED,
    METRICS,
    MOST,
    PATTERNS,
    SHARES,
    Criteria,
    Criterion,
    check_criteria,
    metric_name,
    parse_criteria,
    read_criteria,
)
from explain.errors import InputError
from explain.evidence.base import MEASURES

WHOLE = """\
model: ft
good_classes: [nominal]
declared_by: A. Sato
declared_on: 2026-11-27
criteria:
  - accuracy >= 90 %
  - criterion: miss rate <= 5 %
    why: a missed defect reaches the customer
  - criterion: Gain of integrated_gradients > 0
    required: false
"""
CLASSES, ARMS = ("nominal", "local defect", "Global  defect"), ("vpt", "ft", "linear")


def criteria_of(*lines: str, **fields: object) -> Criteria:
    return Criteria.model_validate({"criteria": list(lines), **fields})


def refused(*lines: str, **fields: object) -> str:
    with pytest.raises(InputError) as caught:
        check_criteria(criteria_of(*lines, **fields), CLASSES, ARMS)
    return str(caught.value)


def test_a_file_reads_as_what_it_says() -> None:
    found = parse_criteria(WHOLE.encode(), "criteria.yaml")
    criteria = found.criteria
    assert (criteria.model, criteria.good_classes, criteria.declared_by) == ("ft", ("nominal",), "A. Sato")
    assert criteria.declared_on == "2026-11-27"  # YAML reads a date
    assert [entry.criterion for entry in criteria.criteria] == [
        "accuracy >= 90 %", "miss rate <= 5 %", "gain of integrated_gradients > 0"]  # fmt: skip
    assert [entry.required for entry in criteria.criteria] == [True, True, False]
    assert criteria.criteria[1].why == "a missed defect reaches the customer" and not criteria.criteria[0].why
    assert criteria.metrics == ("accuracy", "miss rate", "gain of integrated_gradients")
    check_criteria(criteria, CLASSES, ARMS)


@pytest.mark.parametrize("text", [WHOLE, WHOLE.replace("\n", "\r\n"), "\ufeff" + WHOLE])
def test_hash_and_text_are_those_of_the_file_byte_for_byte(text: str, tmp_path: Path) -> None:
    path, content = tmp_path / "criteria.yaml", text.encode()
    path.write_bytes(content)
    found = read_criteria(path)
    assert found.sha256 == hashlib.sha256(content).hexdigest() and found.text.encode() == content
    assert found.criteria == parse_criteria(WHOLE.encode(), "").criteria


@pytest.mark.parametrize(("text", "words"), [
    ("criteria: []", "criteria (line 1).*at least 1"),
    ("model: vpt", "criteria: Field required"),
    ("criteria:\n  - accuracy >= 90 %\n  - accuracy = 5", r"criteria.1.criterion \(line 3\).*expected METRIC"),
    ("criteria:\n  - accuracy >= 90 %\n  - accuracy >= 0.9", r"'accuracy >= 0.9' is there twice"),
    ("criteria:\n  - criterion: ece <= 1\n    requird: no", r"criteria.0.requird \(line 3\).*Known fields"),
    ("criteria: accuracy >= 90 %", r"criteria \(line 1\)"),
    ("criteria:\n  - [accuracy >= 1]", r"criteria.0 \(line 2\)"),
    ("criteria:\n  - accuracy >= 1\nmodel: [vpt]", r"model \(line 3\)"),
    ("criteria: &a\n  - ece <= 1\nmodel: *a", "alias"),
    ("- accuracy >= 1", "expected fields"),
    ('criteria: ["ece <= 1"]\ndeclared_by: "a\\e[31mb"', "declared_by holds control characters"),
])  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, words: str) -> None:
    with pytest.raises(InputError, match=r"(?s)my\.yaml.*" + words.replace("(line 1).*at", r"\(line 1\).*at")):
        parse_criteria(text.encode(), "my.yaml")


def test_a_file_that_is_missing_or_no_text_is_an_error_that_helps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="explain declare"):
        read_criteria(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="UTF-8"):
        parse_criteria("criteria: [\"recall of Prüfling >= 1\"]".encode("latin-1"), "a")
    with pytest.raises(ValueError, match=f"at most {MOST}"):
        criteria_of(*(f"accuracy >= 0.{number:04d}" for number in range(MOST + 1)))


def test_fields_that_are_left_empty_say_nothing() -> None:
    text = "criteria:\n  - criterion: ece <= 1\n    why:\n    required:\nmodel:\ndeclared_on:\ngood_classes:\n"
    assert parse_criteria(text.encode(), "a").criteria == criteria_of("ece <= 1")


@pytest.mark.parametrize(("line", "words"), [
    ("accuracy >= 90", r"did you mean 'accuracy >= 90 %'"),
    ("miss rate <= 500 %", "lies between 0% and 100 %"),
    ("recall of a >= 1.2", "did you mean"),
    ("accuracy over ft >= -150 %", "between -100%"),
    ("accuracy under blur >= 95", "did you mean"),
    ("accuracy > 100 %", "can never be met; use >="),
    ("miss rate < 0", "can never be met; use <="),
    ("leaked images < 0", "can never be met; use <="),
    ("leaked images <= 1 %", "whole number"),
    ("test images >= 100.5", "whole number"),
])  # fmt: skip
def test_a_limit_that_cannot_decide_is_refused(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        criteria_of(line)


@pytest.mark.parametrize("line", ["accuracy over ft >= -2 %", "planted test of grad_cam > 0", "accuracy >= 100 %",
                                  "leaked images <= 0", "gini of grad_cam >= 0.2", "road_combined of fem >= -3",
                                  "accuracy over ft <= -2 %"])  # fmt: skip
def test_limits_that_make_sense_are_taken(line: str) -> None:
    check_criteria(criteria_of(line), CLASSES, ARMS)


def test_every_metric_that_is_listed_can_be_asked_for() -> None:
    of = {"recall of ": "local defect", "accuracy over ": "ft", "accuracy under ": "jpeg", "planted test of ": "fem"}
    assert of.keys() == PATTERNS.keys() and METRICS.keys() == SHARES | COUNTS
    lines = [f"{metric} <= 1" for metric in METRICS] + [f"{beginning}{name} <= 1" for beginning, name in of.items()]
    lines += [f"{name} of grad_cam >= 0" for name in EVALUATED] + ["completeness gap of integrated_gradients <= 2 %"]
    check_criteria(criteria_of(*lines, good_classes=["nominal"]), CLASSES, ARMS)


def test_every_number_of_an_evaluation_that_is_listed_is_measured() -> None:
    measured = {metric for name in MEASURES for metric in MEASURES[name].metrics}
    assert {name.partition("/")[0] for name in EVALUATED} <= measured


@pytest.mark.parametrize(("line", "words"), [
    ("acuracy >= 0.9", ("metric 'acuracy'", "did you mean 'accuracy'", "overkill rate")),
    ("recall of local defekt >= 0.9", ("class 'local defekt'", "did you mean 'local defect'", "nominal")),
    ("recall of Local defect >= 0.9", ("class 'Local defect'", "did you mean 'local defect'")),
    ("accuracy over fft >= 0", ("other arm 'fft'", "did you mean 'ft'", "linear")),
    ("accuracy over vpt >= 0", ("other arm 'vpt'", "known: ft, linear")),
    ("accuracy under noise >= 0.5", ("change 'noise'", "brightness, blur, shift, jpeg")),
    ("planted test of gradcam > 0", ("method 'gradcam'", "did you mean 'grad_cam'")),
    ("gain of gradcam > 0", ("method 'gradcam'", "did you mean 'grad_cam'")),
    ("gaim of grad_cam > 0", ("metric 'gaim of METHOD'", "did you mean 'gain of METHOD'")),
    ("completeness gap <= 2 %", ("metric 'completeness gap'", "completeness_gap of METHOD")),
    ("miss rate <= 5 %", ("needs good_classes", "nominal, local defect")),
])  # fmt: skip
def test_a_name_that_there_is_not_is_told_with_the_nearest(line: str, words: tuple[str, ...]) -> None:
    message = refused(line)
    assert line.split()[0] in message and [one for one in words if one not in message] == []


def test_arm_and_good_classes_are_checked() -> None:
    assert "arm 'vtp', which" not in refused("ece <= 1", model="vtp") and "'vtp'" in refused("ece <= 1", model="vtp")
    assert "did you mean 'nominal'" in refused("ece <= 1", good_classes=["normal"])
    assert "not all" in refused("overkill rate <= 1", good_classes=list(CLASSES))


def test_names_of_classes_and_arms_keep_their_letters() -> None:
    assert metric_name("Recall  of   Local Defect") == "recall of Local Defect"
    assert metric_name("ACCURACY over FT_2") == "accuracy over FT_2" and metric_name("MISS  rate") == "miss rate"
    assert Criterion.parse("accuracy over FT >= \u22122 %").bound == -0.02


def test_reading_criteria_needs_no_torch() -> None:
    code = "import sys, explain.report.parts.decision, explain.report.audit; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

"""`explain declare`: what it writes can be read, teaches, and replaces nothing."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from explain.cli import app
from explain.criteria import EVALUATED, METRICS, PATTERNS, Criterion, check_criteria, read_criteria
from explain.data.base import Dataset
from explain.errors import InputError
from explain.report.audit import Audit, IntendedUse, Operation, read_audit

RESULT = re.compile(r"(written|kept)\s+(\S+)")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["declare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_files_can_be_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run()
    assert RESULT.findall(said) == [("written", "criteria.yaml"), ("written", "audit.yaml")]
    assert "next:" in said and "--criteria criteria.yaml" in said
    criteria = read_criteria("criteria.yaml").criteria
    check_criteria(criteria, ["a", "b"], ["vpt", "ft"])
    assert read_audit("audit.yaml") == Audit()  # nothing is stated until somebody states it


def test_classes_and_good_ones_become_criteria(tmp_path: Path) -> None:
    classes = ["nominal", "local defect", 'a "b": # c', "no", "ひび"]
    run(str(tmp_path / "new" / "folder"), "--classes", ",".join(classes), "--good", "nominal,no", "--model", "ft")
    criteria = read_criteria(tmp_path / "new" / "folder" / "criteria.yaml").criteria
    check_criteria(criteria, classes, ["vpt", "ft"])
    assert (criteria.model, criteria.good_classes) == ("ft", ("nominal", "no"))
    recalls = [metric.removeprefix("recall of ") for metric in criteria.metrics if metric.startswith("recall of ")]
    assert recalls == classes and "miss rate" in criteria.metrics
    assert [entry.required for entry in criteria.criteria].count(False) == 1


def test_what_is_commented_out_can_be_read_too(tmp_path: Path) -> None:
    """Everything that is an example, without its #."""
    run(str(tmp_path))
    audit = (tmp_path / "audit.yaml").read_text(encoding="utf-8")
    examples = re.findall(r"(?m)^# ((?:override|history):$\n(?:#   .*\n)+)", audit)
    assert len(examples) == 2
    (tmp_path / "more.yaml").write_text("\n".join(example.replace("# ", "", 1).replace("\n# ", "\n")
                                                  for example in examples))  # fmt: skip
    found = read_audit(tmp_path / "more.yaml")
    assert found.override is not None and found.override.name and len(found.history) == 1
    criteria = (tmp_path / "criteria.yaml").read_text(encoding="utf-8")
    (tmp_path / "rates.yaml").write_text(re.sub("(?m)^#  ( *)(?=-|  why)", r"  \1", criteria), encoding="utf-8")
    assert "miss rate" in read_criteria(tmp_path / "rates.yaml").criteria.metrics


def test_every_field_and_every_metric_is_named(tmp_path: Path) -> None:
    run(str(tmp_path))
    audit = (tmp_path / "audit.yaml").read_text(encoding="utf-8")
    fields = [*Audit.model_fields, *IntendedUse.model_fields, *Operation.model_fields]
    assert [name for name in fields if not re.search(rf"(?m)^#? *{name}:", audit)] == []
    criteria = (tmp_path / "criteria.yaml").read_text(encoding="utf-8")
    assert [name for name in (*METRICS, *PATTERNS, *EVALUATED) if f"#   {name}" not in criteria] == []
    assert max(map(len, (criteria + audit).splitlines())) <= 120


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text("owner: me\n")
    said = RESULT.findall(run(str(tmp_path)))
    assert [what for what, _ in said] == ["written", "kept"]
    before = (tmp_path / "criteria.yaml").read_bytes()
    assert [what for what, _ in RESULT.findall(run(str(tmp_path), "--classes", "a,b"))] == ["kept", "kept"]
    assert (tmp_path / "criteria.yaml").read_bytes() == before
    assert (tmp_path / "audit.yaml").read_text() == "owner: me\n"


@pytest.mark.parametrize("made", ["vpt/manifest.json", "study.json"])
def test_a_trained_folder_gets_no_criteria(tmp_path: Path, made: str) -> None:
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("{}")
    said = run(str(tmp_path))
    assert "explain report" in said and "next:" not in said
    assert not (tmp_path / "criteria.yaml").exists() and (tmp_path / "audit.yaml").is_file()


def test_wrong_requests_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--good.*got normal"):
        run(str(tmp_path / "a"), "--classes", "nominal,defect", "--good", "normal")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="nothing can be written"):
        run(str(tmp_path / "file"))
    assert not (tmp_path / "a").exists()


def test_what_is_declared_for_other_classes_stops_the_training_at_once(pictures: Dataset, tmp_path: Path) -> None:
    run(str(tmp_path), "--classes", "left,up", "--good", "left")
    options = ["--device", "cpu", "--set", "test_per_class=2", "--set", "train_per_class=4"]
    command = ["train", str(pictures.root), "--out", str(tmp_path / "run"), *options, "--criteria"]
    with pytest.raises(InputError, match="the class 'up'.*known: left, right"):
        CliRunner().invoke(app, [*command, str(tmp_path / "criteria.yaml")], catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_examples_of_the_help_are_criteria() -> None:
    said = " ".join(CliRunner().invoke(app, ["declare", "--help"], env={"COLUMNS": "200"}).output.split())
    example = re.search(r'such as "(recall of [^"]+)"', said)
    assert example is not None and str(Criterion.parse(example[1])) == example[1]

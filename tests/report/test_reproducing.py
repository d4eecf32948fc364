"""How to make it again: commands that the command line knows, hashes that are those of the files, no path of ours."""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
from fake_report import FakeReport, make_fake_report

from explain.cli import app
from explain.cli_train import _recipe
from explain.files import read_json
from explain.i18n import LANGUAGES, translate
from explain.report.attachments import attachments_of
from explain.report.content import gather
from explain.report.panels import Panels
from explain.report.parts.config import config_of
from explain.report.parts.reproducing import environment
from explain.report.parts.software import software_of
from explain.report.pdf import engine_version, fonts
from explain.report.schema.evidence import Evidence
from explain.software import Software
from explain.training.pair import MatchedPair
from explain.training.recipe import Recipe


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> FakeReport:
    return make_fake_report(tmp_path_factory.mktemp("repeated") / "pair")


def commands_of(evidence: Evidence) -> list[str]:
    return list(evidence.reproducing.commands)


def test_a_whole_report_names_every_step_in_order(report: FakeReport) -> None:
    assert commands_of(report.evidence()) == [
        "explain train DATA --out AGAIN --recipe RUN/recipe.json --criteria criteria.yaml",
        "explain evaluate RUN",
        "explain planted RUN",
        "explain report RUN --out audit.pdf --lang en --per-rule 2",
        "explain verify audit.pdf --run RUN",
    ]


def test_a_bare_report_names_only_what_was_done(fake_pair: MatchedPair, fake_panels: Panels) -> None:
    assert commands_of(gather(fake_pair, fake_panels, "ja")) == [
        "explain train DATA --out AGAIN --recipe RUN/recipe.json",
        "explain report RUN --out audit.pdf --lang ja --per-rule 2",
        "explain verify audit.pdf --run RUN",
    ]


@pytest.mark.parametrize(("choice", "said"), [
    ({"length": "brief"}, "--per-rule 2 --brief"),
    ({"scope": "sample"}, "--per-rule 2 --scale sample"),
    ({"scope": "dataset", "length": "brief"}, "--per-rule 2 --scale dataset --brief"),
    ({"before": False}, "--per-rule 2 --criteria criteria.yaml"),
    ({"declaration": None, "before": False}, "--per-rule 2"),
])  # fmt: skip
def test_what_was_chosen_is_in_the_command(report: FakeReport, choice: dict[str, Any], said: str) -> None:
    train, *_, command, _ = commands_of(report.evidence(**choice))
    assert command == f"explain report RUN --out audit.pdf --lang en {said}"
    # criteria that came after the training are not among what the training needs
    assert ("--criteria" in train) == choice.get("before", True)


def printed_commands(report: FakeReport) -> Iterator[list[str]]:
    for choice in ({}, {"scope": "sample", "length": "brief"}, {"before": False}):
        yield from (shlex.split(command) for command in commands_of(report.evidence(**choice)))


def test_the_command_line_knows_every_printed_command(report: FakeReport) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    unknown = []
    for program, name, *rest in printed_commands(report):
        assert program == "explain" and name in commands, name
        options = {option for it in commands[name].params for option in (*it.opts, *it.secondary_opts)}
        unknown += [(name, word) for word in rest if word.startswith("--") and word not in options]
        # nothing is left over when the words are read as the command line reads them
        context = commands[name].make_context(name, list(rest), resilient_parsing=True)
        assert context.args == [], (name, context.args)
    assert unknown == []


def test_nothing_tells_where_the_runs_lie(report: FakeReport) -> None:
    for lang in LANGUAGES:
        text = report.evidence(lang).model_dump_json()
        for path in (report.pair.path, report.pair.path.parent, Path.home() / "x", report.pair.data.root):
            assert str(path).removesuffix("/x") + "/" not in text


def test_the_environment_is_the_one_that_typesets(report: FakeReport) -> None:
    found = report.evidence()
    named = {it.name: it.value for it in found.reproducing.environment}
    expected = {font.name: hashlib.sha256(font.read_bytes()).hexdigest() for font in fonts()}
    assert named == {"typst": engine_version(), **expected} and len(named) == 3
    assert {it.name: it.value for it in environment({"typst": "9.9"})} == {"typst": "9.9", **expected}
    assert {"explain-vit", "python", "torch", "timm", "typst"} <= found.versions.keys()


def test_arms_that_other_software_trained_are_told_apart(fake_pair: MatchedPair) -> None:
    (one,) = software_of(fake_pair, translate("en"))
    known = fake_pair.ft.manifest.software
    assert known is not None and one.arms == ("VPT", "FT", "Linear probe")
    assert (one.code_sha256, one.commit, one.packages_sha256) == tuple(known.model_dump().values())
    installed = known.model_copy(update={"commit": None, "code_sha256": "ef" * 32})
    pair = trained_with(fake_pair, {"ft": installed, "linear": None})
    first, second = software_of(pair, translate("en"))
    assert (first.arms, first.commit) == (("VPT",), "9a" * 20)
    assert (second.arms, second.commit, second.code_sha256) == (("FT",), None, "ef" * 32)
    rows = {row.name: row for row in config_of(pair, translate("en"))}
    assert rows["Code of this tool"].values == {"vpt": "78" * 8, "ft": "ef" * 8, "linear": "not recorded"}
    assert not rows["Code of this tool"].equal and rows["Installed packages"].allowed


def trained_with(pair: MatchedPair, software: dict[str, Software | None]) -> MatchedPair:
    """The pair as if other software had trained some of its arms."""
    runs = {arm: run if arm not in software else
            replace(run, manifest=run.manifest.model_copy(update={"software": software[arm]}))
            for arm, run in pair.runs.items()}  # fmt: skip
    return replace(pair, runs=runs)


@pytest.mark.parametrize("length", ["full", "brief"])
def test_the_table_of_attachments_is_about_these_files(report: FakeReport, length: Any) -> None:
    evidence = report.evidence("en", length)
    files = attachments_of(evidence)
    assert {it.file: (it.sha256, it.bytes) for it in evidence.reproducing.attachments} == {
        name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()
    }
    assert [it.file for it in evidence.reproducing.attachments] == list(files)
    assert len({it.description for it in evidence.reproducing.attachments}) == len(files)


def test_the_recipe_of_a_run_trains_the_same_again(fake_pair: MatchedPair) -> None:
    """`--recipe RUN/recipe.json`, of the printed command, leaves nothing of the recipe out."""
    own = fake_pair.path / "vpt" / "recipe.json"
    again = _recipe("matched", "any name", own, {}, [])
    assert again.model_dump(mode="json") == Recipe.parse(read_json(own), str(own)).model_dump(mode="json")

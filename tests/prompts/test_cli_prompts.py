"""`explain prompts …` as a user meets it: what it prints, and its exit codes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from explain.cli_prompts import prompts
from explain.errors import ExplainError
from explain.prompts.acceptance import PromotionRefusedError
from explain.prompts.store import PromptStore
from explain.training.run import Run


def run(store: PromptStore, *arguments: object, code: int = 0) -> str:
    """`explain prompts ARGUMENTS` on a store; what it printed."""
    result = CliRunner().invoke(prompts, list(map(str, arguments)), env={"EXPLAIN_PROMPTS": str(store.path),
                                                                         "COLUMNS": "200"})  # fmt: skip
    if isinstance(result.exception, ExplainError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_the_road_from_a_run_to_production_and_back(tmp_path: Path, runs: dict[str, Run]) -> None:
    store = PromptStore(tmp_path / "prompts")
    for name in ("deep_b", "longer"):
        shown = run(store, "add", runs[name].path, "--name", "line-3", "--owner", "quality", "--purpose", "squares")
        assert store.resolve("line-3").id in shown
    assert "line-3" in run(store, "list") and "2" in run(store, "list")
    run(store, "tag", "line-3@v1", "audit")
    run(store, "alias", "line-3@v2", "staging")
    run(store, "promote", "line-3@v1", "--approver", "Sato")
    assert "accuracy >= 0.9" in run(store, "criteria", "line-3", "accuracy >= 0.9", "minutes <= 3")
    with pytest.raises(PromotionRefusedError, match="not measured  minutes"):
        run(store, "promote", "line-3@staging", "--approver", "Sato")
    shown = run(store, "promote", "line-3@staging", "--approver", "Sato", "--metric", "minutes=2.5")
    assert "pass  accuracy >= 0.9: 1" in shown and "production is line-3@staging" in shown
    assert "line-3@v1" in run(store, "rollback", "line-3")
    shown = run(store, "show", "line-3@production")
    for text in ("Sato", "refuse", "rollback", "quality", "num_tokens: 3", store.resolve("line-3@v1").id[:12]):
        assert text in shown
    assert "every byte is as it was registered" in run(store, "verify")


def test_diff_prints_settings_metrics_cosines_and_agreement(store: PromptStore) -> None:
    shown = run(store, "diff", "line-3@v1", "line-3@v2")
    assert "mean cosine" in shown and "accuracy" in shown and "of 8 common test images" in shown


def test_verify_leaves_with_5_and_names_what_is_wrong(store: PromptStore) -> None:
    (store.get("line-3@v1").folder / "weights.safetensors").write_bytes(b"x")
    shown = run(store, "verify", code=5)
    assert "line-3@v1" in shown and "weights.safetensors" in shown


def test_a_store_that_is_not_there_does_not_verify(tmp_path: Path) -> None:
    with pytest.raises(ExplainError, match="no store at"):
        run(PromptStore(tmp_path / "mistyped"), "verify")


def test_carrying_to_another_store(store: PromptStore, tmp_path: Path) -> None:
    other = PromptStore(tmp_path / "other")
    run(store, "export", "line-3", tmp_path / "line-3.zip")
    assert "line-3@v2" in run(other, "import", tmp_path / "line-3.zip")
    run(store, "push", "longer", tmp_path / "pushed")
    assert "longer@v1" in run(other, "pull", tmp_path / "pushed")
    assert other.names() == ["line-3", "longer"]


def test_criteria_are_shown_and_cleared(store: PromptStore) -> None:
    assert "no criteria" in run(store, "criteria", "line-3")
    run(store, "criteria", "line-3", "ece <= 5 %")
    assert run(store, "criteria", "line-3").strip() == "ece <= 5 %"
    assert "no criteria" in run(store, "criteria", "line-3", "--clear")
    with pytest.raises(ExplainError, match="not both"):
        run(store, "criteria", "line-3", "ece <= 5 %", "--clear")


@pytest.mark.parametrize("metric", ["minutes", "=3", "minutes=soon"])
def test_a_metric_without_a_number_is_refused(store: PromptStore, metric: str) -> None:
    with pytest.raises(ExplainError, match="NAME=NUMBER"):
        run(store, "measure", "line-3", "--metric", metric)


def test_help_teaches_how_a_version_is_written(store: PromptStore) -> None:
    shown = run(store, "--help")
    assert "line-3@production" in shown and "explain prompts add" in shown

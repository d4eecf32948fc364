import ast
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

import explain.training.search
from explain.errors import InputError, IntegrityError
from explain.training.recipe import Arm, Recipe
from explain.training.search import planned_epochs, rungs, search
from explain.training.trial import Point, Trial, best_trial

PROMPT = Arm(
    tuning="prompt", options={"num_tokens": 5, "deep": True, "prompt_dropout": 0.1}, learning_rates=(1e-3, 5e-3, 3e-2),
    weight_decays=(0.0, 1e-2), choices={"num_tokens": (1, 5, 10), "deep": (False, True)},
)  # fmt: skip
FULL = Arm(tuning="full", learning_rates=(1e-5, 1e-3))
FIXED = Arm(tuning="linear", learning_rates=(1e-2,))
ARMS = {"vpt": PROMPT, "ft": FULL, "linear": FIXED}


def recipe_of(kind: str, trials: int | None = None, epochs: int = 9, seed: int = 0) -> Recipe:
    arms = {"vpt": PROMPT} if kind == "grid" else ARMS
    return Recipe.parse({
        "search": kind, "trials": trials, "search_epochs": epochs, "seed": seed,
        "arms": {name: arm.model_dump() for name, arm in arms.items()},
    })  # fmt: skip


GRID, HALVING, TPE = recipe_of("grid", epochs=2), recipe_of("halving", 9), recipe_of("tpe", 7, epochs=2)


def trial_at(point: Point, epochs: int, accuracy: float | None = None) -> Trial:
    """Best near a rate of 7e-3 with many prompts; the longer the better."""
    if accuracy is None:
        accuracy = 1 / (1 + abs(math.log(point.learning_rate / 7e-3))) - 0.1 / (1 + point.options.get("num_tokens", 0))
    return Trial(
        learning_rate=point.learning_rate, weight_decay=point.weight_decay, options=point.options, epochs=epochs,
        steps=10 * epochs, val_accuracy=accuracy, val_loss=1 - accuracy + 0.1 / epochs, seconds=0.5,
    )  # fmt: skip


def run(recipe: Recipe, folder: Path, arm: Arm = PROMPT, key: str = "key", evaluate: Any = None) -> list[Trial]:
    return search(arm, recipe, evaluate or (lambda point, epochs, what: trial_at(point, epochs)),
                  storage=folder, key=key)  # fmt: skip


def settings_of(trial: Trial) -> tuple[Any, ...]:
    return trial.learning_rate, trial.weight_decay, *sorted(trial.options.items()), trial.epochs


def test_a_grid_tries_every_point_once_with_the_arms_other_options(tmp_path: Path) -> None:
    trials = run(GRID, tmp_path)
    expected = {
        (rate, decay, ("deep", deep), ("num_tokens", tokens), ("prompt_dropout", 0.1), 2)
        for rate in (1e-3, 5e-3, 3e-2) for decay in (0.0, 1e-2) for deep in (False, True) for tokens in (1, 5, 10)
    }  # fmt: skip
    assert len(trials) == 36 and {settings_of(trial) for trial in trials} == expected


@pytest.mark.parametrize(("trials", "epochs", "expected"), [
    (9, 9, [(9, 1), (3, 3), (1, 9)]),
    (27, 9, [(27, 1), (9, 3), (3, 9)]),  # no shorter trial than one epoch: three are left at the end
    (12, 10, [(12, 1), (4, 3), (1, 10)]),
    (10, 100, [(10, 11), (3, 33), (1, 100)]),
    (2, 30, [(2, 30)]),
    (30, 2, [(30, 2)]),
    (1, 1, [(1, 1)]),
])  # fmt: skip
def test_the_rungs_of_a_halving_are_a_closed_form(trials: int, epochs: int, expected: list[tuple[int, int]]) -> None:
    assert rungs(trials, epochs) == expected


@pytest.mark.parametrize(("recipe", "epochs"), [(HALVING, 9 * 1 + 3 * 3 + 1 * 9), (TPE, 7 * 2)])
def test_every_arm_trains_the_planned_epochs_whatever_its_space(recipe: Recipe, epochs: int, tmp_path: Path) -> None:
    for name, arm in recipe.arms.items():
        trials = run(recipe, tmp_path / name, arm)
        assert sum(trial.epochs for trial in trials) == planned_epochs(recipe, arm) == epochs


def test_a_halving_trains_the_better_third_three_times_as_long(tmp_path: Path) -> None:
    first, second, third = (lambda trials: (trials[:9], trials[9:12], trials[12:]))(run(HALVING, tmp_path))
    by_accuracy = sorted(first, key=lambda trial: trial.val_accuracy, reverse=True)
    assert [settings_of(trial)[:-1] for trial in second] == [settings_of(trial)[:-1] for trial in by_accuracy[:3]]
    assert [settings_of(trial)[:-1] for trial in third] == [settings_of(by_accuracy[0])[:-1]]
    assert best_trial([*first, *second, *third]) == third[0]


def test_drawn_points_lie_evenly_in_the_space_and_the_arms_own_comes_first(tmp_path: Path) -> None:
    trials = run(recipe_of("halving", 64, epochs=2), tmp_path)
    assert settings_of(trials[0]) == (
        5e-3, 0.0, ("deep", True), ("num_tokens", 5), ("prompt_dropout", 0.1), 2
    )  # fmt: skip
    quarter = math.log(30) / 4
    quarters = Counter(int(math.log(trial.learning_rate / 1e-3) / quarter) for trial in trials)
    assert set(quarters) == {0, 1, 2, 3} and all(abs(count - 16) <= 1 for count in quarters.values())
    tokens = Counter(trial.options["num_tokens"] for trial in trials)
    assert set(tokens) == {1, 5, 10} and all(abs(count - 64 / 3) <= 2 for count in tokens.values())


def test_fewer_draws_are_the_first_of_more_and_another_seed_draws_others(tmp_path: Path) -> None:
    few, many, other = (
        [settings_of(trial) for trial in run(recipe_of("halving", count, epochs=1, seed=seed), tmp_path / name)]
        for name, count, seed in (("few", 4, 0), ("many", 12, 0), ("other", 12, 1))
    )
    assert few == many[:4] and not set(many[1:]) & set(other[1:])


def test_a_single_rate_and_no_choices_leave_one_point(tmp_path: Path) -> None:
    trials = run(HALVING, tmp_path, FIXED)
    assert {(trial.learning_rate, trial.weight_decay) for trial in trials} == {(1e-2, HALVING.weight_decay)}


def test_tpe_moves_towards_the_better_rates(tmp_path: Path) -> None:
    trials = run(recipe_of("tpe", 30, epochs=1), tmp_path)
    away = [abs(math.log(trial.learning_rate / 7e-3)) for trial in trials]
    assert np.median(away[20:]) < np.median(away[:10]) / 2


class Killed(BaseException):
    """Stands for a kill: no ordinary handler sees it."""


def killed_at(stop: int, log: list[Any]) -> Callable[[Point, int, str], Trial]:
    """An evaluation that is killed at its call number `stop` and lists the others."""

    def evaluate(point: Point, epochs: int, what: str) -> Trial:
        if len(log) == stop:
            raise Killed
        log.append(what)
        return trial_at(point, epochs)

    return evaluate


@pytest.mark.parametrize("recipe", [HALVING, TPE, GRID], ids=lambda recipe: recipe.search)
def test_a_search_killed_in_any_trial_goes_on_to_the_same_trials_and_repeats_none(
    recipe: Recipe, tmp_path: Path
) -> None:
    arm = PROMPT.model_copy(update={"weight_decays": (), "choices": {"num_tokens": (1, 5)}})
    whole: list[Any] = []
    expected = run(recipe, tmp_path / "whole", arm, evaluate=killed_at(-1, whole))
    for stop in range(len(expected)):
        log: list[Any] = []
        with pytest.raises(Killed):
            run(recipe, tmp_path / str(stop), arm, evaluate=killed_at(stop, log))
        assert run(recipe, tmp_path / str(stop), arm, evaluate=killed_at(-1, log)) == expected
        assert log == whole


def test_a_line_cut_short_by_a_kill_costs_that_trial_only(tmp_path: Path) -> None:
    expected = run(TPE, tmp_path / "whole")
    journal = (tmp_path / "whole/search.log").read_bytes()
    last = len(journal.splitlines(keepends=True)[-1])
    for cut in (1, 2, last // 2, last - 1, last):
        folder, log = tmp_path / str(cut), []  # type: tuple[Path, list[Any]]
        folder.mkdir()
        (folder / "search.log").write_bytes(journal[:-cut])
        assert run(TPE, folder, evaluate=killed_at(-1, log)) == expected
        assert len(log) == 1
        assert len((folder / "search.log").read_bytes().splitlines()) == len(journal.splitlines())


def test_a_finished_search_is_read_back_without_training(tmp_path: Path) -> None:
    expected = run(HALVING, tmp_path)
    assert run(HALVING, tmp_path, evaluate=killed_at(0, [])) == expected


def test_a_journal_of_another_key_is_refused_and_left_alone(tmp_path: Path) -> None:
    run(TPE, tmp_path)
    before = (tmp_path / "search.log").read_bytes()
    with pytest.raises(InputError, match="another recipe, split or data set"):
        run(TPE, tmp_path, key="other")
    assert (tmp_path / "search.log").read_bytes() == before


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    run(TPE, tmp_path)
    lines = (tmp_path / "search.log").read_text().splitlines(keepends=True)
    damages = {"garbage": [lines[0], "{no json\n", *lines[2:]], "no trial": [lines[0], "{}\n", *lines[2:]],
               "other settings": [lines[0], lines[2], *lines[2:]]}  # fmt: skip
    for name, damaged in damages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "search.log").write_text("".join(damaged))
        with pytest.raises(IntegrityError, match=r"search\.log"):
            run(TPE, tmp_path / name)


def test_a_trial_that_was_not_the_planned_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="trial 1 should be .* for 2 epochs"):
        run(TPE, tmp_path, evaluate=lambda point, epochs, what: trial_at(point, epochs + 1))
    assert run(TPE, tmp_path)[0].epochs == 2


@pytest.mark.parametrize("recipe", [HALVING, TPE], ids=lambda r: r.search)
def test_random_states_the_terminal_and_optunas_loudness_are_left_as_found(
    recipe: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    loudness = optuna.logging.get_verbosity()
    run(recipe, tmp_path)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == loudness


def test_each_trial_says_what_is_tried(tmp_path: Path) -> None:
    log: list[Any] = []
    run(HALVING, tmp_path, evaluate=killed_at(-1, log))
    assert log[0] == "rung 1 of 3, trial 1 of 9, learning rate 0.005, weight decay 0, num tokens 5, deep True"
    assert log[-1].startswith("rung 3 of 3, trial 1 of 1, learning rate ")


def test_the_best_trial_is_the_most_accurate_of_the_longest_then_by_loss_then_by_rate() -> None:
    def trial(rate: float, epochs: int, accuracy: float, loss: float) -> Trial:
        point = Point(learning_rate=rate, weight_decay=0.0, options={})
        return trial_at(point, epochs, accuracy).model_copy(update={"val_loss": loss})

    short = trial(1e-3, 1, 0.99, 0.1)
    winner = trial(1e-3, 3, 0.9, 0.5)
    others = [trial(2e-3, 3, 0.9, 0.5), trial(1e-4, 3, 0.9, 0.6), trial(1e-4, 3, 0.8, 0.1)]
    for trials in ([short, winner, *others], [*reversed(others), winner, short]):
        assert best_trial(trials) is winner
    with pytest.raises(InputError, match="at least one trial"):
        best_trial([])


def test_optuna_is_imported_by_a_search_only() -> None:
    tree = ast.parse(Path(explain.training.search.__file__).read_text(encoding="utf-8"))
    assert [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
            and "optuna" in ast.unparse(node)] == []  # fmt: skip
    assert sum("optuna" in ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)) > 3

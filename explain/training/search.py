"""search: which settings an arm is trained with, found on validation images at a cost that is equal for every arm.

Three ways, all planned in epochs before they begin:

    grid      every point of learning rates x weight decays x choices, each for `search_epochs`
    halving   `trials` points for few epochs, the better third of them for three times as many, and so on, until the
              last rung trains for `search_epochs`
    tpe       `trials` points for `search_epochs`, one after the other: the first third is drawn as in a halving,
              then each where the finished ones promise most

A drawn learning rate is log-uniform between the ends of the arm's grid; weight decays and choices are drawn from
their lists. Every trial trains a fresh model with its whole schedule, so no trial profits from an earlier one.

Finished trials are appended to an Optuna journal, `search.log`. What comes next is a function of the recipe and of
the finished trials alone: a search that was killed goes on as if nothing had happened.

Source: Jamieson & Talwalkar 2016, arXiv 1502.07943 (successive halving); Bergstra et al. 2011, NeurIPS (TPE); Akiba
et al. 2019, arXiv 1907.10902 (Optuna).
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explain.errors import InputError, IntegrityError
from explain.files import sha256_json
from explain.training.recipe import Arm, Recipe, Value
from explain.training.trial import Point, Trial, merit

if TYPE_CHECKING:  # Optuna is imported when a search starts, not with the package
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

GROWTH = 3
"""A halving keeps one trial in three and trains it three times as long."""

JOURNAL = "search.log"

Settings = dict[str, Value]
"""What is searched of an arm, by name; what has one possible value only is left out."""


Evaluate = Callable[[Point, int, str], Trial]
"""Called with (settings, epochs, what is running): trains a fresh model for that long, a whole schedule."""


def rungs(trials: int, search_epochs: int) -> list[tuple[int, int]]:
    """(trials, epochs of each) of every rung of a halving, the shortest first.

    With R = 1 + min(floor(log3 trials), floor(log3 search_epochs)) rungs, rung r = 0 … R-1 trains
    max(1, floor(trials / 3^r)) points for floor(search_epochs / 3^(R-1-r)) epochs.
    """
    shortest = 0
    while GROWTH ** (shortest + 1) <= min(trials, search_epochs):
        shortest += 1
    return [(trials // GROWTH**rung, search_epochs // GROWTH ** (shortest - rung)) for rung in range(shortest + 1)]


def planned_epochs(recipe: Recipe, arm: Arm) -> int:
    """Epochs that an arm's search trains in all; a function of the recipe, known before the search begins."""
    if recipe.search == "grid":
        return arm.grid_size * recipe.search_epochs
    trials = recipe.trials or 1
    if recipe.search == "tpe":
        return trials * recipe.search_epochs
    return sum(count * epochs for count, epochs in rungs(trials, recipe.search_epochs))


def search(arm: Arm, recipe: Recipe, evaluate: Evaluate, *, storage: Path, key: str) -> list[Trial]:
    """Run an arm's search, or go on with one that was interrupted: finished trials are read back, never repeated.

    The global random state is left as found.

    Args:
        arm: whose settings are searched.
        recipe: says how, and gives the seed of the draws.
        evaluate: trains at a point and returns the trial; when it raises, the error passes and that trial is not kept.
        storage: folder of the journal `search.log`.
        key: hash of all that decides the results; a journal of another key is refused.

    Returns:
        Every trial in the order in which it was run.

    Raises:
        InputError: the journal belongs to another recipe, split or data set.
        IntegrityError: the journal is damaged, or a trial is not the one that was planned.
    """
    path = storage / JOURNAL
    with _quiet_optuna():
        progress = _Progress(arm, recipe, evaluate, path, key)
        {"grid": _grid, "halving": _halving, "tpe": _tpe}[recipe.search](progress)
    total, planned = sum(trial.epochs for trial in progress.trials), planned_epochs(recipe, arm)
    if total != planned:
        raise IntegrityError(f"{path}: the search trained {total} epochs, {planned} were planned; search again")
    return progress.trials


class _Progress:
    """The trials of a search so far: `run` gives the next one, from the journal or by training."""

    def __init__(self, arm: Arm, recipe: Recipe, evaluate: Evaluate, path: Path, key: str) -> None:
        self.arm, self.recipe, self.space = arm, recipe, _space(arm)
        self.trials: list[Trial] = []
        self._evaluate, self._path = evaluate, path
        self._study, self._recorded = _open_journal(path, key)

    @property
    def finished(self) -> "list[FrozenTrial]":
        """What Optuna knows of the trials so far."""
        return self._study.get_trials(deepcopy=False)[: len(self.trials)]

    def run(self, settings: Settings, epochs: int, what: str) -> None:
        """Append the trial at these settings; its line in the journal is written when it is finished."""
        from optuna.trial import create_trial

        point, done = _point(self.arm, self.recipe, settings), len(self.trials)
        if done < len(self._recorded):
            trial = self._recorded[done]
            self._check(trial, point, epochs)
        else:
            shown = "".join(f", {name.replace('_', ' ')} {_text(value)}" for name, value in settings.items())
            trial = self._evaluate(point, epochs, what + shown)
            self._check(trial, point, epochs)
            self._study.add_trial(create_trial(
                value=trial.val_accuracy, params=settings, distributions=self.space,
                user_attrs=trial.model_dump(mode="json"),
            ))  # fmt: skip
        self.trials.append(trial)

    def _check(self, trial: Trial, point: Point, epochs: int) -> None:
        same = math.isclose(trial.learning_rate, point.learning_rate, rel_tol=1e-9) and (
            (trial.weight_decay, trial.options, trial.epochs) == (point.weight_decay, point.options, epochs)
        )
        if not same:
            raise IntegrityError(f"{self._path}: trial {len(self.trials) + 1} should be {point} for {epochs} epochs, "
                                 f"but is {trial}; move the folder away and search again")  # fmt: skip


def _grid(progress: _Progress) -> None:
    arm = progress.arm
    lists: dict[str, tuple[Value, ...]] = {"learning_rate": arm.learning_rates, **_lists(arm)}
    for index, values in enumerate(itertools.product(*lists.values()), start=1):
        settings = {name: value for name, value in zip(lists, values, strict=True) if name in progress.space}
        progress.run(settings, progress.recipe.search_epochs, f"trial {index} of {arm.grid_size}")


def _halving(progress: _Progress) -> None:
    recipe = progress.recipe
    survivors = _drawn(progress.arm, recipe, recipe.trials or 1)
    plan = rungs(len(survivors), recipe.search_epochs)
    for rung, (count, epochs) in enumerate(plan, start=1):
        survivors, results = survivors[:count], []
        for index, settings in enumerate(survivors, start=1):
            what = f"rung {rung} of {len(plan)}, trial {index} of {count}"
            progress.run(settings, epochs, what)
            results.append((merit(progress.trials[-1]), settings))
        # sorting is stable: of two equals the one drawn first goes on
        survivors = [settings for _, settings in sorted(results, key=lambda result: result[0], reverse=True)]


def _tpe(progress: _Progress) -> None:
    from optuna.samplers import TPESampler

    recipe, trials = progress.recipe, progress.recipe.trials or 1
    first = _drawn(progress.arm, recipe, max(1, trials // 3))
    for index in range(trials):
        if index < len(first):
            settings = first[index]
        else:
            # a sampler per trial: the next point must not depend on how many were drawn since the program started
            seed = int(sha256_json([recipe.seed, index])[:8], 16)
            study = _study_in_memory(TPESampler(n_startup_trials=1, seed=seed))
            study.add_trials(progress.finished)
            settings = study.ask(progress.space).params
        progress.run(settings, recipe.search_epochs, f"trial {index + 1} of {trials}")


def _drawn(arm: Arm, recipe: Recipe, count: int) -> list[Settings]:
    """The arm's own point, then points that fill the space evenly; fewer are the first ones of more."""
    from optuna.samplers import QMCSampler
    from optuna.trial import create_trial

    space, own = _space(arm), _own_settings(arm, recipe)
    if not space:
        return [own] * count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls this sampler experimental
        study = _study_in_memory(QMCSampler(scramble=True, seed=recipe.seed))
    study.add_trial(create_trial(value=0.0, params=own, distributions=space))
    return [own] + [study.ask(space).params for _ in range(count - 1)]


def _lists(arm: Arm) -> dict[str, tuple[Value, ...]]:
    """What is searched besides the learning rate, with the values tried."""
    decays: dict[str, tuple[Value, ...]] = {"weight_decay": arm.weight_decays} if arm.weight_decays else {}
    return decays | arm.choices


def _space(arm: Arm) -> "dict[str, BaseDistribution]":
    """Optuna's description of what has more than one value."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    space: dict[str, BaseDistribution] = {}
    low, high = min(arm.learning_rates), max(arm.learning_rates)
    if low < high:
        space["learning_rate"] = FloatDistribution(low, high, log=True)
    return space | {name: CategoricalDistribution(values) for name, values in _lists(arm).items() if len(values) > 1}


def _own_settings(arm: Arm, recipe: Recipe) -> Settings:
    """Where the arm stands without a search: the middle rate, and its own options where they are among the choices."""
    usual: dict[str, Value] = {"weight_decay": recipe.weight_decay, **arm.options}
    lists: dict[str, tuple[Value, ...]] = _lists(arm)
    own = {name: usual[name] if usual.get(name) in values else values[0] for name, values in lists.items()}
    rates = sorted(arm.learning_rates)
    own["learning_rate"] = rates[len(rates) // 2]
    return {name: own[name] for name in _space(arm)}


def _point(arm: Arm, recipe: Recipe, settings: Settings) -> Point:
    """The arm trained at these settings; what they leave out has one value."""
    values = {name: values[0] for name, values in _lists(arm).items()} | settings
    rate = float(values.pop("learning_rate", arm.learning_rates[0]))
    decay = float(values.pop("weight_decay", recipe.weight_decay))
    return Point(learning_rate=rate, weight_decay=decay, options=arm.options | values)


def _text(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _open_journal(path: Path, key: str) -> "tuple[Study, list[Trial]]":
    """The study in a journal, made when missing, and its finished trials."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_torn_line(path)
    try:
        journal = JournalStorage(JournalFileBackend(str(path)))
        names = optuna.get_all_study_names(journal)
        if names in ([], [key]):
            if not names:
                optuna.create_study(storage=journal, study_name=key, direction="maximize")
            study = optuna.load_study(storage=journal, study_name=key)
            return study, [Trial.model_validate(trial.user_attrs) for trial in study.get_trials(deepcopy=False)]
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise IntegrityError(f"{path} is not a readable search journal ({error}); move it away and search again"
                             ) from None  # fmt: skip
    raise InputError(f"{path} belongs to another recipe, split or data set; choose another output folder, "
                     "or move this one away")  # fmt: skip


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left without its end; Optuna would append to it and lose the journal."""
    if path.is_file():
        with open(path, "rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)


def _study_in_memory(sampler: "BaseSampler") -> "Study":
    import optuna

    return optuna.create_study(sampler=sampler, direction="maximize")


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    import optuna

    before: Any = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)

"""How training went, for the evidence: every trial, every epoch, what the curves say, and what it cost."""

from explain.i18n import Translator
from explain.report.schema.training import Training, Trial
from explain.training import run as training
from explain.training.overfitting import describe, judge_overfitting, watched_part
from explain.training.run import Epoch, Run


def training_of(run: Run, t: Translator) -> Training:
    """What a run recorded of its training."""
    manifest, history = run.manifest, run.history
    watched = watched_part(history, train_on_val=run.recipe.train_on_val)
    overfitting = judge_overfitting(history, part=watched)
    last = overfitting.gaps[-1] if overfitting.gaps else None
    chosen = manifest.trials.index(manifest.chosen)
    return Training(
        trials=tuple(_trial(trial, index == chosen) for index, trial in enumerate(manifest.trials)),
        trial_steps=sum(trial.steps for trial in manifest.trials),
        steps=manifest.steps,
        total_steps=manifest.steps + sum(trial.steps for trial in manifest.trials),
        epochs=tuple(history),
        watched=watched,
        accuracy_gap=last and last.accuracy,
        loss_gap=last and last.loss,
        turning_epoch=overfitting.turning_epoch,
        sentence=describe(overfitting, t.lang),
        gradient_norm=sum(epoch.gradient_norm for epoch in history) / len(history),
        gradient_norm_max=max(epoch.gradient_norm_max for epoch in history),
        seconds=sum(epoch.seconds for epoch in history),
        peak_mib=manifest.peak_mib,
        energy_j=_energy(history),
        search_seconds=sum(trial.seconds for trial in manifest.trials),
    )


def same_budget(trainings: list[Training]) -> bool:
    """True when every arm was searched with as many trials and steps, and then trained for as many steps."""
    return len({(len(training.trials), training.trial_steps, training.steps) for training in trainings}) == 1


def _trial(trial: training.Trial, chosen: bool) -> Trial:
    options = {name: str(value) for name, value in trial.options.items()}
    return Trial(**trial.model_dump(exclude={"options"}), options=options, chosen=chosen)


def _energy(history: list[Epoch]) -> float | None:
    known = [epoch.energy_j for epoch in history if epoch.energy_j is not None]
    return sum(known) if len(known) == len(history) else None

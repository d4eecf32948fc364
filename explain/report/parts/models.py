"""The trained models, for the evidence, and the proof that they were trained alike."""

from explain.i18n import Translator
from explain.render.plots import arm_label
from explain.report.parts.answers import calibration_of, confusion_of, recalls_of
from explain.report.parts.training import training_of
from explain.report.schema.models import Arm, MatchedRow
from explain.report.schema.words import Named
from explain.training.pair import MatchedPair, compare_runs
from explain.training.run import Run


def arm_of(name: str, run: Run, t: Translator) -> Arm:
    """What a run is and cost, and how it answers the test images."""
    manifest = run.manifest
    tuning = f"term.tuning.{manifest.tuning}"
    return Arm(
        name=name,
        label=arm_label(name, t),
        tuning=t(tuning) if tuning in t else manifest.tuning,
        options=tuple(Named(name=key, value=str(value)) for key, value in manifest.tuning_options.items()),
        learning_rate=manifest.learning_rate,
        accuracy=manifest.test.accuracy,
        low=manifest.test.low,
        high=manifest.test.high,
        count=manifest.test.count,
        loss=manifest.test.loss,
        trained_share=manifest.trained_parameters / manifest.total_parameters,
        recalls=recalls_of(run),
        confusion=confusion_of(run),
        calibration=calibration_of(run.predictions, t),
        training=training_of(run, t),
        **manifest.model_dump(include={
            "trained_parameters", "total_parameters", "weights_bytes", "seconds_per_epoch", "peak_mib", "device",
            "precision",
        }),
    )  # fmt: skip


def matched_of(pair: MatchedPair, t: Translator) -> tuple[MatchedRow, ...]:
    """Every field that must agree, with each arm's value."""
    return tuple(
        MatchedRow(name=t(f"term.matched.{field.key}"), values=field.values, equal=field.equal,
                   set_apart=field.set_apart and not field.equal)
        for field in compare_runs(pair.runs)
    )  # fmt: skip

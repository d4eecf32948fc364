"""The difference between the arms' settings, for the evidence."""

from explain.i18n import Translator
from explain.report.schema.config import ConfigRow
from explain.training.pair import MatchedPair, compare_runs
from explain.training.run import Run

TUNING = ("tuning", "options", "started_from", "trained_parameters", "weights_bytes")
"""What makes the arms different ones: the comparison is about these."""

SEARCHED = ("learning_rate", "weight_decay", "trial_options")
"""What the search chose for each arm, after as many trials."""

SOFTWARE = ("code", "packages")
"""What trained each arm: recorded, and for the reader to weigh where it differs."""

SHORT = 16
"""Digits of a hash that are shown here; the whole ones are in the section on reproducing."""


def config_of(pair: MatchedPair, t: Translator) -> tuple[ConfigRow, ...]:
    """Every setting in which arms may differ, and every one in which they must not but do, with the reason."""
    settings = {arm: _settings(run, t) for arm, run in pair.runs.items()}
    rows = []
    for names, why in ((TUNING, "tuning"), (SEARCHED, "searched"), (SOFTWARE, "software")):
        for name in names:
            values = {arm: found[name] for arm, found in settings.items()}
            rows.append(ConfigRow(name=t(f"report.config.{name}"), values=values, equal=len(set(values.values())) == 1,
                                  allowed=True, why=t(f"report.config.why.{why}")))  # fmt: skip
    for field in compare_runs(pair.runs):
        if not field.equal:
            why = "protocol" if field.set_apart else "none"
            rows.append(ConfigRow(name=t(f"term.matched.{field.key}"), values=field.values, equal=False,
                                  allowed=field.set_apart, why=t(f"report.config.why.{why}")))  # fmt: skip
    return tuple(rows)


def _settings(run: Run, t: Translator) -> dict[str, str]:
    manifest = run.manifest
    software = manifest.software
    unknown = t("report.training.unknown")
    return {
        "tuning": manifest.tuning,
        "options": _listed(manifest.tuning_options),
        "started_from": manifest.started_from or "\u2013",
        "trained_parameters": f"{manifest.trained_parameters:,}",
        "weights_bytes": f"{manifest.weights_bytes:,}",
        "learning_rate": f"{manifest.learning_rate:g}",
        "weight_decay": f"{manifest.chosen.weight_decay:g}",
        "trial_options": _listed({name: value for name, value in manifest.chosen.options.items()
                                  if any(trial.options[name] != value for trial in manifest.trials)}),
        "code": unknown if software is None else software.code_sha256[:SHORT],
        "packages": unknown if software is None else software.packages_sha256[:SHORT],
    }  # fmt: skip


def _listed(values: object) -> str:
    pairs = values.items() if isinstance(values, dict) else ()
    return ", ".join(f"{name} {value}" for name, value in pairs) or "\u2013"

"""Answers on changed images, for the evidence."""

import numpy as np

from explain.evidence.found import find_disturbed
from explain.i18n import Translator
from explain.metrics.statistics import paired_difference
from explain.report.parts.answers import RESAMPLES, SEED
from explain.report.parts.rates import rate_of
from explain.report.schema.rates import Disturbed, Rate
from explain.training.pair import MatchedPair


def disturbed_of(pair: MatchedPair, t: Translator) -> tuple[Disturbed, ...]:
    """What was measured on changed test images, the unchanged ones first; empty where nothing was."""
    found = find_disturbed(pair)
    if found is None:
        return ()
    rows = [("unchanged", found.unchanged), *found.changed.items()]
    return tuple(
        Disturbed(
            name=name, label=t(f"report.disturbed.{name}"),
            accuracies={arm: rate_of(sum(right), len(right)) for arm, right in answers.items()},
            changes={} if name == "unchanged" else {
                arm: _change(right, found.unchanged[arm]) for arm, right in answers.items()
            },
        )
        for name, answers in rows
    )  # fmt: skip


def _change(right: tuple[bool, ...], before: tuple[bool, ...]) -> Rate:
    found = paired_difference(np.array(right), np.array(before), resamples=RESAMPLES, seed=SEED)
    return Rate(value=found.mean, low=found.low, high=found.high, hits=None, count=len(right))

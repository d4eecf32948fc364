"""Answers on changed images, for the evidence."""

from explain.i18n import Translator
from explain.report.schema.rates import Disturbed
from explain.training.pair import MatchedPair


def disturbed_of(pair: MatchedPair, t: Translator) -> tuple[Disturbed, ...]:
    """What was measured on changed test images; empty where nothing was."""
    return ()

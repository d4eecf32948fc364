"""Rates that inspection speaks of, for the evidence: misses, overkill, areas, and accuracy on parts of the images."""

from collections.abc import Sequence

from explain.i18n import Translator
from explain.report.schema.rates import Rates, Slice
from explain.training.pair import MatchedPair


def rates_of(pair: MatchedPair, good_classes: Sequence[str]) -> tuple[Rates, ...]:
    """Every arm's rates."""
    return ()


def slices_of(pair: MatchedPair, t: Translator) -> tuple[Slice, ...]:
    """Accuracy on parts of the test images."""
    return ()

"""The difference between the arms' settings, for the evidence."""

from explain.i18n import Translator
from explain.report.schema.config import ConfigRow
from explain.training.pair import MatchedPair


def config_of(pair: MatchedPair, t: Translator) -> tuple[ConfigRow, ...]:
    """Every setting, with what allows the arms to differ in it."""
    return ()

"""The failure cases, for the evidence, with what reviewers said of them."""

from explain.i18n import Translator
from explain.render.plots import arm_label
from explain.report.panels import Panels
from explain.report.schema.failures import Failures
from explain.training.pair import MatchedPair


def failures_of(pair: MatchedPair, panels: Panels, arm: str, t: Translator) -> Failures:
    """What an arm answers wrong."""
    return Failures(arm=arm, arm_label=arm_label(arm, t), tested=0, wrong=0, reviewed=0, confused=(), rows=(), more=0)

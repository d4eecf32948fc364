"""The software that trained the arms, for the evidence."""

from explain.i18n import Translator
from explain.render.plots import arm_label
from explain.report.schema.reproducing import TrainedWith
from explain.software import Software
from explain.training.pair import MatchedPair


def software_of(pair: MatchedPair, t: Translator) -> tuple[TrainedWith, ...]:
    """What trained the arms; those that the same software trained are one entry."""
    arms: dict[Software, tuple[str, ...]] = {}
    for name, run in pair.runs.items():
        if (found := run.manifest.software) is not None:
            arms[found] = (*arms.get(found, ()), arm_label(name, t))
    return tuple(TrainedWith(arms=labels, **found.model_dump()) for found, labels in arms.items())

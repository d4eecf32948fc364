"""Completeness: does a map that promises to sum to the score's change do so?

The sum is over all pixels, which only the method itself has seen, so what it reported is passed on; nothing is run.
"""

from collections.abc import Iterator

from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.subject import Subject
from explain.path import SMALLEST_CHANGE

LARGEST_GAP = 0.05
"""Share of the score's change that may be missing before it is said so."""


@MEASURES.register("completeness")
class Completeness(Measure):
    """The completeness gap, the change of the score it is relative to, and the path points it took.

    Of every method that reports a gap; without a change of the score there is nothing to be complete about.
    """

    label = "Completeness"
    source = "Sundararajan et al. 2017, arXiv 1703.01365"
    controls = False
    metrics = {
        "completeness_gap": Metric("relative completeness gap", "lower", None),
        "score_difference": Metric("change of the logit from the baseline"),
        "ig_nodes": Metric("path points"),
    }

    def __call__(self, subject: Subject) -> Iterator[Row]:
        """See `Measure`."""
        for name in subject.methods:
            told = {extra: subject.extras.get(f"{name}.{extra}")
                    for extra in ("completeness_gap", "score_difference", "nodes", "converged")}  # fmt: skip
            gaps, changes, nodes, converged = told.values()
            if gaps is None or changes is None:
                continue
            for index, image in enumerate(subject.ids):
                gap, change = float(gaps[index]), float(changes[index])
                if abs(change) < SMALLEST_CHANGE:
                    yield Row(image, name, "completeness_gap", None, "no_score_change")
                else:
                    flag = "gap_above_5_percent" if gap > LARGEST_GAP else None
                    yield row(image, name, "completeness_gap", gap, flag)
                yield row(image, name, "score_difference", change)
                if nodes is not None:
                    flag = "not_converged" if converged is not None and not converged[index] else None
                    yield row(image, name, "ig_nodes", float(nodes[index]), flag)

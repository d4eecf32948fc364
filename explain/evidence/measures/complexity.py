"""Complexity: whether a map is concentrated on few patches or spread over all."""

from collections.abc import Iterator
from typing import ClassVar

from explain.evidence.base import MEASURES, Measure, Metric, Row, row
from explain.evidence.subject import Subject
from explain.metrics.complexity import effective_area, entropy, gini

SCORES = {"gini": gini, "entropy": entropy, "effective_area": effective_area}


@MEASURES.register("complexity")
class Complexity(Measure):
    """Rows that describe every map; none of them says that it is right."""

    label: ClassVar[str] = "Complexity"
    source: ClassVar[str] = "Chalasani et al. 2020, arXiv 1810.06583; Bhatt et al. 2020, arXiv 2005.00631"
    metrics: ClassVar[dict[str, Metric]] = {
        "gini": Metric("Gini index"),
        "entropy": Metric("Entropy, of the largest possible"),
        "effective_area": Metric("Effective area"),
    }

    def __call__(self, subject: Subject) -> Iterator[Row]:
        for method, maps in subject.maps.items():
            for metric, score in SCORES.items():
                for image, number, one in zip(subject.ids, score(maps), maps, strict=True):
                    yield row(image, method, metric, number, None if one.any() else "blank_map")

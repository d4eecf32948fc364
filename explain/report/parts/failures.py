"""The failure cases, for the evidence, with what reviewers said of them."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from explain.data.decode import ImageRejected, load_mask
from explain.engine import open_image
from explain.i18n import Translator
from explain.metrics.localisation import mask_on_grid, relevance_mass
from explain.render.heatmap import pool
from explain.render.plots import arm_label
from explain.report.panels import ARMS, Panels
from explain.report.parts.panels import answer_of
from explain.report.schema.failures import Confused, Failure, Failures
from explain.report.schema.panels import PanelSection
from explain.reviews import Review, Reviews
from explain.training.pair import MatchedPair

MOST = 20
"""Wrong answers that are printed; the most confident ones."""


def failures_of(pair: MatchedPair, panels: Panels, section: PanelSection, arm: str, t: Translator) -> Failures:
    """What an arm answers wrong, the most confident answers first.

    Args:
        pair: the runs.
        panels: the maps.
        section: the panels that are printed.
        arm: the one that is decided on.
        t: words.
    """
    found, names = pair.runs[arm].predictions, pair.vpt.manifest.class_names
    wrong = np.flatnonzero(~found.correct)
    confidence = found.probabilities[np.arange(len(found.ids)), found.classes]
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]
    reviews = Reviews(pair.path).by_sample()
    shown = {sample.id: number for number, sample in enumerate(section.samples, start=1)}
    confused = Counter((names[found.labels[row]], names[found.classes[row]]) for row in wrong)
    return Failures(
        arm=arm, arm_label=arm_label(arm, t), tested=len(found.ids), wrong=len(wrong),
        reviewed=sum(found.ids[row] in reviews for row in wrong),
        confused=tuple(Confused(truth=truth, answer=answer, count=count)
                       for (truth, answer), count in confused.most_common()),
        rows=tuple(_failure(pair, panels, arm, int(row), shown, reviews, t) for row in order[:MOST]),
        more=max(0, len(wrong) - MOST),
    )  # fmt: skip


def _failure(
    pair: MatchedPair, panels: Panels, arm: str, row: int, shown: Mapping[str, int], reviews: Mapping[str, Review],
    t: Translator,
) -> Failure:  # fmt: skip
    name = pair.runs[arm].predictions.ids[row]
    sample, review = pair.data.by_id[name], reviews.get(name)
    arms = dict.fromkeys((*ARMS, arm))
    mapped = [panel.id for panel in panels.panels]
    background = _background(pair, panels, arm, mapped.index(name)) if name in mapped else {}
    return Failure(
        id=name, truth=pair.vpt.manifest.class_names[sample.label],
        answers=tuple(answer_of(one, pair.runs[one], row, t) for one in arms), panel=shown.get(name),
        background=background, verdict=t(f"report.failures.verdict.{review.verdict}") if review and review.verdict
        else "", cause=", ".join(review.tags) if review else "", note=review.note if review else "",
        who=review.who if review else "", when=review.when if review else "",
        stale=review is not None and _is_stale(pair, review, sample.sha256),
    )  # fmt: skip


def _is_stale(pair: MatchedPair, review: Review, sha256: str) -> bool:
    """Whether a review was of another file, or of models that were trained since."""
    other = any(arm in pair.runs and identity != pair.runs[arm].manifest.identity
                for arm, identity in review.models.items())  # fmt: skip
    return other or review.sha256 not in (None, sha256)


def _background(pair: MatchedPair, panels: Panels, arm: str, index: int) -> dict[str, float]:
    """Share of each map outside the region that decides the label; empty where there is no region or no map."""
    sample = pair.data.by_id[panels.panels[index].id]
    if sample.mask is None or arm not in panels.maps:
        return {}
    width, height = open_image(sample).size
    try:
        mask = load_mask(sample.mask, (height, width))
    except ImageRejected:  # named among the rejected files where it matters
        return {}
    inside = mask_on_grid(mask[None], panels.grid)
    found = {}
    for method, maps in panels.maps[arm].items():
        values = maps.values[index]
        values = pool(values, panels.grid) if values.shape != panels.grid else values
        share = float(relevance_mass(values[None], inside)[0])
        if np.isfinite(share):
            found[method] = 1 - share
    return found

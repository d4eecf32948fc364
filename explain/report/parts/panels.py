"""The panels, for the evidence: which images and why, what the models answer, and every map's range."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from explain.attribution import Array
from explain.i18n import Translator
from explain.methods.base import METHODS
from explain.render.heatmap import CLIP_PERCENTILE, OPACITY, Scope, View
from explain.render.plots import arm_label
from explain.report.panels import ARMS, BARS, RULES, Panels, bar_file, picture_file, view_panels
from explain.report.schema.panels import (
    Answer,
    Map,
    Measure,
    MethodSettings,
    PanelSample,
    PanelSection,
    Picture,
    RuleCount,
)
from explain.training.pair import MatchedPair
from explain.training.run import Run

MEASURES = ("completeness_gap", "converged", "nodes", "prompt_share", "prompt_share_null")
"""Extras that are printed under a map when it has them."""

BRIEF_PANELS = 3
"""Images in a brief report."""

PLACES = ("top_left", "top", "top_right", "left", "middle", "right", "bottom_left", "bottom", "bottom_right")


def panels_of(
    pair: MatchedPair, panels: Panels, pictures: Mapping[str, bytes], scope: Scope, t: Translator
) -> PanelSection:
    """Every panel; `pictures` are what `draw_pictures` made of them."""
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in pictures.items()}
    views = view_panels(panels, scope=scope)
    rows = {name: index for index, name in enumerate(pair.vpt.predictions.ids)}
    samples = []
    for index, panel in enumerate(panels.panels):
        truth = pair.data.class_names[pair.data.by_id[panel.id].label]
        file = picture_file(index)
        samples.append(PanelSample(
            id=panel.id, rule=panel.rule, truth=truth,
            input=Picture(file=file, sha256=hashes[file], alt=t("report.alt.input", id=panel.id, name=truth)),
            answers=tuple(answer_of(arm, pair.runs[arm], rows[panel.id], t) for arm in ARMS),
            maps=tuple(_map(index, arm, name, panels, views, hashes, truth, t)
                       for arm in ARMS for name in panels.record.plan.methods),
        ))  # fmt: skip
    shown = [panel.rule for panel in panels.panels]
    rules = tuple(RuleCount(rule=rule, matched=panels.record.matched[rule], shown=shown.count(rule)) for rule in RULES)
    return PanelSection(
        seed=panels.record.plan.seed, per_rule=panels.record.plan.per_rule, scope=scope,
        clip_percentile=CLIP_PERCENTILE, opacity=OPACITY, grid=panels.grid, rules=rules, samples=tuple(samples),
    )  # fmt: skip


def shortened(section: PanelSection, most: int = BRIEF_PANELS) -> PanelSection:
    """The panels of a brief report: the first of each of the first rules that chose any."""
    first = {sample.rule: sample for sample in reversed(section.samples)}
    kept = tuple(first[rule] for rule in RULES if rule in first)[:most]
    rules = tuple(row.model_copy(update={"shown": sum(sample.rule == row.rule for sample in kept)})
                  for row in section.rules)  # fmt: skip
    return section.model_copy(update={"samples": kept, "rules": rules})


def bars_of(pictures: Mapping[str, bytes], methods: Iterable[MethodSettings]) -> dict[str, Picture]:
    """The colour scales of these methods, by kind; their ends are printed in text, so they need no description."""
    used = {method.picture for method in methods}
    return {
        kind: Picture(file=bar_file(kind), sha256=hashlib.sha256(pictures[bar_file(kind)]).hexdigest(), alt="")
        for kind in BARS if kind in used
    }  # fmt: skip


def answer_of(arm: str, run: Run, row: int, t: Translator) -> Answer:
    """What an arm answers for the test image in a row of its predictions."""
    predictions = run.predictions
    chosen = int(predictions.classes[row])
    return Answer(
        arm=arm, label=arm_label(arm, t), name=run.manifest.class_names[chosen],
        probability=float(predictions.probabilities[row, chosen]), right=bool(predictions.correct[row]),
    )  # fmt: skip


def _map(
    index: int, arm: str, method: str, panels: Panels, views: Mapping[tuple[int, str, str], View],
    hashes: Mapping[str, str], truth: str, t: Translator,
) -> Map:  # fmt: skip
    attribution, view = panels.maps[arm][method], views[index, arm, method]
    values, file = attribution.values[index], picture_file(index, arm, method)
    low, high = float(values.min()), float(values.max())
    words = {"arm": arm_label(arm, t), "method": METHODS[method].label, "name": truth}
    alt = t("report.alt.blank", **words) if view.blank else t(
        "report.alt.map", **words, place=t(f"report.place.{place_of_peak(view.values)}"),
        low=f"{low:.3g}", high=f"{high:.3g}",
    )  # fmt: skip
    measures = tuple(
        Measure(name=name, value=float(attribution.extras[name][index]))
        for name in MEASURES
        if name in attribution.extras and attribution.extras[name].ndim == 1
        and not (name.startswith("prompt_share") and not attribution.extras["prompt_share_null"].any())  # no prompts
    )
    return Map(
        arm=arm, method=method, target=truth, raw_low=low, raw_high=high, scale_low=view.scale.low,
        scale_high=view.scale.high, blank=view.blank, measures=measures,
        picture=Picture(file=file, sha256=hashes[file], alt=alt),
    )  # fmt: skip


def place_of_peak(values: Array) -> str:
    """In which of the nine parts of the picture the largest value of a map (h, w) lies."""
    row, column = np.unravel_index(int(np.argmax(values)), values.shape)
    return PLACES[3 * (3 * int(row) // values.shape[0]) + 3 * int(column) // values.shape[1]]

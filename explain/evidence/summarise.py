"""From the table to its summary: means, intervals, comparisons and agreements."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import isfinite, sqrt
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from explain.attribution import Array
from explain.data.base import Dataset
from explain.evidence.across import CKA, COMPARISONS, OTHER_IMAGE, RANDOM_LABELS
from explain.evidence.base import Measure, Metric
from explain.evidence.choice import Choice
from explain.evidence.summary import (
    LEAST_CEILING,
    PRIMARY,
    RESAMPLES,
    Agreement,
    Block,
    Cell,
    Contrast,
    Estimate,
    ModelFacts,
    Reasons,
    Summary,
)
from explain.methods.base import METHODS
from explain.metrics.calibration import expected_calibration_error
from explain.metrics.controls import CONTROL_LABELS
from explain.metrics.significance import (
    hierarchical_bootstrap,
    holm,
    minimum_detectable_difference,
    wilcoxon_signed_rank,
)
from explain.metrics.statistics import seed_interval, wilson_interval
from explain.provenance import library_versions
from explain.training.pair import MatchedPair
from explain.training.run import Predictions

Key = tuple[str, str | None, str]
"""(model, method, metric)."""

Flags = dict[str, dict[str, int]]
"""The fields `missing` and `flagged` of an `Estimate`."""

LEAST_IMAGES = 5
"""Images under which a difference between two models gets no verdict."""


class Values:
    """The table by (model, method, metric): numbers of (seed, image), and flags of those without one."""

    def __init__(self, table: pa.Table) -> None:
        self.numbers: dict[Key, dict[tuple[str, str | None], float]] = {}
        self.flags: dict[Key, dict[tuple[str, str | None], str]] = {}
        columns = [table[name].to_pylist() for name in ("image", "model", "seed", "method", "metric", "value", "flag")]
        for image, model, seed, method, metric, value, flag in zip(*columns, strict=True):
            key = (model, method, metric)
            if value is not None:
                self.numbers.setdefault(key, {})[seed, image] = value
            else:
                self.numbers.setdefault(key, {})
            if flag is not None:
                self.flags.setdefault(key, {})[seed, image] = flag

    def grid(self, key: Key, images: Sequence[str | None]) -> Array:
        """Numbers as (seeds, images), NaN where there is none; seeds in the order of their name."""
        found = self.numbers.get(key, {})
        seeds = sorted({seed for seed, _ in found})
        values = np.full((len(seeds), len(images)), np.nan)
        column = {image: index for index, image in enumerate(images)}
        for (seed, image), value in found.items():
            if image in column:
                values[seeds.index(seed), column[image]] = value
        return values

    def flags_of(self, key: Key, images: Iterable[str | None]) -> Flags:
        """How many rows of these images have each flag, apart by whether they have a number."""
        wanted, numbers = set(images), self.numbers.get(key, {})
        rows = [(at in numbers, flag) for at, flag in self.flags.get(key, {}).items() if at[1] in wanted]
        without, beside = (Counter(flag for has, flag in rows if has is number) for number in (False, True))
        return {"missing": dict(without), "flagged": dict(beside)}


def summarise(
    table: pa.Table, choice: Choice, pairs: Sequence[MatchedPair], arms: tuple[str, ...], reference: tuple[str, ...], *,
    measures: Sequence[Measure], methods: tuple[str, ...], answers: Mapping[tuple[int, str], Predictions],
    data: Dataset, grid: tuple[int, int], table_sha256: str, seed: int,
) -> Summary:  # fmt: skip
    """Everything that is printed of an evaluation.

    Args:
        table: image, model, seed, method, metric, value, flag.
        choice: the images.
        pairs: one per seed.
        arms: compared arms.
        reference: the arm with a frozen backbone, or nothing.
        measures: what was asked.
        methods: registered methods.
        answers: by (seed, arm), on the whole of `data`.
        data: the images chosen from.
        grid: patches (h, w) of the maps.
        table_sha256: of the table's file.
        seed: of the resampling.
    """
    values = Values(table)
    metrics = _metrics(measures)
    agreements = _agreements(values, choice.headline, arms, reference, methods, seed)
    contrasts = _contrasts(values, choice.headline, arms, methods, metrics, agreements, seed)
    manifest = pairs[0].vpt.manifest
    cells, rest = (_cells(values, ids, arms, seed) for ids in (choice.headline, choice.rest))
    return Summary(
        data=data.name, backbone=manifest.backbone.spec, image_size=manifest.image_size,
        grid=grid, arms=arms, reference=reference[0] if reference else None,
        seeds=tuple(pair.vpt.manifest.seed for pair in pairs),
        methods={name: METHODS[name].label for name in methods} | CONTROL_LABELS, controls=tuple(CONTROL_LABELS),
        metrics={name: (metric.label, metric.better, metric.chance) for name, metric in metrics.items()},
        images=choice.facts, models=tuple(_facts(pairs, answers)), primary=PRIMARY, cells=cells, rest=rest,
        contrasts=contrasts,
        agreements=agreements,
        reasons=tuple(_reasons(values, arms, agreements, answers)),
        blocks=_blocks(values, choice.headline, seed), resample_seed=seed, table_sha256=table_sha256,
        versions=library_versions(),
    )  # fmt: skip


def estimate(values: Array, flags: Flags, seed: int) -> Estimate:
    """Mean of (seeds, images) with its bootstrap interval; None where nothing was measured."""
    rows = values[np.isfinite(values).any(axis=1)] if values.size else values
    images = int(np.isfinite(rows).any(axis=0).sum()) if rows.size else 0
    mean = low = high = None
    if images:
        found = hierarchical_bootstrap(rows, resamples=RESAMPLES, seed=seed)
        mean, low, high = found if images > 1 or len(rows) > 1 else (found[0], None, None)
    return Estimate(mean=mean, low=low, high=high, images=images, seeds=len(rows), **flags)


def model_estimate(values: Array, flags: Flags) -> Estimate:
    """Mean over seeds of a number of the model as a whole, with Student's interval; one training has none."""
    found = values[np.isfinite(values)]
    low, high = seed_interval(found) if len(found) > 1 else (None, None)
    mean = float(found.mean()) if len(found) else None
    return Estimate(mean=mean, low=low, high=high, images=0, seeds=len(found), **flags)


def _metrics(measures: Sequence[Measure]) -> dict[str, Metric]:
    found = {name: metric for measure in measures for name, metric in measure.metrics.items()}
    return found | RANDOM_LABELS | {name: metric for name, (metric, _) in COMPARISONS.items()} | {"cka": CKA}


def _of_block(metric: str) -> tuple[int, ...]:
    """(3,) of "entropy/3", (3, 2) of "entropy/3/2" for head 2 of that block; () of what is of no block."""
    places = metric.split("/")[1:]
    return tuple(map(int, places)) if all(place.isdigit() for place in places) else ()


def _measured(values: Values, key: Key, ids: Sequence[str], seed: int) -> Estimate:
    """A number of the model as a whole where it is one, else of these images."""
    whole = values.grid(key, [None])
    if np.isfinite(whole).any():
        return model_estimate(whole, values.flags_of(key, [None]))
    return estimate(values.grid(key, ids), values.flags_of(key, ids), seed)


def _cells(values: Values, ids: Sequence[str], arms: Sequence[str], seed: int) -> tuple[Cell, ...]:
    """Every number of one model that is not of a block; of these images, or of the model as a whole."""
    found = []
    for key in values.numbers:
        model, method, metric = key
        if model not in arms or _of_block(metric):
            continue
        measured = _measured(values, key, ids, seed)
        if measured.mean is not None or measured.missing:
            found.append(Cell(model=model, method=method, metric=metric, estimate=measured))
    return tuple(found)


def _blocks(values: Values, ids: Sequence[str], seed: int) -> tuple[Block, ...]:
    found = []
    for key in values.numbers:
        model, method, metric = key
        place = _of_block(metric)
        if len(place) == 1 and method is None:  # longer for one head of a block
            name = metric.partition("/")[0]
            found.append(Block(model=model, metric=name, block=place[0], estimate=_measured(values, key, ids, seed)))
    return tuple(sorted(found, key=lambda block: (block.metric, block.model, block.block)))


def _contrasts(
    values: Values, ids: Sequence[str], arms: Sequence[str], methods: Sequence[str], metrics: Mapping[str, Metric],
    agreements: Sequence[Agreement], seed: int,
) -> tuple[Contrast, ...]:  # fmt: skip
    """Every two arms, method by method, in every metric with a good and a bad direction."""
    found: list[dict[str, Any]] = []
    for first, second in combinations(arms, 2):
        for method in methods:
            for metric in (name for name, metric in metrics.items() if metric.better != "neither"):
                a, b = (values.grid((arm, method, metric), ids) for arm in (first, second))
                if a.size and a.shape == b.shape and np.isfinite(a - b).any():
                    found.append(_contrast(first, second, method, metric, a - b, seed))
    others = [row for row in found if not row["primary"] and row["p"] is not None]
    for row, corrected in zip(others, holm([row["p"] for row in others]) if others else [], strict=True):
        row["holm"] = float(corrected)
    lost = {(one.first, one.second, one.method) for one in agreements
            if one.metric == "pearson" and one.state == "not reproducible here"}  # fmt: skip
    return tuple(Contrast(**row, verdict=_verdict(row, lost)) for row in found)


def _contrast(first: str, second: str, method: str, metric: str, gaps: Array, seed: int) -> dict[str, Any]:
    difference = estimate(gaps, {}, seed)
    kept = gaps[:, np.isfinite(gaps).any(axis=0)]
    per_image = np.nanmean(kept, axis=0)
    p = effect = detectable = None
    if len(per_image) >= LEAST_IMAGES:
        p, effect, _ = wilcoxon_signed_rank(per_image, np.zeros_like(per_image))
        detectable = minimum_detectable_difference(float(per_image.std(ddof=1)), len(per_image))
    return {"first": first, "second": second, "method": method, "metric": metric,
            "primary": (method, metric) == PRIMARY, "difference": difference, "p": _finite(p), "holm": None,
            "effect": _finite(effect), "detectable": _finite(detectable)}  # fmt: skip


def _finite(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else float(value)


def _verdict(row: Mapping[str, Any], lost: set[tuple[str, str, str]]) -> str:
    """The arm whose number is larger, or why none is named."""
    difference: Estimate = row["difference"]
    if difference.mean is None or difference.low is None or difference.high is None or row["p"] is None:
        return "not measured"
    if (row["first"], row["second"], row["method"]) in lost:
        return "not reproducible here"
    by_chance = row["holm"] is not None and row["holm"] > 0.05
    if by_chance or difference.low <= 0 <= difference.high:
        return "none"
    return str(row["first"] if difference.mean > 0 else row["second"])


def _agreements(
    values: Values, ids: Sequence[str], arms: Sequence[str], reference: Sequence[str], methods: Sequence[str], seed: int
) -> tuple[Agreement, ...]:
    found = []
    for first, second in combinations((*arms, *reference), 2):
        for method in methods:
            for metric in COMPARISONS:
                between = estimate(values.grid((f"{first}~{second}", method, metric), ids), {}, seed)
                ceilings = [_ceiling(values, ids, arm, method, metric, seed) for arm in (first, second)]
                floor = estimate(values.grid((f"{first}~{second}", method, metric + OTHER_IMAGE), ids), {}, seed)
                found.append(_agreement(first, second, method, metric, between, ceilings, floor))
    return tuple(found)


def _ceiling(
    values: Values, ids: Sequence[str], arm: str, method: str, metric: str, seed: int
) -> Estimate | None:
    pairs = values.grid((f"{arm}~{arm}", method, metric), ids)
    return estimate(pairs, {}, seed) if pairs.size else None


def _agreement(
    first: str, second: str, method: str, metric: str, between: Estimate, ceilings: list[Estimate | None],
    floor: Estimate,
) -> Agreement:  # fmt: skip
    known = [one.mean for one in ceilings if one is not None and one.mean is not None]
    state: Literal["reproducible", "not reproducible here", "one seed"] = "one seed"
    ratio = None
    if len(known) == 2:
        distance = metric == "emd"  # small is alike, so neither a ceiling nor a ratio means anything
        state = "reproducible" if distance or min(known) >= LEAST_CEILING else "not reproducible here"
        if state == "reproducible" and not distance and between.mean is not None:
            ratio = between.mean / sqrt(known[0] * known[1])
    return Agreement(
        first=first, second=second, method=method, metric=metric, between=between, first_ceiling=ceilings[0],
        second_ceiling=ceilings[1], floor=floor, ratio=ratio, state=state,
    )  # fmt: skip


def _reasons(
    values: Values, arms: Sequence[str], agreements: Sequence[Agreement],
    answers: Mapping[tuple[int, str], Predictions],
) -> Iterable[Reasons]:  # fmt: skip
    """Same answer or not, times maps alike or not, over all chosen images and seeds."""
    chosen = {key: dict(zip(one.ids, one.classes.tolist(), strict=True)) for key, one in answers.items()}
    for one in agreements:
        if one.metric != "pearson" or not {one.first, one.second} <= set(arms):
            continue
        threshold = _threshold(one)
        counts: Counter[tuple[bool, bool]] = Counter()
        key = (f"{one.first}~{one.second}", one.method, "pearson")
        for (seed, image), value in values.numbers.get(key, {}).items():
            if threshold is not None and image is not None:
                same = chosen[int(seed), one.first][image] == chosen[int(seed), one.second][image]
                counts[same, value >= threshold] += 1
        yield Reasons(first=one.first, second=one.second, method=one.method, threshold=threshold,
                      same_alike=counts[True, True], same_unlike=counts[True, False],
                      different_alike=counts[False, True], different_unlike=counts[False, False])  # fmt: skip


def _threshold(one: Agreement) -> float | None:
    """Half way from the floor to the ceiling; without a usable ceiling there is no line to draw."""
    tops = [part.mean for part in (one.first_ceiling, one.second_ceiling) if part is not None and part.mean is not None]
    if one.state != "reproducible" or one.floor.mean is None or not tops:
        return None
    return (one.floor.mean + sum(tops) / len(tops)) / 2


def _facts(pairs: Sequence[MatchedPair], answers: Mapping[tuple[int, str], Predictions]) -> Iterable[ModelFacts]:
    by_seed = {pair.vpt.manifest.seed: pair for pair in pairs}
    for (seed, arm), found in answers.items():
        correct = found.correct.astype(float)
        low, high = wilson_interval(int(correct.sum()), len(correct))
        yield ModelFacts(
            model=arm, seed=seed, accuracy=float(correct.mean()), accuracy_low=low, accuracy_high=high,
            confidence=float(found.probabilities.max(axis=1).mean()),
            calibration_error=expected_calibration_error(found.probabilities, found.labels),
            weights_sha256=by_seed[seed].runs[arm].manifest.weights_sha256,
        )  # fmt: skip


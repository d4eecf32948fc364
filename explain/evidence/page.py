"""The summary as a page of Markdown tables, for a pull request or a notebook; every number with its interval."""

from collections.abc import Iterable, Sequence

from explain.evidence.summary import Agreement, Cell, Estimate, Summary

FILE = "summary.md"

IN_ORDER = ("gain", "insertion", "deletion", "road_combined", "infidelity", "max_sensitivity", "relevance_mass",
            "pixel_auroc", "pointing_game", "grid_game", "gini", "entropy")  # fmt: skip
"""Metrics of the first table, in this order."""


def summary_page(summary: Summary) -> str:
    """Every part of a summary that has numbers, as Markdown."""
    images = summary.images
    lines = [
        f"{summary.data}, {summary.backbone} at {summary.image_size} px, {summary.grid[0]}×{summary.grid[1]} patches; "
        f"seeds {', '.join(map(str, summary.seeds))}. {images.tested} test images, {images.right} of them right in "
        f"every compared model; {images.headline} measured, and {images.rest} others apart.",
        "",
        *_models(summary),
        *_maps(summary, summary.cells, "Maps and controls"),
        *_contrasts(summary),
        *_agreements(summary),
        *_reasons(summary),
        *_randomised(summary),
        *_blocks(summary),
        *_maps(summary, summary.rest, "The same on images that some model got wrong"),
    ]
    return "\n".join(lines).rstrip() + "\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table and an empty one; none without rows."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}", *body, ""] if body else []


def number(value: float | None) -> str:
    """Three decimals and a true minus sign; a dash where there is none."""
    return "\u2013" if value is None else f"{value:.3f}".replace("-", "\u2212")


def p_value(p: float | None) -> str:
    """A p-value; what is smaller than can be told says so."""
    return "< 0.001" if p is not None and p < 0.001 else number(p)


def interval(estimate: Estimate | None) -> str:
    """A mean with its interval; a dash where nothing was measured."""
    if estimate is None or estimate.mean is None:
        return "\u2013"
    ends = "" if estimate.low is None else f" ({number(estimate.low)} to {number(estimate.high)})"
    return number(estimate.mean) + ends


def _models(summary: Summary) -> list[str]:
    rows = []
    for one in summary.models:
        ends = f"({number(one.accuracy_low)} to {number(one.accuracy_high)})"
        rows.append((one.model, str(one.seed), f"{number(one.accuracy)} {ends}", number(one.confidence),
                     number(one.calibration_error)))  # fmt: skip
    return table(("model", "seed", "accuracy", "mean confidence", "calibration error"), rows)


def _maps(summary: Summary, cells: Sequence[Cell], title: str) -> list[str]:
    found = {(cell.model, cell.method, cell.metric): cell.estimate for cell in cells}
    measured = {metric for _, method, metric in found if method is not None}
    metrics = [metric for metric in IN_ORDER if metric in measured]
    rows = [
        (model, label, *(interval(found.get((model, method, metric))) for metric in metrics))
        for model in summary.arms for method, label in summary.methods.items()
    ]  # fmt: skip
    if not metrics:
        return []
    heads = [summary.metrics[metric][0] + _beside_chance(summary.metrics[metric][2]) for metric in metrics]
    return [f"### {title}", "", *table(("model", "map", *heads), rows)]


def _beside_chance(value: float | None) -> str:
    return "" if value is None else f" (chance {value:g})"


def _contrasts(summary: Summary) -> list[str]:
    rows = [
        (f"{one.first} less {one.second}", summary.methods[one.method],
         summary.metrics[one.metric][0] + " (declared)" * one.primary, interval(one.difference),
         number(one.detectable), p_value(one.told_p), number(one.effect), one.verdict)
        for one in sorted(summary.contrasts, key=lambda one: not one.primary)
    ]  # fmt: skip
    return ["### Differences between models", "", *table(
        ("pair", "map", "metric", "difference", "detectable", "p (Holm)", "rank-biserial r", "larger"), rows
    )] if rows else []  # fmt: skip


def _agreements(summary: Summary) -> list[str]:
    def row(one: Agreement) -> tuple[str, ...]:
        ends = (one.first_ceiling, one.second_ceiling, one.floor)
        return (f"{one.first}, {one.second}", summary.methods[one.method], summary.metrics[one.metric][0],
                interval(one.between), *map(interval, ends), number(one.ratio), one.state)  # fmt: skip

    heads = ("pair", "map", "measure", "between", "ceiling of the first", "of the second", "floor", "ratio", "state")
    return ["### Agreement of maps", "", *table(heads, map(row, summary.agreements))]


def _reasons(summary: Summary) -> list[str]:
    rows = [
        (f"{one.first}, {one.second}", summary.methods[one.method], number(one.threshold), str(one.same_alike),
         str(one.same_unlike), str(one.different_alike), str(one.different_unlike))
        for one in summary.reasons if one.threshold is not None
    ]  # fmt: skip
    return ["### Same answer, same reason", "", *table(
        ("pair", "map", "threshold", "same, alike", "same, unlike", "different, alike", "different, unlike"), rows
    )] if rows else []  # fmt: skip


def _randomised(summary: Summary) -> list[str]:
    cells = [cell for cell in summary.cells if cell.metric.startswith("cascade_")]
    stages = list(dict.fromkeys(cell.metric.partition("/")[2] for cell in cells))
    rows = []
    kinds = dict.fromkeys((cell.model, cell.method, cell.metric.partition("/")[0]) for cell in cells)
    for model, method, kind in kinds:
        found = [summary.cell(model, method, f"{kind}/{stage}") for stage in stages]
        ends = [interval(one.estimate if one else None) for one in found]
        rows.append((model, summary.methods[method or ""], kind, *ends))
    return ["### Likeness to the map of a randomised model (Spearman)", "",
            *table(("model", "map", "kind", *stages), rows)] if rows else []  # fmt: skip


def _blocks(summary: Summary) -> list[str]:
    found = {(one.model, one.metric, one.block): one.estimate for one in summary.blocks}
    count = 1 + max((block for _, _, block in found), default=-1)
    rows = [
        (metric, model, *(number(found[model, metric, block].mean) if (model, metric, block) in found else ""
                          for block in range(count)))
        for metric, model in dict.fromkeys((one.metric, one.model) for one in summary.blocks)
    ]  # fmt: skip
    return ["### Block by block (means)", "", *table(("number", "model", *map(str, range(count))), rows)]

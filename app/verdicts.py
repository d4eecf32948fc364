"""Verdicts: what measurements of maps came to, in one line each, before any figure."""

from collections.abc import Iterable, Sequence

from app.exhibits import estimate, interval, number, p_value
from app.words import literal
from explain.evidence.planted import PlantedResult
from explain.evidence.summary import Cell, Estimate, Summary
from explain.i18n import Translator
from explain.render.evidence_plots import (
    cascades_of,
    class_agnostic,
    method_label,
    models_of,
    planted_labels,
    state_label,
    status_key,
)
from explain.render.plots import arm_label
from explain.report.schema.measured import Measured

STATUS_COLOURS = {"PASSED": "green", "FAILED": "red", "NOT TESTED": "gray"}
STATUS_ICONS = {"PASSED": "check_circle", "FAILED": "cancel", "NOT TESTED": "help"}


def planted_verdicts(planted: PlantedResult, t: Translator) -> list[str]:
    """Failures one by one with their numbers, then what passed, then what could not be tested; Markdown."""
    labels = planted_labels(planted, t)
    rows = [row for row in planted.trusts if row.method not in planted.controls]
    lines = []
    for row in (row for row in rows if row.status == "FAILED"):
        name = _listed([(labels[row.method], row.arm)], t)
        difference = interval(t, row.difference, row.low, row.high)
        lines.append(f"{status_mark('FAILED', t)} {t('viewer.evidence.planted.failed', name=name, value=difference)}")
    for status, key in (("PASSED", "passed"), ("NOT TESTED", "not_tested")):
        names = [(labels[row.method], row.arm) for row in rows if row.status == status]
        if names:
            said = t(f"viewer.evidence.planted.{key}", names=_listed(names, t))
            lines.append(f"{status_mark(status, t)} {said}")
    return lines


def status_mark(status: str, t: Translator) -> str:
    """A verdict of the planted-cue test in its colour, in Markdown."""
    return f":{STATUS_COLOURS[status]}[:material/{STATUS_ICONS[status]}: **{t(status_key(status))}**]"


def declared_verdict(measured: Measured, t: Translator) -> list[str]:
    """The one comparison of two arms that was declared before anything was measured."""
    return [
        t("viewer.evidence.verdict.declared", comparison=literal(f"{row.label}, {row.metric}"), verdict=row.verdict,
          difference=estimate(t, row.difference), p=_sign(p_value(row.p)))
        for row in measured.contrasts[:1] if row.primary
    ]  # fmt: skip


def chance_verdicts(summary: Summary, metric: str, t: Translator) -> list[str]:
    """Which methods are beyond what chance gives, and which are not shown to be; nothing where chance is unknown."""
    label, better, chance = summary.metrics.get(metric, ("", "neither", None))
    cells = [cell for cell in _cells(summary, metric) if cell.method not in summary.controls]
    if chance is None or better == "neither" or not cells:
        return []
    beyond = [cell for cell in cells if _beyond(cell.estimate, chance, higher=better == "higher")]
    rest = [cell for cell in cells if cell not in beyond]
    found = [("beyond", beyond), ("not_beyond", rest)]
    return [
        t(f"viewer.evidence.verdict.{key}_{better}", names=_listed(_names(summary, some, t), t), chance=f"{chance:g}")
        for key, some in found if some
    ]  # fmt: skip


def control_verdicts(summary: Summary, metric: str, t: Translator) -> list[str]:
    """Per model, the best control, which knows nothing of it, and the methods whose mean is better than that."""
    better = summary.metrics.get(metric, ("", "neither", None))[1]
    lines = []
    for model in models_of(summary) if better != "neither" else ():
        cells = [cell for cell in _cells(summary, metric) if cell.model == model]
        controls = [cell for cell in cells if cell.method in summary.controls]
        if not controls:
            continue
        sign = 1 if better == "higher" else -1
        best = max(controls, key=lambda cell: sign * _mean(cell))
        above = [cell for cell in cells if cell not in controls and sign * _mean(cell) > sign * _mean(best)]
        names = t("viewer.evidence.then").join(literal(method_label(summary, str(cell.method), t)) for cell in above)
        lines.append(t(
            f"viewer.evidence.verdict.{'above_control' if above else 'no_control'}", arm=literal(arm_label(model, t)),
            control=literal(method_label(summary, str(best.method), t)), value=number(best.estimate.mean),
            **({"names": names} if above else {}),
        ))  # fmt: skip
    return lines


def cascade_verdicts(summary: Summary, t: Translator) -> list[str]:
    """What is left of the maps when all weights are shuffled: nothing, or something that the picture alone gives."""
    left, gone = [], []
    for (arm, method, metric), stages in cascades_of(summary).items():
        stage, last = stages[-1]
        if metric == "cascade_signed" and stage == "all":
            alike = last.low is not None and last.low > 0
            (left if alike else gone).append((method_label(summary, method, t), arm))
    return [t(f"viewer.evidence.verdict.{key}", names=_listed(names, t))
            for key, names in (("cascade_left", left), ("cascade_gone", gone)) if names]  # fmt: skip


def agreement_verdicts(summary: Summary, metric: str, t: Translator) -> list[str]:
    """How alike the first two arms' maps are, method by method, beside ceilings and floor, and what state that is."""
    lines = []
    for row in summary.agreements:
        if row.metric != metric or (row.first, row.second) != summary.arms[:2] or row.between.mean is None:
            continue
        words = {"method": literal(method_label(summary, row.method, t)), "value": estimate(t, row.between),
                 "state": state_label(row.state, t), "floor": number(row.floor.mean)}  # fmt: skip
        ceilings = [number(one.mean) for one in (row.first_ceiling, row.second_ceiling) if one is not None]
        if ceilings:
            words["ceilings"] = t("viewer.evidence.and").join(ceilings)
        lines.append(t(f"viewer.evidence.verdict.agreement{'_seeds' if ceilings else ''}", **words))
    return lines


def _sign(p: str) -> str:
    """A p-value as it stands behind a "p"."""
    return p if p.startswith("<") else f"= {p}"


def _cells(summary: Summary, metric: str) -> list[Cell]:
    known = set(models_of(summary))
    found = [cell for cell in summary.cells if cell.metric == metric and cell.model in known and cell.method]
    return [cell for cell in found if cell.estimate.mean is not None]


def _beyond(found: Estimate, chance: float, *, higher: bool) -> bool:
    end = found.low if higher else found.high
    return end is not None and (end > chance if higher else end < chance)


def _mean(cell: Cell) -> float:
    return cell.estimate.mean or 0.0


def _names(summary: Summary, cells: Sequence[Cell], t: Translator) -> list[tuple[str, str]]:
    """(name of the method, arm) of every cell."""
    notes = {True: f" ({t('term.class_agnostic')})", False: ""}
    methods = [str(cell.method) for cell in cells]
    labels = [method_label(summary, method, t) + notes[class_agnostic(method)] for method in methods]
    return list(zip(labels, (cell.model for cell in cells), strict=True))


def _listed(names: Iterable[tuple[str, str]], t: Translator) -> str:
    """Methods with the arms they are meant on, each method once."""
    arms: dict[str, list[str]] = {}
    for method, arm in names:
        arms.setdefault(method, []).append(literal(arm_label(arm, t)))
    parts = [t("viewer.evidence.on", method=literal(method), arm=t("viewer.evidence.and").join(found))
             for method, found in arms.items()]  # fmt: skip
    return t("viewer.evidence.then").join(parts)

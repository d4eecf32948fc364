"""Gather: everything that the report on a pair prints, from the runs, the maps and what was measured of them."""

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version

from explain.criteria import Declaration
from explain.errors import InputError
from explain.evidence.found import disturbed_file, evidence_file, find_evidence, find_planted, planted_file
from explain.files import sha256_file
from explain.i18n import Translator, translate
from explain.provenance import library_versions
from explain.render.evidence_plots import model_colour
from explain.render.heatmap import Scope
from explain.report.audit import Audit
from explain.report.panels import Panels, draw_pictures
from explain.report.parts.answers import RESAMPLES, SEED, paired_result
from explain.report.parts.config import config_of
from explain.report.parts.crosswalk import crosswalk_of
from explain.report.parts.data import data_of
from explain.report.parts.decision import decision_of
from explain.report.parts.declared import control_of, glossary_of, history_of, operation_of, scope_of
from explain.report.parts.failures import failures_of
from explain.report.parts.measured import dissociation_of, measured_of
from explain.report.parts.missing import missing_of
from explain.report.parts.models import arm_of, matched_of
from explain.report.parts.panels import bars_of, panels_of, shortened
from explain.report.parts.rates import differences_of, rates_of, slices_of
from explain.report.parts.reproducing import reproducing_of
from explain.report.parts.robustness import disturbed_of
from explain.report.parts.seeds import seeds_of, sibling_pairs
from explain.report.parts.settings import settings_of
from explain.report.parts.software import software_of
from explain.report.parts.summary import limitations_of, reading_of, statements_of
from explain.report.parts.training import same_budget
from explain.report.schema.crosswalk import Crosswalk
from explain.report.schema.decision import Decision
from explain.report.schema.evidence import Evidence, Length, with_id
from explain.report.schema.reproducing import Reproducing
from explain.report.schema.words import Named
from explain.training.pair import MatchedPair

UNDECIDED = Decision(
    arm="", arm_label="", declared="none", declared_by="", declared_on="", sha256="", criteria_text="", judged=(),
    computed="not_evaluated", computed_label="", override=None, final="not_evaluated", final_label="", sentences=(),
    conditions=(),
)  # fmt: skip
"""Stands in the record until everything that a decision rests on is there."""


def gather(
    pair: MatchedPair, panels: Panels, lang: str = "en", *, length: Length = "full", scope: Scope = "map",
    declaration: Declaration | None = None, before: bool = False, audit: Audit | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> Evidence:  # fmt: skip
    """Everything the report on a pair prints.

    Args:
        pair: the runs.
        panels: their maps, from `make_panels`.
        lang: "en" or "ja".
        length: "full", or "brief" for two pages.
        scope: what shares a colour scale.
        declaration: the criteria; None for none.
        before: whether they were declared before the training.
        audit: what people state; None for nothing.
        pictures: what `draw_pictures` made of the panels with this scope; None draws them.

    Raises:
        InputError: the panels were made with other weights.
        IntegrityError: the maps were evaluated with other weights.
    """
    t, audit = translate(lang), audit or Audit()
    _check_same_weights(pair, panels)
    pictures = pictures or draw_pictures(panels, scope=scope)
    summary, planted = find_evidence(pair), find_planted(pair)
    arms = tuple(arm_of(name, run, t) for name, run in pair.runs.items())
    difference = paired_result(pair.vpt.predictions, pair.ft.predictions, t)
    study = sibling_pairs(pair)
    seeds = seeds_of(study, {arm.name: arm.label for arm in arms}, t)
    methods = tuple(settings_of(name, panels) for name in panels.record.plan.methods)
    matched = matched_of(pair, t)
    shown = panels_of(pair, panels, pictures, scope, t)
    shown = shortened(shown) if length == "brief" else shown
    good_classes = declaration.criteria.good_classes if declaration else ()
    rates = rates_of(pair, good_classes)
    evidence = Evidence(
        lang=lang,
        length=length,
        created=max((run.manifest.created for run in pair), key=datetime.fromisoformat),
        title=t("report.title", data=pair.data.name),
        statements=statements_of(pair, arms, difference, seeds, rates, t),
        control=control_of(audit),
        decision=UNDECIDED,
        scope=scope_of(audit, t),
        backbone=pair.vpt.manifest.backbone,
        image_size=pair.vpt.manifest.image_size,
        matched=matched,
        is_matched=all(field.equal or field.set_apart for field in matched),
        config=config_of(pair, t),
        arms=arms,
        same_budget=same_budget([arm.training for arm in arms]),
        resamples=RESAMPLES,
        resample_seed=SEED,
        difference=difference,
        differences=differences_of(pair),
        seeds=seeds,
        good_classes=good_classes,
        rates=rates,
        slices=slices_of(pair, t),
        data=data_of(pair, audit, t),
        methods=methods,
        panels=shown,
        bars=bars_of(pictures, methods),
        measured=measured_of(summary, t) if summary else None,
        dissociation=dissociation_of(planted, t) if planted else None,
        failures=failures_of(pair, panels, shown, declaration.criteria.model if declaration else "vpt", t),
        disturbed=disturbed_of(pair, t),
        reading=reading_of(methods, scope, t),
        limitations=limitations_of(
            pair.vpt.manifest.image_size, panels.grid, seeds, t, measured=bool(summary or planted)
        ),
        operation=operation_of(audit, t),
        reproducing=Reproducing(commands=(), environment=(), software=software_of(pair, t), determinism="",
                                attachments=()),
        crosswalk=Crosswalk(statement="", frameworks=()),
        history=history_of(audit),
        glossary=glossary_of(t),
        not_evaluated=(),
        versions=library_versions() | {name: version(name) for name in ("typst", "matplotlib-fontja")},
        colours={},
        files=_files(pair, study, panels),
    )
    return with_id(_finished(evidence, declaration, audit, t, before=before))


def _finished(
    evidence: Evidence, declaration: Declaration | None, audit: Audit, t: Translator, *, before: bool
) -> Evidence:
    """The record with what follows from the rest of it."""
    evidence = evidence.model_copy(update={
        "decision": decision_of(evidence, declaration, audit, t, before=before),
        "colours": {model: model_colour(model) for model in sorted(_models(evidence))},
    })  # fmt: skip
    evidence = evidence.model_copy(update={"not_evaluated": missing_of(evidence)})
    evidence = evidence.model_copy(update={"crosswalk": crosswalk_of(evidence, t)})
    return evidence.model_copy(update={"reproducing": reproducing_of(evidence, t)})


def _models(evidence: Evidence) -> set[str]:
    """Every arm that the page names, and every two that it compares."""
    measured, planted = evidence.measured, evidence.dissociation
    models = {arm.name for arm in evidence.arms} | {line.arm for line in (planted.lines if planted else ())}
    if measured is not None:
        models |= set(measured.labels) | {curve.model for panel in measured.panels for curve in panel.curves}
    return models


def _check_same_weights(pair: MatchedPair, panels: Panels) -> None:
    for arm, expected in panels.record.plan.weights.items():
        if pair.runs[arm].manifest.weights_sha256 != expected:
            raise InputError(
                f"the maps in {panels.folder} were made with other weights of {arm}; call make_panels again"
            )


def _files(pair: MatchedPair, study: list[MatchedPair], panels: Panels) -> tuple[Named, ...]:
    runs = [
        Named(name=f"{arm}/{name}", value=digest)
        for arm, run in pair.runs.items()
        for name, digest in run.manifest.files.items()
    ]
    others = [
        Named(name=f"{other.path.name}/{arm}/predictions.parquet", value=run.manifest.files["predictions.parquet"])
        for other in study if other is not pair
        for arm, run in other.runs.items()
    ]  # fmt: skip
    maps = [Named(name=f"maps/{name}", value=digest) for name, digest in panels.record.files.items()]
    found = (evidence_file(pair), disturbed_file(pair), planted_file(pair))
    measured = [Named(name=f"{file.parent.name}/{file.name}", value=sha256_file(file))
                for file in found if file is not None]  # fmt: skip
    return (*runs, *others, *maps, *measured)

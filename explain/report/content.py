"""Evidence: everything a report prints, gathered into one record with a schema.

The PDF is a pure function of this record and the pictures it names. Numbers are raw here and rounded by the page;
statements are finished sentences in the report's language, so that what is claimed is part of the evidence.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from explain.attribution import Array, Attribution
from explain.backbone import BackboneCard
from explain.data.base import Dataset
from explain.errors import InputError
from explain.evidence.found import evidence_file, find_evidence, find_planted, planted_file
from explain.files import sha256_file, sha256_json
from explain.i18n import Translator, translate
from explain.methods.base import METHODS
from explain.metrics.statistics import largest_unseen_rate
from explain.provenance import library_versions
from explain.record import Record
from explain.render.heatmap import CLIP_PERCENTILE, OPACITY, Scope, View
from explain.render.plots import arm_label
from explain.report.answers_part import (
    RESAMPLES,
    SEED,
    Calibration,
    ClassRecall,
    PairedResult,
    calibration_of,
    confusion_of,
    paired_result,
    percent,
    recalls_of,
)
from explain.report.evidence_part import Dissociation, Measured, dissociation_of, measured_of, still_missing
from explain.report.panels import ARMS, RULES, Panels, draw_pictures, picture_file, view_panels
from explain.report.seeds_part import Seeds, seeds_of, sibling_pairs
from explain.report.training_part import Training, same_budget, training_of
from explain.training.pair import MatchedPair, compare_runs
from explain.training.run import Run

FORMAT = 3

MEASURES = ("completeness_gap", "converged", "nodes", "prompt_share", "prompt_share_null")
"""Extras that are printed under a map when it has them."""

NOT_EVALUATED = ("decision", "intended_use", "faithfulness", "planted", "agreement", "failure_review", "robustness",
                 "operation", "standards", "signature")  # fmt: skip
"""Parts of an audit that have no data until they are measured; without it they are printed as such."""

PLACES = ("top_left", "top", "top_right", "left", "middle", "right", "bottom_left", "bottom", "bottom_right")


class Named(Record):
    """A name and its value as text."""

    name: str
    value: str


class PerArm(Record):
    """A name, each arm's value as text, and whether they agree."""

    name: str
    values: dict[str, str]
    equal: bool


class Arm(Record):
    """One trained model: what it is, what it cost, how it does on the test images."""

    name: str
    label: str
    tuning: str
    options: tuple[Named, ...]
    trained_parameters: int
    total_parameters: int
    weights_bytes: int
    seconds_per_epoch: float
    peak_mib: float
    learning_rate: float
    device: str
    precision: str
    accuracy: float
    low: float
    high: float
    count: int
    loss: float
    recalls: tuple[ClassRecall, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    training: Training


class MatchedRow(PerArm):
    """A field that must agree; `set_apart` where the recipe's protocol says that it does not."""

    set_apart: bool


class ClassCount(Record):
    """Images of one class per split."""

    name: str
    train: int
    val: int
    test: int
    unused: int
    total: int


class RejectedFile(Record):
    """A file that could not be used."""

    file: str
    reason: str
    detail: str


class Data(Record):
    """The images: where from, how many, which hash."""

    name: str
    source: str
    licence: str
    fingerprint: str
    split_hash: str
    class_names: tuple[str, ...]
    counts: tuple[ClassCount, ...]
    rejected: tuple[RejectedFile, ...]


class MethodSettings(Record):
    """How one method was run and is drawn."""

    name: str
    label: str
    source: str
    signed: bool
    class_specific: bool
    picture: str
    resolution: tuple[int, int]
    pooled: bool
    options: tuple[PerArm, ...]


class Picture(Record):
    """A picture of the report: its file name, hash and description."""

    file: str
    sha256: str
    alt: str


class Answer(Record):
    """A model's answer for one image."""

    arm: str
    label: str
    name: str
    probability: float
    right: bool


class Measure(Record):
    """A number that travels with a map."""

    name: str
    value: float


class Map(Record):
    """One map: its raw range, the scale of its picture and what was measured with it."""

    arm: str
    method: str
    target: str
    raw_low: float
    raw_high: float
    scale_low: float
    scale_high: float
    blank: bool
    measures: tuple[Measure, ...]
    picture: Picture


class PanelSample(Record):
    """One image with both models' maps."""

    id: str
    rule: str
    truth: str
    input: Picture
    answers: tuple[Answer, ...]
    maps: tuple[Map, ...]


class RuleCount(Record):
    """How many images a rule matched, and how many are shown."""

    rule: str
    matched: int
    shown: int


class PanelSection(Record):
    """The panels and how they were chosen and drawn."""

    seed: int
    scope: str
    clip_percentile: float
    opacity: float
    grid: tuple[int, int]
    rules: tuple[RuleCount, ...]
    samples: tuple[PanelSample, ...]


class Evidence(Record):
    """Everything the report prints.

    Args:
        id: first 12 digits of the SHA-256 of everything else.
        created: time of the newest run, so that the same runs give the same report.
        statements: what is claimed on the first page, in words.
        matched: the fields that must agree; `is_matched` when all do but those set apart on purpose.
        arms: every trained model, "vpt" and "ft" first.
        same_budget: every arm had as many trials and training steps as the next.
        seeds: what the other seeds of the same study say; None for a pair on its own.
        measured: what was measured of the maps; None where nothing was.
        dissociation: the planted-cue test; None where none was made.
        not_evaluated: parts of an audit without data.
        files: SHA-256 of what the report rests on.
    """

    format: int = FORMAT
    lang: str
    id: str = ""
    created: str
    title: str
    statements: tuple[str, ...]
    backbone: BackboneCard
    image_size: int
    matched: tuple[MatchedRow, ...]
    is_matched: bool
    arms: tuple[Arm, ...]
    same_budget: bool
    resamples: int
    resample_seed: int
    difference: PairedResult
    seeds: Seeds | None
    data: Data
    methods: tuple[MethodSettings, ...]
    panels: PanelSection
    measured: Measured | None = None
    dissociation: Dissociation | None = None
    reading: tuple[str, ...]
    limitations: tuple[str, ...]
    not_evaluated: tuple[str, ...]
    versions: dict[str, str]
    files: tuple[Named, ...]

    @property
    def created_at(self) -> datetime:
        """`created` as a time with a zone; UTC where none was recorded."""
        moment = datetime.fromisoformat(self.created)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def gather(pair: MatchedPair, panels: Panels, lang: str = "en", *, scope: Scope = "map") -> Evidence:
    """Everything the report on a pair prints.

    Args:
        pair: the runs.
        panels: their maps, from `make_panels`.
        lang: "en" or "ja".
        scope: what shares a colour scale.

    Raises:
        InputError: the panels were made with other weights.
        IntegrityError: the maps were evaluated with other weights.
    """
    t = translate(lang)
    _check_same_weights(pair, panels)
    summary, planted = find_evidence(pair), find_planted(pair)
    arms = tuple(_arm(name, run, t) for name, run in pair.runs.items())
    difference = paired_result(pair.vpt.predictions, pair.ft.predictions, t)
    study = sibling_pairs(pair)
    seeds = seeds_of(study, {arm.name: arm.label for arm in arms}, t)
    methods = tuple(_method(name, panels) for name in panels.record.plan.methods)
    matched = tuple(
        MatchedRow(name=t(f"term.matched.{_slug(field.name)}"), values=field.values, equal=field.equal,
                   set_apart=field.set_apart and not field.equal)
        for field in compare_runs(pair.runs)
    )  # fmt: skip
    evidence = Evidence(
        lang=lang,
        created=max((run.manifest.created for run in pair), key=datetime.fromisoformat),
        title=t("report.title", data=pair.data.name),
        statements=_statements(pair, arms, difference, seeds, t),
        backbone=pair.vpt.manifest.backbone,
        image_size=pair.vpt.manifest.image_size,
        matched=matched,
        is_matched=all(field.equal or field.set_apart for field in matched),
        arms=arms,
        same_budget=same_budget([arm.training for arm in arms]),
        resamples=RESAMPLES,
        resample_seed=SEED,
        difference=difference,
        seeds=seeds,
        data=_data(pair),
        methods=methods,
        panels=_panels(pair, panels, scope, t),
        reading=_reading(methods, scope, t),
        measured=measured_of(summary, t) if summary else None,
        dissociation=dissociation_of(planted, t) if planted else None,
        limitations=_limitations(
            pair.vpt.manifest.image_size, panels.grid, seeds, t, measured=bool(summary or planted)
        ),
        not_evaluated=still_missing(NOT_EVALUATED, summary, planted),
        versions=library_versions() | {name: version(name) for name in ("typst", "matplotlib-fontja")},
        files=_files(pair, study, panels),
    )
    return evidence.model_copy(update={"id": evidence_id(evidence)})


def evidence_id(evidence: Evidence) -> str:
    """The id that a record's content gives it."""
    return sha256_json(evidence.model_dump(mode="json", exclude={"id"}))[:12]


def _check_same_weights(pair: MatchedPair, panels: Panels) -> None:
    for arm, expected in panels.record.plan.weights.items():
        if pair.runs[arm].manifest.weights_sha256 != expected:
            raise InputError(
                f"the maps in {panels.folder} were made with other weights of {arm}; call make_panels again"
            )


def _slug(words: str) -> str:
    return re.sub("[^a-z0-9]+", "_", words.lower())


def _arm(name: str, run: Run, t: Translator) -> Arm:
    manifest = run.manifest
    tuning = f"term.tuning.{manifest.tuning}"
    return Arm(
        name=name,
        label=arm_label(name, t),
        tuning=t(tuning) if tuning in t else manifest.tuning,
        options=tuple(Named(name=key, value=str(value)) for key, value in manifest.tuning_options.items()),
        learning_rate=manifest.learning_rate,
        accuracy=manifest.test.accuracy,
        low=manifest.test.low,
        high=manifest.test.high,
        count=manifest.test.count,
        loss=manifest.test.loss,
        recalls=recalls_of(run),
        confusion=confusion_of(run),
        calibration=calibration_of(run.predictions, t),
        training=training_of(run, t),
        **manifest.model_dump(include={
            "trained_parameters", "total_parameters", "weights_bytes", "seconds_per_epoch", "peak_mib", "device",
            "precision",
        }),
    )  # fmt: skip


def _statements(
    pair: MatchedPair, arms: tuple[Arm, ...], difference: PairedResult, seeds: Seeds | None, t: Translator
) -> tuple[str, ...]:
    vpt, ft = arms[0], arms[1]
    perfect = [arm for arm in arms if arm.accuracy == 1]
    return (
        t("report.statement.result", count=vpt.count, data=pair.data.name,
          vpt=percent(vpt.accuracy), ft=percent(ft.accuracy)),
        difference.statement,
        *(t("report.statement.all_alike", arm=arm.label, bound=percent(largest_unseen_rate(arm.count)))
          for arm in perfect),
        t("report.statement.cost", vpt_trained=f"{vpt.trained_parameters:,}", ft_trained=f"{ft.trained_parameters:,}",
          share=f"{100 * vpt.trained_parameters / ft.trained_parameters:.2f}"),
        seeds.statement if seeds else t("report.statement.one_training"),
    )  # fmt: skip


def _data(pair: MatchedPair) -> Data:
    data = pair.data
    splits = [data.select(ids).counts() for ids in (pair.split.train, pair.split.val, pair.split.test)]
    counts = []
    for name, total in data.counts().items():
        train, val, test = (split[name] for split in splits)
        counts.append(
            ClassCount(name=name, train=train, val=val, test=test, unused=total - train - val - test, total=total)
        )
    rejected = tuple(
        RejectedFile(file=_inside(data, str(row.path)), reason=row.reason, detail=row.detail) for row in data.rejected
    )
    return Data(
        name=data.name, source=data.source, licence=data.licence, fingerprint=data.fingerprint,
        split_hash=pair.vpt.manifest.split_hash, class_names=data.class_names, counts=tuple(counts), rejected=rejected,
    )  # fmt: skip


def _inside(data: Dataset, path: str) -> str:
    """A path without the data set's folder: a report does not tell where on whose disk the images lie."""
    return path.removeprefix(str(data.root)).lstrip("/\\")


def _method(name: str, panels: Panels) -> MethodSettings:
    method = METHODS[name]
    maps = {arm: panels.maps[arm][name] for arm in ARMS}
    settings = {arm: {**attribution.options, **_notes(attribution)} for arm, attribution in maps.items()}
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    options = []
    for key in keys:
        values = {arm: _plain(settings[arm].get(key)) for arm in ARMS}
        options.append(PerArm(name=key, values=values, equal=len(set(values.values())) == 1))
    height, width = maps[ARMS[0]].values.shape[1:]
    return MethodSettings(
        name=name, label=method.label, source=method.source, signed=method.signed,
        class_specific=method.class_specific, picture=method.picture, resolution=(height, width),
        pooled=(height, width) != panels.grid, options=tuple(options),
    )  # fmt: skip


def _notes(attribution: Attribution) -> dict[str, object]:
    """Choices the method made while running, such as the layer; the rest of the provenance is the same for all."""
    common = {"tuning", "tuning_options", "backbone", "device", "dtype", "batch_size", "elapsed_s", "versions"}
    return {key: value for key, value in attribution.provenance.items() if key not in common}


def _plain(value: object) -> str:
    return "\u2013" if value is None else str(value)


def _panels(pair: MatchedPair, panels: Panels, scope: Scope, t: Translator) -> PanelSection:
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in draw_pictures(panels, scope=scope).items()}
    views = view_panels(panels, scope=scope)
    rows = {name: index for index, name in enumerate(pair.vpt.predictions.ids)}
    samples = []
    for index, panel in enumerate(panels.panels):
        truth = pair.data.class_names[pair.data.by_id[panel.id].label]
        file = picture_file(index)
        samples.append(PanelSample(
            id=panel.id, rule=panel.rule, truth=truth,
            input=Picture(file=file, sha256=hashes[file], alt=t("report.alt.input", id=panel.id, name=truth)),
            answers=tuple(_answer(arm, pair.runs[arm], rows[panel.id], t) for arm in ARMS),
            maps=tuple(_map(index, arm, name, panels, views, hashes, truth, t)
                       for arm in ARMS for name in panels.record.plan.methods),
        ))  # fmt: skip
    shown = [panel.rule for panel in panels.panels]
    rules = tuple(RuleCount(rule=rule, matched=panels.record.matched[rule], shown=shown.count(rule)) for rule in RULES)
    return PanelSection(seed=panels.record.plan.seed, scope=scope, clip_percentile=CLIP_PERCENTILE,
                        opacity=OPACITY, grid=panels.grid, rules=rules, samples=tuple(samples))  # fmt: skip


def _answer(arm: str, run: Run, row: int, t: Translator) -> Answer:
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


def _reading(methods: tuple[MethodSettings, ...], scope: Scope, t: Translator) -> tuple[str, ...]:
    lines = [t("report.reading.raw"), t("report.reading.scale", scope=t(f"term.scope.{scope}"))]
    groups = {
        "positive": [method.label for method in methods if method.picture == "positive"],
        "signed": [method.label for method in methods if method.picture == "signed"],
        "class_agnostic": [method.label for method in methods if not method.class_specific],
    }
    lines += [t(f"report.reading.{key}", labels=", ".join(labels)) for key, labels in groups.items() if labels]
    return (*lines, t("report.reading.completeness_gap"), t("report.reading.prompt_share"), t("report.reading.blank"))


def _limitations(
    image_size: int, grid: tuple[int, int], seeds: Seeds | None, t: Translator, *, measured: bool
) -> tuple[str, ...]:  # fmt: skip
    trainings = "few_trainings" if seeds else "one_training"
    plausible = "plausible_measured" if measured else "plausible"
    names = ("not_cause", plausible, "resolution", trainings, "data", "automation", "file")
    values: dict[str, dict[str, int]] = {
        "resolution": {"rows": grid[0], "columns": grid[1], "cell": round(image_size / grid[0])},
        "few_trainings": {"count": len(seeds.seeds) if seeds else 1},
    }
    return tuple(t(f"report.limitation.{name}", **values.get(name, {})) for name in names)


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
    measured = [Named(name=f"{file.parent.name}/{file.name}", value=sha256_file(file))
                for file in (evidence_file(pair), planted_file(pair)) if file is not None]  # fmt: skip
    return (*runs, *others, *maps, *measured)

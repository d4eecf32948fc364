"""Evidence on a pair made of seeded random numbers: a summary and a planted-cue test, as files in the pair's folder."""

from pathlib import Path

import numpy as np

from explain.evidence.cues import CUES, CueFacts
from explain.evidence.found import EVIDENCE, PLANTED
from explain.evidence.planted import FILE as PLANTED_FILE
from explain.evidence.planted import Gate, PlantedResult, Trust
from explain.evidence.summary import (
    FILE,
    PRIMARY,
    Agreement,
    Block,
    Cell,
    Contrast,
    Estimate,
    Images,
    ModelFacts,
    Reasons,
    Summary,
)
from explain.files import write_json
from explain.training.pair import MatchedPair

METHODS = {
    "grad_cam": "Grad-CAM", "integrated_gradients": "Integrated Gradients", "attention_rollout": "Attention rollout",
    "random": "random", "centre": "centre", "sobel": "sobel",
}  # fmt: skip
CONTROLS = ("random", "centre", "sobel")
METRICS: dict[str, tuple[str, str, float | None]] = {
    "gain": ("insertion and deletion gain", "higher", 0.0), "insertion": ("insertion area", "higher", None),
    "deletion": ("deletion area", "lower", None), "road_combined": ("ROAD combined", "higher", 0.0),
    "infidelity": ("scaled infidelity", "lower", 1.0), "pixel_auroc": ("AUROC", "higher", 0.5),
    "gini": ("Gini", "neither", None), "cascade_signed": ("signed", "lower", None),
    "cascade_absolute": ("absolute", "lower", None), "drift_brightness": ("drift, brighter", "higher", None),
    "score_full": ("score", "neither", None), "a_new_metric": ("A metric of tomorrow", "neither", None),
}  # fmt: skip
TRUE_GAIN = {"integrated_gradients": 0.42, "attention_rollout": 0.31, "grad_cam": 0.05, "random": 0.0, "centre": 0.1,
             "sobel": 0.22}  # fmt: skip
STAGES = ("head", "blocks.2", "blocks.1", "all")
BLOCKS = 4
IMAGES = 40
BLANK = "grad_cam"
"""The method with three blank maps, which is not reproducible and failed the planted-cue test for FT."""


def estimate(mean: float, half: float, seeds: int = 1, **missing: int) -> Estimate:
    return Estimate(mean=round(mean, 4), low=round(mean - half, 4), high=round(mean + half, 4),
                    images=IMAGES - sum(missing.values()), seeds=seeds, missing=missing)  # fmt: skip


def _cells(models: list[str], rng: np.random.Generator, seeds: int) -> list[Cell]:
    cells = [Cell(model=model, method=None, metric="score_full", estimate=estimate(0.93, 0.02, seeds))
             for model in models]  # fmt: skip
    for place, model in enumerate(models):
        for method, gain in TRUE_GAIN.items():
            missing = {"blank_map": 3} if method == BLANK else {}
            own = gain + rng.normal(0, 0.03)
            values = {"gain": own, "insertion": 0.5 + own / 2, "deletion": 0.4 - own / 2, "road_combined": own / 2,
                      "infidelity": 1 - own, "pixel_auroc": 0.5 + own, "gini": 0.4, "a_new_metric": 1234.5}  # fmt: skip
            if method not in CONTROLS:
                values |= {"drift_brightness": 0.8}
                for number, stage in enumerate(STAGES):
                    values |= {f"cascade_signed/{stage}": 0.6 - 0.2 * number - 0.05 * place,
                               f"cascade_absolute/{stage}": 0.8 - 0.2 * number + 0.03 * place}  # fmt: skip
                if method == "attention_rollout":
                    values |= {"cascade_signed/head": 1.0, "cascade_absolute/head": 1.0}
            cells += [Cell(model=model, method=method, metric=metric, estimate=estimate(value, 0.06, seeds, **missing))
                      for metric, value in values.items()]  # fmt: skip
    nothing = Estimate(mean=None, low=None, high=None, images=0, seeds=seeds, missing={"no_score_change": IMAGES})
    cells.append(Cell(model="vpt", method="grad_cam", metric="completeness_gap", estimate=nothing))
    return cells


def _contrasts(seeds: int) -> list[Contrast]:
    def one(method: str, metric: str, mean: float, half: float, holm: float | None, verdict: str) -> Contrast:
        primary = (method, metric) == PRIMARY
        return Contrast(
            first="vpt", second="ft", method=method, metric=metric, primary=primary,
            difference=estimate(mean, half, seeds), p=0.004, holm=None if primary else holm, effect=0.31,
            detectable=0.11, verdict=verdict,
        )  # fmt: skip

    nothing = Estimate(mean=None, low=None, high=None, images=1, seeds=seeds, missing={"blank_map": 39})
    unmeasured = Contrast(first="vpt", second="ft", method="grad_cam", metric="gain", primary=False, difference=nothing,
                          p=None, holm=None, effect=None, detectable=None, verdict="not measured")  # fmt: skip
    return [one(*PRIMARY, 0.13, 0.06, None, "vpt"), one("attention_rollout", "gain", 0.02, 0.09, 0.71, "none"),
            one("integrated_gradients", "pixel_auroc", -0.2, 0.05, 0.012, "ft"), unmeasured]  # fmt: skip


def _agreements(seeds: int) -> list[Agreement]:
    rows = []
    for method, between, ceiling in (("grad_cam", 0.05, 0.1), ("integrated_gradients", 0.66, 0.7),
                                     ("attention_rollout", 0.91, 0.95)):  # fmt: skip
        for metric in ("pearson", "spearman"):
            own = estimate(ceiling, 0.04, seeds) if seeds > 1 else None
            state = "one seed" if seeds == 1 else "not reproducible here" if ceiling < 0.2 else "reproducible"
            rows.append(Agreement(
                first="vpt", second="ft", method=method, metric=metric, between=estimate(between, 0.05, seeds),
                first_ceiling=own, second_ceiling=own, floor=estimate(0.02, 0.02, seeds),
                ratio=between / ceiling if state == "reproducible" else None, state=state,
            ))  # fmt: skip
    return rows


def _blocks(models: list[str], seeds: int) -> list[Block]:
    rows = []
    for block in range(BLOCKS):
        for number, model in enumerate(models):
            values = {"backbone_cka": 1 - 0.1 * block * number, "attention_distance": 20 + 5 * block + 3 * number,
                      "attention_entropy": 0.9 - 0.05 * block, "cls_to_patch": 0.6,
                      "weight_drift": 0.02 * number * block, "feature_drift": 0.1 * block * (1 + number)}  # fmt: skip
            if model == "vpt":
                values |= {"prompt_mass": 0.3 + 0.05 * block, "prompt_chance": 0.1}
            rows += [Block(model=model, metric=metric, block=block, estimate=estimate(value, 0.02, seeds))
                     for metric, value in values.items()]  # fmt: skip
        rows.append(Block(model="vpt~ft", metric="cka", block=block, estimate=estimate(0.95 - 0.15 * block, 0, seeds)))
        if seeds > 1:
            rows.append(Block(model="vpt~vpt", metric="cka", block=block, estimate=estimate(0.97, 0, seeds)))
    return rows


def fake_summary(pair: MatchedPair, seeds: tuple[int, ...] = (0, 1, 2)) -> Summary:
    """A summary that speaks of a pair; with one seed there are no ceilings."""
    rng, models, count = np.random.default_rng(11), list(pair.runs), len(seeds)
    own = pair.vpt.manifest.seed
    facts = [
        ModelFacts(
            model=model, seed=seed, accuracy=0.9, accuracy_low=0.82, accuracy_high=0.96, confidence=0.88,
            calibration_error=0.04,
            weights_sha256=run.manifest.files["weights.safetensors"] if seed == own else f"{seed:02x}" * 32,
        )
        for model, run in pair.runs.items() for seed in seeds
    ]  # fmt: skip
    reasons = [
        Reasons(first="vpt", second="ft", method=method, threshold=threshold, same_alike=70, same_unlike=21,
                different_alike=4, different_unlike=5)
        for method, threshold in (("grad_cam", None), ("integrated_gradients", 0.36), ("attention_rollout", 0.48))
    ]  # fmt: skip
    return Summary(
        data=pair.data.name, backbone=pair.vpt.manifest.backbone.architecture,
        image_size=pair.vpt.manifest.image_size, grid=(4, 4), arms=("vpt", "ft"),
        reference=models[2] if len(models) > 2 else None, seeds=seeds, methods=METHODS, controls=CONTROLS,
        metrics=METRICS,
        images=Images(tested=100, right=71, headline=IMAGES, rest=12, by_class={"nominal": (50, 40, 20),
                      "local defect": (50, 31, 20)}, with_mask=20),
        models=tuple(facts), primary=PRIMARY, cells=tuple(_cells(models, rng, count)), rest=(),
        contrasts=tuple(_contrasts(count)), agreements=tuple(_agreements(count)), reasons=tuple(reasons),
        blocks=tuple(_blocks(models, count)), table_sha256="cd" * 32, versions={"explain-vit": "0.1.0"},
    )  # fmt: skip


def fake_planted(pair: MatchedPair) -> PlantedResult:
    """A planted-cue test: Grad-CAM FAILED for FT, and nothing of the linear probe could be tested."""
    arms = tuple(pair.runs)
    gates, trusts = [], []
    for arm in arms:
        passed = arm != "linear"
        share = 0.93 if passed else 0.55
        gates.append(Gate(arm=arm, share_a=share, share_b=1 - share, difference=2 * share - 1, low=2 * share - 1.1,
                          high=2 * share - 0.95, images=96, dropped=4, blank=0, passed=passed, accuracy_a=0.99,
                          accuracy_b=0.98))  # fmt: skip
        for method in METHODS:
            difference = {"integrated_gradients": 0.6, "attention_rollout": 0.12, "grad_cam": 0.4}.get(method, 0.0)
            if (arm, method) == ("ft", BLANK):
                difference = -0.08
            low = difference - 0.05
            trusts.append(Trust(
                arm=arm, method=method, share_a=0.5 + difference / 2, share_b=0.5 - difference / 2,
                difference=difference, low=low, high=difference + 0.05, images=96, blank=0,
                status="NOT TESTED" if not passed else "PASSED" if low > 0 else "FAILED",
            ))  # fmt: skip
    manifest = pair.vpt.manifest
    cues = tuple(CueFacts(cue=cue, states=("one", "other"), side_px=28, area=0.06, mean=0.5, contrast=0.2, edges=0.1)
                 for cue in CUES)  # fmt: skip
    return PlantedResult(
        data=pair.data.name, backbone=manifest.backbone.spec, backbone_sha256=manifest.backbone.sha256, image_size=112,
        grid=(8, 8), arms=arms, methods=tuple(name for name in METHODS if name not in CONTROLS), controls=CONTROLS,
        options={}, gates=tuple(gates), trusts=tuple(trusts), cues=cues, learning_rates=dict.fromkeys(arms, 1e-3),
        train_images=256, test_images=100, distinct_test_images=60, seed=0, recipe_hash="12" * 32,
        versions={"explain-vit": "0.1.0"},
    )  # fmt: skip


def write_fake_evidence(folder: Path, pair: MatchedPair, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Write both records below the folder of a pair or a study."""
    write_json(folder / EVIDENCE / FILE, fake_summary(pair, seeds).model_dump(mode="json"))
    write_json(folder / PLANTED / PLANTED_FILE, fake_planted(pair).model_dump(mode="json"))

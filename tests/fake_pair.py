"""A small pair folder made of seeded random numbers: real files, no training and no backbone."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from explain.attribution import Attribution
from explain.backbone import BackboneCard
from explain.data.base import Dataset, Rejected, Sample
from explain.data.split import Split
from explain.files import sha256_file, write_json
from explain.report.panels import ARMS, PanelsRecord, Plan, choose_panels, count_rules
from explain.software import Software
from explain.tensor_files import write_tensors
from explain.training.course import Course
from explain.training.pair import MatchedPair
from explain.training.recipe import Arm, Recipe
from explain.training.run import HASHED, Epoch, Predictions, RunManifest, TestResult, Trial

CLASSES = ("nominal", "local defect", "global defect")
SIZE, GRID = 56, (4, 4)
ACCURACY = {"vpt": 0.6, "ft": 0.9, "linear": 0.5}
RATES = {"vpt": (1e-3, 5e-3, 3e-2), "ft": (1e-5, 5e-5, 3e-4), "linear": (1e-3, 5e-3, 3e-2)}
TUNINGS = {"vpt": ("prompt", {"num_tokens": 10, "deep": True}), "ft": ("full", {}), "linear": ("linear", {})}
EPOCHS = 12
PARAMETERS = {"vpt": 47235, "ft": 22060035, "linear": 1155}
CARD = BackboneCard(
    spec="random:vit_tiny", architecture="vit_small_patch14_dinov2", sha256="ab" * 32, source="made up for a test",
    licence="MIT", tuned_for="saliency", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic",
    native_size=56,
)  # fmt: skip


def _textile(rng: np.random.Generator, label: int) -> Image.Image:
    """A woven pattern with a dark spot (1) or a shifted band (2)."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    cloth = 150 + 25 * np.sin(columns / 1.5) + 25 * np.sin(rows / 1.5) + rng.normal(0, 8, (SIZE, SIZE))
    if label == 1:
        row, column = rng.integers(10, SIZE - 10, 2)
        cloth[(rows - row) ** 2 + (columns - column) ** 2 < 30] -= 90
    if label == 2:
        cloth[SIZE // 2 :] -= 45
    grey = np.clip(cloth, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey, (grey * 0.9).astype(np.uint8)], axis=2))


def _dataset(root: Path, rng: np.random.Generator, per_class: int, name: str) -> Dataset:
    samples = []
    for label, class_name in enumerate(CLASSES):
        for number in range(per_class):
            path = root / "images" / class_name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _textile(rng, label).save(path)
            samples.append(Sample(f"{class_name}/{number:03d}.png", path, label, sha256_file(path)))
    rejected = (Rejected(root / "images" / "broken.png", "truncated", "the file ends after 12 of 900 bytes"),)
    return Dataset(name, root / "images", CLASSES, tuple(sorted(samples, key=lambda sample: sample.id)), rejected,
                   "drawn for a test", "CC0-1.0")  # fmt: skip


def _predictions(test: Dataset, accuracy: float, rng: np.random.Generator) -> Predictions:
    labels = np.array([sample.label for sample in test.samples])
    logits = rng.normal(0, 0.7, (len(labels), len(CLASSES)))
    answers = np.where(rng.random(len(labels)) < accuracy, labels, (labels + 1) % len(CLASSES))
    logits[np.arange(len(labels)), answers] += 3
    probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    return Predictions([sample.id for sample in test.samples], labels, probabilities.argmax(1), probabilities)


def _history(arm: str) -> list[Epoch]:
    """Losses that fall, but that of FT's test images, which turns at epoch 5."""
    return [
        Epoch(epoch=n, learning_rate=1e-3, train_loss=1.1 * 0.8**n, train_accuracy=1 - 0.6 * 0.7**n,
              val_loss=0.3 + 0.8**n, val_accuracy=ACCURACY[arm] - 0.3 * 0.7**n,
              test_loss=0.5 + 0.05 * abs(n - 5) if arm == "ft" else 0.4 + 0.8**n,
              test_accuracy=ACCURACY[arm] - 0.35 * 0.7**n, gradient_norm=2.0 / n, gradient_norm_max=5.0 / n,
              seconds=2.5, peak_mib=900.0, energy_j=80.0)
        for n in range(1, EPOCHS + 1)
    ]  # fmt: skip


def _run(pair: Path, arm: str, data: Dataset, split: Split, rng: np.random.Generator, seed: int) -> None:
    folder = pair / arm
    folder.mkdir(parents=True)
    tuning, options = TUNINGS[arm]
    arms = {
        name: Arm(tuning=TUNINGS[name][0], options=TUNINGS[name][1], learning_rates=RATES[name]) for name in TUNINGS
    }
    recipe = Recipe(backbone=CARD.spec, image_size=SIZE, epochs=EPOCHS, batch_size=5, seed=seed, arms=arms)
    write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
    history = _history(arm)
    (folder / "history.jsonl").write_text("\n".join(epoch.model_dump_json() for epoch in history) + "\n")
    write_tensors(folder / "weights.safetensors", {"head.bias": torch.zeros(3) + len(arm)})
    predictions = _predictions(data.select(split.test), ACCURACY[arm], rng)
    predictions.save(folder / "predictions.parquet")
    accuracy = float(predictions.correct.mean())
    trials = tuple(
        Trial(learning_rate=rate, weight_decay=1e-4, options=options, epochs=5, steps=30, val_accuracy=0.4 + 0.1 * n,
              val_loss=1.0 - 0.1 * n, seconds=3.0 + n)
        for n, rate in enumerate(RATES[arm])
    )  # fmt: skip
    manifest = RunManifest(
        arm=arm, tuning=tuning, tuning_options=options, arm_hash="cd" * 32, seed=seed, backbone=CARD, image_size=SIZE,
        class_names=CLASSES, data_name=data.name, data_fingerprint=data.fingerprint, split_hash=split.hash,
        order_hash="34" * 32, head_hash="56" * 32, train_count=len(split.train), steps=6 * EPOCHS, started_from=None,
        course=Course.of(recipe, recipe.arms[arm], trials[-1], EPOCHS), search_seed=0, trials=trials,
        trained_parameters=PARAMETERS[arm], total_parameters=22060035 + PARAMETERS["vpt"],
        weights_bytes=4 * PARAMETERS[arm], seconds_per_epoch=2.46, peak_mib=912.4, energy_j=80.0 * EPOCHS,
        test=TestResult(accuracy=accuracy, low=accuracy - 0.08, high=min(1.0, accuracy + 0.07),
                        count=len(split.test), loss=0.613),
        device="cpu", precision="float32", processes=1, versions={"torch": "2.6.0"},
        software=Software(code_sha256="78" * 32, commit="9a" * 20, packages_sha256="bc" * 32),
        created=f"2026-05-{1 + len(arm):02d}T10:20:30+00:00",
        files={name: sha256_file(folder / name) for name in HASHED},
    )  # fmt: skip
    write_json(folder / "manifest.json", manifest.model_dump(mode="json"))


def _maps(pair: MatchedPair, per_rule: int) -> None:
    """Random maps in the files that make_panels writes, one of them blank."""
    panels = tuple(choose_panels(pair, per_rule=per_rule, seed=0))
    count, rng, folder = len(panels), np.random.default_rng(5), pair.path / "maps"
    targets = np.array([pair.data.by_id[panel.id].label for panel in panels])
    methods = ("grad_cam", "integrated_gradients", "attention_rollout")
    for arm in ARMS:
        logits = rng.normal(size=(count, len(CLASSES))).astype(np.float32)
        shares = rng.random((2, count)).astype(np.float32) / 10
        values = {
            "grad_cam": (rng.normal(size=(count, *GRID)) * 1e-3, {}),
            "integrated_gradients": (rng.normal(size=(count, SIZE, SIZE)) * 1e-4, {
                "completeness_gap": shares[0], "nodes": np.full(count, 33), "converged": np.arange(count) > 0}),
            "attention_rollout": (rng.random((count, *GRID)) / 16, {
                "prompt_share": shares[1], "prompt_share_null": shares[1] / 2}),
        }  # fmt: skip
        values["grad_cam"][0][0] = -np.abs(values["grad_cam"][0][0])
        for method, (array, extras) in values.items():
            options = {"layer": None} if method == "grad_cam" else {}
            maps = Attribution(method, array.astype(np.float32), targets, logits, (SIZE, SIZE), options, extras,
                               {"device": "cpu"})  # fmt: skip
            maps.save(folder / f"{arm}.{method}.safetensors")
    pixels = np.stack([np.asarray(Image.open(pair.data.by_id[panel.id].path)) for panel in panels])
    write_tensors(folder / "input.safetensors", {"pixels": torch.from_numpy(pixels)})
    plan = Plan(seed=0, per_rule=per_rule, methods=methods, options={}, backbone=CARD.sha256, panels=panels,
                weights={arm: pair.runs[arm].manifest.files["weights.safetensors"] for arm in ARMS})  # fmt: skip
    record = PanelsRecord(plan=plan, matched=count_rules(pair, panels), grid=GRID,
                          files={file.name: sha256_file(file)
                                 for file in sorted(folder.glob("*.safetensors"))})  # fmt: skip
    write_json(folder / "panels.json", record.model_dump(mode="json"))


def make_fake_pair(
    path: Path, *, per_class: int = 30, per_rule: int = 2, name: str = "textile", seed: int = 0
) -> MatchedPair:
    """Write a pair with its panels into a folder and open it; another seed gives other answers on the same images."""
    rng = np.random.default_rng(7)
    data = _dataset(path, rng, per_class, name)
    ids = [sample.id for sample in data.samples]
    split = Split(train=tuple(ids[0::3]), val=tuple(ids[1::9]), test=tuple(ids[2::3]), seed=0)
    write_json(path / "dataset.json", data.manifest())
    write_json(path / "split.json", split.to_json())
    rng = np.random.default_rng(1000 + seed) if seed else rng
    for arm in TUNINGS:
        _run(path, arm, data, split, rng, seed)
    pair = MatchedPair.load(path)
    _maps(pair, per_rule)
    return pair

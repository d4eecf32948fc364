"""Planted cues: a double dissociation that tells whether a map shows what its model uses.

Every picture carries two cues of equal size and contrast. Of each arm one model is trained on cue A's state and one on
cue B's; then both get the same pixels. Whatever a map owes to the picture, edges above all, is the same for both and
cancels; what is left is due to the model. The share of a map is its positive relevance in A over that in A and B; the
difference between the two models is 1 for a map that follows the model and 0 for one that does not.

A model need not use what it was trained on, so there is a gate: the same share of what the target's logit loses when a
cue is taken away. A cue goes as a whole, since a quarter of it may tell as much as all of it: the logit of a model that
knows nothing but the stripes fell by 4.4 without them, and by 0.1 without one patch of them. Where the gate is not
passed, a map that fails would prove nothing.

    pictures/            see `explain.evidence.cues`
    cue_a/ cue_b/        the runs, see `explain.training.folder`
    maps/                one file per arm, cue and method: what the shares are taken from
    planted.json         `PlantedResult`; written last

Source: Adebayo et al. 2018, arXiv 1810.03292, who ask that a map depend on the model; Yang and Kim 2019, arXiv
1907.09701, who plant cues and compare models trained on either.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError

from explain.attribution import Array
from explain.backbone import load_backbone
from explain.data.base import Dataset
from explain.data.split import Split, make_split
from explain.engine import DEFAULT_METHODS, attribute
from explain.errors import InputError, IntegrityError
from explain.evidence.cues import CUES, Cue, CuedPictures, CueFacts, cue_facts, make_pictures
from explain.evidence.occlusion import occlusion_losses
from explain.evidence.subject import on_grid
from explain.files import read_json, sha256_json, write_json
from explain.metrics.controls import CONTROL_LABELS, control_maps
from explain.metrics.statistics import paired_difference
from explain.passes import Passes
from explain.provenance import library_versions
from explain.record import Record
from explain.tensor_files import read_tensors, write_tensors
from explain.training.images import Images, Progress, quiet
from explain.training.machine import Machine
from explain.training.recipe import Arm, Recipe
from explain.training.run import Run
from explain.training.train import Workshop, train_arms
from explain.wrapping import wrap

PLANTED = Recipe(
    image_size=112, epochs=3, search_epochs=1, batch_size=8, monitor_images=0,
    arms={
        "vpt": Arm(tuning="prompt", options={"num_tokens": 10, "deep": True}, learning_rates=(5e-3,)),
        "ft": Arm(tuning="full", learning_rates=(3e-5,)),
    },
)  # fmt: skip
"""How the models are trained when nothing else is said."""

TRAIN_IMAGES, TEST_IMAGES = 256, 100

GATE = 0.6
"""Least difference between the two models' shares of the lost logit at which both use their own cue."""

LEAST_IMAGES = 10
"""Pictures that both models answer right, under which nothing is told."""

RESAMPLES = 10_000

FILE, LOSSES = "planted.json", "without_cue"
CONTROLS = tuple(CONTROL_LABELS)
BOTH = np.eye(2, dtype=bool)[:, None]
"""The two cues as regions of a map with one cell for each, bool (2, 1, 2)."""

Status = Literal["PASSED", "FAILED", "NOT TESTED"]


class Shares(Record):
    """Where a map lies under the two models of an arm, over pictures.

    Args:
        share_a, share_b: mean share of relevance in cue A under the model trained on A, and on B, 0-1.
        difference: of the two, -1 to 1; `low` and `high` end its 95 % bootstrap interval over pictures.
        images: pictures counted. A map without any positive value in both cues has no share; `blank` pictures were
            left out because of one.
    """

    arm: str
    share_a: float | None
    share_b: float | None
    difference: float | None
    low: float | None
    high: float | None
    images: int
    blank: int


class Trust(Shares):
    """One method (or control) on one arm: does its map follow the model?

    Args:
        status: PASSED when low > 0; FAILED when not, or when blank maps leave fewer than `LEAST_IMAGES` pictures or
            half of them; NOT TESTED when the gate is not passed.
    """

    method: str
    status: Status


class Gate(Shares):
    """One arm: does each model use its own cue? The shares are of the logit lost with each cue.

    Blank pictures are those where taking either cue away lowered nothing: a model that sees no cue may answer the right
    state by default.

    Args:
        passed: difference of at least `GATE`, on at least `LEAST_IMAGES` pictures and half of those answered right.
        accuracy_a, accuracy_b: of the two models on all test pictures, 0-1.
        dropped: test pictures that either model got wrong, which nothing else counts.
    """

    dropped: int
    passed: bool
    accuracy_a: float
    accuracy_b: float


class PlantedResult(Record):
    """What a double dissociation found.

    Args:
        data: name of the data set whose images lie below the cues.
        backbone, backbone_sha256: the backbone's spec and hash.
        grid: rows and columns of patches.
        methods: attribution methods in order, then the controls are `controls`.
        options: of the methods, where they are not the default.
        distinct_test_images: different images below the test pictures.
    """

    format: int = 1
    data: str
    backbone: str
    backbone_sha256: str
    image_size: int
    grid: tuple[int, int]
    arms: tuple[str, ...]
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    options: dict[str, dict[str, Any]]
    gates: tuple[Gate, ...]
    trusts: tuple[Trust, ...]
    cues: tuple[CueFacts, ...]
    learning_rates: dict[str, float]
    train_images: int
    test_images: int
    distinct_test_images: int
    seed: int
    gate_difference: float = GATE
    resamples: int = RESAMPLES
    recipe_hash: str
    versions: dict[str, str]

    @classmethod
    def load(cls, folder: str | Path) -> "PlantedResult":
        """Read what `planted_cues` wrote into its folder.

        Raises:
            IntegrityError: it is missing or of another format.
        """
        path = Path(folder) / FILE
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise IntegrityError(f"{path} is no result of this version: {error.errors()[0]['msg']}; run `explain "
                                 "planted` again") from None  # fmt: skip

    def trust(self, arm: str, method: str) -> Trust | None:
        """One row, or None when it was not measured."""
        return next((row for row in self.trusts if (row.arm, row.method) == (arm, method)), None)

    def status(self, arm: str, method: str) -> Status:
        """In a word; what was not measured is NOT TESTED."""
        found = self.trust(arm, method)
        return "NOT TESTED" if found is None else found.status


def cue_shares(maps: Array, first: Array, second: Array) -> Array:
    """Share of the positive relevance in two regions that lies in the first of them, (n,); NaN without any in either.

    Args:
        maps: (n, h, w) on the patch grid; what lies outside both regions is not looked at.
        first, second: bool (n, h, w), apart from each other.
    """
    inside = [np.where(region, np.maximum(maps, 0), 0).sum(axis=(1, 2), dtype=np.float64) for region in (first, second)]
    total = inside[0] + inside[1]
    return np.asarray(np.divide(inside[0], total, out=np.full(len(total), np.nan), where=total > 0))


def gate_of(arm: str, shares_a: Array, shares_b: Array, *, accuracies: tuple[float, float], dropped: int) -> Gate:
    """The gate of an arm from the shares (n,) of the lost logit under both models; pictures in the same order."""
    found = _compare(shares_a, shares_b)
    passed = _are_enough(found) and found["difference"] >= GATE
    return Gate(arm=arm, dropped=dropped, passed=passed, accuracy_a=accuracies[0], accuracy_b=accuracies[1], **found)


def trust_of(method: str, shares_a: Array, shares_b: Array, gate: Gate) -> Trust:
    """One method's row from its shares (n,) under both models; pictures in the same order."""
    found = _compare(shares_a, shares_b)
    status: Status = "PASSED" if _are_enough(found) and found["low"] > 0 else "FAILED"
    return Trust(arm=gate.arm, method=method, status=status if gate.passed else "NOT TESTED", **found)


def _are_enough(found: Mapping[str, Any]) -> bool:
    counted: int = found["images"]
    return counted >= LEAST_IMAGES and counted >= found["blank"]


def _compare(shares_a: Array, shares_b: Array) -> dict[str, Any]:
    seen = np.isfinite(shares_a) & np.isfinite(shares_b)
    a, b, count = shares_a[seen], shares_b[seen], int(seen.sum())
    if not count:
        return {name: None for name in ("share_a", "share_b", "difference", "low", "high")} | {
            "images": 0, "blank": len(seen)}  # fmt: skip
    difference = paired_difference(a, b, resamples=RESAMPLES)
    return {"share_a": float(a.mean()), "share_b": float(b.mean()), "difference": difference.mean,
            "low": difference.low, "high": difference.high, "images": count, "blank": len(seen) - count}  # fmt: skip


def planted_cues(
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    out: str | Path,
    methods: Sequence[str] = DEFAULT_METHODS,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    split: Split | None = None,
    train_images: int = TRAIN_IMAGES,
    test_images: int = TEST_IMAGES,
    seed: int = 0,
    machine: Machine | None = None,
    progress: Progress = quiet,
) -> PlantedResult:
    """Train every arm on either cue and measure whether each method's maps tell the two models apart.

    Call it again to continue: pictures, runs and maps that are finished are kept.

    Args:
        data: any images; their own classes do not matter.
        recipe: how the models are trained; None is `PLANTED`. What it says of parts, noise and imbalance is not used.
        out: folder of everything.
        methods: attribution methods.
        options: of the methods, by name.
        split: which images may be used for what; None draws one. Test pictures are made of its test images alone.
        train_images: training pictures; an eighth of as many are for validation.
        test_images: test pictures.
        seed: of the cues' places and states, the split and the trainings.
        machine: how it is computed.
        progress: called with (what is running, images done, images in all).

    Raises:
        InputError: too few images asked for, or the folder holds other work.
        DatasetError: too few images for the split.
        NonFiniteError: a loss became NaN or infinite.
    """
    if train_images < 8 or test_images < LEAST_IMAGES:
        raise InputError(f"expected 8 training and {LEAST_IMAGES} test images or more, got {train_images} and "
                         f"{test_images}")  # fmt: skip
    workshop, folder = Workshop(machine or Machine(), progress), Path(out)
    recipe = _own(recipe or PLANTED, seed)
    vit, card = load_backbone(recipe.backbone, recipe.image_size)
    transform = wrap(vit).transform
    patch_px = transform.size[0] // int(vit.patch_embed.grid_size[0])
    counts = {"train": train_images, "val": max(8, train_images // 8), "test": test_images}
    with workshop.machine.first():
        pictures = make_pictures(
            data, split or make_split(data, seed=seed), folder / "pictures", transform=transform, patch_px=patch_px,
            counts=counts, seed=seed, progress=lambda done, total: progress("drawing cues", done, total),
        )  # fmt: skip
    runs = {}
    for cue in CUES:  # both models of an arm at one rate: what is searched for the first holds for the second
        searched_in = None if cue == CUES[0] else folder / f"cue_{CUES[0]}"
        runs[cue] = train_arms(pictures.labelled(cue), recipe, folder / f"cue_{cue}",
                               workshop.saying(f"cue {cue.upper()}: "), searched_in=searched_in)  # fmt: skip
    test = workshop.images.take((pictures.labelled("a").by_id[name] for name in runs["a"][next(iter(recipe.arms))]
                                 .predictions.ids), transform, "reading test images")  # fmt: skip
    trial = _Trial(folder, pictures, runs, test, transform.normalise(test.pixels), tuple(methods), dict(options or {}),
                   workshop, seed)  # fmt: skip
    rows = [trial.arm(name) for name in recipe.arms]
    result = PlantedResult(
        data=data.name, backbone=card.spec, backbone_sha256=card.sha256, image_size=recipe.image_size,
        grid=pictures.content.grid, arms=tuple(recipe.arms), methods=tuple(methods), controls=CONTROLS,
        options={name: dict(of) for name, of in (options or {}).items()}, gates=tuple(gate for gate, _ in rows),
        trusts=tuple(trust for _, trusts in rows for trust in trusts), cues=trial.facts(),
        learning_rates={name: run.manifest.learning_rate for name, run in runs["a"].items()},
        train_images=train_images, test_images=test_images,
        distinct_test_images=len({pictures.by_id[name].made_of for name in test.ids}), seed=seed,
        recipe_hash=recipe.hash, versions=library_versions(),
    )  # fmt: skip
    if workshop.machine.rank == 0:
        write_json(folder / FILE, result.model_dump(mode="json"))
    return result


def _own(recipe: Recipe, seed: int) -> Recipe:
    """The recipe on pictures that come in parts of their own."""
    return recipe.model_copy(update={
        "train_per_class": None, "val_per_class": None, "test_per_class": None, "train_images": None,
        "label_noise": 0.0, "imbalance": 1.0, "train_on_val": False, "monitor_images": 0, "seed": seed,
        "split_seed": seed,
    })  # fmt: skip


@dataclass
class _Trial:
    """The trained models on the test pictures."""

    folder: Path
    pictures: CuedPictures
    runs: Mapping[Cue, Mapping[str, Run]]
    test: Images
    images: torch.Tensor
    methods: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]]
    workshop: Workshop
    seed: int
    passes: Passes = field(default_factory=Passes)

    def arm(self, arm: str) -> tuple[Gate, list[Trust]]:
        """The gate and one row per method and control, on the pictures that both models answer right."""
        answers = {cue: self.runs[cue][arm].predictions for cue in CUES}
        rows = np.flatnonzero(answers["a"].correct & answers["b"].correct)
        accuracies = (float(answers["a"].correct.mean()), float(answers["b"].correct.mean()))
        regions = [self.pictures.regions([self.test.ids[row] for row in rows], cue) for cue in CUES]
        maps = {cue: self.maps(arm, cue, rows, answers[cue].labels[rows], regions) for cue in CUES}
        lost = [cue_shares(maps[cue].pop(LOSSES)[:, None], *BOTH) for cue in CUES]
        gate = gate_of(arm, *lost, accuracies=accuracies, dropped=len(self.test) - len(rows))
        for cue in CUES:
            maps[cue] |= self.controls(rows)
        shares = {name: [cue_shares(maps[cue][name], *regions) for cue in CUES] for name in maps[CUES[0]]}
        return gate, [trust_of(name, a, b, gate) for name, (a, b) in shares.items()]

    def maps(self, arm: str, cue: Cue, rows: Array, labels: Array, regions: list[Array]) -> dict[str, Array]:
        """Every map of one model and what it loses with each cue, read back where it was made before."""
        run, images, found = self.runs[cue][arm], self.images[rows], {}
        device = self.workshop.machine.torch_device
        for name in (LOSSES, *self.methods):
            what = f"cue {cue.upper()}: {arm}: {name}"

            def make(name: str = name, what: str = what) -> Array:
                if not len(rows):
                    return np.zeros((0, 2) if name == LOSSES else (0, *self.pictures.content.grid), dtype=np.float32)
                model, tell = run.model.to(device), self.workshop.progress
                if name == LOSSES:
                    return occlusion_losses(model, images, labels, np.stack(regions, axis=1), self.passes,
                                            done=lambda done: tell(what, done, len(rows)))  # fmt: skip
                made = attribute(
                    model, images, methods=name, targets=torch.from_numpy(labels),
                    options={name: self.options[name]} if name in self.options else None,
                    progress=lambda done, total: tell(what, done, total),
                )  # fmt: skip
                return on_grid(made[name], self.pictures.content.grid)

            key = sha256_json([1, run.manifest.weights_sha256, [self.test.ids[row] for row in rows], name,
                               dict(self.options.get(name, {}))])  # fmt: skip
            found[name] = _kept(self.folder / "maps" / f"{arm}.cue_{cue}.{name}.safetensors", key, make)
        return found

    def controls(self, rows: Array) -> dict[str, Array]:
        """What no model made, of the same pixels."""
        pixels = self.test.pixels[rows].permute(0, 2, 3, 1).numpy()
        grid = self.pictures.content.grid
        if not len(rows):
            return dict.fromkeys(CONTROLS, np.zeros((0, *grid), dtype=np.float32))
        return dict(control_maps(pixels, grid, [f"{self.seed} {self.test.ids[row]}" for row in rows]))

    def facts(self) -> tuple[CueFacts, ...]:
        """What the cues look like in the test pictures."""
        pixels = self.test.pixels.permute(0, 2, 3, 1).numpy()
        return tuple(cue_facts(pixels, self.pictures.regions(self.test.ids, cue), cue, self.pictures.content.patch_px)
                     for cue in CUES)  # fmt: skip


def _kept(path: Path, key: str, make: Callable[[], Array]) -> Array:
    """Maps from their file when it is of this key, else made and written."""
    if path.is_file():
        tensors, metadata = read_tensors(path)
        if json.loads(metadata.get("planted", "null")) == key:
            return np.asarray(tensors["values"].numpy())
    values = make()
    write_tensors(path, {"values": torch.from_numpy(values)}, {"planted": json.dumps(key)})
    return values

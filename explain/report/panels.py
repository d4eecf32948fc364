"""Panels: which test images a report shows, their maps, and the pictures of them.

Images are chosen by rule and seed, never by hand, and the record says how many images each rule matched. Maps are
kept beside the runs and made only once:

    maps/plan.json                   what is being made; another plan discards what an unfinished one left
    maps/<arm>.<method>.safetensors  the raw maps of all panels
    maps/input.safetensors           the images as the models saw them
    maps/panels.json                 plan, rule counts and hashes of the files; written last
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import ValidationError

from explain.attribution import Array, Attribution
from explain.engine import DEFAULT_METHODS, attribute, open_image
from explain.errors import InputError, IntegrityError
from explain.files import read_json, sha256_file, write_json
from explain.methods.base import METHODS
from explain.model import TunedModel
from explain.record import Record
from explain.render.heatmap import Scope, View, colour_bar, view_maps
from explain.tensor_files import read_tensors, write_tensors
from explain.training.pair import MatchedPair
from explain.training.run import Run

RULES = ("only_vpt_right", "only_ft_right", "both_wrong", "worst", "borderline", "random")
RANKED = ("worst", "borderline")
"""Rules that take the first of an order instead of drawing."""

ARMS = ("vpt", "ft")
JPEG_QUALITY = 88
BARS, BAR_PX = ("positive", "signed"), (16, 256)
"""Kinds of maps, as in `Method.picture`, and the size of the picture of a scale: height, width."""

PER_RULE = 2
"""Images that each rule chooses where nobody says how many."""

BATCH = 4
"""Images per call of the progress function."""

Progress = Callable[[int, int, str], None]
"""Called with (maps done, maps in all, what is being done)."""


class Panel(Record):
    """One image that is shown, and the rule that chose it."""

    id: str
    rule: str


class Plan(Record):
    """Everything that decides the maps of the panels; equal plans have equal maps."""

    format: int = 1
    seed: int
    per_rule: int
    methods: tuple[str, ...]
    options: dict[str, dict[str, Any]]
    backbone: str
    weights: dict[str, str]
    panels: tuple[Panel, ...]


class PanelsRecord(Record):
    """What `panels.json` holds.

    Args:
        plan: what was asked for.
        matched: per rule, how many test images matched it.
        grid: patch grid (h, w) of the models.
        files: SHA-256 of every file of the panels.
    """

    plan: Plan
    matched: dict[str, int]
    grid: tuple[int, int]
    files: dict[str, str]


def match_rules(pair: MatchedPair) -> dict[str, list[str]]:
    """Ids of the test images that each rule may choose from; "random" may draw any.

    They are sorted by name, but for "worst" (wrong answers of either model, the most confident first) and "borderline"
    (every image, the smallest margin between a model's two likeliest classes first).

    Raises:
        IntegrityError: the two runs did not answer the same images.
    """
    vpt, ft = pair.vpt.predictions, pair.ft.predictions
    if vpt.ids != ft.ids:
        raise IntegrityError(f"the runs in {pair.path} predicted different test images; train the pair again")
    ids = np.array(vpt.ids, dtype=object)
    masks = {
        "only_vpt_right": vpt.correct & ~ft.correct,
        "only_ft_right": ft.correct & ~vpt.correct,
        "both_wrong": ~vpt.correct & ~ft.correct,
    }
    mistakes = np.max([np.where(run.correct, -1.0, run.probabilities.max(axis=1)) for run in (vpt, ft)], axis=0)
    margins = np.min([_margins(run.probabilities) for run in (vpt, ft)], axis=0)
    by_name = np.argsort(ids)
    ranked = {"worst": by_name[np.argsort(-mistakes[by_name], kind="stable")][: (mistakes >= 0).sum()],
              "borderline": by_name[np.argsort(margins[by_name], kind="stable")]}  # fmt: skip
    return ({rule: sorted(ids[mask]) for rule, mask in masks.items()}
            | {rule: list(ids[order]) for rule, order in ranked.items()} | {"random": sorted(ids)})  # fmt: skip


def _margins(probabilities: Array) -> Array:
    """Distance of the two largest of each row, (n,)."""
    top = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(top[:, -1] - top[:, 0] if top.shape[1] > 1 else np.ones(len(top)))


def choose_panels(pair: MatchedPair, *, per_rule: int = PER_RULE, seed: int = 0) -> list[Panel]:
    """The images to show: up to `per_rule` of each rule that no rule before it has taken, in the order of `RULES`.

    Rules of `RANKED` take the first of their order, the others draw without replacement.
    """
    if per_rule < 1:
        raise InputError(f"expected per_rule >= 1, got {per_rule}")
    rng = np.random.default_rng(seed)
    chosen: list[Panel] = []
    for rule, ids in match_rules(pair).items():
        taken = {panel.id for panel in chosen}
        left = [name for name in ids if name not in taken]
        count = min(per_rule, len(left))
        drawn = range(count) if rule in RANKED else rng.choice(len(left), size=count, replace=False)
        chosen += [Panel(id=left[index], rule=rule) for index in drawn]
    return chosen


def count_rules(pair: MatchedPair, panels: Sequence[Panel]) -> dict[str, int]:
    """How many test images each rule matched, zeros included; for a rule that any image matches, those that no rule
    before it had taken."""
    counts = {rule: len(ids) for rule, ids in match_rules(pair).items()}
    for rule in ("borderline", "random"):
        before = RULES[: RULES.index(rule)]
        counts[rule] -= sum(panel.rule in before for panel in panels)
    return counts


@dataclass(frozen=True)
class Panels:
    """Finished panels on disk.

    Args:
        folder: the pair's `maps` folder.
        record: what was recorded when they were finished.
    """

    folder: Path
    record: PanelsRecord

    @classmethod
    def load(cls, pair_path: str | Path) -> "Panels":
        """Open the panels of a pair's folder.

        Raises:
            IntegrityError: unfinished, of another format, or a file changed since.
        """
        folder = Path(pair_path) / "maps"
        try:
            record = PanelsRecord.model_validate(read_json(folder / "panels.json"))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise IntegrityError(
                f"{folder}/panels.json: {where}: {first['msg']}; delete it to make the maps again"
            ) from None
        for name, expected in record.files.items():
            if Path(name).name != name or not (folder / name).is_file() or sha256_file(folder / name) != expected:
                raise IntegrityError(
                    f"{folder / name} is missing or changed; delete {folder}/panels.json to make it again"
                )
        return cls(folder, record)

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The images, in the order they are shown."""
        return self.record.plan.panels

    @property
    def grid(self) -> tuple[int, int]:
        """Patch grid (h, w) of the models."""
        return self.record.grid

    @cached_property
    def maps(self) -> dict[str, dict[str, Attribution]]:
        """Arm -> method -> maps of all panels."""
        methods = self.record.plan.methods
        return {arm: {name: Attribution.load(self.folder / _map_file(arm, name)) for name in methods} for arm in ARMS}

    @cached_property
    def inputs(self) -> npt.NDArray[np.uint8]:
        """The images as the models saw them, uint8 (B, H, W, 3), RGB."""
        tensors, _ = read_tensors(self.folder / "input.safetensors")
        return np.asarray(tensors["pixels"].numpy())


def finished_panels(pair: MatchedPair, per_rule: int | None = None) -> Panels | None:
    """The panels in the pair's folder when they are whole and were made with these very weights, by these rules.

    Args:
        pair: the two runs.
        per_rule: images that each rule may choose; None for however many.
    """
    if not (pair.path / "maps" / "panels.json").is_file():
        return None
    panels = Panels.load(pair.path)
    current = {arm: pair.runs[arm].manifest.weights_sha256 for arm in panels.record.plan.weights}
    plan = panels.record.plan
    asked = plan.weights == current and set(panels.record.matched) == set(RULES) and per_rule in (None, plan.per_rule)
    return panels if asked else None


def make_panels(
    pair: MatchedPair,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    per_rule: int = PER_RULE,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
    device: str | torch.device | None = None,
) -> Panels:
    """Choose images and compute their maps with both models, for the true class of each image.

    What is finished is kept: the same plan computes nothing, an interrupted one goes on where it stopped.

    Args:
        pair: the two runs.
        methods: registered names.
        per_rule, seed: as in `choose_panels`.
        options: per method, its options.
        progress: called after every few maps.
        device: where to compute; None is the CPU. The models are moved back afterwards.
    """
    plan = _plan(pair, methods, per_rule, seed, options or {})
    folder = pair.path / "maps"
    if (folder / "panels.json").is_file() and Panels.load(pair.path).record.plan == plan:
        return Panels.load(pair.path)
    _start(folder, plan)
    steps = [(arm, name) for arm in ARMS for name in plan.methods]
    count = len(plan.panels)
    for step, (arm, name) in enumerate(steps):

        def report(done: int, _: int, step: int = step, arm: str = arm, name: str = name) -> None:
            if progress:
                progress(step * count + done, len(steps) * count, f"{arm} {METHODS[name].label}")

        if not (folder / _map_file(arm, name)).is_file():
            _make_maps(pair, plan, arm, name, device, report).save(folder / _map_file(arm, name))
        report(count, count)
    if not (folder / "input.safetensors").is_file():
        write_tensors(folder / "input.safetensors", {"pixels": _pixels(pair, plan)})
    names = ["input.safetensors", *(_map_file(arm, name) for arm, name in steps)]
    record = PanelsRecord(
        plan=plan, matched=count_rules(pair, plan.panels), grid=pair.vpt.model.layout.grid,
        files={name: sha256_file(folder / name) for name in names},
    )  # fmt: skip
    write_json(folder / "panels.json", record.model_dump(mode="json"))
    return Panels.load(pair.path)


def view_panels(panels: Panels, *, scope: Scope = "map") -> dict[tuple[int, str, str], View]:
    """How every map of the panels is shown, by (panel index, arm, method)."""
    return view_maps(panels.maps, panels.grid, scope)


def draw_pictures(panels: Panels, *, scope: Scope = "map") -> dict[str, bytes]:
    """Every picture of a report as JPEG, by file name: `003.jpg` is an input, `003.vpt.grad_cam.jpg` a map,
    `bar.signed.jpg` the colour scale of signed maps."""
    pictures = draw_bars() | {picture_file(index): encode_jpeg(image) for index, image in enumerate(panels.inputs)}
    for (index, arm, name), view in view_panels(panels, scope=scope).items():
        pictures[picture_file(index, arm, name)] = encode_jpeg(view.draw(panels.inputs[index]))
    return pictures


def draw_bars() -> dict[str, bytes]:
    """The colour scales as JPEG, by file name."""
    return {bar_file(kind): encode_jpeg(colour_bar(signed=kind == "signed", size=BAR_PX)) for kind in BARS}


def bar_file(kind: str) -> str:
    """File name of the colour scale of a kind of map, "positive" or "signed"."""
    return f"bar.{kind}.jpg"


def picture_file(index: int, *parts: str) -> str:
    """File name of a panel's picture: of its input, or of an arm and a method."""
    return ".".join([f"{index:03d}", *parts, "jpg"])


def encode_jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """An RGB picture as JPEG bytes without chroma subsampling, which would smear the colours of a map."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def _plan(
    pair: MatchedPair, methods: Iterable[str], per_rule: int, seed: int, options: Mapping[str, Mapping[str, Any]]
) -> Plan:
    names = tuple(methods)
    for name in names:
        METHODS[name]  # an unknown name is an error before anything is computed
    return Plan(
        seed=seed, per_rule=per_rule, methods=names,
        options={name: dict(options[name]) for name in names if name in options},
        backbone=pair.vpt.manifest.backbone.sha256,
        weights={arm: pair.runs[arm].manifest.weights_sha256 for arm in ARMS},
        panels=tuple(choose_panels(pair, per_rule=per_rule, seed=seed)),
    )  # fmt: skip


def _start(folder: Path, plan: Plan) -> None:
    """Make the folder ready for a plan: keep what the same plan left, drop what another one did."""
    stored = folder / "plan.json"
    (folder / "panels.json").unlink(missing_ok=True)
    if stored.is_file() and read_json(stored) == plan.model_dump(mode="json"):
        return
    for old in folder.glob("*.safetensors"):
        old.unlink()
    write_json(stored, plan.model_dump(mode="json"))


def _make_maps(
    pair: MatchedPair, plan: Plan, arm: str, method: str, device: str | torch.device | None,
    report: Callable[[int, int], None],
) -> Attribution:  # fmt: skip
    samples = [pair.data.by_id[panel.id] for panel in plan.panels]
    with _model_on(pair.runs[arm], device) as model:
        maps = attribute(
            model, [sample.path for sample in samples], methods=(method,),
            targets=torch.tensor([sample.label for sample in samples]),
            options={method: plan.options[method]} if method in plan.options else None,
            batch_size=BATCH, progress=report,
        )  # fmt: skip
    return maps[method]


def _pixels(pair: MatchedPair, plan: Plan) -> torch.Tensor:
    """The images as the models see them, uint8 (B, H, W, 3)."""
    transform = pair.vpt.model.transform
    pictures = [transform.pixels(open_image(pair.data.by_id[panel.id])) for panel in plan.panels]
    return torch.stack(pictures).permute(0, 2, 3, 1)


@contextmanager
def _model_on(run: Run, device: str | torch.device | None) -> Iterator[TunedModel]:
    """A run's model on a device; it goes back to where it was, also after a failure."""
    model, before = run.model, run.model.device
    try:
        yield model.to(device) if device is not None else model
    finally:
        model.to(before)


def _map_file(arm: str, method: str) -> str:
    return f"{arm}.{method}.safetensors"

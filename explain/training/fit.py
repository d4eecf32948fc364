"""fit: the one training loop, the same for every arm.

The loop knows nothing of tunings: it trains the parameters that require a gradient. What does not train and lies below
all that does, the stem, is computed once per image and kept. A training that was killed continues from its checkpoint
and ends with the very numbers it would have had.
"""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from explain.errors import NonFiniteError
from explain.model import TunedModel
from explain.training.checkpoint import (
    Checkpoint,
    optimizer_tensors,
    random_states,
    restore_optimizer,
    restore_random_states,
)
from explain.training.course import Course
from explain.training.images import FLIPS, EpochPlan, Images, PixelSource, Progress, Source, quiet
from explain.training.machine import Machine, PeakMemory, energy_used_j
from explain.training.run import Epoch
from explain.training.stem import Flip, Stem, StemCache, split_frozen

BEST = "best."
"""Prefix of the best epoch's weights in a checkpoint."""


@dataclass(frozen=True)
class Stems:
    """What frozen stems made of the images, kept for all trials, seeds and arms that share a stem.

    Args:
        machine: its `cache_mib` is the limit of each entry.
        progress: told while they are computed.
    """

    machine: Machine
    progress: Progress = quiet
    _kept: dict[str, dict[tuple[object, ...], StemCache | None]] = field(default_factory=dict)

    def source(self, stem: Stem, images: Images, model: TunedModel, variants: tuple[Flip, ...]) -> Source | None:
        """The stem's outputs for some images, or None when they need more memory than allowed."""
        key = stem.hash
        if key not in self._kept:
            self._kept.clear()  # another stem: the memory is for one
            self._kept[key] = {}
        part = (images.ids, variants)
        if part not in self._kept[key]:
            with self.machine.accelerator.autocast():
                self._kept[key][part] = StemCache.build(
                    stem, images.pixels, model.transform, variants=list(variants), batch_size=32,
                    device=self.machine.torch_device, limit_mib=self.machine.cache_mib,
                    progress=lambda done, total: self.progress("computing frozen blocks once", done, total),
                )  # fmt: skip
        return self._kept[key][part]


@dataclass
class _State:
    """Where a training stands: what a checkpoint says beside its tensors. Sums are over this epoch so far."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: float = 0.0
    norm: float = 0.0
    norm_max: float = 0.0
    seconds: float = 0.0
    energy_j: float | None = 0.0
    peak_mib: float = 0.0
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def next_epoch(self, record: Epoch) -> "_State":
        return _State(epoch=self.epoch + 1, best=self.best, history=[*self.history, record.model_dump()])


@dataclass
class _Training:
    """One training on its way; see `fit`."""

    model: TunedModel
    network: nn.Module
    sources: dict[str, Source]
    images: dict[str, Images]
    course: Course
    optimizer: torch.optim.Optimizer
    machine: Machine
    checkpoint: Checkpoint | None
    what: str
    progress: Progress
    state: _State = field(default_factory=_State)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.names: dict[Tensor, str] = {value: name for name, value in self.trained.items()}

    def resume(self) -> None:
        """Continue where the checkpoint stands, if there is one."""
        found = self.checkpoint.load() if self.checkpoint is not None else None
        if found is None:
            return
        tensors, state = found
        with torch.no_grad():
            for name, value in self.trained.items():
                value.copy_(tensors[f"weight.{name}"])
        restore_optimizer(self.optimizer, self.names, tensors)
        restore_random_states(tensors)
        self.best = {key.removeprefix(BEST): value for key, value in tensors.items() if key.startswith(BEST)}
        self.state = _State(**state)

    def save(self, *, epoch_ends: bool = False) -> None:
        """Write a checkpoint when it is time."""
        if self.checkpoint is not None and self.checkpoint.due(epoch_ends=epoch_ends):
            weights = {f"weight.{name}": value for name, value in self.trained.items()}
            best = {f"{BEST}{name}": value for name, value in self.best.items()}
            moments = optimizer_tensors(self.optimizer, self.names)
            self.checkpoint.save(weights | best | moments | random_states(), asdict(self.state))

    def epoch(self) -> None:
        """One pass over the training images, or what is left of it."""
        train, course, state = self.images["train"], self.course, self.state
        plan = EpochPlan.draw(course.seed, state.epoch, len(train), course.flip)
        per_epoch, peak = course.steps_per_epoch(len(train)), PeakMemory(self.machine.torch_device)
        self.network.train()
        for index, batch in enumerate(plan.batches(course.batch_size)):
            if index < state.step:
                continue
            started, energy = time.perf_counter(), energy_used_j(self.machine.torch_device)
            rate = course.rate_at(state.epoch * per_epoch + index, per_epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            self.take_step(batch, plan.flips, rate, peak)
            state.step, state.peak_mib = index + 1, max(state.peak_mib, peak.mib)
            state.seconds += time.perf_counter() - started
            state.energy_j = _spent(state.energy_j, energy, energy_used_j(self.machine.torch_device))
            done = state.epoch * len(train) + min((index + 1) * course.batch_size, len(train))
            self.progress(self.what, done, course.epochs * len(train))
            self.save()
        record = self.record(course.rate_at((state.epoch + 1) * per_epoch - 1, per_epoch))
        if course.select == "best" and (self.state.best is None or (record.val_accuracy or 0) > self.state.best):
            self.state.best = record.val_accuracy
            self.best = {name: value.detach().clone() for name, value in self.trained.items()}
        self.state = self.state.next_epoch(record)
        self.save(epoch_ends=True)

    def take_step(self, batch: Tensor, flips: Tensor, rate: float, peak: PeakMemory) -> None:
        """Forward, backward and update on one batch, of which every process computes its share."""
        machine, labels = self.machine, self.images["train"].labels
        mine = batch.tensor_split(machine.processes)[machine.rank]
        parts = mine.split(-(-len(mine) // machine.accumulate)) if len(mine) else [batch[:1]]
        for number, part in enumerate(parts, start=1):
            with ExitStack() as stack:
                if number < len(parts):
                    stack.enter_context(machine.accelerator.no_sync(self.network))
                inputs, truth = self.sources["train"].rows(part, flips[part]), labels[part].to(machine.torch_device)
                with machine.accelerator.autocast():
                    logits = self.network(inputs).float()
                # a process without images of its own still takes part, with nothing to say
                losses = cross_entropy(logits, truth, reduction="sum") * (1.0 if len(mine) else 0.0)
                peak.sample()
                machine.accelerator.backward(losses * (machine.processes / len(batch)))
                self._count(losses, logits, truth, part, rate, len(mine) > 0)
        norm = float(get_total_norm([value.grad for value in self.trained.values() if value.grad is not None]))
        self._check(norm, "gradient", batch, rate)
        self.state.norm, self.state.norm_max = self.state.norm + norm, max(self.state.norm_max, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _count(self, loss: Tensor, logits: Tensor, truth: Tensor, part: Tensor, rate: float, counts: bool) -> None:
        value = loss.item()
        self._check(value, "loss", part, rate)
        if counts:
            self.state.loss += value
            self.state.correct += int((logits.argmax(1) == truth).sum())

    def _check(self, value: float, name: str, rows: Tensor, rate: float) -> None:
        if value - value == 0:  # neither NaN nor infinite
            return
        ids = [self.images["train"].ids[row] for row in rows.tolist()]
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        step = self.state.epoch * self.course.steps_per_epoch(len(self.images["train"])) + self.state.step
        raise NonFiniteError(
            f"the {name} became {value} at step {step} (learning rate {rate:g}) on images {shown}; "
            "use a smaller learning rate, or look at these images"
        )

    def record(self, rate: float) -> Epoch:
        """What this epoch came to, with the figures on validation and watched test images."""
        state, count = self.state, len(self.images["train"])
        loss, correct = self.machine.total([state.loss, state.correct])
        watched: dict[str, float | None] = {}
        for part in ("val", "test"):
            known = len(self.images[part]) > 0
            logits = self.logits(part) if known else torch.zeros(0, 1)
            labels = self.images[part].labels
            watched[f"{part}_loss"] = float(cross_entropy(logits, labels)) if known else None
            watched[f"{part}_accuracy"] = accuracy(logits, labels) if known else None
        return Epoch(
            epoch=state.epoch + 1, learning_rate=rate, train_loss=loss / count, train_accuracy=correct / count,
            **watched, gradient_norm=state.norm / max(1, state.step), gradient_norm_max=state.norm_max,
            seconds=state.seconds, peak_mib=state.peak_mib, energy_j=state.energy_j,
        )  # fmt: skip

    def logits(self, part: str) -> Tensor:
        """Logits of the validation or the watched test images."""
        return predict(self.network, self.sources[part], len(self.images[part]), self.course.batch_size, self.machine)


def fit(
    model: TunedModel,
    images: dict[str, Images],
    course: Course,
    *,
    machine: Machine,
    stems: Stems | None = None,
    checkpoint: Checkpoint | None = None,
    what: str = "training",
    progress: Progress = quiet,
) -> list[Epoch]:
    """Train a model in place. The global random state is left as found.

    Args:
        model: what is trained: its parameters that require a gradient.
        images: "train", "val" and "test"; those of "test" are watched and decide nothing; the latter two may be empty.
        course: everything that decides the numbers.
        machine: how it is computed.
        stems: where outputs of frozen blocks are kept from one training to the next; None to compute them each time.
        checkpoint: where the training is kept on its way; it is removed by the caller.
        what: said to `progress`.
        progress: told after every step.

    Returns:
        One record per epoch.

    Raises:
        NonFiniteError: the loss or the gradient is NaN or infinite; the step and the images are named.
    """
    accelerator = machine.accelerator
    accelerator.free_memory()  # else it keeps every earlier model and optimiser alive
    model.to(machine.torch_device)
    network, sources = _network(model, images, course, machine, stems)
    prepared = accelerator.prepare_model(network)
    if machine.compile:
        prepared = torch.compile(prepared)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(course.seed)
        training = _Training(
            model, prepared, sources, images, course, course.optimiser(model), machine, checkpoint, what, progress
        )
        training.resume()
        while training.state.epoch < course.epochs:
            training.epoch()
    if training.best:
        with torch.no_grad():
            for name, value in training.trained.items():
                value.copy_(training.best[name])
    return [Epoch.model_validate(record) for record in training.state.history]


def _network(
    model: TunedModel, images: dict[str, Images], course: Course, machine: Machine, stems: Stems | None
) -> tuple[nn.Module, dict[str, Source]]:
    """What is trained, and where its inputs come from: pixels, or a frozen stem's outputs when they can be kept."""
    view = model.training_view()
    sources: dict[str, Source] = {
        part: PixelSource(images[part], model.transform, machine.torch_device) for part in images
    }
    stem, rest = split_frozen(view) if stems is not None and machine.cache_mib else (None, view)
    if stems is not None and stem is not None:
        kept: dict[str, Source] = {}
        for part, shown in images.items():
            if len(shown):
                found = stems.source(stem, shown, model, FLIPS if course.flip and part == "train" else FLIPS[:1])
                if found is None:
                    break
                kept[part] = found
        else:
            return rest, sources | kept
    if machine.recompute:
        view.vit.set_grad_checkpointing()
    return view, sources


def predict(
    network: nn.Module,
    source: Source,
    count: int,
    batch_size: int,
    machine: Machine,
    what: str = "",
    progress: Progress = quiet,
) -> Tensor:
    """Logits (n, K) in fp32 on the CPU of all images of a source; the network's training flag is left as found."""
    was_training, found, done = network.training, None, 0
    network = getattr(network, "module", network)  # processes do not wait for each other here
    network.eval()
    with torch.inference_mode():
        for number, rows in enumerate(torch.arange(count).split(batch_size)):
            if number % machine.processes == machine.rank:
                with machine.accelerator.autocast():
                    logits = network(source.rows(rows, torch.zeros(len(rows), 2, dtype=torch.bool))).float()
                found = logits.new_zeros(count, logits.shape[1]) if found is None else found
                found[rows] = logits
            done += len(rows)
            if what:
                progress(what, done, count)
    network.train(was_training)
    return _joined(found, count, machine).cpu()


def _joined(found: Tensor | None, count: int, machine: Machine) -> Tensor:
    """Rows computed by different processes, put together; rows of others are zero."""
    if machine.processes == 1:
        return torch.zeros(0, 1) if found is None else found
    classes = machine.largest(0 if found is None else found.shape[1])
    mine = torch.zeros(count, classes, device=machine.torch_device) if found is None else found.clone()
    joined: Tensor = machine.accelerator.reduce(mine, reduction="sum")
    return joined


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of right answers, 0-1."""
    return float((logits.argmax(1) == labels).float().mean())


def _spent(so_far: float | None, before: float | None, after: float | None) -> float | None:
    """Energy so far with that of one more step; None when it is unknown or the counter started over."""
    if so_far is None or before is None or after is None or after < before:
        return None
    return so_far + after - before

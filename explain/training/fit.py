"""fit: the one training loop, the same for every arm.

What an arm sees is a pure function of (seed, epoch): the order of the images and which of them are flipped. The loop
knows nothing of tunings: it trains the parameters that require a gradient.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from explain.backbone import InputTransform
from explain.data.base import Dataset
from explain.data.decode import decode
from explain.errors import InputError, IntegrityError, NonFiniteError
from explain.files import sha256_file, sha256_json
from explain.model import TunedModel
from explain.training.recipe import Recipe
from explain.training.run import Epoch

Progress = Callable[[str, int, int], None]
"""Called with (what is running, images done, images in all)."""


def quiet(what: str, done: int, total: int) -> None:
    """A Progress that says nothing."""


@dataclass(frozen=True)
class Images:
    """Images decoded and resized once: ids, uint8 pixels (n, 3, H, W) and labels (n,)."""

    ids: tuple[str, ...]
    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def decode(cls, data: Dataset, transform: InputTransform, what: str, progress: Progress = quiet) -> "Images":
        """Read every sample of a data set.

        Raises:
            IntegrityError: a file changed since the data set was read.
        """
        pixels = torch.empty((len(data), 3, *transform.size), dtype=torch.uint8)
        for index, sample in enumerate(data.samples):
            if not sample.path.is_file() or sha256_file(sample.path) != sample.sha256:
                raise IntegrityError(f"{sample.path} is missing or changed since the data set was read; "
                                     "restore it, or train into a new folder")  # fmt: skip
            pixels[index] = transform.pixels(decode(sample.path).image)
            progress(what, index + 1, len(data))
        labels = torch.tensor([sample.label for sample in data.samples])
        return cls(tuple(sample.id for sample in data.samples), pixels, labels)


@dataclass(frozen=True)
class EpochPlan:
    """What one epoch shows: the order of the images (n,), and per image whether it is flipped, bool (n, 2)."""

    order: Tensor
    flips: Tensor

    @classmethod
    def draw(cls, seed: int, epoch: int, count: int, flip: bool) -> "EpochPlan":
        """The plan of an epoch; equal arguments give equal plans on every machine."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=generator)
        flips = torch.rand((count, 2), generator=generator) < 0.5
        return cls(order, flips & flip)


def order_hash(ids: tuple[str, ...], recipe: Recipe) -> str:
    """SHA-256 over every image id, order and flip that the final training will show."""
    plans = [EpochPlan.draw(recipe.seed, epoch, len(ids), recipe.flip) for epoch in range(recipe.epochs)]
    return sha256_json([list(ids), [[plan.order.tolist(), plan.flips.int().tolist()] for plan in plans]])


class _EpochImages(TorchDataset[tuple[Tensor, Tensor, int]]):
    """The images of one epoch in their order, flipped as planned."""

    def __init__(self, images: Images, plan: EpochPlan) -> None:
        self.images, self.plan = images, plan

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int]:
        index = int(self.plan.order[position])
        pixels = self.images.pixels[index]
        sides = [side for side, flipped in zip((-1, -2), self.plan.flips[index], strict=True) if flipped]
        return pixels.flip(sides) if sides else pixels, self.images.labels[index], index


def accelerator_for(device: str | None) -> Accelerator:
    """The accelerator of a device name: None takes a GPU when there is one, with bf16 autocast there.

    Raises:
        InputError: the device is not there.
    """
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if wanted not in ("cpu", "cuda"):
        raise InputError(f"expected device 'cpu' or 'cuda', got {device!r}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' asked for, but torch sees no GPU here; use --device cpu")
    return Accelerator(cpu=wanted == "cpu", mixed_precision="bf16" if wanted == "cuda" else "no")


def learning_rate_at(step: int, steps: int, peak: float, warmup: float) -> float:
    """Linear warm-up from 0 over the first `warmup` share of the steps, then a cosine to 0."""
    rising = max(1, round(warmup * steps)) if warmup else 0
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def parameter_groups(model: TunedModel, weight_decay: float) -> list[dict[str, object]]:
    """Trained parameters in two groups: matrices and prompts with decay; biases, norms and embeddings without."""
    spared = {f"vit.{name}" for name in model.vit.no_weight_decay()}
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    decayed = [value for name, value in trained if value.ndim > 1 and name not in spared]
    kept = [value for name, value in trained if value.ndim <= 1 or name in spared]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def fit(
    model: TunedModel,
    train: Images,
    val: Images,
    recipe: Recipe,
    *,
    learning_rate: float,
    epochs: int,
    accelerator: Accelerator,
    what: str = "training",
    progress: Progress = quiet,
) -> Iterator[Epoch]:
    """Train a model in place, one epoch per item of the iterator. The global random state is left as found.

    Raises:
        NonFiniteError: the loss is NaN or infinite; the step and the images are named.
    """
    accelerator.free_memory()  # else it keeps every earlier model and optimiser alive
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.weight_decay), lr=learning_rate)
    prepared, optimizer = accelerator.prepare(model.training_view(), optimizer)
    per_epoch = math.ceil(len(train) / recipe.batch_size)
    total = epochs * len(train)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(recipe.seed)
        for epoch in range(epochs):
            started, peak = time.perf_counter(), _PeakMemory(accelerator.device)
            loss_sum, correct = 0.0, 0
            prepared.train()
            plan = EpochPlan.draw(recipe.seed, epoch, len(train), recipe.flip)
            for index, (pixels, labels, rows) in enumerate(_loader(train, plan, recipe.batch_size, accelerator)):
                step = epoch * per_epoch + index
                rate = learning_rate_at(step, epochs * per_epoch, learning_rate, recipe.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                with accelerator.autocast():
                    logits = prepared(model.transform.normalise(pixels))
                loss = cross_entropy(logits.float(), labels)
                _check_loss(loss, step, [train.ids[row] for row in rows.tolist()], learning_rate)
                peak.sample()
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                loss_sum += loss.item() * len(labels)
                correct += int((logits.argmax(1) == labels).sum())
                progress(what, epoch * len(train) + min((index + 1) * recipe.batch_size, len(train)), total)
            val_logits = predict(prepared, val, recipe.batch_size, accelerator)
            yield Epoch(
                epoch=epoch + 1, learning_rate=rate, train_loss=loss_sum / len(train),
                train_accuracy=correct / len(train), val_loss=float(cross_entropy(val_logits, val.labels)),
                val_accuracy=accuracy(val_logits, val.labels), seconds=time.perf_counter() - started, peak_mib=peak.mib,
            )  # fmt: skip


def predict(
    model: nn.Module,
    images: Images,
    batch_size: int,
    accelerator: Accelerator,
    what: str = "",
    progress: Progress = quiet,
) -> Tensor:
    """Logits (n, K) in fp32 on the CPU; the model's training flag is left as found."""
    was_training, parts, done = model.training, [], 0
    transform: InputTransform = accelerator.unwrap_model(model).transform
    model.eval()
    with torch.inference_mode():
        for chunk in images.pixels.split(batch_size):
            with accelerator.autocast():
                logits = model(transform.normalise(chunk.to(accelerator.device)))
            parts.append(logits.float().cpu())
            done += len(chunk)
            if what:
                progress(what, done, len(images))
    model.train(was_training)
    return torch.cat(parts)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of right answers, 0-1."""
    return float((logits.argmax(1) == labels).float().mean())


def _loader(images: Images, plan: EpochPlan, batch_size: int, accelerator: Accelerator) -> DataLoader[object]:
    pinned = accelerator.device.type == "cuda"
    # a generator of its own, because a loader draws from the global one otherwise
    loader = DataLoader(_EpochImages(images, plan), batch_size, pin_memory=pinned, generator=torch.Generator())
    prepared: DataLoader[object] = accelerator.prepare_data_loader(loader)
    return prepared


def _check_loss(loss: Tensor, step: int, ids: list[str], learning_rate: float) -> None:
    if not torch.isfinite(loss):
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        raise NonFiniteError(
            f"the loss became {loss.item()} at step {step} (learning rate {learning_rate:g}) on images {shown}; "
            "use a smaller learning rate, or look at these images"
        )


class _PeakMemory:
    """Largest memory in use: allocated on a GPU, resident memory after each forward on a CPU; in MiB."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.mib = device, 0.0
        self._process = psutil.Process(os.getpid())
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def sample(self) -> None:
        """Look now: activations are all alive between forward and backward."""
        on_gpu = self.device.type == "cuda"
        used = torch.cuda.max_memory_allocated(self.device) if on_gpu else self._process.memory_info().rss
        self.mib = max(self.mib, round(used / 2**20, 1))

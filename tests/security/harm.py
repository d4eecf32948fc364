"""Files that do harm when they are loaded in the way they ask for: each leaves a mark on the disk."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


class Harm:
    """An object whose unpickling makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.mark, "this code ran")


def plain(mark: Path) -> bytes:
    """A pickle."""
    return pickle.dumps(Harm(mark))


def torch_zip(mark: Path) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save({"weight": Harm(mark)}, stream)
    return stream.getvalue()


def torch_old(mark: Path) -> bytes:
    """What torch.save wrote before it wrote zip files."""
    stream = io.BytesIO()
    torch.save({"weight": Harm(mark)}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def exported(mark: Path) -> bytes:
    """An archive like those of torch.export, whose constants are pickles."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("data.pkl", "archive/data.pkl", "data/constants/model_constants_config.json"):
            archive.writestr(name, plain(mark))
    return stream.getvalue()


def array(mark: Path) -> bytes:
    """A .npy of objects."""
    stream = io.BytesIO()
    np.save(stream, np.array([Harm(mark)], dtype=object), allow_pickle=True)
    return stream.getvalue()


def arrays(mark: Path) -> bytes:
    """A .npz of objects."""
    stream = io.BytesIO()
    np.savez(stream, weight=np.array([Harm(mark)], dtype=object))
    return stream.getvalue()


MAKERS: dict[str, Callable[[Path], bytes]] = {
    "model.pt": torch_zip, "model.ckpt": torch_zip, "model.bin": torch_old, "model.pth": plain, "model.pt2": exported,
    "model.npy": array, "model.npz": arrays, "model.safetensors": plain, "model.pkl": plain,
}  # fmt: skip
"""File name -> what makes its content, given the mark it leaves."""

"""Quantise: one map as few bytes, with a scale that keeps its magnitude, and back.

    fp16   values / max |v| as half floats; every value comes back within 2^-11 of the scale
    int8   127 steps from 0 to the 99.5th percentile of |v|, which is the scale; values up to it come back within 1/254
           of the scale, the few above come back as the scale

To either bound comes one rounding of float32. The percentile keeps a single spike from taking all the steps: scaled by
its maximum, a map of integrated gradients loses a fifth of its pixels to 0.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from explain.errors import InputError, IntegrityError

Array = npt.NDArray[np.float32]
Form = Literal["fp16", "int8"]

FORMS: tuple[Form, ...] = ("fp16", "int8")
BOUNDS: dict[Form, float] = {"fp16": 2.0**-11, "int8": 1 / 254}
"""Largest error of a value that is not clipped, as a part of the scale."""

CLIP_PERCENT = 99.5
_TYPES: dict[Form, npt.DTypeLike] = {"fp16": "<f2", "int8": "<i1"}
_STEPS = 127


def encode(values: Array, form: Form) -> tuple[bytes, float]:
    """One map as bytes.

    Args:
        values: float32 (h, w), finite.
        form: "fp16" or "int8".

    Returns:
        (little-endian bytes in rows, scale); a map of zeros has the scale 0.

    Raises:
        InputError: another type, shape or form, or a value that is not finite.
    """
    _check(values, form)
    magnitude = np.abs(values)
    scale = (_percentile(magnitude) if form == "int8" else 0.0) or float(magnitude.max())
    if scale == 0:
        return bytes(values.size * size(form)), 0.0
    parts = values / np.float64(scale)  # in float64: by a subnormal scale, float32 quotients would overflow
    if form == "int8":
        parts = np.rint(_STEPS * np.clip(parts, -1, 1))
    with np.errstate(under="ignore"):  # what is below the smallest half float becomes 0
        return parts.astype(_TYPES[form]).tobytes(), scale


def decode(data: bytes, scale: float, shape: tuple[int, int], form: Form) -> Array:
    """The map that `encode` was given, within the bounds above.

    Args:
        data: little-endian bytes in rows.
        scale: as `encode` gave it.
        shape: (h, w).
        form: "fp16" or "int8".

    Returns:
        float32 (h, w).

    Raises:
        IntegrityError: too many or too few bytes, or a scale that cannot be one.
    """
    expected = shape[0] * shape[1] * size(form)
    if len(data) != expected or not 0 <= scale < np.inf:
        raise IntegrityError(f"expected {expected} bytes and a finite scale of a map {shape[0]}x{shape[1]} as {form}, "
                             f"got {len(data)} bytes and {scale}")  # fmt: skip
    steps = _STEPS if form == "int8" else 1
    values = np.frombuffer(data, _TYPES[form]).astype(np.float64) * (scale / steps)
    with np.errstate(under="ignore"):
        return values.astype(np.float32).reshape(shape)


def size(form: Form) -> int:
    """Bytes per value.

    Raises:
        InputError: no such form.
    """
    if form not in _TYPES:
        raise InputError(f"expected one of the forms {', '.join(FORMS)}, got {form!r}")
    return np.dtype(_TYPES[form]).itemsize


def _percentile(magnitude: Array) -> float:
    """The percentile at which int8 clips, linear between two values, as a float32."""
    rank = CLIP_PERCENT / 100 * (magnitude.size - 1)
    low = int(rank)
    high = min(low + 1, magnitude.size - 1)
    parted = np.partition(magnitude, high, axis=None)  # a quarter of the time that `np.percentile` takes
    above, below = float(parted[high]), float(parted[: low + 1].max())
    return float(np.float32(below + (above - below) * (rank - low)))


def _check(values: Any, form: Form) -> None:
    size(form)
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.ndim != 2 or not values.size:
        found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InputError(f"expected a map as a float32 array (h, w), got {found}")
    if not np.isfinite(values).all():
        raise InputError(f"expected finite values, got {np.count_nonzero(~np.isfinite(values))} NaN or infinite ones")

"""Decode: one image file, or one Pillow image, as 8-bit RGB, or a named reason why not.

Every decision that changes pixels (first frame only, alpha laid over a background, 16 bits cut to 8,
rotation from EXIF) is made here, once, for every way into the toolkit. Only Pillow reads input: OpenCV
returns a picture for a truncated file. Files that do not decode never pass in silence, and a picture that
is too large is refused before it is decoded.

Reasons: those in `REASONS`; of masks also bad_mask.
Flags: multi_frame, alpha_composited, reduced_to_8_bit, rotated, exif_unreadable.
"""

import io
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from explain.data.names import printable
from explain.errors import DatasetError

FORMATS_READ = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""The only decoders tried. Others start a program (EPS), or are rarely used and therefore rarely fuzzed."""

REASONS = ("missing", "not_a_file", "outside_root", "unreadable", "empty", "unsupported_format", "unsupported_mode",
           "too_small", "bomb", "truncated", "corrupt")  # fmt: skip
"""Why a file is rejected, in one word."""

MAX_PIXELS = 50_000_000
MIN_SIDE_PX = 8
MAX_ASPECT = 50
WHITE = (255, 255, 255)

_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})

# What Pillow raises on damaged files of these six formats, found by fuzzing (450,000 mutated files).
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError,
                   RuntimeError, struct.error, zlib.error)  # fmt: skip
_CUT_SHORT = re.compile(r"truncat|not enough|end of file|failed to read next frame", re.IGNORECASE)
_TOO_MUCH_TEXT = re.compile(r"too large for|too much memory", re.IGNORECASE)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 258, 262, 0


class ImageRejected(DatasetError):
    """An image that cannot be used.

    Args:
        reason: one of `REASONS`, or bad_mask.
        detail: one sentence: what was found and what is expected.
        path: the file, when there is one.
    """

    def __init__(self, reason: str, detail: str, path: Path | None = None) -> None:
        super().__init__(f"{'image' if path is None else printable(path)}: {detail} ({reason})")
        self.reason = reason
        self.detail = detail
        self.path = path


@dataclass(frozen=True)
class Decoded:
    """An upright 8-bit RGB image, and a flag for each decision that changed pixels."""

    image: Image.Image
    flags: tuple[str, ...] = ()


def decode(
    path: str | Path, background: tuple[int, int, int] = WHITE, *, root: Path | None = None, draft: int | None = None
) -> Decoded:
    """Read one image file.

    Args:
        path: a regular file; its content decides the format, not its suffix.
        background: RGB laid under transparent pixels, 0 to 255.
        root: when given, the file must lie inside this folder after links are followed.
        draft: for a small picture: a JPEG is read at a fraction of its size, 1/2 to 1/8, whose shorter side still has
            so many pixels, many times as quickly; None: as it is.

    Raises:
        ImageRejected: the file cannot be used; `reason` and `detail` say why.
    """
    path = Path(path)
    with _path_named(path):
        _check_file(path, root)
        with _failures_named(), open(path, "rb") as stream:
            return _decode_stream(stream, background, draft)


def decode_bytes(data: bytes, background: tuple[int, int, int] = WHITE) -> Decoded:
    """Read one image from the bytes of its file, to the same pixels, flags and rejections as `decode`.

    Args:
        data: the whole file.
        background: RGB laid under transparent pixels, 0 to 255.

    Raises:
        ImageRejected: the bytes cannot be used; `reason` and `detail` say why.
    """
    if not data:
        raise _empty()
    with _failures_named():
        return _decode_stream(io.BytesIO(data), background)


def read_bytes(path: str | Path, *, root: Path | None = None) -> bytes:
    """Read a file whose bytes are to be hashed and decoded, by the rules of `decode` about what may be opened.

    Args:
        path: a regular file.
        root: as in `decode`.

    Raises:
        ImageRejected: there is no such file, it is not a regular one, or it cannot be read.
    """
    path = Path(path)
    with _path_named(path):
        _check_file(path, root)
        try:
            with _access_named():
                return path.read_bytes()
        except MemoryError as error:
            raise ImageRejected("bomb", "reading it takes more memory than there is") from error


def _decode_stream(stream: BinaryIO, background: tuple[int, int, int], draft: int | None = None) -> Decoded:
    with _pillow_silenced():
        try:
            image = Image.open(stream, formats=FORMATS_READ)
        except UnidentifiedImageError:
            stream.seek(0)
            raise _unidentified(stream.read(32)) from None
        if draft is not None:
            _check_size(image)  # of the file, before it is called smaller
            image.draft(None, (draft, draft))
        return to_rgb(image, background)


@contextmanager
def _path_named(path: Path) -> Iterator[None]:
    """Let a rejection say which file it is about."""
    try:
        yield
    except ImageRejected as rejection:
        raise ImageRejected(rejection.reason, rejection.detail, path) from rejection.__cause__


def to_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Decoded:
    """Bring a Pillow image to upright 8-bit RGB by the rules that files follow; the image is not changed.

    Args:
        image: any Pillow image; when it has several frames, the one it stands at.
        background: RGB laid under transparent pixels, 0 to 255.

    Raises:
        ImageRejected: too large, too small, of a mode without a fixed range, or its data cannot be decoded.
    """
    with _pillow_silenced(), _failures_named():
        _check_size(image)
        _check_mode(image)
        deep = image.mode in _DEEP_MODES or _stored_with_16_bits(image)
        flags = {"multi_frame": bool(getattr(image, "is_animated", False)), "reduced_to_8_bit": deep}
        # Pillow turns a TIFF upright while loading it, and forgets that it did.
        flags["rotated"] = _tiff_tag(image, ExifTags.Base.Orientation, 1) in _UPRIGHT
        image.load()
        orientation, flags["exif_unreadable"] = _read_orientation(image)
        if deep:
            image = _reduce_to_8_bit(image)
        rgb, flags["alpha_composited"] = _lay_over(image, background)
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
            flags["rotated"] = True
    rgb.info.clear()  # a stale EXIF block would rotate the picture a second time
    return Decoded(rgb, tuple(sorted(name for name, raised in flags.items() if raised)))


def load_mask(path: str | Path, size: tuple[int, int], *, root: Path | None = None) -> npt.NDArray[np.bool_]:
    """Read a mask image: True where it is brighter than half of its brightest pixel.

    So masks of 0 and 1, of 0 and 255, and with JPEG noise are all read alike.

    Args:
        path: an image of the region, bright on dark.
        size: (H, W) of the image it belongs to, in pixels.
        root: as in `decode`.

    Returns:
        bool (H, W).

    Raises:
        ImageRejected: it cannot be decoded (reason as in `decode`), or has another size (reason "bad_mask").
    """
    grey = np.asarray(decode(path, (0, 0, 0), root=root).image.convert("L"), dtype=np.int32)
    if grey.shape != size:
        found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (grey.shape, size))
        raise ImageRejected("bad_mask", f"the mask is {found} pixels, its image {wanted}", Path(path))
    return np.asarray(2 * grey > max(int(grey.max()), 1))


def sniff_format(head: bytes) -> str | None:
    """The image format that a file's first 32 bytes announce, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    # Two letters begin many texts too; a bitmap also has a header of a known size at byte 14.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in {12, 40, 52, 56, 64, 108, 124}:
        return "BMP"
    return None


def _check_file(path: Path, root: Path | None) -> None:
    """Refuse what is not a regular file with content before it is opened: a pipe would wait for ever."""
    with _access_named():
        status = os.lstat(path)
        if root is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            detail = "the file lies outside the data set's folder; links must stay inside it"
            raise ImageRejected("outside_root", detail)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageRejected("not_a_file", "expected a regular file, found a folder, pipe, socket or device")
    if status.st_size == 0:
        raise _empty()


def _empty() -> ImageRejected:
    return ImageRejected("empty", "the file has no bytes")


@contextmanager
def _access_named() -> Iterator[None]:
    """Turn what the system says about a path into a rejection with a reason."""
    try:
        yield
    except FileNotFoundError:
        raise ImageRejected("missing", "there is no such file, or it is a link to nothing") from None
    except OSError as error:
        raise ImageRejected("unreadable", f"the system does not let it be read: {error.strerror}") from error
    except ValueError:
        raise ImageRejected("missing", "no file can have this name, it holds a zero byte") from None


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageRejected("bomb", f"{width}x{height} pixels are more than the limit of {MAX_PIXELS:,}")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageRejected("too_small", f"{width}x{height} pixels; each side needs at least {MIN_SIDE_PX}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        detail = f"{width}x{height} pixels; one side is over {MAX_ASPECT} times the other"
        raise ImageRejected("too_small", detail)


def _check_mode(image: Image.Image) -> None:
    if image.mode not in _PLAIN_MODES | _DEEP_MODES:
        raise ImageRejected(
            "unsupported_mode",
            f"pixels are of Pillow mode {image.mode!r}, which has no fixed range; save it with 8 or 16 bits",
        )
    if image.mode in _DEEP_MODES and _tiff_tag(image, _TIFF_PHOTOMETRIC, 1) == _TIFF_WHITE_IS_ZERO:
        raise ImageRejected("unsupported_mode", "16-bit TIFF in which 0 is white; save it with 0 as black")


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(tag, default)


def _stored_with_16_bits(image: Image.Image) -> bool:
    """Whether a file that Pillow opens as 8-bit colour holds 16 bits a channel (it keeps the high byte)."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _reduce_to_8_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte, as Pillow does for 16-bit colour, so grey and colour files of one picture agree.

    Pillow's own `convert` clips grey instead: everything above 255, nearly all of it, turns white.
    """
    key = image.info.get("transparency")
    if image.mode not in _DEEP_MODES:
        if isinstance(key, tuple):
            image = image.copy()
            image.info["transparency"] = tuple(value >> 8 for value in key)
        return image
    values = np.asarray(image).astype(np.uint16)
    bits = int(np.ravel(_tiff_tag(image, _TIFF_BITS_PER_SAMPLE, 16))[0])  # 12-bit cameras write TIFF too
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _lay_over(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, bool]:
    """(RGB copy, whether a pixel was transparent). Dropping alpha would show colours that were hidden."""
    if not image.has_transparency_data:
        return image.convert("RGB"), False
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB"), False
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB"), True


def _read_orientation(image: Image.Image) -> tuple[int, bool]:
    """(EXIF orientation 1 to 8, whether the EXIF block is damaged, which leaves the picture usable)."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1, True
    return (value, False) if isinstance(value, int) else (1, False)


def _unidentified(head: bytes) -> ImageRejected:
    announced = sniff_format(head)
    if announced is None:
        return ImageRejected("unsupported_format", f"the content is none of {', '.join(FORMATS_READ)}")
    detail = f"begins as {announced}, but its header is damaged or of a kind that Pillow cannot read"
    return ImageRejected("corrupt", detail)


@contextmanager
def _failures_named() -> Iterator[None]:
    """Turn what Pillow raises into a rejection with a reason."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        detail = f"it has more pixels than the limit of {MAX_PIXELS:,}, far too many to decode"
        raise ImageRejected("bomb", detail) from error
    except MemoryError as error:
        raise ImageRejected("bomb", "decoding it takes more memory than there is") from error
    except PermissionError as error:
        raise ImageRejected("unreadable", f"the system does not let it be read: {error.strerror}") from error
    except _DECODER_ERRORS as error:
        text = str(error) or type(error).__name__
        if _TOO_MUCH_TEXT.search(text):
            raise ImageRejected("bomb", f"a text block in it unpacks to too many bytes: {text}") from error
        if isinstance(error, EOFError) or _CUT_SHORT.search(text):
            raise ImageRejected("truncated", f"the file ends too early: {text}") from error
        raise ImageRejected("corrupt", f"the data are damaged: {text}") from error


_silence = threading.Lock()
_silenced_calls = 0
_silence_filters = warnings.catch_warnings()


@contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Drop the warnings of Pillow's own modules while any thread decodes; other warnings pass.

    Warning filters belong to the whole process, so the first call in sets them and the last one out restores
    them: a `catch_warnings` in each thread would restore them in the wrong order.
    """
    global _silenced_calls, _silence_filters
    with _silence:
        if _silenced_calls == 0:
            _silence_filters = warnings.catch_warnings()
            _silence_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _silenced_calls += 1
    try:
        yield
    finally:
        with _silence:
            _silenced_calls -= 1
            if _silenced_calls == 0:
                _silence_filters.__exit__(None, None, None)

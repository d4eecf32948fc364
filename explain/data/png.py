"""PNG: pixels of our own as a file, byte for byte the same on every machine.

An image's hash decides its place in a split, so it must not depend on which release of a compressor is installed.
These files are not compressed at all, which is also the quickest way to write many small ones.
"""

import struct
import zlib

import numpy as np
import numpy.typing as npt

from explain.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}
_LARGEST_BLOCK = 65_535


def png_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An uncompressed PNG.

    Args:
        pixels: uint8, grey (H, W) or RGB (H, W, 3).

    Raises:
        InputError: another type or shape.

    Source: PNG (ISO/IEC 15948) §5; RFC 1950 §2.2 and RFC 1951 §3.2.4, stored blocks.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in _COLOUR_TYPES or not pixels.size:
        raise InputError(f"expected uint8 pixels (H, W) or (H, W, 3), got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)  # each row begins with filter type 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _stored(rows.tobytes())), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream of blocks that are stored as they are."""
    starts = range(0, len(data), _LARGEST_BLOCK)
    blocks = [data[start : start + _LARGEST_BLOCK] for start in starts]
    framed = (
        struct.pack("<BHH", start == starts[-1], len(block), len(block) ^ 0xFFFF) + block
        for start, block in zip(starts, blocks, strict=True)
    )
    return b"\x78\x01" + b"".join(framed) + struct.pack(">I", zlib.adler32(data))

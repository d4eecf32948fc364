"""Images damaged at random: each ends in a picture or a listed reason, soon, and in bounded memory."""

import io
import random
import resource
import struct
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from damage import damage_bytes
from PIL import Image, ImageFile

from explain.data import decode as decoding
from explain.data.base import load_data
from explain.data.decode import ImageRejected, decode

REASONS = {"empty", "unsupported_format", "unsupported_mode", "too_small", "bomb", "truncated", "corrupt"}
FLAGS = {"multi_frame", "alpha_composited", "reduced_to_8_bit", "rotated", "exif_unreadable"}
LIMIT_S = 10
LIMIT_MIB = 1_024
"""Of this process, beyond what it took before: an image of the largest size allowed takes 200 MiB as RGBA."""


def picture(mode: str, side: int = 40) -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (side, side, 4), dtype=np.uint8)
    return Image.fromarray(values, "RGBA").convert(mode) if mode != "I;16" else Image.fromarray(
        values[..., 0].astype(np.uint16) * 257)  # fmt: skip


def encoded(mode: str, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture(mode).save(stream, kind, **options)
    return stream.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = value
    return exif


SOUND = {
    "JPEG": encoded("RGB", "JPEG", exif=orientation(6)),
    "JPEG progressive": encoded("RGB", "JPEG", progressive=True),
    "JPEG CMYK": encoded("CMYK", "JPEG"),
    "PNG": encoded("RGBA", "PNG"),
    "PNG palette": encoded("P", "PNG", transparency=3),
    "PNG 16 bit": encoded("I;16", "PNG"),
    "APNG": encoded("RGB", "PNG", save_all=True, append_images=[picture("RGB").rotate(90)]),
    "GIF": encoded("P", "GIF", save_all=True, append_images=[picture("P").rotate(90)]),
    "BMP": encoded("RGB", "BMP"),
    "BMP 1 bit": encoded("1", "BMP"),
    "TIFF": encoded("RGB", "TIFF", exif=orientation(3)),
    "TIFF LZW": encoded("RGB", "TIFF", compression="tiff_lzw"),
    "TIFF JPEG": encoded("RGB", "TIFF", compression="jpeg"),
    "WEBP": encoded("RGBA", "WEBP"),
    "WEBP lossless": encoded("RGB", "WEBP", lossless=True),
}  # fmt: skip


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def mutated(seed: int) -> tuple[str, bytes]:
    """A sound image with random damage, a piece of another image, or a valid chunk where none belongs."""
    rng = random.Random(seed)
    name = rng.choice(sorted(SOUND))
    content = SOUND[name]
    if name.endswith("PNG") and rng.random() < 0.3:
        kind = rng.choice((b"IHDR", b"IDAT", b"zTXt", b"iCCP", b"eXIf", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT"))
        at = rng.choice([8, 33, len(content) - 12])
        content = content[:at] + png_chunk(kind, rng.randbytes(rng.randint(0, 40))) + content[at:]
    elif rng.random() < 0.3:
        other = SOUND[rng.choice(sorted(SOUND))]
        content = content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]
    elif rng.random() < 0.2:  # sizes are written in the first bytes
        head = bytearray(content[:64])
        for _ in range(4):
            head[rng.randrange(8, 64)] = rng.choice((0, 1, 127, 255))
        content = bytes(head) + content[64:]
    return name, damage_bytes(content, seed) if rng.random() < 0.8 else content


def decode_mutants(folder: Path, seeds: range) -> Counter[str]:
    """Decode one mutant after the other; how often each reason was given, "picture" for none."""
    found: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = folder / "image"
    for seed in seeds:
        path.write_bytes(mutated(seed)[1])
        began = time.perf_counter()
        try:
            decoded = decode(path)
        except ImageRejected as rejection:
            assert rejection.reason in REASONS, seed
            assert len(str(rejection)) < 1_000, seed
            found[rejection.reason] += 1
        else:
            assert decoded.image.mode == "RGB" and set(decoded.flags) <= FLAGS, seed
            found["picture"] += 1
        assert time.perf_counter() - began < LIMIT_S, seed
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < LIMIT_MIB
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    return found


def test_the_reasons_are_those_of_the_decoder() -> None:
    assert set(decoding.REASONS) >= REASONS
    assert all(flag in str(decoding.__doc__) for flag in FLAGS)


@pytest.mark.parametrize("name", SOUND)
def test_the_images_that_are_damaged_below_are_sound(name: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(SOUND[name])
    assert decode(tmp_path / "image").image.size == (40, 40)


def test_a_mutant_of_an_image_ends_in_a_picture_or_a_listed_reason(tmp_path: Path) -> None:
    found = decode_mutants(tmp_path, range(200))
    assert found["picture"] > 10 and {"truncated", "corrupt"} <= set(found)


@pytest.mark.slow
def test_two_thousand_mutants_likewise(tmp_path: Path) -> None:
    assert REASONS - {"empty", "unsupported_mode"} <= set(decode_mutants(tmp_path, range(10_000, 12_000)))


def test_a_folder_of_mutants_leaves_its_good_images_alone(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "set" / label / f"good{number}.png").write_bytes(SOUND["PNG"])
    for seed in range(40):
        (tmp_path / "set" / "a" / f"mutant{seed}.png").write_bytes(mutated(seed)[1])
    found = load_data(tmp_path / "set")
    good = [sample.id for sample in found.samples if "good" in sample.id]
    assert good == [f"{label}/good{number}.png" for label in "ab" for number in range(3)]
    assert len(found.samples) + len(found.rejected) == 46 and len(found.rejected) > 5

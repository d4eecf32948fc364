import io
import os
import socket
import struct
import subprocess
import threading
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from explain.data.decode import (
    FORMATS_READ,
    MAX_PIXELS,
    ImageRejected,
    decode,
    load_mask,
    sniff_format,
    to_rgb,
)

REASONS = {"empty", "unsupported_format", "unsupported_mode", "too_small", "bomb", "truncated", "corrupt"}
# The operation that stores an upright picture for EXIF orientation 1 to 8.
TRANSPOSED = [None, 2, 3, 4, 5, 8, 7, 6]
OPERATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def noise(height: int = 24, width: int = 20, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand, for what Pillow does not write. `rows` holds the filter byte of each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))  # fmt: skip


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def rows_of(values: np.ndarray, kind: str) -> bytes:
    return b"".join(b"\0" + row.astype(kind).tobytes() for row in values)


def write(folder: Path, content: bytes, name: str = "image.png") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def rejection(path: Path, **options: object) -> ImageRejected:
    with pytest.raises(ImageRejected) as caught:
        decode(path, **options)
    assert caught.value.path == path
    assert caught.value.reason in str(caught.value)
    return caught.value


def test_plain_image_decodes_to_its_own_pixels_without_flags(tmp_path):
    decoded = decode(write(tmp_path, encoded(noise(), "PNG")))
    assert decoded.image.mode == "RGB"
    assert np.array_equal(decoded.image, noise())
    assert decoded.flags == ()


# B1: not an image at all


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"this is not a picture\n" * 10, "unsupported_format"),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        ("page.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\nshowpage\n", "unsupported_format"),
        ("photo.ppm", b"P6 16 16 255\n" + bytes(768), "unsupported_format"),
        ("signature.png", b"\x89PNG\r\n\x1a\n", "corrupt"),
    ],
)
def test_file_that_is_no_readable_image_is_rejected_by_content(tmp_path, monkeypatch, name, content, reason):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: started.append(args))
    assert rejection(write(tmp_path, content, name)).reason == reason
    assert started == []


# B2: damaged files


@pytest.mark.parametrize("kind", FORMATS_READ)
def test_image_cut_in_half_is_rejected(tmp_path, kind):
    whole = encoded(noise(64, 64), kind)
    assert rejection(write(tmp_path, whole[: len(whole) // 2])).reason in {"truncated", "corrupt"}


@pytest.mark.parametrize("keep", ["half", "all but 30 bytes", "header only"])
def test_truncated_jpeg_is_rejected_as_truncated(tmp_path, keep):
    whole = encoded(noise(64, 64), "JPEG")
    kept = {"half": len(whole) // 2, "all but 30 bytes": len(whole) - 30, "header only": 200}[keep]
    assert rejection(write(tmp_path, whole[:kept], "cut.jpg")).reason == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_png_with_a_flipped_bit_in_its_data_is_rejected(tmp_path):
    whole = bytearray(encoded(noise(64, 64), "PNG"))
    whole[len(whole) // 2] ^= 4
    assert rejection(write(tmp_path, bytes(whole))).reason in {"truncated", "corrupt"}


# B3: too large, too small


@pytest.mark.parametrize("side", [7_100, 12_000, 30_000])
def test_pixel_bomb_is_rejected_at_once_and_without_memory(tmp_path, side):
    path = write(tmp_path, png(side, side, 1, 0, b""))
    tracemalloc.start()
    began = time.perf_counter()
    found = rejection(path)
    elapsed_s, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.reason == "bomb"
    assert elapsed_s < 1
    assert peak < 10 * 2**20


def test_image_of_the_largest_size_allowed_is_not_a_bomb(tmp_path):
    width, height = 10_000, MAX_PIXELS // 10_000
    path = write(tmp_path, png(width, height, 1, 0, (b"\0" + bytes(width // 8)) * height))
    assert decode(path).image.size == (width, height)


def test_png_with_a_huge_text_chunk_is_rejected_as_a_bomb(tmp_path):
    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(64 * 2**20)))
    path = write(tmp_path, png(8, 8, 8, 0, (b"\0" + bytes(8)) * 8, extra=text))
    assert rejection(path).reason == "bomb"


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (20_000, 1), (800, 8 * 2)])
def test_image_that_is_too_small_or_too_long_is_rejected_and_the_limit_itself_is_not(tmp_path, size):
    path = write(tmp_path, encoded(Image.new("L", size), "PNG"))
    if size == (800, 16):
        assert decode(path).image.size == size
    else:
        assert rejection(path).reason == "too_small"


# B4, B5, B7: pixel modes


@pytest.mark.parametrize(
    ("mode", "colour", "golden"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 255), (77, 77, 77)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_each_mode_has_its_golden_rgb_value(tmp_path, mode, colour, golden):
    path = write(tmp_path, encoded(Image.new(mode, (8, 8), colour), "TIFF"))
    decoded = decode(path)
    assert decoded.image.getpixel((3, 3)) == golden
    assert decoded.flags == ()


def test_palette_image_decodes_to_its_colours(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert decode(write(tmp_path, encoded(image, "PNG"))).image.getpixel((0, 0)) == (200, 100, 50)


DEEP_STEPS = [(0, 0), (255, 0), (256, 1), (0x1234, 0x12), (0x80FF, 0x80), (65535, 255)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, kind):
    values = np.zeros((8, 8), np.uint16)
    values[0, :6] = [deep for deep, _ in DEEP_STEPS]
    decoded = decode(write(tmp_path, encoded(Image.fromarray(values), kind)))
    assert [decoded.image.getpixel((x, 0))[0] for x in range(6)] == [golden for _, golden in DEEP_STEPS]
    assert decoded.flags == ("reduced_to_8_bit",)


def test_16_bit_colour_agrees_with_16_bit_grey(tmp_path):
    values = np.zeros((8, 8, 3), np.uint16)
    values[0, :6] = [[deep] * 3 for deep, _ in DEEP_STEPS]
    decoded = decode(write(tmp_path, png(8, 8, 16, 2, rows_of(values, ">u2"))))
    assert [decoded.image.getpixel((x, 0)) for x in range(6)] == [(golden,) * 3 for _, golden in DEEP_STEPS]
    assert decoded.flags == ("reduced_to_8_bit",)


def test_transparent_colour_of_16_bit_images_is_honoured(tmp_path):
    grey = np.full((8, 8), 0x4321, np.uint16)
    grey[0, 0] = 0x1234
    path = write(tmp_path, png(8, 8, 16, 0, rows_of(grey, ">u2"), chunk(b"tRNS", struct.pack(">H", 0x1234))))
    decoded = decode(path, background=(9, 8, 7))
    assert decoded.image.getpixel((0, 0)) == (9, 8, 7)
    assert decoded.image.getpixel((1, 1)) == (0x43,) * 3
    colour = np.stack([grey] * 3, axis=-1)
    key = chunk(b"tRNS", struct.pack(">HHH", 0x1234, 0x1234, 0x1234))
    decoded = decode(write(tmp_path, png(8, 8, 16, 2, rows_of(colour, ">u2"), key)), background=(9, 8, 7))
    assert decoded.image.getpixel((0, 0)) == (9, 8, 7)
    assert decoded.image.getpixel((1, 1)) == (0x43,) * 3
    assert decoded.flags == ("alpha_composited", "reduced_to_8_bit")


def tiff(values: np.ndarray, width: int, height: int, bits: int, photometric: int) -> bytes:
    """An uncompressed grey TIFF of one strip with tags that Pillow does not write."""
    content = values.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 200), (277, 1),
            (278, height), (279, len(content))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 279 else 3, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + content


def test_12_bit_tiff_uses_the_range_of_12_bits(tmp_path):
    packed = np.tile(np.array([0xFF, 0xF8, 0x00], np.uint8), (8, 4))  # 0xFFF and 0x800 in three bytes
    decoded = decode(write(tmp_path, tiff(packed, 8, 8, 12, 1), "camera.tif"))
    assert decoded.image.getpixel((4, 4)) == (0xFF,) * 3
    assert decoded.image.getpixel((5, 4)) == (0x80,) * 3
    assert decoded.flags == ("reduced_to_8_bit",)


def test_16_bit_tiff_with_inverted_grey_is_refused_instead_of_shown_as_a_negative(tmp_path):
    values = np.full((8, 8), 65535, np.uint16)
    assert decode(write(tmp_path, tiff(values, 8, 8, 16, 1), "a.tif")).image.getpixel((0, 0)) == (255,) * 3
    assert rejection(write(tmp_path, tiff(values, 8, 8, 16, 0), "b.tif")).reason == "unsupported_mode"


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_tiff_without_a_fixed_range_is_refused(tmp_path, kind):
    path = write(tmp_path, encoded(Image.fromarray(np.full((8, 8), 3, kind)), "TIFF"), "deep.tif")
    assert rejection(path).reason == "unsupported_mode"


def test_hidden_colour_of_transparent_pixels_does_not_show(tmp_path):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 128))
    path = write(tmp_path, encoded(image, "PNG"))
    assert decode(path).image.getpixel((4, 4)) == (255, 255, 255)
    grey = decode(path, background=(10, 20, 30))
    assert grey.image.getpixel((4, 4)) == (10, 20, 30)
    assert grey.flags == ("alpha_composited",)
    expected = Image.alpha_composite(Image.new("RGBA", (8, 8), (10, 20, 30, 255)), image).convert("RGB")
    assert np.array_equal(grey.image, expected)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_shows_the_background(tmp_path, kind):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((0, 0), 0)
    decoded = decode(write(tmp_path, encoded(image, kind, transparency=1)), background=(1, 2, 3))
    assert decoded.image.getpixel((4, 4)) == (1, 2, 3)
    assert decoded.image.getpixel((0, 0)) == (0, 0, 0)
    assert decoded.flags == ("alpha_composited",)


# B6: EXIF


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_eight_exif_orientations_give_the_same_picture(tmp_path, kind):
    upright = noise(24, 20).resize((80, 96), Image.Resampling.NEAREST)
    pictures = []
    for orientation in range(1, 9):
        operation = TRANSPOSED[orientation - 1]
        stored = upright if operation is None else upright.transpose(OPERATIONS[operation])
        exif = Image.Exif()
        exif[0x112] = orientation
        options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
        decoded = decode(write(tmp_path, encoded(stored, kind, exif=exif, **options)))
        assert decoded.image.size == (80, 96)
        assert ("rotated" in decoded.flags) == (orientation > 1)
        pictures.append(np.asarray(decoded.image, dtype=int))
    worst = max(int(abs(picture - np.asarray(upright, dtype=int)).max()) for picture in pictures)
    assert worst <= (3 if kind == "JPEG" else 0)


def test_decoding_a_decoded_image_again_does_not_rotate_it_twice(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    once = decode(write(tmp_path, encoded(noise(), "PNG", exif=exif)))
    twice = to_rgb(once.image)
    assert np.array_equal(once.image, twice.image)
    assert (once.flags, twice.flags) == (("rotated",), ())


def test_damaged_exif_block_is_flagged_and_the_picture_still_used(tmp_path):
    path = write(tmp_path, encoded(noise(), "WEBP", lossless=True, exif=b"Exif\0\0XX*\0nonsense"), "x.webp")
    decoded = decode(path)
    assert decoded.flags == ("exif_unreadable",)
    assert np.array_equal(decoded.image, noise())


# B8: several frames


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_of_several_frames_is_used_and_flagged(tmp_path, kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    path = write(tmp_path, encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    decoded = decode(path)
    assert decoded.image.getpixel((5, 5)) == (200, 0, 0)
    assert decoded.flags == ("multi_frame",)


# B9: content, not suffix


@pytest.mark.parametrize("name", ["picture.jpg", "PICTURE.TIF", "picture"])
def test_content_decides_the_format_whatever_the_name(tmp_path, name):
    assert np.array_equal(decode(write(tmp_path, encoded(noise(), "PNG"), name)).image, noise())


@pytest.mark.parametrize("kind", FORMATS_READ)
def test_sniffing_recognises_every_format_that_is_read(kind):
    assert sniff_format(encoded(noise(), kind)[:32]) == kind


def test_a_text_that_begins_like_a_bitmap_is_not_taken_for_one():
    assert sniff_format(b"BMW and other cars, a list of them") is None


# B10: what only looks like a file


def test_folder_pipe_and_socket_are_rejected_without_waiting(tmp_path, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        found = [rejection(tmp_path / name).reason for name in ("folder.png", "pipe.png", "socket.png")]
    assert found == ["not_a_file"] * 3


def test_link_loop_and_dangling_link_are_rejected(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "dangling.png").symlink_to("nothing.png")
    assert rejection(tmp_path / "loop.png").reason == "unreadable"
    assert rejection(tmp_path / "dangling.png").reason == "missing"
    assert rejection(tmp_path / "nul\0.png").reason == "missing"
    assert rejection(tmp_path / ("long" * 100)).reason == "unreadable"


def test_link_is_followed_inside_the_root_and_refused_outside(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    outside, inside = write(tmp_path, encoded(noise(), "PNG")), write(root, encoded(noise(), "PNG"))
    (root / "good.png").symlink_to(inside)
    (root / "escape.png").symlink_to(outside)
    assert np.array_equal(decode(root / "good.png", root=root).image, noise())
    assert rejection(root / "escape.png", root=root).reason == "outside_root"
    assert decode(root / "escape.png").flags == ()


def test_unreadable_permission_is_rejected(tmp_path, monkeypatch):
    path = write(tmp_path, encoded(noise(), "PNG"))

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # chmod does not stop the root user
    assert rejection(path).reason == "unreadable"


# B13: random damage

SEEDS = {
    "JPEG": encoded(noise(), "JPEG"), "PNG": encoded(noise(), "PNG"), "WEBP": encoded(noise(), "WEBP"),
    "BMP": encoded(noise(), "BMP"), "TIFF": encoded(noise(), "TIFF"),
    "LZW": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "GIF": encoded(noise().quantize(16), "GIF", save_all=True, append_images=[noise(seed=1).quantize(16)]),
    "PALETTE": encoded(noise().quantize(16), "PNG", transparency=3),
}  # fmt: skip


@settings(max_examples=120, deadline=5_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_ends_in_a_picture_or_a_listed_reason(tmp_path, data):
    content = bytearray(SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    try:
        decoded = decode(write(tmp_path, bytes(content)))
    except ImageRejected as rejected:
        assert rejected.reason in REASONS
    else:
        assert decoded.image.mode == "RGB"


# Images in memory


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "I;16"])
def test_image_in_memory_is_left_as_it_was(mode):
    image = Image.new(mode, (8, 8), 3)
    image.info["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    before = (image.mode, image.size, image.tobytes(), dict(image.info))
    assert "rotated" in to_rgb(image).flags
    assert (image.mode, image.size, image.tobytes(), dict(image.info)) == before


def test_damage_of_an_image_opened_by_the_caller_is_named():
    image = Image.open(io.BytesIO(encoded(noise(64, 64), "JPEG")[:-400]))
    with pytest.raises(ImageRejected) as caught:
        to_rgb(image)
    assert caught.value.reason == "truncated"


def test_pillow_warnings_are_silenced_and_the_filters_restored_when_threads_overlap(tmp_path):
    suspicious = write(tmp_path, png(12_000, 12_000, 1, 0, b""))  # Pillow warns of such a size
    before = list(warnings.filters)
    reasons: list[str] = []

    def work() -> None:
        for _ in range(30):
            reasons.append(rejection(suspicious).reason)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons == ["bomb"] * 120
    assert warnings.filters == before


# Masks


@pytest.mark.parametrize("top", [1, 255])
def test_mask_is_true_where_bright_whatever_its_scale(tmp_path, top):
    values = np.zeros((10, 12), np.uint8)
    values[2:4, 5:7] = top
    mask = load_mask(write(tmp_path, encoded(Image.fromarray(values), "PNG")), (10, 12))
    assert mask.dtype == bool
    assert np.array_equal(mask, values > 0)


def test_black_mask_is_false_everywhere(tmp_path):
    assert not load_mask(write(tmp_path, encoded(Image.new("L", (12, 10)), "PNG")), (10, 12)).any()


def test_mask_of_another_size_is_refused(tmp_path):
    with pytest.raises(ImageRejected, match="12x10 pixels, its image 10x12"):
        load_mask(write(tmp_path, encoded(Image.new("L", (12, 10)), "PNG")), (12, 10))

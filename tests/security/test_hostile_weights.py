"""Safetensors that are no weights: each is refused in one line, before anything is computed with it."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from explain.attribution import Attribution
from explain.backbone import load_backbone, save_backbone
from explain.errors import BackboneError, IntegrityError
from explain.files import read_json, sha256_file, write_json
from explain.tensor_files import read_tensors, read_weights
from explain.training.pair import MatchedPair
from explain.training.run import Run

TINY = "vit_tiny_patch16_224"
Explain = Callable[..., tuple[int, str]]


def raw(header: object, data: bytes = b"") -> bytes:
    """A safetensors file by hand: the header as it is, or its JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(shape: list[int], end: int, kind: str = "F32") -> dict[str, object]:
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": [0, end]}}


UNREADABLE = {
    "empty": b"",
    "cut in the length": b"\x10\0\0",
    "cut in the header": raw(one([1], 4), bytes(4))[:20],
    "cut in the data": raw(one([2], 8), bytes(7)),
    "trailing bytes": raw(one([1], 4), bytes(5)),
    "a header of 2^40 bytes": struct.pack("<Q", 2**40) + b"{}",
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "bad JSON": raw(b'{"a":'),
    "JSON nested too deep": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a negative size": raw(one([-1], 4), bytes(4)),
    "a size that overflows": raw(one([2**33, 2**33], 4), bytes(4)),
    "more elements than bytes": raw(one([1000], 4), bytes(4)),
    "two tensors in one place": raw({"a": one([1], 4)["a"], "b": one([1], 4)["a"]}, bytes(4)),
    "metadata that is no text": raw({"__metadata__": {"attribution": 1}}),
    "an unknown type": raw(one([1], 4, "F128"), bytes(4)),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_is_no_whole_safetensors_file_is_an_integrity_error(what: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(UNREADABLE[what])
    for read in (read_tensors, read_weights, Attribution.load):
        with pytest.raises(IntegrityError, match="not a readable safetensors file"):
            read(path)


@pytest.mark.parametrize("what", UNREADABLE)
def test_the_command_line_refuses_it_in_one_line(what: str, tmp_path: Path, explain: Explain) -> None:
    (tmp_path / "x.safetensors").write_bytes(UNREADABLE[what])
    code, told = explain("backbones", "fetch", f"{TINY}@{tmp_path / 'x.safetensors'}")
    assert code == 5 and told.count("\n") == 1 and "Traceback" not in told


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint8])
def test_weights_are_real_numbers(kind: torch.dtype, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2).to(kind)}, tmp_path / "x.safetensors")
    assert read_tensors(tmp_path / "x.safetensors")[0]["a"].dtype == kind
    with pytest.raises(IntegrityError, match="tensor 'a' is of type"):
        read_weights(tmp_path / "x.safetensors")


def test_a_hundred_thousand_tensors_are_refused_in_seconds(tmp_path: Path) -> None:
    header = {f"t{n}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n in range(100_000)}
    (tmp_path / "x.safetensors").write_bytes(raw(header, bytes(400_000)))
    began = time.perf_counter()
    with pytest.raises(BackboneError, match="100000 unknown") as caught:
        load_backbone(f"{TINY}@{tmp_path / 'x.safetensors'}")
    assert time.perf_counter() - began < 60 and len(str(caught.value)) < 500


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "tiny.safetensors"
    save_backbone(load_backbone(f"random:{TINY}", 64)[0], path)
    return path


def changed(path: Path, to: Path, metadata: dict[str, str], **tensors: torch.Tensor) -> Path:
    save_file({**load_file(path), **tensors}, to, {"architecture": TINY, "grid": "4x4", **metadata})
    return to


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_backbone_with_a_weight_that_is_not_finite_is_refused(saved: Path, tmp_path: Path, value: float) -> None:
    weight = load_file(saved)["blocks.3.mlp.fc1.weight"]
    weight[5, 7] = value
    path = changed(saved, tmp_path / "x.safetensors", {}, **{"blocks.3.mlp.fc1.weight": weight})
    with pytest.raises(IntegrityError, match=r"'blocks\.3\.mlp\.fc1\.weight' holds NaN or infinite"):
        load_backbone(str(path))


@pytest.mark.parametrize("shape", [(), (17,), (1, 17), (1, 17, 192, 1), (1, 0, 192), (1, 18, 192)])
def test_positions_of_another_shape_are_refused(saved: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = changed(saved, tmp_path / "x.safetensors", {}, pos_embed=torch.zeros(shape))
    with pytest.raises(BackboneError, match="does not fit the architecture"):
        load_backbone(str(path))


@pytest.mark.parametrize("grid", ["99999x99999", "0x16", "2x4", "16x16"])
def test_a_patch_grid_that_the_file_does_not_hold_is_refused_before_it_is_built(
    saved: Path, tmp_path: Path, grid: str
) -> None:
    path = changed(saved, tmp_path / "x.safetensors", {"grid": grid})
    with pytest.raises(BackboneError, match=f"16 patch positions are not the {grid}"):
        load_backbone(str(path))


@pytest.mark.parametrize("architecture", ["local-dir:/tmp", "hf-hub:a/b", "resnet18", "../../x", "nul\0", "a" * 10_000])
def test_an_architecture_in_the_metadata_is_only_ever_a_name(saved: Path, tmp_path: Path, architecture: str) -> None:
    path = changed(saved, tmp_path / "x.safetensors", {"architecture": architecture})
    with pytest.raises(BackboneError):
        load_backbone(str(path))


# The weights of a run


def run_with(run: Run, folder: Path, weights: dict[str, torch.Tensor], *, adapt: bool = True) -> Path:
    """A copy of a run with other weights, which its manifest agrees to unless told otherwise."""
    copy = Path(shutil.copytree(run.path, folder / "run"))
    save_file(weights, copy / "weights.safetensors")
    if adapt:
        manifest = read_json(copy / "manifest.json")
        manifest["files"]["weights.safetensors"] = sha256_file(copy / "weights.safetensors")
        write_json(copy / "manifest.json", manifest)
    return copy


def test_a_flipped_bit_in_the_weights_is_found_before_they_are_read(
    tiny_pair: MatchedPair, tmp_path: Path, explain: Explain
) -> None:
    copy = Path(shutil.copytree(tiny_pair.vpt.path, tmp_path / "run"))
    content = bytearray((copy / "weights.safetensors").read_bytes())
    content[-3] ^= 1
    (copy / "weights.safetensors").write_bytes(content)
    assert read_tensors(copy / "weights.safetensors")  # as a file it is whole
    said = ("--name", "x", "--owner", "q", "--purpose", "p")
    code, told = explain("prompts", "add", copy, *said, "--store", tmp_path / "s")
    assert code == 5 and "weights.safetensors is missing or changed" in told and told.count("\n") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("change", ["nan", "shape", "name", "type", "scalar"])
def test_weights_that_do_not_fit_the_run_are_refused_also_where_the_hash_is_right(
    change: str, tiny_pair: MatchedPair, tmp_path: Path
) -> None:
    weights = load_file(tiny_pair.vpt.path / "weights.safetensors")
    head = weights["vit.head.weight"]
    match change:
        case "nan":
            head[0, 0] = float("nan")
        case "shape":
            weights["vit.head.weight"] = head.T.contiguous()
        case "name":
            weights["vit.head.other"] = weights.pop("vit.head.weight")
        case "type":
            weights["vit.head.weight"] = head.to(torch.float8_e4m3fn)
        case "scalar":
            weights["vit.head.weight"] = torch.tensor(1.0)
    with pytest.raises(IntegrityError):
        _ = Run.load(run_with(tiny_pair.vpt, tmp_path, weights)).model


def test_sound_weights_still_load(tiny_pair: MatchedPair, tmp_path: Path) -> None:
    weights = load_file(tiny_pair.vpt.path / "weights.safetensors")
    loaded = Run.load(run_with(tiny_pair.vpt, tmp_path, weights)).model
    assert torch.equal(loaded.trained_state()["vit.head.weight"], weights["vit.head.weight"])


# Maps


@pytest.mark.parametrize("record", [
    "[" * 5_000, "null", "[]", "{}", '{"method": "x"}',
    '{"method": 1, "image_size": [8, 8], "options": {}, "provenance": {}}',
    '{"method": "x", "image_size": [8], "options": {}, "provenance": {}}',
    '{"method": "x", "image_size": [8, 8], "options": {"a": NaN}, "provenance": {}}',
    '{"method": "x", "image_size": [8, 8], "options": {}, "provenance": {}, "values": 1}',
])  # fmt: skip
def test_a_description_of_maps_that_was_changed_is_refused(record: str, tmp_path: Path) -> None:
    arrays = {"values": torch.zeros(1, 2, 2), "targets": torch.zeros(1, dtype=torch.int64), "logits": torch.zeros(1, 3)}
    save_file(arrays, tmp_path / "x.safetensors", {"attribution": record})
    with pytest.raises(IntegrityError):
        Attribution.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("change", [
    {"values": torch.zeros(1, 2)}, {"values": torch.zeros(2, 2, 2)}, {"targets": torch.zeros(1)},
    {"logits": torch.zeros(1, 3, dtype=torch.complex64)}, {"other": torch.zeros(1)}, {"extras.a": torch.zeros(4)},
    {"extras.a": torch.zeros(1, dtype=torch.bfloat16)}, {"extras.a": torch.tensor(1.0)},
])  # fmt: skip
def test_arrays_that_are_no_maps_of_the_same_images_are_refused(
    change: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    arrays = {"values": torch.zeros(1, 2, 2), "targets": torch.zeros(1, dtype=torch.int64), "logits": torch.zeros(1, 3)}
    sound = {"attribution": '{"method": "x", "image_size": [8, 8], "options": {}, "provenance": {}}'}
    save_file(arrays, tmp_path / "x.safetensors", sound)
    assert len(Attribution.load(tmp_path / "x.safetensors")) == 1
    save_file(arrays | change, tmp_path / "x.safetensors", sound)
    with pytest.raises(IntegrityError):
        Attribution.load(tmp_path / "x.safetensors")

import errno
import os
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from explain.errors import IntegrityError
from explain.files import cache_folder, flush_folder, read_json, sha256_json, write_atomically, write_json
from explain.tensor_files import read_tensors, write_tensors


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert read_json(path) == {"old": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_written_files_are_readable_by_others(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_broken_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(IntegrityError, match="a.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="nosuch.json is missing"):
        read_json(tmp_path / "nosuch.json")
    with pytest.raises(IntegrityError, match="nosuch.safetensors is missing"):
        read_tensors(tmp_path / "nosuch.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 64, b"PK\x03\x04 a zip archive"])
def test_what_is_not_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match="not a readable safetensors file"):
        read_tensors(tmp_path / "a.safetensors")


def test_tensors_and_metadata_come_back_equal(tmp_path: Path) -> None:
    written = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([1, 2])}
    write_tensors(tmp_path / "a.safetensors", written, {"kind": "test"})
    read, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"kind": "test"}
    assert all(torch.equal(read[name], written[name]) for name in written)


def test_the_json_hash_ignores_key_order_only() -> None:
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": 1, "b": [1, 2]}) != sha256_json({"a": 1, "b": [2, 1]})


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("EXPLAIN_CACHE", raising=False)
    assert cache_folder("a") == tmp_path / "xdg" / "explain" / "a"
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path / "own"))
    assert cache_folder("a", "b") == tmp_path / "own" / "a" / "b"
    assert os.path.isdir(tmp_path / "own" / "a" / "b")


def test_a_new_name_is_flushed_to_the_disk_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(stat.S_ISDIR(os.fstat(handle).st_mode)))
    write_json(tmp_path / "a.json", 1)
    assert flushed == [False, True]


@pytest.mark.parametrize(("number", "matters"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_only_a_file_system_that_cannot_flush_folders_is_excused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, matters: bool
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError) if matters else nullcontext():
        flush_folder(tmp_path)


def test_the_same_tensors_and_metadata_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5.0), "a": torch.ones(2, 3, dtype=torch.int64)}
    metadata = {"tuning": 'prompt "é" 日本\n', "arm": "vpt", "seed": "0", "path": "a\\b/c"}
    found = set()
    for _ in range(20):  # with four names, chance alone would not give one order
        write_tensors(tmp_path / "a.safetensors", tensors, metadata)
        found.add((tmp_path / "a.safetensors").read_bytes())
    assert len(found) == 1
    read, known = read_tensors(tmp_path / "a.safetensors")
    assert known == metadata and all(torch.equal(read[name], tensors[name]) for name in tensors)

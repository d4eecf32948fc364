"""Zip files from elsewhere: names, links, bombs and lies, each refused with nothing left behind."""

import io
import os
import stat
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damage import damage_bytes

from explain.errors import ExplainError, InputError, IntegrityError
from explain.prompts import parcel
from explain.prompts.parcel import export, import_parcel
from explain.prompts.store import PromptStore

OBJECT = f"objects/{'a' * 64}"


@pytest.fixture(scope="module")
def sound(prompts: PromptStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(prompts, "line-3", tmp_path_factory.mktemp("parcel") / "line-3.zip")


@pytest.fixture
def refuse(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Import what must be refused, and see that nothing stays; what was told."""
    store = PromptStore(tmp_path / "store")
    before: list[Path] = []

    def run(source: Path, match: str | None = None) -> str:
        before[:] = sorted(tmp_path.rglob("*"))
        with pytest.raises(IntegrityError, match=match) as caught:
            import_parcel(store, source)
        return str(caught.value)

    yield run
    left = set(tmp_path.rglob("*")) - set(before) - {store.path, store.objects}
    assert left == set() and store.names() == []


def added(sound: Path, folder: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    """The sound parcel with further members."""
    path = folder / "changed.zip"
    path.write_bytes(sound.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def test_the_sound_parcel_is_taken_in(sound: Path, tmp_path: Path) -> None:
    store = PromptStore(tmp_path / "store")
    assert [one.card.name for one in import_parcel(store, sound)] == ["line-3"] and store.verify() == []


@pytest.mark.parametrize("name", [
    "../x.json", "/etc/x.json", "names/../../x.json", "names\\..\\x.json", "C:names/x.json", "names/a/b.json",
    "names/x.json/../../y", f"{OBJECT}/../card.json", f"{OBJECT}/card.json/x", f"{OBJECT}/weights.pt",
    "objects/x/card.json", "names/.json/", "file:///x", "inner.zip", "names/" + "x" * 300 + ".json", "names/..json",
])  # fmt: skip
def test_a_member_with_another_name_is_refused(
    name: str, sound: Path, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    if name.endswith("/"):
        import_parcel(PromptStore(tmp_path / "other"), added(sound, tmp_path, (name, b"")))  # a folder is nothing
        name = name.rstrip("/") + "/x"
    told = refuse(added(sound, tmp_path, (name, b"x")), "expected only names/NAME.json and objects/ID/FILE")
    assert len(told) < 1_000


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_a_device_is_refused(kind: int, sound: Path, tmp_path: Path, refuse: Callable[..., str]) -> None:
    member = zipfile.ZipInfo("names/x.json")
    member.create_system, member.external_attr = 3, (kind | 0o644) << 16
    refuse(added(sound, tmp_path, (member, b"/etc/passwd")), "is a link, encrypted or packed in an unusual way")


def test_two_members_of_one_name_are_refused(sound: Path, tmp_path: Path, refuse: Callable[..., str]) -> None:
    with zipfile.ZipFile(sound) as archive:
        content = archive.read("names/line-3.json")
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = added(sound, tmp_path, ("names/line-3.json", content))
    refuse(path, "more than once")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_unusual_compression_is_refused(
    method: int, sound: Path, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    member = zipfile.ZipInfo("names/x.json")
    member.compress_type = method
    refuse(added(sound, tmp_path, (member, b"{}")), "packed in an unusual way")


def test_an_encrypted_member_is_refused(sound: Path, tmp_path: Path, refuse: Callable[..., str]) -> None:
    content = bytearray(sound.read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "changed.zip").write_bytes(content)
    refuse(tmp_path / "changed.zip", "encrypted")


def test_a_bomb_is_stopped_by_counting_and_takes_no_memory(tmp_path: Path, refuse: Callable[..., str]) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(f"{OBJECT}/weights.safetensors", "w") as stream:
            for _ in range(300):
                stream.write(bytes(2**20))
    assert path.stat().st_size < 2**19  # 1 : 1000
    tracemalloc.start()
    refuse(path, f"unpacks to more than {parcel.FREE_BYTES:,} bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_many_files_that_unpack_to_much_together_are_a_bomb_too(
    tmp_path: Path, refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcel, "FREE_BYTES", 1_000_000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(12):
            archive.writestr(f"objects/{number:064}/card.json", bytes(100_000))
    refuse(path, "unpacks to more than 1,000,000 bytes")


def test_a_hundred_thousand_members_are_refused_before_one_is_unpacked(
    tmp_path: Path, refuse: Callable[..., str]
) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(100_000):
            archive.writestr(zipfile.ZipInfo(f"objects/{number:064}/card.json"), b"")
    began = time.perf_counter()
    refuse(path, "holds 100,000 files, an export at most 30,000")
    assert time.perf_counter() - began < 30


@pytest.mark.parametrize("claimed", [0, 1, 10**6, 2**32 - 2])
@pytest.mark.parametrize("packed", [False, True])
def test_a_size_that_is_a_lie_is_found(
    claimed: int, packed: bool, sound: Path, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(stream, "w", method) as archive:
        for name in source.namelist():  # the first is names/line-3.json
            archive.writestr(name, source.read(name))
    data = bytearray(stream.getvalue())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(mark) + at
        data[start : start + 4] = struct.pack("<I", claimed)
    (tmp_path / "lie.zip").write_bytes(data)
    refuse(tmp_path / "lie.zip")


def test_a_member_whose_data_are_damaged_is_found(sound: Path, tmp_path: Path, refuse: Callable[..., str]) -> None:
    deflated = zlib.compress(b"{}" * 500)
    content = bytearray(sound.read_bytes())
    content[200 : 200 + len(deflated)] = deflated
    (tmp_path / "changed.zip").write_bytes(content)
    refuse(tmp_path / "changed.zip")


def test_a_zip_inside_a_zip_is_not_opened(sound: Path, tmp_path: Path, refuse: Callable[..., str]) -> None:
    refuse(added(sound, tmp_path, ("names/line-4.json", sound.read_bytes())), "line-4.json is not valid JSON")


@pytest.mark.parametrize("what", ["pipe", "link", "linked folder", "strange file"])
def test_a_folder_holds_plain_files_of_an_export(
    what: str, prompts: PromptStore, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    folder = export(prompts, "line-3", tmp_path / "folder")
    match what:
        case "pipe":
            os.mkfifo(folder / "names" / "x.json")
        case "link":
            (folder / "names" / "x.json").symlink_to("/etc/hostname")
        case "linked folder":
            (folder / "objects" / ("b" * 64)).symlink_to("/etc")
        case "strange file":
            (folder / "names" / "x.txt").write_text("x")
    refuse(folder)


def test_a_folder_of_more_than_an_export_is_refused(
    prompts: PromptStore, tmp_path: Path, refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(prompts, "line-3", tmp_path / "folder")
    with monkeypatch.context() as patch:
        patch.setattr(parcel, "MAX_BYTES", 1_000)
        refuse(folder, "unpacks to more than 1,000 bytes")
    monkeypatch.setattr(parcel, "MAX_MEMBERS", 3)
    refuse(folder, "holds 4 files")


def damaged_parcels(sound: Path, folder: Path, seeds: range) -> int:
    store, content, refused = PromptStore(folder / "store"), sound.read_bytes(), 0
    for seed in seeds:
        (folder / "x.zip").write_bytes(damage_bytes(content, seed))
        try:
            import_parcel(store, folder / "x.zip")
        except ExplainError as error:
            refused += 1
            assert error.exit_code in (2, 5), seed
    assert not [path for path in store.objects.iterdir() if path.name.startswith(".")]
    return refused


def test_a_damaged_parcel_is_refused_by_an_error_with_an_exit_code(sound: Path, tmp_path: Path) -> None:
    assert damaged_parcels(sound, tmp_path, range(40)) > 30


@pytest.mark.slow
def test_a_parcel_damaged_in_five_hundred_ways_likewise(sound: Path, tmp_path: Path) -> None:
    assert damaged_parcels(sound, tmp_path, range(1_000, 1_500)) > 400


def test_a_parcel_that_is_not_there_is_a_wrong_argument(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        import_parcel(PromptStore(tmp_path / "store"), tmp_path / "none.zip")

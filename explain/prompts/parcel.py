"""Parcel: a prompt with all its versions as one zip file or folder, to carry to another store.

A parcel is laid out like a store: `names/<name>.json` and `objects/<id>/…`. Into a store that does not know the name
the whole history goes, tags, aliases and log included; into one that does, only versions go: what is in production
there is decided there. Nothing is taken in before all of it is checked.
"""

import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from explain.data.names import printable
from explain.errors import InputError, IntegrityError
from explain.files import write_atomically
from explain.prompts.history import History
from explain.prompts.naming import check_name, parse_reference
from explain.prompts.store import PromptStore
from explain.prompts.stored import CARD, FILES, Stored

MAX_FILE_BYTES = 2**30
"""No prompt is so large; a zip file may unpack to anything."""

MAX_BYTES, MAX_RATIO, FREE_BYTES = 2**33, 100, 2**26
"""All files together, and that as a multiple of the zip file's size where it is more than a few prompts."""

MAX_MEMBERS, MAX_PATH_BYTES, CHUNK_BYTES = 30_000, 200, 2**20
"""Files of an export (10,000 versions), length of a path in it, and what is unpacked at once."""

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError,
               LookupError, struct.error, OSError)  # fmt: skip

_OBJECT_FILES = "|".join(map(re.escape, (CARD, *FILES)))
_MEMBER = re.compile(rf"objects/[0-9a-f]{{64}}/({_OBJECT_FILES})|names/[^/\\]+\.json")


def export(store: PromptStore, name: str, out: str | Path) -> Path:
    """Write all of a name to a zip file (`out` ends in .zip) or a new folder; equal content gives equal bytes.

    Args:
        store: where it is.
        name: without a version.
        out: the file or folder.

    Raises:
        InputError: a reference to one version, or a folder that holds something.
        IntegrityError: bytes in the store changed.
    """
    bare = parse_reference(name).name
    if bare != name:
        raise InputError(f"an export carries a name with all its versions; write {bare!r}, or use "
                         "`explain prompts push` for one version")  # fmt: skip
    target, history = Path(out), store.history(name)
    members = {f"names/{name}.json": store.path / "names" / f"{name}.json"}
    for version in history.versions:
        store.at(name, version).tensors()  # a damaged version must not travel
        members |= {f"objects/{version.id}/{file}": store.objects / version.id / file for file in (CARD, *FILES)}
    if target.suffix == ".zip":
        write_atomically(target, lambda path: _write_zip(path, members))
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already and not empty; choose a new folder, or a file that ends in .zip")
    for member, source in sorted(members.items(), reverse=True):  # objects first, the name last
        write_atomically(target / member, lambda path, source=source: shutil.copyfile(source, path))  # type: ignore[misc]
    return target


def _write_zip(path: Path, members: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, source in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(member), source.read_bytes())  # a ZipInfo has a fixed date


def import_parcel(store: PromptStore, source: str | Path, *, who: str | None = None) -> list[Stored]:
    """Take in what `export` wrote.

    Args:
        store: where it goes.
        source: a zip file, or a folder.
        who: for the log; None for the account.

    Returns:
        The versions of the parcel, as they are in the store now.

    Raises:
        IntegrityError: a path that leaves the folder, a link, too many files or bytes, a wrong hash, or a damaged
            history.
        InputError: a version that is there with other metadata, or other classes than the name's.
    """
    source = Path(source)
    with store.fresh_folder() as folder:
        unpacked = PromptStore(folder.parent / "parcel")
        if source.is_dir():
            _copy_folder(source, unpacked.path)
        else:
            _unpack(source, unpacked.path)
        names = unpacked.names()
        if not names:
            raise IntegrityError(f"{source} holds no prompt; expected what `explain prompts export` wrote")
        wrong = unpacked.verify()
        if wrong:
            raise IntegrityError(f"{source} is damaged, nothing was taken in: {'; '.join(wrong)}")
        found: list[Stored] = []
        for name in names:
            check_name(name, "prompt name")
            found += _take_in(store, unpacked, name, printable(source), who)
        return found


def _take_in(store: PromptStore, unpacked: PromptStore, name: str, note: str, who: str | None) -> list[Stored]:
    history = unpacked.history(name)
    if name in store.names():
        return [_add_version(store, unpacked.at(name, version), note, who) for version in history.versions]

    def change(present: History | None) -> History:
        if present is not None:
            raise InputError(f"{name!r} was registered in this moment; run the command again")
        for version in history.versions:
            target = store.objects / version.id
            if not target.exists():
                shutil.copytree(unpacked.objects / version.id, target.with_name(f".{version.id}"), dirs_exist_ok=True)
                target.with_name(f".{version.id}").replace(target)
        return history.with_entry("import", who=who, notes=(note,))

    store.change(name, change)
    return [store.at(name, version) for version in history.versions]


def _add_version(store: PromptStore, stored: Stored, note: str, who: str | None) -> Stored:
    with object_copy(store, stored.folder) as folder:
        return store.keep(folder, stored.card, what="import", who=who, note=note)


@contextmanager
def object_copy(store: PromptStore, source: Path) -> Iterator[Path]:
    """A fresh copy of a version's files on the store's disk, checked against the card beside them."""
    with store.fresh_folder() as folder:
        for name in FILES:
            path = source / name
            if path.is_symlink() or not path.is_file():
                raise IntegrityError(f"{path} is missing or a link; expected a plain file")
            write_atomically(folder / name, lambda to, path=path: shutil.copyfile(path, to))  # type: ignore[misc]
        yield folder


def _unpack(archive: Path, folder: Path) -> None:
    for member, chunk in _chunks(archive):
        target = folder / member
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "ab") as stream:
            stream.write(chunk)


def _chunks(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(member, next part of it) of a zip file; what the file says of its sizes is not believed, the bytes are counted.

    Raises:
        InputError: there is no such file.
        IntegrityError: not a zip file, or more than an export can be.
    """
    try:
        allowed = max(MAX_RATIO * archive.stat().st_size, FREE_BYTES)
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check_members([member.filename for member in members], archive)
            total = _Total(archive, min(allowed, MAX_BYTES))
            for member in members:
                _check_kind(member, archive)
                with opened.open(member) as stream:
                    size = 0
                    while chunk := stream.read(CHUNK_BYTES):
                        size += len(chunk)
                        total.add(member.filename, size, len(chunk))
                        yield member.filename, chunk
                if size != member.file_size:
                    raise IntegrityError(f"{archive}: {member.filename} has {size:,} bytes and says that it has "
                                         f"{member.file_size:,}; export it again")  # fmt: skip
    except FileNotFoundError:
        raise InputError(f"there is no {archive}; expected what `explain prompts export` wrote") from None
    except _ZIP_ERRORS as error:
        raise IntegrityError(f"{archive} is not a readable zip file ({error}); export it again") from None


def _check_kind(member: zipfile.ZipInfo, archive: Path) -> None:
    """Refuse links, devices, encryption and rare compressions, whose decoders have limits of nobody's choice."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    packed = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if kind not in (0, stat.S_IFREG) or member.flag_bits & 1 or not packed:
        raise IntegrityError(f"{archive}: {ascii(member.filename)} is a link, encrypted or packed in an unusual way; "
                             "expected plain files, nothing was taken in")  # fmt: skip


def _copy_folder(source: Path, folder: Path) -> None:
    found = list(islice(source.rglob("*"), 3 * MAX_MEMBERS))  # files and their folders; more is refused below
    paths = [path for path in found if not path.name.startswith(".")]
    links = [path for path in found if path.is_symlink()]
    if links:
        member = links[0].relative_to(source).as_posix()
        raise IntegrityError(f"{source}: {ascii(member)} is a link; expected plain files, nothing was taken in")
    members = {path.relative_to(source).as_posix(): path for path in sorted(paths) if not path.is_dir()}
    _check_members(list(members), source)
    total = _Total(source, MAX_BYTES)
    for member, path in members.items():
        if not path.is_file():
            raise IntegrityError(f"{source}: {ascii(member)} is no plain file; nothing was taken in")
        total.add(member, path.stat().st_size, path.stat().st_size)
        target = folder / member
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


@dataclass
class _Total:
    """What was unpacked so far, counted against what may be.

    Args:
        source: for the message.
        allowed: bytes of all files together.
    """

    source: Path
    allowed: int
    bytes: int = 0

    def add(self, member: str, size: int, more: int) -> None:
        """Raise IntegrityError when a file of `size` bytes so far, `more` of them new, is over a limit."""
        self.bytes += more
        if size > MAX_FILE_BYTES:
            raise IntegrityError(f"{self.source}: {member} is larger than {MAX_FILE_BYTES:,} bytes; that is no prompt")
        if self.bytes > self.allowed:
            raise IntegrityError(f"{self.source} unpacks to more than {self.allowed:,} bytes; that is no export, and "
                                 "nothing was taken in")  # fmt: skip


def _check_members(members: Sequence[str], source: Path) -> None:
    """Raise IntegrityError unless the names are those of an export, each once."""
    if len(members) > MAX_MEMBERS:
        raise IntegrityError(f"{source} holds {len(members):,} files, an export at most {MAX_MEMBERS:,}; nothing was "
                             "taken in")  # fmt: skip
    for member in members:
        if _MEMBER.fullmatch(member) is None or ".." in member or len(os.fsencode(member)) > MAX_PATH_BYTES:
            raise IntegrityError(f"{source} holds {ascii(member[:300])}; expected only names/NAME.json and "
                                 "objects/ID/FILE, so nothing was taken in. Export it again, and trust no archive from "
                                 "elsewhere")  # fmt: skip
    if len(set(members)) != len(members):
        twice = next(name for name, count in Counter(members).items() if count > 1)
        raise IntegrityError(f"{source} holds {ascii(twice)} more than once; nothing was taken in")

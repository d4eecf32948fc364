"""Parcel: a prompt with all its versions as one zip file or folder, to carry to another store.

A parcel is laid out like a store: `names/<name>.json` and `objects/<id>/…`. Into a store that does not know the name
the whole history goes, tags, aliases and log included; into one that does, only versions go: what is in production
there is decided there. Nothing is taken in before all of it is checked.
"""

import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from explain.errors import InputError, IntegrityError
from explain.files import write_atomically
from explain.prompts.history import History
from explain.prompts.naming import check_name, parse_reference
from explain.prompts.store import PromptStore
from explain.prompts.stored import CARD, FILES, Stored

MAX_FILE_BYTES = 2**30
"""No prompt is so large; a zip file may unpack to anything."""

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
        IntegrityError: a path that leaves the folder, a file that is too large, a wrong hash, or a damaged history.
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
            found += _take_in(store, unpacked, name, str(source), who)
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
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                if member.is_dir():
                    continue
                _check_member(member.filename, archive)
                with opened.open(member) as stream:
                    content = stream.read(MAX_FILE_BYTES + 1)
                if len(content) > MAX_FILE_BYTES:
                    raise IntegrityError(f"{archive}: {member.filename} is larger than {MAX_FILE_BYTES:,} bytes; "
                                         "that is no prompt")  # fmt: skip
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    except FileNotFoundError:
        raise InputError(f"there is no {archive}; expected what `explain prompts export` wrote") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise IntegrityError(f"{archive} is not a readable zip file ({error}); export it again") from None


def _copy_folder(source: Path, folder: Path) -> None:
    for path in sorted(source.rglob("*")):
        member = path.relative_to(source).as_posix()
        if path.is_symlink():
            raise IntegrityError(f"{source}: {member!r} is a link; expected plain files, nothing was taken in")
        if path.is_dir() or path.name.startswith("."):
            continue
        _check_member(member, source)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise IntegrityError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes; that is no prompt")
        target = folder / member
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _check_member(member: str, source: Path) -> None:
    if _MEMBER.fullmatch(member) is None or ".." in member:
        raise IntegrityError(f"{source} holds {ascii(member)}; expected only names/NAME.json and objects/ID/FILE, so "
                             "nothing was taken in. Export it again, and trust no archive from elsewhere")  # fmt: skip

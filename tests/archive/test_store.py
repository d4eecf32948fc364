import errno
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from explain.archive import bucket as bucket_module
from explain.archive.folder import TEMPORARY
from explain.archive.store import Store
from explain.archive.writer import Writer
from explain.errors import InputError, IntegrityError, StorageError

KEY = "maps/000/000012.parquet"


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


# ---- what every kind of store does


def test_what_was_put_is_read_back_and_replaced_by_the_next(store: Store) -> None:
    store.put(KEY, b"first")
    store.put(KEY, memoryview(b"second"))
    assert store.read(KEY) == b"second"
    assert (store.exists(KEY), store.size(KEY)) == (True, 6)


def test_create_writes_only_where_nothing_is(store: Store) -> None:
    assert store.create(KEY, b"first")
    assert not store.create(KEY, b"second")
    assert store.read(KEY) == b"first"


def test_an_arrow_buffer_can_be_put(store: Store) -> None:
    store.put(KEY, pa.py_buffer(b"arrow"))
    assert store.read(KEY) == b"arrow"


def test_a_missing_file_has_no_size_and_cannot_be_read(store: Store) -> None:
    assert (store.exists(KEY), store.size(KEY)) == (False, None)
    for read in (store.read, store.stream):
        with pytest.raises(IntegrityError, match=r"000012\.parquet is missing"):
            read(KEY)


def test_a_folder_is_no_file(store: Store) -> None:
    store.put(KEY, b"x")
    assert store.size("maps/000") is None
    with pytest.raises(IntegrityError, match="missing"):
        store.read("maps/000")


def test_a_stream_reads_from_any_place(store: Store) -> None:
    store.put(KEY, bytes(range(100)))
    with store.stream(KEY) as stream:
        assert stream.seek(0, os.SEEK_END) == 100
        stream.seek(-3, os.SEEK_END)
        assert stream.read(2) == bytes([97, 98])
        assert stream.read() == bytes([99])
        assert stream.read(5) == b""
        stream.seek(10)
        assert (stream.read(1), stream.tell()) == (bytes([10]), 11)


def test_two_streams_of_one_file_stand_at_their_own_places(store: Store) -> None:
    store.put(KEY, b"abcdef")
    with store.stream(KEY) as one, store.stream(KEY) as other:
        one.read(4)
        assert other.read(2) == b"ab"


def test_keys_are_listed_in_order_below_their_folder_only(store: Store) -> None:
    keys = ["maps/000/000002.parquet", "maps/000/000010.parquet", "maps/001/001000.parquet", "maps-2/x", "job.json"]
    for key in reversed(keys):
        store.put(key, b"x")
    assert list(store.list("maps")) == keys[:3]
    assert list(store.list("maps/000")) == keys[:2]
    assert list(store.list()) == sorted(keys)
    assert list(store.list("receipts")) == []


def test_a_file_that_others_wrote_is_seen_at_once(store: Store) -> None:
    assert list(store.list("maps")) == []
    Store.open(store.url).put(KEY, b"x")
    assert (store.exists(KEY), list(store.list("maps"))) == (True, [KEY])


def test_what_another_machine_does_in_a_bucket_is_seen_at_once(bucket: str) -> None:
    client = pytest.importorskip("boto3").client("s3")
    store = Store.open(f"{bucket}/shared")
    store.put("maps/1", b"x")
    assert (list(store.list("maps")), store.exists("maps/2")) == (["maps/1"], False)
    client.put_object(Bucket="maps", Key="shared/maps/2", Body=b"yy")
    assert (store.size("maps/2"), list(store.list("maps"))) == (2, ["maps/1", "maps/2"])
    client.put_object(Bucket="maps", Key="shared/maps/2", Body=b"zzz")
    client.delete_object(Bucket="maps", Key="shared/maps/1")
    assert (store.size("maps/2"), store.read("maps/2"), list(store.list())) == (3, b"zzz", ["maps/2"])
    client.close()


def test_delete_takes_away_what_is_there_and_nothing_else(store: Store) -> None:
    store.put(KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)
    assert not store.exists(KEY)


def test_checking_that_a_place_can_be_written_leaves_nothing_behind(store: Store) -> None:
    store.check_writable()
    assert list(store.list()) == []


def test_files_are_read_as_one_table(store: Store) -> None:
    for shard in range(2):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"row": [2 * shard, 2 * shard + 1]}), sink)
        store.put(f"metrics/{shard}.parquet", sink.getvalue())
    table = store.dataset(list(store.list("metrics")), ds.ParquetFileFormat()).to_table()
    assert sorted(table["row"].to_pylist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "../x", "a/../b", "a/..", "/etc/passwd", "a//b", "a/", "C:\\x", "C:/x", "a\\b", "a\0b", "a\n",
     "a b", "s3://b/x", ".hidden", "a/.hidden", "\N{FULLWIDTH SOLIDUS}a"],
)  # fmt: skip
def test_a_key_that_could_lead_outside_is_refused(tmp_path: Path, key: str) -> None:
    store = Store.open(tmp_path / "archive")
    asks: list[Callable[[], object]] = [
        lambda: store.put(key, b""), lambda: store.create(key, b""), lambda: store.read(key), lambda: store.stream(key),
        lambda: store.size(key), lambda: store.delete(key), lambda: store.dataset([key], ds.ParquetFileFormat()),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(InputError, match="relative name"):
            ask()
    assert files_of(tmp_path) == []


# ---- places


def test_a_store_is_opened_again_by_its_url(store: Store) -> None:
    store.put(KEY, b"x")
    assert Store.open(store.url).read(KEY) == b"x"
    assert (store.folder is None) == ("://" in store.url)


def test_a_folder_given_relatively_is_the_same_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = Store.open("archive").url
    monkeypatch.chdir("/")
    assert Store.open(url).folder == tmp_path / "archive"


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    assert Store.open((tmp_path / "my maps#1").as_uri()).folder == tmp_path / "my maps#1"


@pytest.mark.parametrize(
    "location", ["nosuch://x", "s3://", "memory://", "file://host/x", "zip://a::s3://b", "", "a\0b"]
)
def test_what_is_no_place_is_refused(location: str) -> None:
    with pytest.raises(InputError, match="expected"):
        Store.open(location)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(bucket_module, "url_to_fs", missing)
    with pytest.raises(InputError, match=r"pip install explain-vit\[s3\]"):
        Store.open("s3://maps/x")


def test_a_bucket_that_is_not_there_cannot_be_written(bucket: str) -> None:
    with pytest.raises(InputError, match="nothing can be written in s3://nosuch/x: .*does not exist"):
        Store.open("s3://nosuch/x").check_writable()


def test_a_bucket_that_goes_away_is_a_storage_error(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(f"{bucket}/going")
    store.put(KEY, b"x")
    stream = store.stream(KEY)

    def cut(*args: object, **kwargs: object) -> None:
        from botocore.exceptions import EndpointConnectionError

        raise EndpointConnectionError(endpoint_url="the server")

    for name in ("pipe_file", "cat_file", "info", "find"):
        monkeypatch.setattr(store._place._files, name, cut)  # type: ignore[union-attr]
    asks: list[Callable[[], object]] = [
        lambda: store.put(KEY, b""), lambda: store.create(KEY, b""), lambda: store.read(KEY), lambda: store.exists(KEY),
        lambda: list(store.list()),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(StorageError, match="Could not connect"):
            ask()
    with pytest.raises(OSError, match="Could not connect"):
        stream.read()


# ---- folders: whole or absent


def test_one_of_many_that_create_at_the_same_time_succeeds(store: Store) -> None:
    start, won = threading.Barrier(8), []

    def contend(number: int) -> None:
        start.wait()
        if store.create(KEY, b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(KEY) == b"%d" % won[0]
    assert len(won) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "link"])
def test_whichever_call_fails_the_old_file_stays_or_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    real = getattr(os, call)
    failed = 0
    for nth in range(1, 6):
        store = Store.open(tmp_path / str(nth))
        store.put("a", b"old")
        calls = iter(range(1, 100))

        def fail(*args: object, nth: int = nth, calls: object = calls, **kwargs: object) -> object:
            if next(calls) == nth:  # type: ignore[call-overload]
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        for ask, key in ((store.put, "a"), (store.create, "b")):
            with monkeypatch.context() as patch:
                patch.setattr(os, call, fail)
                try:
                    ask(key, b"new")
                except StorageError as error:
                    failed += 1
                    assert os.strerror(number) in str(error) and "MB are free" in str(error) and "kept" in str(error)
        assert store.read("a") in (b"old", b"new")
        assert not store.exists("b") or store.read("b") == b"new"
        assert set(files_of(tmp_path / str(nth))) <= {"a", "b"}
    assert failed >= 1


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
    store = Store.open(tmp_path)
    store.put("a", b"0123456789")
    assert store.read("a") == b"0123456789"


def test_a_file_beyond_the_systems_limit_is_a_storage_error(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            store.put("a", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_of(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_killed_writer_left_is_not_listed_and_can_be_cleaned_up(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    pid = os.fork()
    if pid == 0:
        os.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        try:
            store.put(KEY, b"half")
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert len(files_of(tmp_path)) == 1
    assert list(store.list()) == []
    assert store.clean() == 1
    assert files_of(tmp_path) == []


def test_clean_leaves_what_a_living_or_foreign_writer_is_writing(tmp_path: Path) -> None:
    here = Writer.here()
    others = [here, here.model_copy(update={"host": "elsewhere", "pid": 4_000_000})]
    names = [f".a~{one.host}~{one.pid}~{one.started}~00000000.tmp" for one in others]
    assert all(TEMPORARY.fullmatch(name) for name in names)
    for name in [*names, ".profile", "notes.tmp"]:
        (tmp_path / name).write_bytes(b"x")
    assert Store.open(tmp_path).clean() == 0
    assert len(files_of(tmp_path)) == 4


def test_a_number_that_was_given_to_another_process_since_is_a_dead_writers(tmp_path: Path) -> None:
    here = Writer.here()
    boot, namespace, ticks = here.started.split("-")
    assert not here.is_gone
    assert here.model_copy(update={"started": f"{boot}-{namespace}-{int(ticks) - 1}"}).is_gone
    assert here.model_copy(update={"started": f"0123456789ab-{namespace}-{ticks}"}).is_gone
    assert not here.model_copy(update={"started": f"{boot}-1-{int(ticks) - 1}"}).is_gone


def test_file_systems_without_hard_links_create_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = Store.open(tmp_path)
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert (store.read("a"), files_of(tmp_path)) == (b"first", ["a"])


def test_everything_is_flushed_to_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def renamed(*args: str) -> None:
        done.append("rename")
        replace(*args)

    store = Store.open(tmp_path)
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    store.put("a", b"x")
    assert done == ["file", "rename", "folder"]
    store.put("new/b", b"x")
    assert done[3:] == ["folder", "file", "rename", "folder"]


# ---- folders: nothing outside is touched


@pytest.mark.parametrize("inside", [False, True])
def test_a_link_in_the_archive_is_not_followed(tmp_path: Path, inside: bool) -> None:
    store = Store.open(tmp_path / "archive")
    store.put("real/secret", b"secret")
    target = tmp_path / "archive" / "real" if inside else tmp_path / "outside"
    target.mkdir(exist_ok=True)
    (target / "secret").write_bytes(b"secret")
    (tmp_path / "archive" / "maps").symlink_to(target)
    (tmp_path / "archive" / "job.json").symlink_to(target / "secret")
    asks: list[Callable[[str], object]] = [
        store.read, store.stream, store.size, store.delete, lambda key: store.put(key, b"x"),
        lambda key: store.create(key, b"x"), lambda key: store.dataset([key], ds.ParquetFileFormat()),
    ]  # fmt: skip
    for ask in asks:
        for key in ("maps/secret", "job.json"):
            with pytest.raises(IntegrityError, match="is a link or lies behind one"):
                ask(key)
    assert files_of(target) == ["secret"] and (target / "secret").read_bytes() == b"secret"
    assert "maps/secret" not in list(store.list())


def test_the_archive_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "archive").symlink_to(tmp_path / "real")
    store = Store.open(tmp_path / "archive")
    store.put(KEY, b"x")
    assert (tmp_path / "real" / KEY).read_bytes() == store.read(KEY) == b"x"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "job.json")
    with pytest.raises(IntegrityError, match="missing"):
        Store.open(tmp_path).read("job.json")


# ---- folders: can it be written at all


def test_a_file_in_the_way_is_said_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file" / "archive"):
        with pytest.raises(InputError, match="nothing can be written in .*file"):
            Store.open(path).check_writable()


def test_a_read_only_folder_is_an_input_error_and_a_full_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path)
    for number, error, text in (
        (errno.EROFS, InputError, "Read-only file system; choose another place"),
        (errno.EACCES, InputError, "Permission denied"),
        (errno.ENOSPC, StorageError, "No space left"),
    ):
        def refuse(*args: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse)
            with pytest.raises(error, match=text):
                store.check_writable()
        assert files_of(tmp_path) == []


def test_free_bytes_are_those_of_the_disk_even_before_the_folder_is_made(tmp_path: Path) -> None:
    free = Store.open(tmp_path / "a" / "b").free_bytes()
    assert free is not None and 0 < free < os.statvfs(tmp_path).f_frsize * os.statvfs(tmp_path).f_blocks

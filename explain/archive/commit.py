"""Commit: how a shard gets into an archive, all of it or nothing.

A shard is begun with a file that says so, and ends with a receipt, written last. A killed process leaves the first and
not the second, and that is how the next one knows.
"""

import json
import socket
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from explain.archive.archive import MapArchive
from explain.archive.manifest import Entry, slice_sha256
from explain.archive.maps_file import MapsWriter
from explain.archive.paths import ATTEMPTS, MAPS, METRICS, RECEIPTS, key
from explain.archive.receipt import Receipt, StoredFile
from explain.archive.store import Store
from explain.errors import IntegrityError
from explain.provenance import library_versions


def begin(store: Store, shard: int) -> int:
    """Write down that a shard is begun; how often it was before without an end."""
    name = key(ATTEMPTS, shard)
    tries = _tries(store.read(name)) if store.exists(name) else 0
    store.put(name, json.dumps({"attempts": tries + 1, "host": socket.gethostname()}).encode())
    return tries


def _tries(data: bytes) -> int:
    """Attempts so far; a journal that cannot be read was torn by one."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return 1
    tries = found.get("attempts") if isinstance(found, dict) else None
    return tries if isinstance(tries, int) and 0 <= tries < 1000 else 1


def give_up(store: Store, shard: int) -> None:
    """Forget that a shard was begun: it ended, well or not, but not by a killed process."""
    store.delete(key(ATTEMPTS, shard))


def commit(
    archive: MapArchive, shard: int, entries: Sequence[Entry], maps: MapsWriter, table: pa.Table, seconds: float
) -> Receipt:
    """Write the files of a shard, and when both are safe, its receipt.

    Args:
        archive: where.
        shard: its number.
        entries: its images.
        maps: their maps, one row per image.
        table: their numbers, one row per image.
        seconds: how long it took.

    Raises:
        StorageError: a file could not be written; the shard is not committed.
    """
    found = maps.finish()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    lines = sink.getvalue()
    receipt = Receipt(
        shard=shard, first_row=archive.manifest.facts.first_row(shard), count=len(entries), job=archive.job.sha256,
        manifest_slice=slice_sha256(entries), maps=StoredFile.of(found.data, found.footer_sha256),
        metrics=StoredFile.of(lines), statuses=dict(sorted(Counter(table["status"].to_pylist()).items())),
        versions=library_versions(), host=socket.gethostname(), seconds=round(seconds, 3), finished=now(),
    )  # fmt: skip
    archive.store.put(key(MAPS, shard), found.data)
    archive.store.put(key(METRICS, shard), lines)
    if not archive.store.create(key(RECEIPTS, shard), receipt.to_bytes()):
        there = archive.receipt(shard)
        if there.content != receipt.content:
            raise IntegrityError(
                f"shard {shard} of {archive.store.url} was committed meanwhile with other content; two processes write "
                "this archive with different libraries or models. Stop one, then: explain archive repair"
            )
    return receipt


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

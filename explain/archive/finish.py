"""Finish: what an archive gets when its last shard is committed.

The tables of a thousand shards are joined into one file, because a query over one file is several times faster than one
over a thousand. And `finished.json` says that nothing is missing, so that a receipt that disappears later is noticed.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from explain.archive.archive import MapArchive
from explain.archive.commit import now
from explain.archive.job import FINISHED, Finished
from explain.archive.paths import PER_FOLDER, RECEIPTS, key
from explain.errors import IntegrityError
from explain.files import sha256_json

ROW_GROUP = 128
"""Shards whose rows make up one row group of a joined table: 131,072 rows, DuckDB's favourite size."""


def finish(archive: MapArchive) -> Finished:
    """Write what a finished archive has, when every shard is committed.

    Raises:
        UnknownNameError: a shard is not.
        IntegrityError: a shard's receipt or table is damaged.
        StorageError: a file could not be written.
    """
    shards = archive.job.manifest.shards
    seen, contents, statuses = hashlib.sha256(), [], Counter[str]()
    for shard in range(shards):
        receipt = archive.receipt(shard)
        seen.update(receipt.to_bytes())
        contents.append(receipt.content)
        statuses.update(receipt.statuses)
    tables: dict[str, str] = {}
    for number, first in enumerate(range(0, shards, PER_FOLDER)):
        data = _joined(archive, range(first, min(first + PER_FOLDER, shards)))
        name = f"table/{number:03d}.parquet"
        archive.store.put(name, data)
        tables[name] = hashlib.sha256(data).hexdigest()
    finished = Finished(
        job=archive.job.sha256, images=len(archive), statuses=dict(sorted(statuses.items())),
        content=sha256_json(contents), receipts=seen.hexdigest(), tables=tables, finished=now(),
    )  # fmt: skip
    archive.store.put(FINISHED, finished.to_bytes())
    return finished


def _joined(archive: MapArchive, shards: Sequence[int]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    schema = archive.metrics_table(shards[0]).schema
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for first in range(0, len(shards), ROW_GROUP):
            parts = [archive.metrics_table(shard) for shard in shards[first : first + ROW_GROUP]]
            if any(part.schema != schema for part in parts):
                raise IntegrityError(f"the shards of {archive.store.url} have tables of different columns: some are "
                                     "not of this archive; make it again")  # fmt: skip
            writer.write_table(pa.concat_tables(parts))
    return sink.getvalue()


def receipts_sha256(archive: MapArchive) -> str:
    """SHA-256 over the bytes of the receipts that are there, in order."""
    seen = hashlib.sha256()
    for shard in archive.committed():
        seen.update(archive.store.read(key(RECEIPTS, shard)))
    return seen.hexdigest()

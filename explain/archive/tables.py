"""Tables: the numbers of an archive's images, compared with what vouches for their files before they are read.

Checksums of Parquet's pages cover neither the headers of pages nor the footer, so whole files are compared first.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from explain.archive.store import Store
from explain.errors import ExplainError, IntegrityError

EVERY_TABLE = ("row", "id", "status", "detail", "flags", "label")
"""Columns that the numbers of every archive have."""


def open_tables(store: Store, files: Mapping[str, str]) -> ds.Dataset:
    """Files with the same columns as one table, not yet read.

    Args:
        store: where they lie.
        files: key -> SHA-256.

    Raises:
        IntegrityError: one is damaged or missing.
    """
    for name, expected in files.items():
        if store.sha256(name) != expected:
            raise IntegrityError(f"{store.name(name)} is damaged; explain archive repair {store.url}")
    checked = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    )
    with _errors_named(store.url):
        return store.dataset(sorted(files), checked)


def read_tables(tables: ds.Dataset, store: Store) -> pa.Table:
    """All of it, in memory."""
    with _errors_named(store.url):
        return tables.to_table()


def parse_table(data: bytes, count: int, what: str) -> pa.Table:
    """The numbers of one shard, from bytes that were compared.

    Args:
        data: the whole file.
        count: images of the shard.
        what: the file's name for messages.

    Raises:
        IntegrityError: it is no such table, although it is vouched for.
    """
    with _errors_named(what):
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        names = set(table.column_names)
    if len(table) != count or not set(EVERY_TABLE) <= names:
        raise IntegrityError(f"{what} is no table of the numbers of {count} images")
    return table


@contextmanager
def _errors_named(what: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # never written here, though it is vouched for
        if isinstance(error, ExplainError):
            raise
        raise IntegrityError(f"the table of numbers of {what} cannot be read ({error})") from None

"""Paths: where the files of a shard lie in an archive, and the number that a name stands for.

A receipt never says where its files are: the shard's number does. So nothing that is read from an archive can point out
of it.
"""

import re

MAPS, METRICS, RECEIPTS, ATTEMPTS = "maps", "metrics", "receipts", "attempts"
SUFFIXES = {MAPS: "parquet", METRICS: "parquet", RECEIPTS: "json", ATTEMPTS: "json"}

PER_FOLDER = 1000
"""Shards per folder, so that no folder becomes too long to list."""

_KEY = re.compile(r"(maps|metrics|receipts|attempts)/([0-9]{3,})/([0-9]{6,})\.(?:parquet|json)")


def key(kind: str, shard: int) -> str:
    """Name of one file of a shard, such as "maps/000/000012.parquet"."""
    return f"{kind}/{shard // PER_FOLDER:03d}/{shard:06d}.{SUFFIXES[kind]}"


def shard_of(name: str) -> int | None:
    """The shard that a file belongs to, None for a file of no shard."""
    found = _KEY.fullmatch(name)
    return None if found is None or key(found[1], int(found[3])) != name else int(found[3])

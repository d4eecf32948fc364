"""The images, for the evidence."""

from explain.data.base import Dataset
from explain.report.schema.data import ClassCount, Data, RejectedFile
from explain.training.pair import MatchedPair


def data_of(pair: MatchedPair) -> Data:
    """Where the images come from, how many there are, and what they are known by."""
    data = pair.data
    splits = [data.select(ids).counts() for ids in (pair.split.train, pair.split.val, pair.split.test)]
    counts = []
    for name, total in data.counts().items():
        train, val, test = (split[name] for split in splits)
        counts.append(
            ClassCount(name=name, train=train, val=val, test=test, unused=total - train - val - test, total=total)
        )
    rejected = tuple(
        RejectedFile(file=_inside(data, str(row.path)), reason=row.reason, detail=row.detail) for row in data.rejected
    )
    return Data(
        name=data.name, source=data.source, licence=data.licence, fingerprint=data.fingerprint,
        split_hash=pair.vpt.manifest.split_hash, class_names=data.class_names, counts=tuple(counts), rejected=rejected,
    )  # fmt: skip


def _inside(data: Dataset, path: str) -> str:
    """A path without the data set's folder: a report does not tell where on whose disk the images lie."""
    return path.removeprefix(str(data.root)).lstrip("/\\")

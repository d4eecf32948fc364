"""The images, for the evidence."""

from explain.data.base import Dataset
from explain.data.leaks import Leaks as Found
from explain.data.leaks import find_leaks
from explain.errors import IntegrityError
from explain.files import read_json
from explain.i18n import Translator
from explain.report.audit import Audit
from explain.report.schema.data import ClassCount, Data, LeakRow, Leaks, RejectedFile
from explain.training.pair import MatchedPair

MOST_LEAKS = 12


def data_of(pair: MatchedPair, audit: Audit, t: Translator) -> Data:
    """Where the images come from, how many there are, what they are known by, and which of them are copies."""
    data = pair.data
    splits = [data.select(ids).counts() for ids in (pair.split.train, pair.split.val, pair.split.test)]
    counts = []
    for name, total in data.counts().items():
        train, val, test = (split[name] for split in splits)
        counts.append(
            ClassCount(name=name, train=train, val=val, test=test, unused=total - train - val - test, total=total)
        )
    sums = {part: sum(getattr(row, part) for row in counts) for part in ("train", "val", "test", "unused", "total")}
    rejected = tuple(
        RejectedFile(file=_inside(data, str(row.path)), reason=row.reason, detail=row.detail) for row in data.rejected
    )
    return Data(
        name=data.name, source=data.source, licence=data.licence, fingerprint=data.fingerprint,
        split_hash=pair.vpt.manifest.split_hash, class_names=data.class_names, counts=tuple(counts),
        total=ClassCount(name=t("term.total"), **sums), rejected=rejected, leaks=leaks_of(pair, t),
        capture=audit.capture, known_gaps=audit.known_gaps,
    )  # fmt: skip


def leaks_of(pair: MatchedPair, t: Translator) -> Leaks:
    """Held-out images that the models were trained on; found when the pair was trained, or now."""
    file = pair.path / "leaks.json"
    try:
        found = Found.model_validate(read_json(file)) if file.is_file() else find_leaks(pair.data, pair.split)
    except ValueError as error:
        raise IntegrityError(f"{file} is no list of leaks ({error}); delete it, it is made again") from None
    leaked = {part: len({row.held_out for row in found.pairs if row.part == part}) for part in ("val", "test")}
    rows = tuple(
        LeakRow(part=t("term.validation" if row.part == "val" else "term.test"), held_out=row.held_out,
                train=row.train, kind=t(f"report.leaks.{row.kind.replace(' ', '_')}"))
        for row in found.pairs[:MOST_LEAKS]
    )  # fmt: skip
    images = {"val_images": found.val_images, "test_images": found.test_images}
    sentence = t("report.leaks.some", val=leaked["val"], test=leaked["test"], **images) if any(leaked.values()) else t(
        "report.leaks.none", **images)  # fmt: skip
    return Leaks(**images, val_leaked=leaked["val"], test_leaked=leaked["test"], sentence=sentence, rows=rows,
                 more=len(found.pairs) - len(rows))  # fmt: skip


def _inside(data: Dataset, path: str) -> str:
    """A path without the data set's folder: a report does not tell where on whose disk the images lie."""
    return path.removeprefix(str(data.root)).lstrip("/\\")

"""Compare: what changed between two audits, read from their PDFs.

A changed number is called a change only where the two intervals do not overlap: else other test images could have made
the difference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from explain.errors import InputError
from explain.i18n import translate
from explain.report.attachments import metrics_of
from explain.report.opened import open_report
from explain.report.schema.evidence import Evidence
from explain.report.schema.listing import Listing, ListingTable

Kind = Literal["changed", "within", "added", "removed"]


class Change(NamedTuple):
    """One thing that differs.

    Args:
        part: key of the part of the report it is in.
        what: in words.
        old, new: as text; "" where there is nothing.
        kind: "within" for a number whose two intervals overlap.
    """

    part: str
    what: str
    old: str
    new: str
    kind: Kind


@dataclass(frozen=True)
class Comparison:
    """What changed between two reports, in the order of their sections.

    Args:
        old, new: ids of the documents.
        created: time of the newer one's newest run, ISO 8601.
        changes: empty where nothing did.
    """

    old: str
    new: str
    created: str
    changes: tuple[Change, ...]


def compare_reports(old: str | Path, new: str | Path) -> Comparison:
    """What changed from one report to another; neither is verified here.

    Args:
        old, new: PDFs.

    Raises:
        InputError: a file that cannot be read.
        IntegrityError: a file that holds no report.
    """
    before, after = (_read(Path(file)) for file in (old, new))
    moments = max(before.created_at, after.created_at)
    return Comparison(before.id, after.id, moments.isoformat(), (*_facts(before, after), *_numbers(before, after)))


def _read(path: Path) -> Evidence:
    try:
        return open_report(path.read_bytes()).evidence
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _facts(before: Evidence, after: Evidence) -> Iterator[Change]:
    """What has no interval: texts, hashes, counts, settings."""
    for part, facts in _facts_of(before).items():
        yield from _changed(part, facts, _facts_of(after)[part])


def _facts_of(evidence: Evidence) -> dict[str, dict[str, Any]]:
    control, decision, data = evidence.control, evidence.decision, evidence.data
    return {
        "control": {name: getattr(control, name) for name in ("product", "line", "revision", "owner", "valid_until")},
        "decision": {
            "model": decision.arm, "decision": decision.final, "computed": decision.computed,
            "override": decision.override.name if decision.override else "", "criteria": decision.sha256[:12],
            **{one.line: one.status for one in decision.judged},
        },
        "scope": {one.name: one.text or "" for one in evidence.scope},
        "models": {
            "backbone": evidence.backbone.architecture, "image size": evidence.image_size,
            **{f"weights of {arm}": _weights(evidence, arm) for arm in (one.name for one in evidence.arms)},
            **{f"tuning of {arm.name}": ", ".join(f"{o.name} {o.value}" for o in arm.options) for arm in evidence.arms},
        },
        "data": {
            "name": data.name, "fingerprint": data.fingerprint[:12], "split": data.split_hash[:12],
            "training images": data.total.train, "test images": data.total.test, "rejected": len(data.rejected),
            "leaked": (data.leaks.val_leaked + data.leaks.test_leaked) if data.leaks else "",
        },
        "settings": {
            f"{method.label}, {option.name}": ", ".join(dict.fromkeys(option.values.values()))
            for method in evidence.methods for option in method.options
        },
        "failures": {"wrong": evidence.failures.wrong, "reviewed": evidence.failures.reviewed},
        "limitations": {name: "not evaluated" for name in evidence.not_evaluated},
        "operation": {one.name: one.text or "" for one in evidence.operation},
        "reproducing": dict(evidence.versions),
    }  # fmt: skip


def _weights(evidence: Evidence, arm: str) -> str:
    return next((file.value[:12] for file in evidence.files if file.name == f"{arm}/weights.safetensors"), "")


def _changed(part: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        before, after = str(old.get(name, "")), str(new.get(name, ""))
        if before != after:
            kind: Kind = "added" if not before else "removed" if not after else "changed"
            yield Change(part, name, before, after, kind)


def _numbers(before: Evidence, after: Evidence) -> Iterator[Change]:
    """Numbers with an interval."""
    old, new = ({tuple(row[:4]): row[4:7] for row in metrics_of(evidence)} for evidence in (before, after))
    for key in dict.fromkeys((*old, *new)):
        first, second = old.get(key, (None, None, None)), new.get(key, (None, None, None))
        if first == second:
            continue
        part, model, method, metric = (str(one) for one in key)
        what = ", ".join(one for one in (model, method, metric) if one)
        yield Change(part, what, _range(first), _range(second), _kind(first, second))


def _kind(old: tuple[Any, ...], new: tuple[Any, ...]) -> Kind:
    if old[0] is None or new[0] is None:
        return "added" if old[0] is None else "removed"
    ends = old[1], old[2], new[1], new[2]
    if any(end is None for end in ends):
        return "changed"
    return "within" if old[1] <= new[2] and new[1] <= old[2] else "changed"


def _range(row: tuple[Any, ...]) -> str:
    value, low, high = row
    if value is None:
        return ""
    return f"{value:.3g}" if low is None or high is None else f"{value:.3g} ({low:.3g} to {high:.3g})"


def listing_of(comparison: Comparison, lang: str = "en") -> Listing:
    """A comparison as a page."""
    t = translate(lang)
    tables = []
    for part in dict.fromkeys(change.part for change in comparison.changes):
        key = f"report.section.{part}"
        rows = tuple((one.what, one.old or "\u2013", one.new or "\u2013", t(f"report.compare.kind.{one.kind}"))
                     for one in comparison.changes if one.part == part)  # fmt: skip
        tables.append(ListingTable(title=t(key) if key in t else t(f"report.compare.part.{part}"),
                                   heads=tuple(t(f"report.compare.{name}") for name in ("what", "old", "new", "kind")),
                                   widths=(1.3, 1.2, 1.2, 0.9), rows=rows))  # fmt: skip
    lead = t("report.compare.lead" if comparison.changes else "report.compare.none", old=comparison.old,
             new=comparison.new)  # fmt: skip
    return Listing(lang=lang, created=comparison.created, title=t("report.compare.title"), lead=lead,
                   tables=tuple(tables))  # fmt: skip

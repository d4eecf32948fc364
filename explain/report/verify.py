"""Verify: is a report what it says, and, with its run at hand, does the run say the same?

Everything in the PDF follows from the evidence and the pictures inside it, so the file can be built again and compared
byte for byte. No model is needed for that; the run is opened only when it is given.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from explain.errors import ExplainError, InputError, IntegrityError
from explain.record import differences
from explain.report.attachments import attachments_of
from explain.report.opened import Opened, open_report
from explain.report.parts.decision import judge_again
from explain.report.parts.reproducing import environment
from explain.report.pdf import engine_version, render_pdf
from explain.report.schema.evidence import Evidence, evidence_id

MOST_FINDINGS = 20
"""Of one step; the rest is counted."""


@dataclass(frozen=True)
class Step:
    """One thing that was checked.

    Args:
        name: key of the step, such as "pictures".
        what: in words.
        findings: what is wrong, a sentence each; empty where all is as it should be.
    """

    name: str
    what: str
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True when nothing is wrong."""
        return not self.findings


@dataclass(frozen=True)
class Verification:
    """What came of verifying a report; true when everything passed.

    Args:
        path: the file.
        sha256: of its bytes.
        document: the id that it claims; "" where it cannot be read.
        steps: in the order they were done; a file that cannot be read has only the first.
        notes: what to know besides, such as who signed.
    """

    path: Path
    sha256: str
    document: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True when every step passed."""
        return all(step.passed for step in self.steps)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def findings(self) -> tuple[str, ...]:
        """Everything that is wrong."""
        return tuple(finding for step in self.steps for finding in step.findings)


def verify_report(
    pdf: str | Path, run: str | Path | None = None, *, audit: str | Path | None = None, trust: Iterable[Path] = ()
) -> Verification:
    """Check a report against itself, and against its run where that is at hand.

    Args:
        pdf: the file; signed or not.
        run: folder of the pair or study that it is about; None checks the file alone, without torch.
        audit: YAML file of what people stated, where it is not `audit.yaml` in the run's folder.
        trust: certificates (PEM) of signers that are trusted, besides those of the system.

    Returns:
        Every step with what is wrong; false in a condition when anything is.

    Raises:
        InputError: there is no such file.
    """
    path = Path(pdf)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    digest = hashlib.sha256(content).hexdigest()
    try:
        opened = open_report(content)
    except IntegrityError as error:
        return Verification(path, digest, "", (Step("read", "the file can be read", (str(error),)),))
    evidence = opened.evidence
    rest, rebuilt = _rebuilt(opened)
    steps = [
        Step("read", "the file can be read", ()),
        _step("id", "the evidence has the content its id stands for", _id_findings(evidence)),
        _step("pictures", "every picture has its recorded hash", _picture_findings(opened)),
        _step("attachments", "every attachment follows from the evidence", _attachment_findings(opened)),
        _step("criteria", "criteria and decision, computed again, are those recorded", judge_again(evidence)),
        _step("rebuild", "the file, built again from its evidence, is equal byte for byte", rebuilt),
    ]
    notes: tuple[str, ...] = ()
    if rest:
        from explain.report.sign import check_signature

        findings, notes = check_signature(content, len(content) - len(rest), tuple(trust))
        steps.append(_step("signature", "the signature is intact and covers the file", findings))
    if run is not None:
        steps.append(_step("run", "the run has its recorded hashes, and says the same", _run_findings(
            evidence, run, audit)))  # fmt: skip
    return Verification(path, digest, evidence.id, tuple(steps), notes)


def _step(name: str, what: str, findings: Iterable[str]) -> Step:
    found = list(findings)
    if len(found) > MOST_FINDINGS:
        found = [*found[:MOST_FINDINGS], f"and {len(found) - MOST_FINDINGS} more"]
    return Step(name, what, tuple(found))


def _id_findings(evidence: Evidence) -> Iterator[str]:
    expected = evidence_id(evidence)
    if expected != evidence.id:
        yield f"the content stands for document {expected}, the file says {evidence.id[:40]!r}"


def _picture_findings(opened: Opened) -> Iterator[str]:
    for picture in opened.evidence.pictures:
        if picture.file not in opened.pictures:
            yield f"{picture.file}: no picture in the file has the SHA-256 {picture.sha256[:64]}"


def _attachment_findings(opened: Opened) -> Iterator[str]:
    expected = attachments_of(opened.evidence)
    recorded = {one.file: one.sha256 for one in opened.evidence.reproducing.attachments}
    for name, content in expected.items():
        if opened.attachments.get(name) != content:
            yield f"{name} is {'not what the evidence gives' if name in opened.attachments else 'missing'}"
        if recorded.get(name) != hashlib.sha256(content).hexdigest():
            yield f"{name} does not have its recorded SHA-256"
    for name in opened.attachments.keys() - expected.keys() - {"evidence.json"}:
        yield f"{name[:80]!r} is attached, which no report has"


def _rebuilt(opened: Opened) -> tuple[bytes, list[str]]:
    """What follows the report in the file, as a signature does, and what differs when it is built again."""
    evidence, content = opened.evidence, opened.content
    tool = "explain-vit"
    there = {one.name: one.value for one in evidence.reproducing.environment} | {tool: evidence.versions.get(tool, "")}
    here = {one.name: one.value for one in environment({"typst": engine_version()})} | {tool: version(tool)}
    other = [f"{name} {there.get(name, '-')[:20]} (here {here.get(name, '-')[:20]})"
             for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]  # fmt: skip
    if other:
        return b"", [f"the file was built with {', '.join(other)}: it cannot be built again here; "
                     "install those versions and fonts"]  # fmt: skip
    try:
        built = render_pdf(evidence, opened.pictures)
    except (ExplainError, ValueError, OverflowError, KeyError, OSError) as error:
        return b"", [f"it cannot be built again: {error}"]
    if content == built:
        return b"", []
    if content.startswith(built):
        return content[len(built) :], []
    return b"", [_difference(content, built)]


def _difference(content: bytes, built: bytes) -> str:
    """Where two files differ, in words."""
    size = min(len(content), len(built))
    first = next((at for at in range(size) if content[at] != built[at]), size)
    count = sum(a != b for a, b in zip(content, built, strict=False)) + abs(len(content) - len(built))
    objects = re.findall(rb"(\d+) \d+ obj\b", built[:first])
    place = f", in object {int(objects[-1])}" if objects else ""
    lengths = "" if len(content) == len(built) else f"; it has {len(content):,} bytes instead of {len(built):,}"
    bytes_differ = "1 byte differs, at" if count == 1 else f"{count:,} bytes differ, the first at"
    return f"{bytes_differ} {first:,}{place}{lengths}"


def _run_findings(evidence: Evidence, run: str | Path, audit: str | Path | None) -> Iterator[str]:
    """What the run says otherwise; nothing is computed or written there."""
    from explain.report.again import gather_again  # with torch, which the file alone does not need

    try:
        again = gather_again(evidence, run, audit)
    except ExplainError as error:
        yield str(error)
        return
    skipped = {"id"}
    there, now = (_by_place(one.model_dump(mode="json", exclude=skipped)) for one in (evidence, again))
    yield from differences(there, now)


def _by_place(value: Any) -> Any:
    """Lists as mappings, so that a difference names its place."""
    if isinstance(value, dict):
        return {key: _by_place(item) for key, item in value.items()}
    return {str(index): _by_place(item) for index, item in enumerate(value)} if isinstance(value, list) else value

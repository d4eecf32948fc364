"""Write: from the folder of a pair to the report on it."""

from pathlib import Path

import torch

from explain.criteria import Declaration, check_criteria, read_criteria
from explain.errors import InputError
from explain.files import write_atomically
from explain.i18n import translate
from explain.render.heatmap import Scope
from explain.report.audit import FILE as AUDIT
from explain.report.audit import Audit, read_audit
from explain.report.content import gather
from explain.report.panels import PER_RULE, Panels, Progress, draw_pictures, finished_panels, make_panels
from explain.report.pdf import render_pdf
from explain.report.schema.evidence import Evidence
from explain.training.pair import MatchedPair
from explain.training.study import StudyRecord, seed_folder


def write_report(
    run_or_pair: MatchedPair | str | Path,
    out: str | Path = "report.pdf",
    lang: str = "en",
    *,
    brief: bool = False,
    criteria: str | Path | None = None,
    audit: str | Path | None = None,
    per_rule: int | None = None,
    panels: Panels | None = None,
    scope: Scope = "map",
    progress: Progress | None = None,
    device: str | torch.device | None = None,
) -> Path:
    """Write the audit report of a matched pair.

    Args:
        run_or_pair: a pair, or its folder. A study's folder stands for its first seed; the report on any seed of a
            study tells of all of them.
        out: the PDF; appears whole or not at all.
        lang: "en" or "ja".
        brief: two pages instead of all sections.
        criteria: YAML file of criteria for a pair that was trained without; they come late and are marked so. A
            pair's own need no naming.
        audit: YAML file of what people state; None takes `audit.yaml` of the pair's folder, where there is one.
        per_rule: images that each rule may choose; None for those whose maps are there, or two.
        panels: maps to show; None takes those in the pair's folder, or makes them.
        scope: what shares a colour scale: each "map", the maps of one "sample", or all of the "dataset".
        progress, device: of making the maps, as in `make_panels`.

    Returns:
        The path written.

    Raises:
        InputError: not a pair, `out` does not end in .pdf, or a YAML file that cannot be used.
        IntegrityError: the folder is not a finished pair, or its files changed.
    """
    target = Path(out)
    if target.suffix.lower() != ".pdf":
        raise InputError(f"expected a file name that ends in .pdf, got {str(out)!r}")
    content = render_pdf(*collect(
        run_or_pair, lang, brief=brief, criteria=criteria, audit=audit, per_rule=per_rule, panels=panels, scope=scope,
        progress=progress, device=device,
    ))  # fmt: skip
    write_atomically(target, lambda temporary: temporary.write_bytes(content))
    return target


def collect(
    run_or_pair: MatchedPair | str | Path,
    lang: str = "en",
    *,
    brief: bool = False,
    criteria: str | Path | None = None,
    audit: str | Path | None = None,
    per_rule: int | None = None,
    panels: Panels | None = None,
    scope: Scope = "map",
    progress: Progress | None = None,
    device: str | torch.device | None = None,
) -> tuple[Evidence, dict[str, bytes]]:
    """What a report is made of: the evidence, and its pictures by file name; maps that are not there are computed.

    Args:
        run_or_pair, lang, brief, criteria, audit, per_rule, panels, scope, progress, device: as in `write_report`.

    Raises:
        InputError, IntegrityError: as `write_report` does.
    """
    translate(lang)  # an unknown language is an error before any map is computed
    pair = open_pair(run_or_pair)
    declaration, before = _declaration(pair, criteria)
    stated = stated_for(pair, audit)
    if panels is None:
        panels = finished_panels(pair, per_rule)
    if panels is None:
        count = PER_RULE if per_rule is None else per_rule
        panels = make_panels(pair, per_rule=count, progress=progress, device=device)
    pictures = draw_pictures(panels, scope=scope)
    evidence = gather(
        pair, panels, lang, length="brief" if brief else "full", scope=scope, declaration=declaration, before=before,
        audit=stated, pictures=pictures,
    )  # fmt: skip
    return evidence, pictures


def open_pair(run_or_pair: MatchedPair | str | Path) -> MatchedPair:
    """The pair that a report is about: the given one, that of a folder, or the first seed of a study.

    Raises:
        InputError: something else, or the folder of a single run.
        IntegrityError: the folder is not a finished pair, or its files changed.
    """
    if isinstance(run_or_pair, MatchedPair):
        return run_or_pair
    if not isinstance(run_or_pair, str | Path):
        raise InputError(f"expected a matched pair or its folder, got {type(run_or_pair).__name__}; a report compares "
                         "two runs: use explain.load_pair on the folder that holds both")  # fmt: skip
    folder = Path(run_or_pair)
    if (folder / "manifest.json").is_file():
        raise InputError(f"{folder} is a single run; a report compares two: give the folder above it, {folder.parent}")
    if (folder / "study.json").is_file():
        folder = seed_folder(folder, StudyRecord.read(folder).seeds[0])
    return MatchedPair.load(folder)


def stated_for(pair: MatchedPair, audit: str | Path | None = None) -> Audit | None:
    """What people state of a pair: the given file, that of the pair's folder, or that of the study above it.

    Raises:
        InputError: the file cannot be used.
    """
    if audit is not None:
        return read_audit(audit)
    here = pair.path.resolve()
    folders = [here, here.parent] if here.name.startswith("seed") else [here]
    return next((read_audit(folder / AUDIT) for folder in folders if (folder / AUDIT).is_file()), None)


def _declaration(pair: MatchedPair, criteria: str | Path | None) -> tuple[Declaration | None, bool]:
    """The criteria, and whether they were declared before the training."""
    own = pair.declaration
    if criteria is None:
        return own, own is not None
    late = read_criteria(criteria)
    if own is not None and own.sha256 != late.sha256:
        raise InputError(f"{pair.path} was trained under criteria of its own, which {criteria} cannot replace; leave "
                         "--criteria out, or train another run under them")  # fmt: skip
    if own is None:
        check_criteria(late.criteria, pair.vpt.manifest.class_names, pair.runs)
    return own or late, own is not None

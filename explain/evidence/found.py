"""Found: where the evidence on a pair's maps lies, and whether it is about this pair's weights.

An evaluation is written into `evidence/` and a planted-cue test into `planted/`, of the pair's folder or of the study
above its `seed…` folder. The study's comes first: several seeds have the ceilings that one seed lacks.
"""

from pathlib import Path

from explain.errors import IntegrityError
from explain.evidence.disturbed import FILE as DISTURBED_FILE
from explain.evidence.disturbed import DisturbedAnswers, load_disturbed
from explain.evidence.planted import FILE as PLANTED_FILE
from explain.evidence.planted import PlantedResult
from explain.evidence.summary import FILE as SUMMARY_FILE
from explain.evidence.summary import Summary
from explain.training.pair import MatchedPair

EVIDENCE, PLANTED = "evidence", "planted"
"""Folders in that of a pair or a study."""


def find_evidence(pair: MatchedPair) -> Summary | None:
    """What was measured of a pair's maps; None where nothing was.

    Raises:
        IntegrityError: it was measured with other weights than the pair has now, or cannot be read.
    """
    file = evidence_file(pair)
    if file is None:
        return None
    summary = Summary.load(file.parent)
    if pair.vpt.manifest.seed not in summary.seeds:  # an evaluation of some seeds of a study says nothing of the others
        return None
    measured = {(model.model, model.seed): model.weights_sha256 for model in summary.models}
    changed = [
        arm for arm, run in pair.runs.items()
        if arm in (*summary.arms, summary.reference)
        and measured.get((arm, run.manifest.seed)) != run.manifest.weights_sha256
    ]  # fmt: skip
    if changed:
        raise IntegrityError(
            f"{file} was not measured with the weights that {pair.path} holds now of {', '.join(changed)}; "
            f"call `explain evaluate {file.parent.parent}` again"
        )
    return summary


def find_planted(pair: MatchedPair) -> PlantedResult | None:
    """The planted-cue test of a pair's arms, which trains models of its own; None where none was made.

    Raises:
        IntegrityError: it was made with another backbone, or cannot be read.
    """
    file = planted_file(pair)
    if file is None:
        return None
    result = PlantedResult.load(file.parent)
    if result.backbone_sha256 != pair.vpt.manifest.backbone.sha256:
        raise IntegrityError(
            f"{file} was made with another backbone than {pair.path} was trained from; "
            f"call `explain planted {file.parent.parent}` again"
        )
    return result


def find_disturbed(pair: MatchedPair) -> DisturbedAnswers | None:
    """The answers on changed test images; None where they were not measured with this pair's weights.

    Raises:
        IntegrityError: they cannot be read.
    """
    file = disturbed_file(pair)
    if file is None:
        return None
    found = load_disturbed(file.parent)
    # an evaluation of several seeds changes the images of the first one only
    return found if found.weights == {arm: run.manifest.weights_sha256 for arm, run in pair.runs.items()} else None


def disturbed_file(pair: MatchedPair) -> Path | None:
    """The answers on changed images that speak of a pair."""
    return _file(pair, EVIDENCE, DISTURBED_FILE)


def evidence_file(pair: MatchedPair) -> Path | None:
    """The summary of the evaluation that speaks of a pair."""
    return _file(pair, EVIDENCE, SUMMARY_FILE)


def planted_file(pair: MatchedPair) -> Path | None:
    """The record of the planted-cue test that speaks of a pair."""
    return _file(pair, PLANTED, PLANTED_FILE)


def _file(pair: MatchedPair, folder: str, name: str) -> Path | None:
    here = pair.path.resolve()
    roots = [here.parent, here] if here.name.startswith("seed") else [here]
    return next((root / folder / name for root in roots if (root / folder / name).is_file()), None)

"""What was measured of a pair's maps, read once and again only when its file changes."""

from pathlib import Path

import streamlit as st

from explain.evidence.found import evidence_file, find_evidence, find_planted, planted_file
from explain.evidence.planted import PlantedResult
from explain.evidence.summary import Summary
from explain.training.pair import MatchedPair


def evidence_of(pair: MatchedPair) -> Summary | None:
    """The evaluation of a pair's maps; None where there is none.

    Raises:
        IntegrityError: it was measured with other weights than the pair has now, or cannot be read.
    """
    return _evidence(pair, *_stamp(pair, evidence_file(pair)))


def planted_of(pair: MatchedPair) -> PlantedResult | None:
    """The planted-cue test of a pair; None where there is none.

    Raises:
        IntegrityError: it was made with another backbone, or cannot be read.
    """
    return _planted(pair, *_stamp(pair, planted_file(pair)))


def _stamp(pair: MatchedPair, file: Path | None) -> tuple[str, str, int]:
    identities = ",".join(run.manifest.identity for run in pair.runs.values())
    return identities, str(file), file.stat().st_mtime_ns if file else 0


@st.cache_resource(max_entries=4, show_spinner=False)
def _evidence(_pair: MatchedPair, identities: str, file: str, stamp: int) -> Summary | None:
    return find_evidence(_pair)


@st.cache_resource(max_entries=4, show_spinner=False)
def _planted(_pair: MatchedPair, identities: str, file: str, stamp: int) -> PlantedResult | None:
    return find_planted(_pair)

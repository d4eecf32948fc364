"""The section on evidence says what the evaluation's files say, in words that follow from the numbers."""

import io
import re
from pathlib import Path

import pypdf
import pytest
from fake_evidence import fake_planted, fake_summary, write_fake_evidence

from explain.errors import IntegrityError
from explain.evidence.summary import Contrast, Estimate
from explain.files import read_json, sha256_file, write_json
from explain.i18n import translate
from explain.report.content import gather
from explain.report.panels import Panels, draw_bars, draw_pictures
from explain.report.parts.measured import (
    MOST_CONTRASTS,
    dissociation_of,
    measured_of,
    verdict_label,
)
from explain.report.parts.missing import missing_of
from explain.report.pdf import render_pdf
from explain.report.schema.evidence import COMMANDS, Evidence, evidence_id
from explain.training.pair import MatchedPair

T = translate("en")


@pytest.fixture(scope="module")
def measured_pair(fake_pair: MatchedPair, tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    """The fake pair's runs in a folder that has evidence."""
    folder = tmp_path_factory.mktemp("measured")
    for name in ("dataset.json", "split.json"):
        write_json(folder / name, read_json(fake_pair.path / name))
    write_fake_evidence(folder, fake_pair)
    return MatchedPair(folder, fake_pair.runs)


@pytest.fixture(scope="module")
def evidence(measured_pair: MatchedPair, fake_panels: Panels) -> Evidence:
    return gather(measured_pair, fake_panels, "en")


@pytest.fixture(scope="module")
def text(evidence: Evidence) -> str:
    return text_of(evidence)


def text_of(evidence: Evidence) -> str:
    """The text of a page without panels, whose pictures are another test's subject."""
    bare = evidence.model_copy(update={"id": "", "panels": evidence.panels.model_copy(update={"samples": ()})})
    reader = pypdf.PdfReader(io.BytesIO(render_pdf(bare.model_copy(update={"id": evidence_id(bare)}), draw_bars())))
    return re.sub(r"\s+", " ", " ".join(page.extract_text() for page in reader.pages))


def two(value: float | None) -> str:
    return f"{value:.2f}".replace("-", "\u2212")


def test_what_was_measured_is_no_longer_missing(evidence: Evidence, text: str) -> None:
    assert not {"faithfulness", "planted", "agreement", "robustness"} & set(evidence.not_evaluated)
    assert "Made by: explain evaluate RUN" not in text
    assert "Faithfulness was not measured" not in text and "is in sections 10, 11 and 13" in text


def test_without_evidence_its_parts_are_listed_with_their_commands(fake_pair: MatchedPair, fake_panels: Panels) -> None:
    evidence = gather(fake_pair, fake_panels, "en")
    assert evidence.measured is None and evidence.dissociation is None
    text = text_of(evidence)
    assert text.count("Made by: explain evaluate RUN") == 3 and text.count("Made by: explain planted RUN") == 1
    assert COMMANDS.keys() <= set(evidence.not_evaluated)


def test_each_part_stays_missing_until_its_own_numbers_are_there(evidence: Evidence) -> None:
    names = ("faithfulness", "planted", "agreement", "robustness")

    def missing(**changes: object) -> set[str]:
        return set(missing_of(evidence.model_copy(update=changes))) & set(names)

    assert evidence.measured is not None
    assert missing() == set() and missing(measured=None, dissociation=None) == set(names)
    assert missing(measured=None) == {"faithfulness", "agreement", "robustness"}
    calm = tuple(cell for cell in evidence.measured.cells if not cell.metric.startswith("drift_"))
    assert missing(measured=evidence.measured.model_copy(update={"cells": calm})) == {"robustness"}
    assert missing(measured=evidence.measured.model_copy(update={"agreements": ()})) == {"agreement"}


def test_every_gain_is_printed_with_its_interval(fake_pair: MatchedPair, text: str) -> None:
    summary = fake_summary(fake_pair)
    for cell in summary.cells:
        if cell.metric == "gain":
            one = cell.estimate
            assert f"{two(one.mean)} {two(one.low)} to {two(one.high)}" in text, cell
    assert text.count("blank maps 3") >= 3 and "images chosen among the former" in text
    assert "Of 100 test images, every compared model answers 71 right; the other 29 were dropped" in text


def test_verdicts_are_words(text: str) -> None:
    assert "declared 0.13 (0.07 to 0.19) 0.004 0.11 40 VPT is higher" in text
    assert "\u22120.20 (\u22120.25 to \u22120.15) 0.012 0.11 40 FT is higher" in text
    assert "0.02 (\u22120.07 to 0.11) 0.710 0.11 40 no difference shown" in text
    assert "2 of 4 comparisons name an arm" in text


def test_a_method_that_does_not_reproduce_itself_gets_no_verdict(evidence: Evidence, text: str) -> None:
    assert evidence.measured is not None
    states = {line.label: (line.ratio, line.state) for line in evidence.measured.agreements}
    assert states["Grad-CAM"] == (None, "not reproducible here") and text.count("not reproducible here") == 2
    assert states["Integrated Gradients"][1] == "reproducible"


def test_one_seed_has_no_ceiling_and_says_so(fake_pair: MatchedPair) -> None:
    measured = measured_of(fake_summary(fake_pair, seeds=(0,)), T)
    assert {line.state for line in measured.agreements} == {"one seed: no ceiling"}
    assert all(line.ceilings == (None, None) for line in measured.agreements)
    assert "do not cover what another training would change" in measured.paragraphs[1]


def test_a_failed_method_is_printed_as_failed_and_a_gate_before_it(evidence: Evidence, text: str) -> None:
    assert evidence.dissociation is not None
    lines = evidence.dissociation.lines
    assert [line.status for line in lines[:3]] == ["GATE PASSED", "GATE PASSED", "GATE FAILED"]
    failed = [(line.arm, line.label) for line in lines if line.status == "FAILED" and not line.control]
    assert failed == [("ft", "GradCAM")]
    assert "0.46 0.54 \u22120.08 (\u22120.13 to \u22120.03) 96 FAILED" in text
    assert text.count("NOT TESTED") == 6 + 1 and "use not shown" in text  # six rows, one explanation


def test_figures_over_the_blocks_have_descriptions(evidence: Evidence) -> None:
    assert evidence.measured is not None
    cka = evidence.measured.panels[0]
    assert cka.label == "CKA to the backbone"
    assert "VPT\u2013FT: 0.95 in the first block, 0.5 in the last." in cka.alt
    assert {curve.dash for curve in cka.curves} == {"solid", "dash"}
    assert [curve.dash for curve in evidence.measured.panels[-1].curves] == ["solid", "dot"]


def test_every_metric_of_a_map_has_a_column_even_one_of_tomorrow(evidence: Evidence) -> None:
    assert evidence.measured is not None
    tables = {table.name: [head.label for head in table.heads] for table in evidence.measured.tables}
    assert tables["other"] == ["A metric of tomorrow"]
    assert tables["cascade"] == ["head", "to block 3", "to block 2", "all"]
    assert list(tables) == ["faithfulness", "cascade", "robustness", "description", "other"]


def test_the_files_of_the_evidence_are_in_the_provenance(
    measured_pair: MatchedPair, evidence: Evidence, text: str
) -> None:
    files = {file.name: file.value for file in evidence.files}
    for name in ("evidence/summary.json", "planted/planted.json"):
        assert files[name] == sha256_file(measured_pair.path / name) and files[name] in text


def test_many_comparisons_are_cut_after_those_that_name_an_arm(fake_pair: MatchedPair) -> None:
    summary = fake_summary(fake_pair)
    primary, even, ft, unmeasured = summary.contrasts
    many = (*[even] * 40, unmeasured, ft, primary)
    measured = measured_of(summary.model_copy(update={"contrasts": many}), T)
    assert len(measured.contrasts) == MOST_CONTRASTS and measured.contrasts_more == 43 - MOST_CONTRASTS
    assert [line.verdict for line in measured.contrasts[:3]] == ["VPT is higher", "FT is higher", "no difference shown"]
    assert measured.contrasts[0].primary and measured.contrasts[0].p == primary.p


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("vpt", "VPT is higher"), ("none", "no difference shown"), ("not measured", "not measured"),
     ("not reproducible here", "not reproducible here")],
)  # fmt: skip
def test_every_verdict_has_words(verdict: str, words: str) -> None:
    estimate = Estimate(mean=0.1, low=0.0, high=0.2, images=9, seeds=1)
    row = Contrast(first="vpt", second="ft", method="m", metric="gain", primary=False, difference=estimate, p=None,
                   holm=None, effect=None, detectable=None, verdict=verdict)  # fmt: skip
    assert verdict_label(row, T) == words


def test_with_panels_a_rebuild_gives_the_same_bytes(evidence: Evidence, fake_panels: Panels) -> None:
    pictures = draw_pictures(fake_panels)
    assert render_pdf(evidence, pictures) == render_pdf(evidence, pictures)


def test_japanese_pages_are_japanese(measured_pair: MatchedPair, fake_panels: Panels) -> None:
    shown = re.sub(r"\s+", "", text_of(gather(measured_pair, fake_panels, "ja")))
    expected = ("忠実性・健全性", "不合格", "判定不能", "ここでは再現性なし", "差は示されない", "空のマップ3")
    assert [words for words in expected if words not in shown] == []


def test_only_a_planted_test_or_only_an_evaluation_is_typeset(evidence: Evidence) -> None:
    for part in ("measured", "dissociation"):
        half = evidence.model_copy(update={part: None})
        text = text_of(half)
        assert ("FAILED" in text) == (part == "measured") and ("is higher" in text) == (part == "dissociation")


def test_a_gate_or_a_method_without_any_share_is_typeset(fake_pair: MatchedPair, evidence: Evidence) -> None:
    planted = fake_planted(fake_pair)
    nothing = dict.fromkeys(("share_a", "share_b", "difference", "low", "high"), None)
    bare = planted.model_copy(update={
        name: tuple(row.model_copy(update=nothing) for row in getattr(planted, name)) for name in ("gates", "trusts")
    })  # fmt: skip
    changed = evidence.model_copy(update={"dissociation": dissociation_of(bare, T)})
    text = text_of(changed)
    assert "\u2013 \u2013 \u2013 96 FAILED" in text


def test_evidence_on_other_weights_stops_the_report(
    fake_pair: MatchedPair, fake_panels: Panels, measured_pair: MatchedPair, tmp_path: Path
) -> None:
    record = read_json(measured_pair.path / "evidence" / "summary.json")
    for model in record["models"]:
        model["weights_sha256"] = "00" * 32
    for name in ("dataset.json", "split.json"):
        write_json(tmp_path / name, read_json(fake_pair.path / name))
    write_json(tmp_path / "evidence" / "summary.json", record)
    with pytest.raises(IntegrityError, match="explain evaluate"):
        gather(MatchedPair(tmp_path, fake_pair.runs), fake_panels, "en")

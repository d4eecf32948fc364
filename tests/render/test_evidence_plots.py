"""Figures of an evaluation show every number of the summary, and nothing that was not measured."""

import json

import plotly.graph_objects as go
import pytest
from fake_evidence import BLOCKS, METHODS, STAGES, fake_planted, fake_summary

from explain.evidence.planted import PlantedResult
from explain.evidence.summary import Estimate, Summary
from explain.i18n import translate
from explain.render import arm_colour
from explain.render.evidence_plots import (
    agreement_figure,
    blocks_figure,
    cascade_figure,
    dissociation_figure,
    gain_figure,
    metric_label,
    reasons_figure,
)
from explain.training.pair import MatchedPair


@pytest.fixture(scope="module")
def summary(fake_pair: MatchedPair) -> Summary:
    return fake_summary(fake_pair)


@pytest.fixture(scope="module")
def planted(fake_pair: MatchedPair) -> PlantedResult:
    return fake_planted(fake_pair)


def ends(trace: go.Scatter, axis: str = "x") -> list[tuple[float, float, float]]:
    """(mean, low, high) of every point."""
    error, values = trace[f"error_{axis}"], trace[axis]
    return [
        (value, value - down, value + up)
        for value, up, down in zip(values, error.array, error.arrayminus, strict=True)
    ]


def test_gains_are_shown_with_their_intervals_beside_chance(summary: Summary) -> None:
    figure = gain_figure(summary)
    assert figure is not None and [trace.name for trace in figure.data] == ["VPT", "FT", "Linear probe"]
    for trace, arm in zip(figure.data, ("vpt", "ft", "linear"), strict=True):
        cells = [summary.cell(arm, method, "gain") for method in METHODS]
        expected = [(cell.estimate.mean, cell.estimate.low, cell.estimate.high) for cell in cells if cell]
        assert ends(trace) == [pytest.approx(row) for row in expected] and trace.marker.color == arm_colour(arm)
        assert [round(y) for y in trace.y] == list(range(len(METHODS)))
    (chance,) = figure.layout.shapes
    assert chance.x0 == chance.x1 == 0
    assert sum("control" in label for label in figure.layout.yaxis.ticktext) == 3
    assert sum("class-agnostic" in label for label in figure.layout.yaxis.ticktext) == 1


def test_a_metric_without_a_known_chance_has_no_line(summary: Summary) -> None:
    figure = gain_figure(summary, metric="insertion")
    assert figure is not None and len(figure.layout.shapes) == 0
    assert gain_figure(summary, metric="never_measured") is None


def test_a_number_that_is_missing_is_no_point(summary: Summary) -> None:
    nothing = Estimate(mean=None, low=None, high=None, images=0, seeds=1)
    place = ("ft", "sobel")
    cells = tuple(cell.model_copy(update={"estimate": nothing}) if (cell.model, cell.method) == place else cell
                  for cell in summary.cells)  # fmt: skip
    figure = gain_figure(summary.model_copy(update={"cells": cells}))
    assert figure is not None and [len(trace.x) for trace in figure.data] == [6, 5, 6]


def test_agreement_stands_beside_both_ceilings_and_the_floor(summary: Summary) -> None:
    figure = agreement_figure(summary)
    assert figure is not None
    rows = [row for row in summary.agreements if row.metric == "pearson"]
    columns = ("between", "first_ceiling", "second_ceiling", "floor")
    for trace, column in zip(figure.data, columns, strict=True):
        assert list(trace.x) == [getattr(row, column).mean for row in rows]
    assert [label.count("not reproducible here") for label in figure.layout.yaxis.ticktext] == [1, 0, 0]


def test_one_seed_has_no_ceiling_to_draw(fake_pair: MatchedPair) -> None:
    figure = agreement_figure(fake_summary(fake_pair, seeds=(0,)))
    assert figure is not None and len(figure.data) == 2
    assert all("one seed" in label for label in figure.layout.yaxis.ticktext)


def test_small_figures_hold_every_block_of_every_model(summary: Summary) -> None:
    figure = blocks_figure(summary)
    assert figure is not None
    titles = [note.text for note in figure.layout.annotations]
    assert titles[:2] == ["CKA to the backbone", "Feature drift"] and titles[-1] == "Prompt mass"
    assert all(list(trace.x) == list(range(1, BLOCKS + 1)) for trace in figure.data)
    cka = {trace.name: (trace.line.dash, list(trace.y)) for trace in figure.data if trace.xaxis == "x"}
    assert cka.keys() == {"VPT", "FT", "Linear probe", "VPT\u2013FT", "VPT, two seeds"}
    assert cka["VPT\u2013FT"] == ("solid", [0.95, 0.8, 0.65, 0.5]) and cka["VPT, two seeds"][0] == "dash"
    chance = [trace for trace in figure.data if trace.name == "VPT, chance"]
    assert [trace.line.dash for trace in chance] == ["dot"] and list(chance[0].y) == [0.1] * BLOCKS
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert len(shown) == len(set(shown)) == 6


def test_the_cascade_runs_from_the_head_to_everything(summary: Summary) -> None:
    shuffled = summary.model_copy(update={"cells": summary.cells[::-1]})
    figure = cascade_figure(shuffled)
    assert figure is not None and len(figure.data) == 3 * 3 * 2  # arms, methods, signed and absolute
    assert all(list(trace.x) == ["head", "to block 3", "to block 2", "all"] for trace in figure.data)
    rollout = [trace for trace in figure.data if trace.xaxis == "x3"]
    assert len(STAGES) == 4 and all(trace.y[0] == 1 and trace.y[-1] < 0.3 for trace in rollout)


def test_answers_and_reasons_are_a_table_of_images_where_there_is_a_threshold(summary: Summary) -> None:
    figure = reasons_figure(summary)
    assert figure is not None and len(figure.data) == 2
    assert [list(line) for line in figure.data[0].z] == [[0.7, 0.21], [0.04, 0.05]]
    assert "<b>21</b>" in figure.data[0].text[0][1]


def test_the_dissociation_is_told_in_words(planted: PlantedResult) -> None:
    figure = dissociation_figure(planted)
    assert figure is not None
    said = {note.y: note.text for note in figure.layout.annotations}
    assert [said[y].split("<b>")[1].split("</b>")[0] for y in sorted(said)][:3] == [
        "VPT PASSED", "FT FAILED", "Linear probe NOT TESTED"
    ]  # fmt: skip
    assert sum("control" in text for text in said.values()) == 3 * 3
    failed = next(trace for trace in figure.data if trace.name == "FT")
    assert list(failed.x) == [0.54, 0.46]  # cue B's model first: its mark is the open one
    assert failed.marker.symbol == ("circle-open", "circle")


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_figures_are_in_the_language_and_can_be_stored(summary: Summary, planted: PlantedResult, lang: str) -> None:
    figures = [gain_figure(summary, lang), agreement_figure(summary, lang), blocks_figure(summary, lang),
               cascade_figure(summary, lang), reasons_figure(summary, lang),
               dissociation_figure(planted, lang)]  # fmt: skip
    texts = [figure.to_json() for figure in figures if figure is not None]
    assert len(texts) == 6 and all(json.loads(text)["data"] for text in texts)
    words = json.dumps(translate(lang)("plot.floor"))[1:-1]
    assert words in texts[1] or translate(lang)("plot.floor") in texts[1]


def test_nothing_measured_is_no_figure(summary: Summary, planted: PlantedResult) -> None:
    nothing = summary.model_copy(update=dict.fromkeys(("cells", "agreements", "reasons", "blocks"), ()))
    figures = [gain_figure(nothing), agreement_figure(nothing), blocks_figure(nothing), cascade_figure(nothing),
               reasons_figure(nothing), dissociation_figure(planted.model_copy(update={"trusts": ()}))]  # fmt: skip
    assert figures == [None] * 6


def test_a_metric_that_the_catalogue_does_not_know_keeps_its_measures_label(summary: Summary) -> None:
    t = translate("ja")
    assert metric_label(summary, "a_new_metric", t) == "A metric of tomorrow"
    assert metric_label(summary, "cascade_signed/blocks.2", t) == t("term.metric.cascade_signed")

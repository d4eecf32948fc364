"""Figures of training carry the runs' numbers."""

import json
from dataclasses import replace

import pytest

from explain.metrics.statistics import seed_interval
from explain.render.training_plots import cost_figure, curves_figure, seeds_figure, trials_figure
from explain.training.pair import MatchedPair
from explain.training.run import Run


def test_curves_of_chosen_arms_and_parts_only(fake_pair: MatchedPair) -> None:
    figure = curves_figure({"ft": fake_pair.ft}, ["train", "test"], "ja")
    assert [trace.line.dash for trace in figure.data] == ["dot", "dot", "solid", "solid"]
    loss, accuracy = figure.data[2:]
    assert list(loss.y) == [epoch.test_loss for epoch in fake_pair.ft.history]
    assert list(accuracy.y) == pytest.approx([100 * (epoch.test_accuracy or 0) for epoch in fake_pair.ft.history])
    assert sum(trace.showlegend for trace in figure.data) == 2 and "テスト" in loss.name
    json.loads(figure.to_json())


def test_only_a_turn_that_happened_is_marked(fake_pair: MatchedPair) -> None:
    figure = curves_figure(fake_pair.runs, ["test"])
    assert [shape.x0 for shape in figure.layout.shapes] == [5]
    assert [note.text for note in figure.layout.annotations if "turn" in note.text] == ["FT, turn: epoch 5"]


def test_trials_stand_over_their_rates_and_the_chosen_one_has_a_ring(fake_pair: MatchedPair) -> None:
    trials = list(fake_pair.vpt.manifest.trials)
    shorter = trials[0].model_copy(update={"epochs": 1})
    diverged = trials[1].model_copy(update={"val_accuracy": 0.0, "val_loss": None})
    manifest = fake_pair.vpt.manifest.model_copy(update={"trials": (shorter, diverged, *trials[2:])})
    line, points, ring = trials_figure({"vpt": replace(fake_pair.vpt, manifest=manifest)}).data
    assert list(points.x) == [trial.learning_rate for trial in trials]
    assert list(points.marker.symbol) == ["circle", "x", "circle"]
    assert points.marker.size[0] < points.marker.size[1] and trials[0].learning_rate not in line.x
    assert ring.x[0] == manifest.chosen.learning_rate and ring.y[0] == 100 * manifest.chosen.val_accuracy


def test_seeds_have_their_mean_and_interval(fake_pair: MatchedPair) -> None:
    better = {arm: _with_accuracy(run, run.manifest.test.accuracy + 0.05) for arm, run in fake_pair.runs.items()}
    pairs = [fake_pair, replace(fake_pair, runs=better)]
    points, mean = seeds_figure(pairs).data[:2]
    first = fake_pair.vpt.manifest.test.accuracy
    low, high = seed_interval([first, first + 0.05])
    assert list(points.x) == pytest.approx([100 * first, 100 * first + 5])
    assert mean.x[0] == pytest.approx(100 * first + 2.5)
    assert mean.x[0] + mean.error_x.array[0] == pytest.approx(100 * high)
    assert mean.x[0] - mean.error_x.arrayminus[0] == pytest.approx(100 * low)


def test_costs_leave_out_what_was_not_recorded_and_say_when_an_axis_is_logarithmic(fake_pair: MatchedPair) -> None:
    manifests = {arm: run.manifest.model_copy(update={"energy_j": None, "seconds_per_epoch": 2.0})
                 for arm, run in fake_pair.runs.items()}  # fmt: skip
    figure = cost_figure({arm: replace(fake_pair.runs[arm], manifest=one) for arm, one in manifests.items()})
    titles = [note.text for note in figure.layout.annotations]
    assert "Energy, kJ" not in titles and titles[:2] == ["Trained parameters", "Seconds per epoch"]
    assert list(figure.data[0].x) == [one.trained_parameters for one in manifests.values()]
    assert figure.layout.xaxis.type == "log" and figure.layout.xaxis.title.text == "logarithmic"
    assert figure.layout.xaxis2.type != "log"


def _with_accuracy(run: Run, accuracy: float) -> Run:
    test = run.manifest.test.model_copy(update={"accuracy": accuracy})
    return replace(run, manifest=run.manifest.model_copy(update={"test": test}))

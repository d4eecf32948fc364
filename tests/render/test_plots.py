"""Charts carry the runs' numbers, in both languages."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explain.errors import InputError
from explain.i18n import translate
from explain.metrics.calibration import reliability_curve
from explain.render import ARM_COLOURS, arm_colour
from explain.render.heatmap import OPACITY, view_maps
from explain.render.overview import _choose, write_overview
from explain.render.plots import (
    _curves,
    arm_label,
    recall_figure,
    reliability_figure,
    training_figure,
)
from explain.report.panels import Panel, Panels
from explain.training.pair import MatchedPair
from explain.training.run import Epoch


def test_training_figure_has_a_column_per_arm_and_a_curve_per_part(fake_pair: MatchedPair) -> None:
    figure = training_figure(fake_pair, "ja")
    curves = [trace for trace in figure.data if trace.x[0] is not None]
    assert len(curves) == 3 * 3 * 2  # arms, parts, loss and accuracy
    assert {trace.xaxis for trace in curves} == {f"x{n}" if n > 1 else "x" for n in range(1, 7)}
    assert {trace.line.dash for trace in curves} == {"dot", "dash", "solid"}
    loss, accuracy = curves[4:6]
    assert list(loss.y) == [epoch.test_loss for epoch in fake_pair.vpt.history]
    assert list(accuracy.y) == [100 * epoch.test_accuracy for epoch in fake_pair.vpt.history if epoch.test_accuracy]
    assert "学習" in curves[0].name and "検証" in curves[2].name and "テスト" in loss.name
    json.loads(figure.to_json())


def test_only_the_arm_whose_test_loss_turns_has_a_mark(fake_pair: MatchedPair) -> None:
    figure = training_figure(fake_pair)
    assert [note.text for note in figure.layout.annotations if "epoch" in note.text] == ["turn: epoch 5"]
    assert {(shape.x0, shape.xref) for shape in figure.layout.shapes} == {(5, "x2"), (5, "x5")}


def test_what_was_not_watched_has_no_curve() -> None:
    history = [
        Epoch(epoch=n, learning_rate=1e-3, train_loss=1.0, train_accuracy=0.5, val_loss=None, val_accuracy=None,
              test_loss=0.9 if n == 2 else None, test_accuracy=0.4 if n == 2 else None, gradient_norm=1.0,
              gradient_norm_max=1.0, seconds=1.0, peak_mib=1.0, energy_j=None)
        for n in (1, 2)
    ]  # fmt: skip
    assert _curves(history, "val") == ([], [])
    assert _curves(history, "test") == ([(2, 0.9)], [(2, 40.0)])


def test_reliability_figure_shows_every_bin_with_its_interval(fake_pair: MatchedPair) -> None:
    figure = reliability_figure(fake_pair, bins=5)
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in points] == ["VPT", "FT", "Linear probe"]
    for trace, run in zip(points, fake_pair, strict=True):
        curve = reliability_curve(run.predictions.probabilities, run.predictions.labels, bins=5)
        assert list(trace.x) == pytest.approx([100 * row.confidence for row in curve])
        assert list(trace.y) == pytest.approx([100 * row.accuracy for row in curve])
        tops = [y + up for y, up in zip(trace.y, trace.error_y.array, strict=True)]
        assert tops == pytest.approx([100 * row.high for row in curve])


def test_recall_figure_has_a_bar_per_class_and_arm(fake_pair: MatchedPair) -> None:
    figure = recall_figure(fake_pair, "ja")
    assert [list(trace.x) for trace in figure.data] == [list(fake_pair.data.class_names)] * 3
    predictions = fake_pair.ft.predictions
    found = predictions.correct[predictions.labels == 1].mean()
    assert figure.data[1].y[1] == pytest.approx(100 * found)


def test_an_arm_without_a_catalogue_entry_keeps_its_name_and_gets_a_colour() -> None:
    assert arm_label("my_arm", translate("en")) == "my_arm"
    assert arm_label("vpt_shallow", translate("en")) == "VPT-Shallow"
    assert arm_colour("my_arm") not in ARM_COLOURS.values()
    assert arm_colour("vpt") == ARM_COLOURS["vpt"]


def test_scopes_share_scales_as_they_say(fake_panels: Panels) -> None:
    maps, grid = fake_panels.maps, fake_panels.grid
    own = view_maps(maps, grid, "map")
    sample = view_maps(maps, grid, "sample")
    dataset = view_maps(maps, grid, "dataset")
    key, other = (1, "vpt", "grad_cam"), (1, "ft", "grad_cam")
    assert own[key].scale != own[other].scale
    assert sample[key].scale == sample[other].scale != sample[2, "vpt", "grad_cam"].scale
    assert {view.scale for (_, _, name), view in dataset.items() if name == "grad_cam"} == {dataset[key].scale}


def test_a_pixel_map_is_averaged_over_the_patch_grid_and_a_blank_one_is_marked(fake_panels: Panels) -> None:
    views = view_maps(fake_panels.maps, fake_panels.grid)
    view = views[1, "vpt", "integrated_gradients"]
    assert view.values.shape == fake_panels.grid and view.signed and not view.blank
    assert views[0, "vpt", "grad_cam"].blank
    assert view.draw(fake_panels.inputs[1], OPACITY).shape == fake_panels.inputs[1].shape


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_overview_is_a_wide_png_and_leaves_no_pyplot_figure(
    fake_pair: MatchedPair, fake_panels: Panels, tmp_path: Path, lang: str
) -> None:
    path = write_overview(fake_pair, fake_panels, tmp_path / "overview.png", lang=lang, rows=2)
    with Image.open(path) as image:
        assert image.width > 1400
        assert np.asarray(image.convert("RGB")).std() > 20
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_overview_shows_one_image_of_each_rule_first() -> None:
    panels = [Panel(id=str(n), rule=rule) for n, rule in enumerate(["a", "a", "b", "b", "c"])]
    assert _choose(panels, 3) == [0, 2, 4]
    assert _choose(panels, 4) == [0, 1, 2, 4]


def test_overview_refuses_another_kind_of_file(fake_pair: MatchedPair, fake_panels: Panels, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=".png"):
        write_overview(fake_pair, fake_panels, tmp_path / "overview.jpg")

"""Charts carry the runs' numbers, in both languages."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explain.errors import InputError
from explain.i18n import translate
from explain.render import ARM_COLOURS, arm_colour
from explain.render.heatmap import OPACITY, view_maps
from explain.render.overview import _choose, write_overview
from explain.render.plots import accuracy_figure, arm_label, training_figure
from explain.report.panels import Panel, Panels
from explain.training.pair import MatchedPair


def test_accuracy_figure_shows_every_arm_with_its_interval(fake_pair: MatchedPair) -> None:
    figure = accuracy_figure(fake_pair)
    assert [trace.name for trace in figure.data] == ["VPT", "FT", "Linear probe"]
    for trace, run in zip(figure.data, fake_pair, strict=True):
        assert trace.x[0] == pytest.approx(100 * run.manifest.test.accuracy)
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(100 * run.manifest.test.low)
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(100 * run.manifest.test.high)


def test_training_figure_has_two_curves_a_measure_and_arm(fake_pair: MatchedPair) -> None:
    figure = training_figure(fake_pair, "ja")
    assert len(figure.data) == 3 * 2 * 2
    assert figure.data[0].y[-1] == fake_pair.vpt.history[-1].train_loss
    assert "学習" in figure.data[0].name and "検証" in figure.data[2].name
    json.loads(figure.to_json())


def test_an_arm_without_a_catalogue_entry_keeps_its_name_and_gets_a_colour() -> None:
    assert arm_label("vpt_shallow", translate("en")) == "vpt_shallow"
    assert arm_colour("vpt_shallow") not in ARM_COLOURS.values()
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

"""Figures of models side by side carry their numbers."""

import json

import numpy as np
import pytest
from fake_evidence import fake_summary

from explain.render.evidence_plots import block_panels
from explain.render.models_plots import block_figure, prompt_cosines_figure, prompt_norms_figure, trained_figure
from explain.training.pair import MatchedPair


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_one_measure_has_a_curve_per_model_with_its_interval(fake_pair: MatchedPair, lang: str) -> None:
    summary = fake_summary(fake_pair)
    for metric, curves in block_panels(summary).items():
        figure = block_figure(summary, metric, curves, lang)
        assert len(figure.data) == len(curves)
        for trace, blocks in zip(figure.data, curves.values(), strict=True):
            assert list(trace.x) == [block.block + 1 for block in blocks]
            assert list(trace.y) == [block.estimate.mean for block in blocks]
            assert trace.y[0] + trace.error_y.array[0] == pytest.approx(blocks[0].estimate.high)
        json.loads(figure.to_json())
    assert [trace.line.dash for trace in figure.data] == ["solid", "dot"]  # prompt mass, and chance


def test_the_larger_the_share_that_was_trained_the_darker() -> None:
    models = {"vpt": {"embedding": (0, 1000), "1": (30, 30000), "head": (9, 10)},
              "ft": {"embedding": (1000, 1000), "1": (1_250_000, 1_250_000), "head": (10, 10)}}  # fmt: skip
    cells = trained_figure(models).data[0]
    vpt, ft = cells.z
    assert vpt[0] == 0 < vpt[1] < vpt[2] < ft[1] == 1
    assert list(cells.text[0]) == ["0", "30", "9"] and cells.text[1][1] == "1.25 M"
    assert list(cells.x) == ["embedding", "1", "norm, head"] and cells.customdata[0][1] == "30 of 30,000 trained"


def test_prompts_have_a_row_per_block_and_a_cell_per_two() -> None:
    norms = prompt_norms_figure({1: np.array([1.0, 2.0]), 7: np.array([3.0, 4.0])}, "ja").data[0]
    assert list(norms.y) == ["1", "7"] and [list(row) for row in norms.z] == [[1, 2], [3, 4]]
    assert norms.hovertemplate.startswith("ブロック %{y}")
    cosines = prompt_cosines_figure(np.array([[1, -0.5], [-0.5, 1]])).data[0]
    assert (cosines.zmin, cosines.zmax) == (-1, 1) and cosines.z[0][1] == -0.5

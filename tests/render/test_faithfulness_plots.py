"""The figure of deletion and insertion carries its curves, their random band and chance."""

import json

import numpy as np

from explain.render.faithfulness_plots import RemovalCurves, removal_figure


def test_curves_and_band_of_every_model() -> None:
    rng = np.random.default_rng(0)
    shares = np.linspace(0, 1, 5)
    models = [RemovalCurves(arm, shares, *rng.random((2, 5)), *rng.random((2, 3, 5))) for arm in ("vpt", "ft")]
    figure = removal_figure(models, 1 / 4, "ja")
    assert len(figure.data) == 2 * 2 * 3
    band, mean, curve = figure.data[3:6]  # deletion of the second model
    np.testing.assert_allclose(curve.y, 100 * models[1].deletion)
    np.testing.assert_allclose(mean.y, 100 * models[1].random_deletion.mean(axis=0))
    np.testing.assert_allclose(band.y[:5], 100 * models[1].random_deletion.max(axis=0))
    np.testing.assert_allclose(band.y[:4:-1], 100 * models[1].random_deletion.min(axis=0))
    np.testing.assert_allclose(figure.data[-1].y, 100 * models[1].insertion)
    assert {shape.y0 for shape in figure.layout.shapes} == {25}
    assert [trace.name for trace in figure.data if trace.showlegend] == [
        "VPT（ランダムな順序 3 通りの平均）", "VPT（マップの順）",
        "FT（ランダムな順序 3 通りの平均）", "FT（マップの順）",
    ]  # fmt: skip
    json.loads(figure.to_json())

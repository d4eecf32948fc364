"""Figures of the first page: what they draw is what they were given."""

import numpy as np
import pytest

from explain.i18n import translate
from explain.render.overview_plots import BINS, alikeness_figure, confusion_figure, rates_figure

T = translate("en")


def test_rates_are_points_with_their_intervals_near_the_end_of_the_axis() -> None:
    figure = rates_figure({"vpt": (0.9, 0.86, 0.93), "ft": (0.93, 0.9, 0.95)}, T)
    vpt, ft = figure.data
    assert (vpt.x[0], ft.x[0]) == (90, 93)
    assert vpt.error_x.array[0] == pytest.approx(3) and vpt.error_x.arrayminus[0] == pytest.approx(4)
    assert figure.layout.xaxis.range[0] == 80
    assert rates_figure({"vpt": (0.01, 0.0, 0.05)}, T).layout.xaxis.range[0] == 0


def test_confusion_colours_shares_of_a_class_and_writes_counts() -> None:
    figure = confusion_figure({"vpt": np.array([[8, 2], [0, 0]])}, ("<b>a</b>", "b"), T)
    right, wrong, counts = figure.data
    assert right.z[0][0] == 0.8 and np.isnan(right.z[0][1])
    assert wrong.z[0][1] == 0.2 and wrong.z[1][0] == 0  # a class without images divides by nothing
    assert list(counts.text) == ["8", "2", "0", "0"]
    assert "&lt;b&gt;" in right.x[0] and "80.0 %" in right.customdata[0][0]


def test_counts_are_written_in_a_colour_that_the_ground_bears() -> None:
    counts = {"vpt": np.array([[8, 2], [0, 0]])}
    inks = {confusion_figure(counts, ("a", "b"), T, dark=dark).data[2].textfont.color for dark in (False, True)}
    assert len(inks) == 2


def test_many_classes_are_not_written_into_cells() -> None:
    figure = confusion_figure({"vpt": np.eye(20, dtype=int)}, tuple(map(str, range(20))), T)
    assert len(figure.data) == 2


def test_every_correlation_is_in_a_bar_the_ends_too() -> None:
    values = np.array([-1.0, 1.0, 0.5, 0.51, np.nextafter(1, 2)])
    figure = alikeness_figure(values, T)
    assert sum(figure.data[0].y) == len(values) and len(figure.data[0].y) == len(BINS) - 1
    assert figure.layout.annotations[0].text == "median 0.51"

"""What the link says is what is found; columns have names that people understand."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import streamlit as st

from app import columns, filters, state
from app.index import ALL, Index, Query
from explain.i18n import LANGUAGES, translate
from explain.reviews import Reviews, write_review

CLASSES = ("nominal", "local")
NUMBERS = ("vpt_confidence", "ft_confidence", "vpt_grad_cam_gini", "vpt_shallow_grad_cam_low",
           "vpt_integrated_gradients_completeness_gap", "ft_made_up_thing", "agreement_grad_cam_vpt_ft",
           "agreement_grad_cam_vpt_vpt_shallow")  # fmt: skip


class Viewed:
    """As much of an opened archive as filters look at."""

    models, compared, class_names = ("vpt", "ft", "vpt_shallow"), ("vpt", "ft"), CLASSES

    def __init__(self, folder: Path) -> None:
        self.reviews: Reviews | None = Reviews(folder)
        table: dict[str, Any] = {"id": ["a", "b", "c"], "label": pa.array([0, 1, 1], pa.int32()), "status": ["ok"] * 3}
        for model in self.compared:
            table |= {f"{model}_prediction": pa.array([0, 1, 0], pa.int32()),
                      f"{model}_correct": [True, True, False]}  # fmt: skip
        table |= {name: pa.array([0.1, 0.2, 0.3], pa.float32()) for name in NUMBERS}
        self.index = Index([pa.table(table)], self.compared, {})

    def label_of(self, model: str, t: Any) -> str:
        return t(f"term.arm.{model}")


@pytest.fixture
def viewed(tmp_path: Path) -> Any:
    return Viewed(tmp_path)


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open a link: a new session and its address."""

    def opened(**values: str) -> None:
        monkeypatch.setattr(st, "session_state", {})
        monkeypatch.setattr(st, "query_params", dict(values))
        state.begin()

    return opened


def test_a_link_without_choices_means_all_images(link: Any, viewed: Any) -> None:
    link()
    assert filters.chosen(viewed) == Query() and filters.active(Query()) == [] and filters.linked() == {}


def test_every_choice_of_a_link_is_in_the_query_and_in_the_next_link(link: Any, viewed: Any) -> None:
    asked = {"outcome": "both_wrong", "class": "local", "find": "tex", "by": "ft", "answer": "nominal", "low": "25",
             "high": "75", "sort": "gap", "down": "1"}  # fmt: skip
    link(**asked)
    query = filters.chosen(viewed)
    assert query == Query(outcome="both_wrong", label=1, contains="tex", answered=("ft", 0),
                          confidence=("ft", 0.25, 0.75), sort="gap", descending=True)  # fmt: skip
    assert filters.active(query) == ["outcome", "class", "find", "answer", "confidence"] and state.notes() == []
    assert {key: state._text(value) for key, value in filters.linked().items()} == asked


def test_what_cannot_be_had_is_noted_and_put_back(link: Any, viewed: Any) -> None:
    link(outcome="nonsense", **{"class": "global"}, low="200", sort="label")
    assert filters.chosen(viewed) == Query()
    assert {key for key, _ in state.notes()} == {"outcome", "class", "low", "sort"}


def test_ends_of_a_range_in_the_wrong_order_are_the_same_range(link: Any, viewed: Any) -> None:
    link(low="80", high="20")
    assert filters.chosen(viewed).confidence == ("vpt", 0.2, 0.8)


def test_a_filter_is_dropped_and_the_others_stay(link: Any, viewed: Any) -> None:
    link(outcome="both_right", find="a")
    query = filters.chosen(viewed)
    assert filters.relaxed(query, "outcome") == Query(contains="a")
    filters.reset(("outcome",))
    st.query_params.clear()
    state.begin()
    assert filters.chosen(viewed) == Query(contains="a")


def test_reviews_are_found_by_verdict_and_tag(link: Any, viewed: Any) -> None:
    for name, verdict, tags in (("a", "right_place", ("seam",)), ("b", "wrong_place", ("seam", "edge")), ("c", "", ())):
        write_review(viewed.reviews, name, sha256=None, models={}, verdict=verdict, tags=tags)
    for asked, names in ({"verdict": "wrong_place"}, "b"), ({"tag": "seam"}, "ab"), ({"verdict": "none"}, "c"), (
        {"tag": "seam", "verdict": "right_place"}, "a"), ({"tag": "edge", "verdict": "none"}, ""):  # fmt: skip
        link(**asked)
        query = filters.chosen(viewed)
        found = viewed.index.fetch(viewed.index.find(query), ["id"])
        assert "".join(row["id"] for row in found) == names, asked
        assert filters.active(query) == ["review"] and filters.relaxed(query, "review") == Query()


def test_most_wanted_orders_come_first(viewed: Any) -> None:
    found = filters.sortable(viewed)
    assert found[:5] == ["", "id", "agreement_grad_cam_vpt_ft", "agreement_grad_cam_vpt_vpt_shallow", "gap"]
    assert found[5:7] == ["vpt_confidence", "ft_confidence"] and len(found) == len(set(found)) == len(NUMBERS) + 3


@pytest.mark.parametrize(("column", "name"), [
    ("", "Order of the data set"), ("gap", "Difference in confidence"), ("ft_confidence", "Confidence, FT"),
    ("agreement_grad_cam_vpt_ft", "Agreement, GradCAM, VPT – FT"),
    ("agreement_grad_cam_vpt_vpt_shallow", "Agreement, GradCAM, VPT – VPT-Shallow"),
    ("vpt_grad_cam_gini", "Gini, GradCAM, VPT"), ("vpt_shallow_grad_cam_low", "Lowest value, GradCAM, VPT-Shallow"),
    ("vpt_integrated_gradients_completeness_gap", "Completeness gap, Integrated Gradients, VPT"),
    ("ft_made_up_thing", "made up thing, FT"), ("strange", "strange"),
])  # fmt: skip
def test_a_column_has_a_name_for_people(viewed: Any, column: str, name: str) -> None:
    assert columns.label_of(column, viewed, translate("en")) == name


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_two_columns_have_one_name(viewed: Any, lang: str) -> None:
    names = [columns.label_of(column, viewed, translate(lang)) for column in filters.sortable(viewed)]
    assert len(names) == len(set(names))


def test_numbers_are_written_as_what_they_are() -> None:
    assert columns.format_number("agreement_grad_cam_vpt_ft", -0.456) == "\u22120.46"
    assert columns.format_number("vpt_confidence", 0.9876) == "98.8 %"
    assert columns.format_number("vpt_grad_cam_gini", 0.123456) == "0.123"
    assert columns.format_number("gap", None) == "–"


def test_an_outcome_that_nothing_can_tell_is_not_among_the_choices(viewed: Any) -> None:
    viewed.index = Index([pa.table({"id": ["a"], "label": pa.array([None], pa.int32())})], ("vpt", "ft"), {})
    assert filters.outcomes(viewed) == [ALL, "failed"] and filters.answering(viewed) == []

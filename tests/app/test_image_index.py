"""The index finds what a query means, in its order, and counts what each choice would leave."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from app.index import ALL, OUTCOMES, Index, Query
from explain.errors import UnknownNameError

COUNT = 400
MODELS = ("vpt", "ft")


@pytest.fixture(scope="module")
def numbers() -> pa.Table:
    """Random answers; every tenth image failed, every seventh has no agreement, every ninth no label."""
    rng, rows = np.random.default_rng(3), np.arange(COUNT)
    labels, failed = rng.integers(0, 3, COUNT), rows % 10 == 9
    table = {"row": pa.array(rows), "id": [f"part {row % 4}/image_{row:03d}" for row in rows],
             "status": np.where(failed, "truncated", "ok"),
             "label": pa.array(labels, pa.int32(), mask=rows % 9 == 8)}  # fmt: skip
    for model in MODELS:
        answers = rng.integers(0, 3, COUNT)
        table[f"{model}_prediction"] = pa.array(answers, pa.int32(), mask=failed)
        table[f"{model}_confidence"] = pa.array(rng.random(COUNT).astype(np.float32), mask=failed)
        table[f"{model}_correct"] = pa.array(answers == labels, mask=failed | (rows % 9 == 8))
    agreement = rng.uniform(-1, 1, COUNT).astype(np.float32)
    table["agreement_grad_cam_vpt_ft"] = pa.array(agreement, mask=rows % 7 == 6)
    return pa.table(table)


@pytest.fixture(scope="module")
def index(numbers: pa.Table) -> Index:
    parts = {name: "val" if number % 2 else "test" for number, name in enumerate(numbers["id"].to_pylist()[:100])}
    return Index([numbers], MODELS, parts)


def expected(numbers: pa.Table, outcome: str) -> list[int]:
    """What an outcome means, row by row, told again."""
    found = []
    for row, one in enumerate(numbers.to_pylist()):
        first, second = one["vpt_correct"], one["ft_correct"]
        given = None not in (first, second)
        means = {
            ALL: True, "failed": one["status"] != "ok", "only_first": given and first and not second,
            "only_second": given and second and not first, "both_right": given and first and second,
            "both_wrong": given and not first and not second,
            "disagree": one["vpt_prediction"] is not None and one["vpt_prediction"] != one["ft_prediction"],
        }  # fmt: skip
        found += [row] if means[outcome] else []
    return found


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_is_what_it_says(index: Index, numbers: pa.Table, outcome: str) -> None:
    found = index.find(Query(outcome=outcome)).tolist()
    assert found == expected(numbers, outcome) and 0 < len(found) <= COUNT


def test_counts_say_what_each_choice_would_leave(index: Index) -> None:
    query = Query(outcome="both_wrong", label=1, confidence=("ft", 0.2, 0.8))
    counts = index.outcomes(query)
    assert list(counts) == list(OUTCOMES)
    assert counts == {outcome: len(index.find(replace(query, outcome=outcome))) for outcome in OUTCOMES}
    classes = index.counts("label", replace(query, label=None))
    assert classes == {label: index.size(replace(query, label=label)) for label in range(3)} | (
        {None: classes[None]} if None in classes else {}
    )
    assert sum(classes.values()) == index.size(replace(query, label=None))


def test_images_without_a_number_come_last_in_both_directions(index: Index, numbers: pa.Table) -> None:
    values = numbers["agreement_grad_cam_vpt_ft"].to_pylist()
    for descending in (False, True):
        rows = index.find(Query(sort="agreement_grad_cam_vpt_ft", descending=descending))
        there = [values[row] for row in rows if values[row] is not None]
        assert there == sorted(there, reverse=descending) and len(rows) == COUNT
        assert [values[row] for row in rows[len(there) :]] == [None] * (COUNT - len(there))


def test_ids_that_alone_are_meant_and_ids_that_are_not(index: Index, numbers: pa.Table) -> None:
    names = numbers["id"].to_pylist()
    some = (names[7], names[300], "not here")
    assert index.find(Query(among=some)).tolist() == [7, 300]
    assert index.find(Query(without=some)).tolist() == [row for row in range(COUNT) if row not in (7, 300)]
    assert index.find(Query(among=())).tolist() == []


def test_text_in_the_id_is_text_whatever_its_case(index: Index) -> None:
    assert index.find(Query(contains="IMAGE_01")).tolist() == list(range(10, 20))
    assert index.size(Query(contains="%")) == 0 and index.size(Query(contains="' OR 1=1 --")) == 0


def test_parts_are_those_that_images_belong_to(index: Index) -> None:
    assert index.parts == ("test", "val")
    assert index.find(Query(part="val")).tolist() == list(range(1, 100, 2))


def test_rows_come_in_the_order_asked_for(index: Index, numbers: pa.Table) -> None:
    rows = [5, 399, 0]
    assert [row["id"] for row in index.fetch(rows, ["id"])] == [numbers["id"][row].as_py() for row in rows]
    assert index.row_of(numbers["id"][42].as_py()) == 42 and index.row_of("none") is None


def test_what_cannot_be_told_is_not_offered(numbers: pa.Table) -> None:
    alone = Index([numbers], ("vpt", "vpt"), {})
    assert list(alone.outcomes()) == [ALL, "failed"]
    unlabelled = Index([numbers.drop_columns(["vpt_correct", "ft_correct"])], MODELS, {})
    assert list(unlabelled.outcomes()) == [ALL, "disagree", "failed"]


def test_a_column_that_is_not_there_is_an_error_in_words(index: Index) -> None:
    with pytest.raises(UnknownNameError, match="no column 'size; DROP'"):
        index.find(Query(sort="size; DROP"))


def test_an_image_of_two_tables_is_that_of_the_first(numbers: pa.Table) -> None:
    other = numbers.slice(0, 3).set_column(3, "label", pa.array([2, 2, 2], pa.int32())).drop_columns(["vpt_correct"])
    renamed = other.set_column(1, "id", pa.array(["new", *other["id"].to_pylist()[1:]]))
    both = Index([numbers, renamed], MODELS, {})
    assert both.count == COUNT + 1 and both.row_of("new") == COUNT
    assert both.fetch([1], ["label"])[0]["label"] == numbers["label"][1].as_py()

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.data.base import Dataset, Sample
from explain.data.split import Split, stratified_split
from explain.errors import DatasetError, InputError, IntegrityError


def dataset(contents: dict[str, list[str]]) -> Dataset:
    """A data set without files: class name -> content hashes of its images."""
    samples = [
        Sample(f"{name}/{number:03}.jpg", Path(f"{name}/{number:03}.jpg"), label, content)
        for label, (name, hashes) in enumerate(contents.items())
        for number, content in enumerate(hashes)
    ]
    return Dataset("made", Path(), tuple(contents), tuple(samples))


def distinct(**counts: int) -> Dataset:
    return dataset({name: [f"{name}{number}" for number in range(count)] for name, count in counts.items()})


def of_class(ids: tuple[str, ...], name: str) -> list[str]:
    return [one for one in ids if one.startswith(f"{name}/")]


def test_fractions_cover_every_image_once_in_each_class():
    data = distinct(a=100, b=40)
    split = stratified_split(data, seed=1)
    assert sorted(split.train + split.val + split.test) == [sample.id for sample in data.samples]
    sizes = [[len(of_class(part, name)) for part in (split.train, split.val, split.test)] for name in "ab"]
    assert sizes == [[70, 15, 15], [28, 6, 6]]


def test_counts_per_class_are_exact():
    split = stratified_split(
        distinct(a=50, b=30), seed=1, train_per_class=12, val_per_class=5, test_per_class=9
    )
    for name in "ab":
        assert [len(of_class(part, name)) for part in (split.train, split.val, split.test)] == [12, 5, 9]


def test_same_seed_gives_the_same_split_on_every_platform():
    split = stratified_split(distinct(a=6, b=6), seed=7, train_per_class=2, val_per_class=1, test_per_class=1)
    assert split.hash == "c457fc33da09d952c2be20e79cce59ed01cf3b98aca9237cf3bf62c90aacf91b"
    assert split.hash != stratified_split(
        distinct(a=6, b=6), seed=8, train_per_class=2, val_per_class=1, test_per_class=1
    ).hash  # fmt: skip


def test_split_of_a_class_does_not_depend_on_the_other_classes():
    alone = stratified_split(distinct(a=30, b=10), seed=3)
    beside = stratified_split(distinct(a=30, c=99, b=10), seed=3)
    assert of_class(alone.test, "a") == of_class(beside.test, "a")
    assert of_class(alone.train, "b") == of_class(beside.train, "b")


def test_smaller_training_sets_are_nested_and_leave_validation_and_test_alone():
    data = distinct(a=40, b=60)
    splits = [stratified_split(data, seed=5, train_per_class=n, val_per_class=6, test_per_class=8)
              for n in (1, 2, 5, 10, 20)]  # fmt: skip
    for smaller, larger in zip(splits, splits[1:], strict=False):
        assert set(smaller.train) < set(larger.train)
        assert (smaller.val, smaller.test) == (larger.val, larger.test)


def test_adding_one_image_moves_no_other_image_by_more_than_a_place():
    before = stratified_split(distinct(a=40, b=40), seed=2, val_per_class=5, test_per_class=5)
    after = stratified_split(distinct(a=41, b=40), seed=2, val_per_class=5, test_per_class=5)
    assert len(set(before.test) - set(after.test)) <= 1
    assert len(set(before.val) - set(after.val)) <= 1


@settings(max_examples=50)
@given(st.lists(st.integers(0, 25), min_size=30, max_size=60), st.integers(0, 5))
def test_images_with_the_same_bytes_never_lie_in_two_parts(numbers, seed):
    half = len(numbers) // 2
    data = dataset({"a": [f"x{n}" for n in numbers[:half]] + list("pqrs"),
                    "b": [f"x{n}" for n in numbers[half:]] + list("tuvw")})  # fmt: skip
    split = stratified_split(data, seed=seed)
    assert sorted(split.train + split.val + split.test) == [sample.id for sample in data.samples]
    parts = [{data.by_id[one].sha256 for one in part} for part in (split.train, split.val, split.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_twins_follow_their_image_and_do_not_count():
    data = dataset({"a": ["same"] * 4 + ["p", "q"], "b": ["r", "s", "t"]})
    split = stratified_split(data, seed=0, train_per_class=1, val_per_class=1, test_per_class=1)
    assert len(of_class(split.train + split.val + split.test, "a")) == 6
    assert len(of_class(split.train + split.val + split.test, "b")) == 3


def test_small_class_still_gets_one_image_in_every_part():
    split = stratified_split(distinct(a=3, b=100), seed=0)
    assert [len(of_class(part, "a")) for part in (split.train, split.val, split.test)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"train_per_class": 10}, "10 for training [+] 1 for validation [+] 1 for test need 12"),
        (
            {"val_per_class": 4, "test_per_class": 4},
            "1 for training [+] 4 for validation [+] 4 for test need 9",
        ),
    ],
)
def test_class_with_too_few_images_is_named_with_both_numbers(options, needed):
    with pytest.raises(DatasetError, match=f"class 'b' has 8 distinct usable images, but {needed}"):
        stratified_split(distinct(a=50, b=8), seed=0, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"train_per_class": 0},
        {"val_per_class": -1},
        {"fractions": (0.7, 0.2, 0.2)},
        {"fractions": (1.2, -0.1, -0.1)},
    ],
)
def test_request_without_sense_is_refused(options):
    with pytest.raises(InputError, match="expected"):
        stratified_split(distinct(a=9, b=9), seed=0, **options)


def test_split_survives_a_json_file():
    split = stratified_split(distinct(a=9, b=9), seed=4)
    again = Split.from_json(json.loads(json.dumps(split.to_json())))
    assert again == split
    assert again.hash == split.hash


@pytest.mark.parametrize("change", [{"train": ["a/000.jpg"]}, {"hash": "0" * 64}, {"test": None}])
def test_altered_split_is_an_integrity_error(change):
    record = stratified_split(distinct(a=9, b=9), seed=4).to_json() | change
    with pytest.raises(IntegrityError):
        Split.from_json(record)


def test_incomplete_split_is_an_integrity_error():
    record = stratified_split(distinct(a=9, b=9), seed=4).to_json()
    del record["val"]
    with pytest.raises(IntegrityError, match="'val' is missing"):
        Split.from_json(record)

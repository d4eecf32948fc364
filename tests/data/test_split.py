import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.data.base import Dataset, Sample
from explain.data.split import Split, make_split, stratified_split
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


def in_parts(**parts: dict[str, list[str]]) -> Dataset:
    """A data set with parts of its own: part -> class name -> content hashes; the classes are those of train."""
    names = tuple(parts["train"])
    samples = [
        Sample(f"{name}/{part}{number:03}.jpg", Path(f"{name}/{part}{number:03}.jpg"), names.index(name), content)
        for part, contents in parts.items()
        for name, hashes in contents.items()
        for number, content in enumerate(hashes)
    ]
    ids = {part: tuple(s.id for s in samples if s.id.split("/")[1].startswith(part)) for part in parts}
    return Dataset("made", Path(), names, tuple(sorted(samples, key=lambda s: s.id)), parts=ids)


def many(part: str, **counts: int) -> dict[str, list[str]]:
    return {name: [f"{part}{name}{number}" for number in range(count)] for name, count in counts.items()}


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


def sizes(split: Split, name: str) -> list[int]:
    return [len(of_class(part, name)) for part in (split.train, split.val, split.test)]


def test_a_data_set_without_parts_is_split_as_ever():
    data = distinct(a=30, b=20)
    for options in ({}, {"train_per_class": 4, "val_per_class": 2, "test_per_class": 3}):
        assert make_split(data, seed=3, **options) == stratified_split(data, seed=3, **options)


def test_parts_of_the_data_set_are_kept_whole_whatever_the_seed():
    data = in_parts(train=many("train", a=5, b=1), val=many("val", a=2), test=many("test", a=3, b=4))
    for seed in (0, 1):
        split = make_split(data, seed=seed)
        assert (split.train, split.val, split.test) == tuple(
            tuple(sorted(data.parts[part])) for part in ("train", "val", "test")
        )


def test_missing_validation_is_drawn_from_training_and_test_is_never_touched():
    data = in_parts(train=many("train", a=20, b=40), test=many("test", a=3, b=3))
    split = make_split(data, seed=0)
    assert sizes(split, "a") == [17, 3, 3]
    assert sizes(split, "b") == [34, 6, 3]
    assert set(split.test) == set(data.parts["test"])
    assert set(split.train) | set(split.val) == set(data.parts["train"])
    assert make_split(data, seed=1).val != split.val
    assert sizes(make_split(data, seed=0, val_per_class=0), "a") == [20, 0, 3]


def test_missing_test_is_drawn_from_training_too():
    data = in_parts(train=many("train", a=20, b=20))
    assert sizes(make_split(data, seed=0, test_per_class=5, val_per_class=2), "a") == [13, 2, 5]


def test_images_outside_every_part_are_not_used():
    data = in_parts(train=many("train", a=3, b=3), val=many("val", a=2, b=2), test=many("test", a=2, b=2))
    split = make_split(replace(data, parts={part: data.parts[part] for part in ("train", "test")}), seed=0)
    assert not set(split.train + split.val + split.test) & set(data.parts["val"])


def test_counts_cut_parts_by_the_hash_order_and_nest():
    data = in_parts(train=many("train", a=20, b=20), val=many("val", a=10, b=10), test=many("test", a=12, b=12))
    small, large = (
        make_split(data, seed=2, train_per_class=n, val_per_class=n // 2, test_per_class=n) for n in (4, 10)
    )
    assert sizes(small, "a") == [4, 2, 4]
    assert sizes(large, "b") == [10, 5, 10]
    for part in ("train", "val", "test"):
        assert set(getattr(small, part)) < set(getattr(large, part)) < set(data.parts[part])
    assert make_split(data, seed=3, test_per_class=4).test != small.test


def test_small_classes_of_a_training_part_stay_in_training():
    data = in_parts(train=many("train", a=100, b=2, c=1, d=0), test=many("test", a=3, b=3, c=3, d=3))
    split = make_split(data, seed=0)
    assert [sizes(split, name)[:2] for name in "abcd"] == [[85, 15], [2, 0], [1, 0], [0, 0]]


def test_same_bytes_in_two_given_parts_stay_and_in_a_drawn_part_follow_their_twin():
    data = in_parts(train={"a": ["x", "x", "y", "z"], "b": ["x", "p", "q", "r"]}, test={"a": ["y"], "b": ["p"]})
    for seed in range(8):
        split = make_split(data, seed=seed, val_per_class=1)
        train, val, test = ({data.by_id[one].sha256 for one in part} for part in (split.train, split.val, split.test))
        assert test == {"y", "p"}
        assert not train & val
        assert train | val == set("xyzpqr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_per_class": 9}, "class 'a' has 5 distinct usable images, but 9 for training"),
        ({"test_per_class": 4}, "class 'b' has 3 distinct usable images in the data set's own test part, but "
                                "test_per_class is 4"),
        ({"train_images": 12}, "train_images is 12, but data set 'made' has 11 .* in 2 classes; ask for 2 to 11"),
        ({"train_images": 1}, "ask for 2 to 11"),
    ],
)  # fmt: skip
def test_part_with_too_few_images_is_named_with_both_numbers(options, message):
    data = in_parts(train=many("train", a=5, b=6), val=many("val", a=4, b=4), test=many("test", a=4, b=3))
    with pytest.raises(DatasetError, match=message):
        make_split(data, seed=0, **options)


def test_part_without_usable_images_is_an_error_and_not_drawn():
    data = in_parts(train=many("train", a=9, b=9), val={}, test={})
    with pytest.raises(DatasetError, match="sets images aside for val and test, but none of them is usable"):
        make_split(data, seed=0)
    assert make_split(data, seed=0, val_per_class=0, test_per_class=0).test == ()


@pytest.mark.parametrize("options", [{"train_images": 0}, {"train_images": 8, "train_per_class": 4}])
def test_training_size_without_sense_is_refused(options):
    with pytest.raises(InputError, match="expected train"):
        make_split(distinct(a=9, b=9), seed=0, **options)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(4, 40), min_size=2, max_size=6), st.integers(0, 5), st.booleans())
def test_fixed_sizes_are_exact_nested_and_hold_every_class(counts, seed, own_parts):
    names = {f"class{number}": count for number, count in enumerate(counts)}
    data = in_parts(train=many("train", **names), test=many("test", **names)) if own_parts else distinct(**names)
    whole = make_split(data, seed=seed)
    previous: set[str] = set()
    for size in range(len(counts), len(whole.train) + 1):
        split = make_split(data, seed=seed, train_images=size)
        assert (len(split.train), split.val, split.test) == (size, whole.val, whole.test)
        assert previous < set(split.train)
        assert {data.by_id[one].label for one in split.train} == set(range(len(counts)))
        previous = set(split.train)
    assert previous == set(whole.train)


def test_fixed_size_is_proportional_where_the_shares_are_whole_numbers():
    data = in_parts(train=many("train", a=80, b=40, c=20), val=many("val", a=1, b=1, c=1), test=many("test", a=1))
    for size, expected in ((7, [4, 2, 1]), (70, [40, 20, 10]), (140, [80, 40, 20])):
        split = make_split(data, seed=0, train_images=size)
        assert [len(of_class(split.train, name)) for name in "abc"] == expected


def test_fixed_size_takes_no_image_back_where_largest_remainders_would():
    """Classes of 6, 6 and 2: of 10 images largest remainders give the small class 2, of 11 only 1 (Alabama)."""
    data = in_parts(train=many("train", a=6, b=6, c=2), val=many("val", a=1), test=many("test", a=1))
    per_class = [
        Counter(one[0] for one in make_split(data, seed=0, train_images=size).train)["c"] for size in range(3, 15)
    ]
    assert per_class == sorted(per_class)


def test_fixed_size_is_the_same_on_every_platform():
    data = in_parts(train=many("train", a=9, b=6), test=many("test", a=2, b=2))
    split = make_split(data, seed=0, train_images=5)
    assert split.train == ("a/train000.jpg", "a/train003.jpg", "a/train005.jpg", "b/train001.jpg", "b/train005.jpg")
    assert split.hash == "25765120e180cb4ad0d6a738e51af18e8e042a133710aeeaba3c18dd1b271be4"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"test": ("a/000.jpg",)}, "expected the parts train, val and test, at least train; .* has test"),
        ({"train": (), "extra": ()}, "has extra, train"),
        ({"train": ("a/000.jpg",), "val": ("no.jpg",)}, "'no.jpg' of part 'val' is no usable image"),
        ({"train": ("a/000.jpg", "a/001.jpg"), "test": ("a/001.jpg",)}, "part 'train' and again in part 'test'"),
    ],
)
def test_parts_that_make_no_sense_are_refused(parts, message):
    with pytest.raises(DatasetError, match=message):
        replace(distinct(a=3, b=3), parts=parts)


def test_parts_travel_in_the_manifest_and_a_manifest_without_them_loads():
    data = in_parts(train=many("train", a=2, b=2), test=many("test", a=1, b=1))
    manifest = json.loads(json.dumps(data.manifest()))
    assert Dataset.from_manifest(manifest) == data
    assert Dataset.from_manifest(manifest) != replace(data, parts={})
    del manifest["parts"]
    assert Dataset.from_manifest(manifest) == replace(data, parts={})

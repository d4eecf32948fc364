"""What every data format promises. A new format is under this contract as soon as its file exists.

The example of a format comes from its own test: tests/data/test_<name>.py holds a function `contract_example`
that makes a small data set and returns its location, its images per class in label order, and the name of its
one bad file (None when the format cannot have one).
"""

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from explain.data.base import FORMATS, Dataset, is_fallback, load_data
from explain.data.decode import decode
from explain.data.split import Split, stratified_split
from explain.errors import UnknownNameError
from explain.files import read_json, sha256_file, write_json

TESTS_OF_FORMATS = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Example:
    """Where a small data set lies, its images per class, and the name of its one bad file, if it has one."""

    location: str
    counts: dict[str, int]
    bad: str | None


@pytest.fixture(params=list(FORMATS))
def example(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Example]:
    path = TESTS_OF_FORMATS / f"test_{request.param}.py"
    spec = importlib.util.spec_from_file_location(f"example_of_{request.param}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return request.param, Example(*module.contract_example(tmp_path, monkeypatch))


def test_format_says_what_it_is_and_only_it_knows_its_example(example):
    name, made = example
    assert FORMATS.create(name).label
    assert FORMATS.create(name).name == name
    knowing = [other for other in FORMATS if FORMATS.create(other).matches(made.location)]
    assert name in knowing
    assert [other for other in knowing if not is_fallback(other)] == [name] * (not is_fallback(name))
    assert [other for other in FORMATS if is_fallback(other)] == ["image_folder"]


def test_no_format_knows_a_location_that_does_not_exist(tmp_path):
    assert [name for name in FORMATS if FORMATS.create(name).matches(str(tmp_path / "nowhere"))] == []


def test_counts_and_class_order_are_those_of_the_data_and_the_same_again(example):
    _, made = example
    first, second = load_data(made.location), load_data(made.location)
    assert list(first.counts().items()) == list(made.counts.items())
    assert second == first
    assert second.fingerprint == first.fingerprint


def test_bad_file_is_named_and_every_good_one_used(example):
    _, made = example
    dataset = load_data(made.location)
    assert [item.path.name for item in dataset.rejected] == ([made.bad] if made.bad else [])
    assert all(item.reason and item.detail for item in dataset.rejected)
    assert len(dataset) == sum(made.counts.values())


def test_samples_are_sorted_decodable_and_carry_their_hash(example):
    _, made = example
    dataset = load_data(made.location)
    names = [sample.id for sample in dataset.samples]
    assert names == sorted(set(names))
    for sample in dataset.samples:
        assert decode(sample.path, root=dataset.root).flags == sample.flags
        assert sample.sha256 == sha256_file(sample.path)
        assert (dataset.root / sample.id) == sample.path


def test_manifest_survives_a_json_file(example, tmp_path):
    _, made = example
    dataset = load_data(made.location)
    write_json(tmp_path / "manifest.json", dataset.manifest())
    again = Dataset.from_manifest(read_json(tmp_path / "manifest.json"))
    assert again == dataset
    assert again.parts == dataset.parts
    assert again.fingerprint == dataset.manifest()["fingerprint"]


def test_parts_hold_usable_images_once_and_are_dropped_by_a_selection(example):
    _, made = example
    dataset = load_data(made.location)
    placed = [name for ids in dataset.parts.values() for name in ids]
    assert len(set(placed)) == len(placed)
    assert set(placed) <= set(dataset.by_id)
    chosen = dataset.select([dataset.samples[0].id])
    assert chosen.parts == {}
    assert replace(dataset, parts={}).fingerprint == dataset.fingerprint


def test_progress_reaches_the_number_of_files(example):
    _, made = example
    seen: list[tuple[int, int]] = []
    load_data(made.location, progress=lambda done, total: seen.append((done, total)))
    total = sum(made.counts.values()) + (made.bad is not None)
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_every_class_can_be_split_and_selected(example):
    _, made = example
    dataset = load_data(made.location)
    split = stratified_split(dataset, seed=0)
    assert Split.from_json(json.loads(json.dumps(split.to_json()))) == split
    for part in (split.train, split.val, split.test):
        assert min(dataset.select(part).counts().values()) >= 1
    with pytest.raises(UnknownNameError, match="not in data set"):
        dataset.select(["no/such.jpg"])

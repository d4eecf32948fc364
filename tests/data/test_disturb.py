import hashlib
from collections import Counter
from pathlib import Path

import pytest

from explain.data.base import Dataset, Sample
from explain.data.disturb import LabelNoise, imbalanced, noisy_labels
from explain.errors import InputError, UnknownNameError

CLASSES = ("a", "b", "c", "d", "e")


def sample(number: int, label: int, content: int | None = None) -> Sample:
    digest = hashlib.sha256(str(number if content is None else content).encode()).hexdigest()
    return Sample(f"{number:05}.png", Path(f"/data/{number:05}.png"), label, digest)


def dataset(count: int = 3000) -> Dataset:
    samples = tuple(sample(number, number % len(CLASSES)) for number in range(count))
    parts = {"train": tuple(each.id for each in samples[:-200]), "test": tuple(each.id for each in samples[-200:])}
    return Dataset("numbers", Path("/data"), CLASSES, samples, parts=parts)


DATA = dataset()
TRAIN = DATA.parts["train"]


def labels(data: Dataset) -> dict[str, int]:
    return {each.id: each.label for each in data.samples}


def test_record_is_exactly_what_changed_and_nothing_else_did():
    disturbed = noisy_labels(DATA, TRAIN, 0.3, seed=0)
    before, after = labels(DATA), labels(disturbed.data)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {item.id for item in disturbed.noise.changed}
    assert all((before[item.id], after[item.id]) == (item.old, item.new) for item in disturbed.noise.changed)
    assert changed <= set(TRAIN)
    assert disturbed.noise.images == len(TRAIN)
    assert disturbed.data.parts == DATA.parts
    assert disturbed.data.fingerprint != DATA.fingerprint
    assert [(each.path, each.sha256) for each in disturbed.data.samples] == [
        (each.path, each.sha256) for each in DATA.samples
    ]


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4, 0.9])
def test_share_of_changed_labels_is_the_rate(rate):
    changed = len(noisy_labels(DATA, TRAIN, rate, seed=1).noise.changed)
    spread = (len(TRAIN) * rate * (1 - rate)) ** 0.5
    assert abs(changed - len(TRAIN) * rate) < 4 * spread


def test_every_other_label_is_equally_likely():
    changed = noisy_labels(DATA, TRAIN, 1, seed=0).noise.changed
    assert len(changed) == len(TRAIN)
    steps = Counter((item.new - item.old) % len(CLASSES) for item in changed)
    assert set(steps) == {1, 2, 3, 4}
    spread = (len(TRAIN) * 0.25 * 0.75) ** 0.5
    assert all(abs(count - len(TRAIN) / 4) < 4 * spread for count in steps.values())


def test_noise_at_a_rate_is_part_of_the_noise_at_a_higher_one():
    low, high = (set(noisy_labels(DATA, TRAIN, rate, seed=0).noise.changed) for rate in (0.2, 0.4))
    assert low < high


def test_noise_depends_on_the_seed_and_not_on_order_or_company():
    everything = noisy_labels(DATA, TRAIN, 0.2, seed=0).noise.changed
    assert noisy_labels(DATA, reversed(TRAIN), 0.2, seed=0).noise.changed == everything
    half = noisy_labels(DATA, TRAIN[::2], 0.2, seed=0).noise.changed
    assert half == tuple(item for item in everything if item.id in set(TRAIN[::2]))
    other = {item.id for item in noisy_labels(DATA, TRAIN, 0.2, seed=1).noise.changed}
    assert len(other & {item.id for item in everything}) < 0.1 * len(TRAIN)  # 0.04 expected of independent draws


def test_rate_zero_changes_nothing():
    disturbed = noisy_labels(DATA, TRAIN, 0, seed=0)
    assert disturbed.data == DATA
    assert disturbed.noise.changed == ()


def test_files_with_the_same_bytes_share_their_fate():
    twins = Dataset("twins", Path("/data"), CLASSES, tuple(sample(n, n // 2 % 5, n // 2) for n in range(200)))
    after = labels(noisy_labels(twins, list(twins.by_id), 0.5, seed=0).data)
    assert all(after[f"{n:05}.png"] == after[f"{n + 1:05}.png"] for n in range(0, 200, 2))


def test_record_survives_json():
    noise = noisy_labels(DATA, TRAIN, 0.01, seed=0).noise
    assert LabelNoise.model_validate_json(noise.model_dump_json()) == noise


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(InputError, match="rate from 0 to 1"):
        noisy_labels(DATA, TRAIN, rate, seed=0)


def test_ids_that_are_not_there_are_refused():
    with pytest.raises(UnknownNameError, match="not in data set"):
        noisy_labels(DATA, ["nowhere.png"], 0.1, seed=0)
    with pytest.raises(UnknownNameError, match="not in data set"):
        imbalanced(DATA, ["nowhere.png"], 2, seed=0)


def counts(ids: tuple[str, ...], data: Dataset = DATA) -> list[int]:
    return list(data.select(ids).counts().values())


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(1, [100, 100, 100, 100, 100]), (16, [100, 50, 25, 13, 6]), (81, [100, 33, 11, 4, 1]),
     (10_000, [100, 10, 1, 1, 1])],
)  # fmt: skip
def test_classes_thin_out_by_the_exponential_profile(ratio, expected):
    assert counts(imbalanced(DATA, TRAIN[:500], ratio, seed=0)) == expected


def test_ratio_one_changes_nothing_and_the_order_is_kept():
    given = TRAIN[:500][::-1]
    assert imbalanced(DATA, given, 1, seed=0) == given
    kept = imbalanced(DATA, given, 10, seed=0)
    assert list(kept) == [name for name in given if name in set(kept)]


def test_what_is_left_at_a_ratio_is_part_of_what_is_left_at_a_lower_one():
    kept = [set(imbalanced(DATA, TRAIN, ratio, seed=0)) for ratio in (1, 2, 10, 50, 1000)]
    assert all(more > less for more, less in zip(kept, kept[1:], strict=False))


def test_seed_draws_other_images_in_the_same_numbers():
    one, two = (imbalanced(DATA, TRAIN, 10, seed=seed) for seed in (0, 1))
    assert set(one) != set(two)
    assert counts(one) == counts(two)


def test_class_with_fewer_images_than_its_share_keeps_them_all():
    samples = tuple(sample(number, (number >= 10) + (number >= 14)) for number in range(54))  # 10, 4 and 40
    uneven = Dataset("uneven", Path("/data"), ("a", "b", "c"), samples)
    assert counts(imbalanced(uneven, list(uneven.by_id), 4, seed=0), uneven) == [10, 4, 10]


@pytest.mark.parametrize("ratio", [0.5, float("nan"), float("inf")])
def test_ratio_below_one_is_refused(ratio):
    with pytest.raises(InputError, match="ratio of 1 or more"):
        imbalanced(DATA, TRAIN, ratio, seed=0)

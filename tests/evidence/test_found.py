"""Evidence is found beside the pair it speaks of, and refused beside another."""

from pathlib import Path

import pytest
from fake_evidence import fake_planted, write_fake_evidence

from explain.errors import IntegrityError
from explain.evidence.found import find_evidence, find_planted
from explain.files import read_json, write_json
from explain.training.pair import MatchedPair


def moved(pair: MatchedPair, path: Path) -> MatchedPair:
    """The same runs as another folder, so that evidence can lie beside them."""
    return MatchedPair(path, pair.runs)


def test_the_studys_evidence_comes_before_the_pairs_own(fake_pair: MatchedPair, tmp_path: Path) -> None:
    pair = moved(fake_pair, tmp_path / "seed0")
    assert find_evidence(pair) is None and find_planted(pair) is None
    write_fake_evidence(pair.path, fake_pair, seeds=(0,))
    found = find_evidence(pair)
    assert found is not None and found.seeds == (0,)
    write_fake_evidence(tmp_path, fake_pair, seeds=(0, 1))
    found, planted = find_evidence(pair), find_planted(pair)
    assert found is not None and found.seeds == (0, 1) and planted == fake_planted(fake_pair)


def test_evidence_in_the_folder_above_a_pair_that_is_no_seed_is_not_its_own(
    fake_pair: MatchedPair, tmp_path: Path
) -> None:
    pair = moved(fake_pair, tmp_path / "demo")
    write_fake_evidence(tmp_path, fake_pair)
    assert find_evidence(pair) is None and find_planted(pair) is None


@pytest.mark.parametrize(("field", "value"), [("weights_sha256", "ff" * 32), ("seed", 9)])
def test_evidence_on_other_weights_is_refused_in_words(
    fake_pair: MatchedPair, tmp_path: Path, field: str, value: object
) -> None:
    pair = moved(fake_pair, tmp_path)
    write_fake_evidence(tmp_path, fake_pair, seeds=(0,))
    file = tmp_path / "evidence" / "summary.json"
    record = read_json(file)
    for model in record["models"]:
        model |= {field: value} if model["model"] == "ft" else {}
    write_json(file, record)
    with pytest.raises(IntegrityError, match=r"holds now of ft; call `explain evaluate"):
        find_evidence(pair)


def test_a_planted_test_of_another_backbone_is_refused(fake_pair: MatchedPair, tmp_path: Path) -> None:
    pair = moved(fake_pair, tmp_path)
    write_fake_evidence(tmp_path, fake_pair)
    file = tmp_path / "planted" / "planted.json"
    write_json(file, read_json(file) | {"backbone_sha256": "ee" * 32})
    with pytest.raises(IntegrityError, match="another backbone"):
        find_planted(pair)


def test_an_evaluation_of_other_seeds_says_nothing_of_this_one(fake_pair: MatchedPair, tmp_path: Path) -> None:
    write_fake_evidence(tmp_path, fake_pair, seeds=(1, 2))
    assert find_evidence(moved(fake_pair, tmp_path / "seed0")) is None

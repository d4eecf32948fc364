from pathlib import Path

import numpy as np
import pytest
from squares import TINY_RECIPE

from explain.console import study_table
from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError
from explain.training.pair import MatchedPair
from explain.training.study import Study, train_study

ARMS = {name: TINY_RECIPE.arms[name] for name in ("vpt", "ft")}
RECIPE = TINY_RECIPE.model_copy(update={"arms": ARMS})


@pytest.fixture(scope="module")
def study(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return train_study(pictures, RECIPE, seeds=(3, 4, 5), out=tmp_path_factory.mktemp("study"))


def test_seeds_share_split_and_search_and_differ_in_order_and_weights(study: Study) -> None:
    first, second, _ = study.pairs
    assert first.split.hash == second.split.hash
    assert second.vpt.manifest.trials == first.vpt.manifest.trials
    assert {pair.ft.manifest.search_seed for pair in study.pairs} == {3}
    assert first.vpt.manifest.order_hash != second.vpt.manifest.order_hash
    assert first.vpt.manifest.head_hash != second.vpt.manifest.head_hash
    assert not (second.path / "vpt" / "search.log").exists()


def test_the_verdict_is_over_the_same_images_and_seeds(study: Study) -> None:
    verdict = study.compare("vpt", "ft")
    accuracies = {arm: [pair.runs[arm].manifest.test.accuracy for pair in study.pairs] for arm in ("vpt", "ft")}
    np.testing.assert_allclose(verdict.seeds.per_seed, np.subtract(accuracies["vpt"], accuracies["ft"]))
    assert verdict.seeds.low <= verdict.seeds.mean <= verdict.seeds.high
    assert verdict.tie == (verdict.seeds.tie or verdict.images.tie)
    assert study.correct("ft").shape == (3, 8)


def test_a_study_trains_again_only_what_is_missing(study: Study, pictures: Dataset) -> None:
    files = {path: path.stat().st_mtime_ns for path in study.path.rglob("weights.safetensors")}
    again = train_study(pictures, RECIPE, seeds=(3, 4, 5), out=study.path)
    assert again.seeds == (3, 4, 5) and len(files) == 6
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_the_table_has_every_seed_and_a_verdict(study: Study) -> None:
    rows = [[str(cell) for cell in column.cells] for column in study_table(study).columns]
    assert rows[0] == ["vpt", "ft"] and all(len(cell.split()) == 3 for cell in rows[1])
    assert rows[4][0] == "" and rows[4][1] in ("tie", "vpt is better", "ft is better")


def test_what_is_no_study_is_told(pictures: Dataset, tiny_pair: MatchedPair, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no study"):
        Study.load(tiny_pair.path)
    for seeds in ((1,), (1, 1)):
        with pytest.raises(InputError, match="at least two different seeds"):
            train_study(pictures, RECIPE, seeds=seeds, out=tmp_path)

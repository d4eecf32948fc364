"""Criteria are fixed before anything is trained, and cannot be exchanged afterwards."""

import shutil
from pathlib import Path

import pytest
from squares import TINY_RECIPE

from explain.data.base import Dataset
from explain.errors import InputError, IntegrityError
from explain.files import read_json, write_json
from explain.report.write import collect
from explain.training.folder import check_declared, claim
from explain.training.pair import MatchedPair
from explain.training.recipe import Arm
from explain.training.run import RunManifest
from explain.training.study import train_study
from explain.training.train import train_pair

TEXT = "# declared by hand\r\ngood_classes: [left]\ncriteria:\n  - accuracy >= 1 %\n  - miss rate <= 50 %\n"
QUICK = TINY_RECIPE.model_copy(update={
    "epochs": 1,
    "arms": {"vpt": Arm(tuning="prompt", options={"num_tokens": 2}, learning_rates=(1e-3,)),
             "ft": Arm(tuning="full", learning_rates=(1e-5,))},
})  # fmt: skip


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "declared.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.fixture(scope="module")
def declared(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MatchedPair:
    """A pair that was trained under criteria; do not change its folder."""
    root = tmp_path_factory.mktemp("declared")
    return train_pair(pictures, QUICK, out=root / "pair", criteria=write(root), device="cpu")


@pytest.fixture
def copied(declared: MatchedPair, tmp_path: Path) -> Path:
    return Path(shutil.copytree(declared.path, tmp_path / "pair"))


def test_every_run_holds_the_hash_of_the_file_byte_for_byte(declared: MatchedPair) -> None:
    found = declared.declaration
    assert found is not None and found.text == TEXT
    assert (declared.path / "criteria.yaml").read_bytes() == TEXT.encode()
    assert {run.manifest.criteria_sha256 for run in declared} == {found.sha256}


def test_the_file_is_there_before_the_first_step(pictures: Dataset, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        assert (tmp_path / "pair" / "criteria.yaml").read_bytes() == TEXT.encode()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_pair(pictures, QUICK, out=tmp_path / "pair", criteria=write(tmp_path), device="cpu", progress=stop)


@pytest.mark.parametrize(("text", "words"), [
    ("criteria: [acuracy >= 1 %]", "did you mean 'accuracy'"),
    ("criteria: [recall of up >= 1 %]", "known: left, right"),
    ("criteria: [accuracy over linear >= 0]", "known: ft"),
    ("model: linear\ncriteria: [ece <= 1]", "known: vpt, ft"),
    ("criteria: [miss rate <= 1 %]", "needs good_classes"),
    ("criteria: []", "declared.yaml"),
])  # fmt: skip
def test_criteria_that_cannot_be_held_against_these_runs_are_refused_before_anything_is_written(
    pictures: Dataset, tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        train_pair(pictures, QUICK, out=tmp_path / "pair", criteria=write(tmp_path, text), device="cpu")
    assert not (tmp_path / "pair").exists()


def test_going_on_keeps_the_criteria(pictures: Dataset, copied: Path) -> None:
    """Without naming the file, naming it again, and with an arm that is added."""
    sha256 = MatchedPair.load(copied).vpt.manifest.criteria_sha256
    for given in (None, copied / "criteria.yaml"):
        again = claim(copied, pictures, QUICK, criteria=given)
        assert again.criteria_sha256 == sha256
    more = QUICK.model_copy(update={"arms": {"linear": Arm(tuning="linear", learning_rates=(1e-3,))}})
    assert claim(copied, pictures, more).criteria_sha256 == sha256  # vpt, which is decided on, is there already


def test_other_criteria_and_late_ones_are_refused(pictures: Dataset, copied: Path, tmp_path: Path) -> None:
    other = write(tmp_path, TEXT.replace("50 %", "60 %"))
    with pytest.raises(InputError, match="begun under other criteria"):
        train_pair(pictures, QUICK, out=copied, criteria=other, device="cpu")
    (copied / "criteria.yaml").unlink()
    for path in copied.glob("*/manifest.json"):
        write_json(path, read_json(path) | {"criteria_sha256": None})
    with pytest.raises(InputError, match="begun without criteria.*--criteria"):
        train_pair(pictures, QUICK, out=copied, criteria=other, device="cpu")
    assert not (copied / "criteria.yaml").exists()


def test_a_training_that_was_begun_counts_and_a_search_does_not(pictures: Dataset, tmp_path: Path) -> None:
    folder, given = tmp_path / "pair", write(tmp_path)
    claim(folder, pictures, QUICK)
    (folder / "vpt").mkdir()
    (folder / "vpt" / "trials.jsonl").write_text("")
    assert check_declared(folder, pictures, QUICK, given) is not None
    (folder / "vpt" / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="begun without criteria"):
        check_declared(folder, pictures, QUICK, given)


@pytest.mark.parametrize("change", ["edited", "gone", "one arm without"])
def test_what_changed_since_the_training_is_an_integrity_failure(
    pictures: Dataset, copied: Path, change: str
) -> None:
    path = copied / "criteria.yaml"
    if change == "edited":
        path.write_bytes(path.read_bytes().replace(b"accuracy >= 1 %", b"accuracy >= 0 %"))
    elif change == "gone":
        path.unlink()
    else:
        manifest = copied / "ft" / "manifest.json"
        write_json(manifest, read_json(manifest) | {"criteria_sha256": None})
    with pytest.raises(IntegrityError, match="criteria.yaml is not what the runs"):
        assert MatchedPair.load(copied).declaration
    if change != "gone":
        with pytest.raises(InputError, match="is not the file that .*ft.* was trained under"):
            claim(copied, pictures, QUICK)


def test_a_run_without_criteria_has_none(fake_pair: MatchedPair) -> None:
    assert fake_pair.declaration is None
    old = fake_pair.vpt.manifest.model_dump(mode="json")
    del old["criteria_sha256"]  # as manifests were before
    assert RunManifest.model_validate(old).criteria_sha256 is None


def test_the_report_decides_by_the_criteria_of_the_run(declared: MatchedPair) -> None:
    decision = collect(declared, device="cpu")[0].decision
    assert (decision.declared, decision.arm, len(decision.judged)) == ("before", "vpt", 2)
    assert decision.criteria_text == TEXT and decision.final != "not_evaluated"


@pytest.mark.slow
def test_all_seeds_of_a_study_are_held_against_the_same_criteria(pictures: Dataset, tmp_path: Path) -> None:
    given = write(tmp_path)
    study = train_study(pictures, QUICK, seeds=(0, 1), out=tmp_path / "study", criteria=given)
    longer = train_study(pictures, QUICK, seeds=(0, 1, 2), out=tmp_path / "study")  # 2 is added, without naming them
    hashes = {run.manifest.criteria_sha256 for runs in (*study.runs.values(), *longer.runs.values())
              for run in runs.values()}  # fmt: skip
    assert len(hashes) == 1 and None not in hashes


def test_a_study_is_refused_whole_when_one_seed_came_before(pictures: Dataset, copied: Path, tmp_path: Path) -> None:
    """Nothing of the first seed is trained when the second was, without criteria."""
    (copied / "criteria.yaml").unlink()
    (tmp_path / "study").mkdir()
    copied.rename(tmp_path / "study" / "seed1")
    for path in (tmp_path / "study" / "seed1").glob("*/manifest.json"):
        write_json(path, read_json(path) | {"criteria_sha256": None})
    with pytest.raises(InputError, match="begun without criteria"):
        train_study(pictures, QUICK, seeds=(0, 1), out=tmp_path / "study", criteria=write(tmp_path))
    assert not (tmp_path / "study" / "seed0").exists()

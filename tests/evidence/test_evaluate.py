"""evaluate on a pair that was really trained: one tidy table, the same target for both, nothing without its reason."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from squares import TINY_RECIPE

import explain
from explain.data.base import Dataset
from explain.errors import ExplainError, InputError, UnknownNameError
from explain.evidence.evaluate import Evaluation, evaluate
from explain.evidence.summary import PRIMARY, Summary
from explain.files import read_json
from explain.training.run import Predictions, Run
from explain.training.study import Study, train_study
from explain.training.train import train_pair

CHEAP = ("removal", "complexity", "completeness", "internals")
PAIR = {name: TINY_RECIPE.arms[name] for name in ("vpt", "ft")}
OPTIONS = {"integrated_gradients": {"n_steps": 4}}


def answers(job: object, run: Run) -> Predictions:
    """A run's answers with all but two turned right: seconds of training on an untrained backbone teach nothing."""
    found = run.predictions
    classes = found.labels.copy()
    wrong = [0, 5] if run.manifest.seed == 0 else [0, 2]
    classes[wrong] = 1 - classes[wrong]
    return Predictions(found.ids, found.labels, classes, np.eye(2, dtype=np.float32)[classes])


@pytest.fixture(scope="module")
def study(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """Two seeds of the tiny pair, with made-up answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("explain.evidence.evaluate._Job._answers", answers)
        yield train_study(pictures, TINY_RECIPE, seeds=(0, 1), out=tmp_path_factory.mktemp("study") / "tiny")


@pytest.fixture(scope="module")
def found(study: Study) -> Evaluation:
    return evaluate(study, options=OPTIONS, measures=CHEAP, images=4, rest=2)


def test_every_row_is_one_number_or_one_reason(found: Evaluation) -> None:
    table = found.table.to_pylist()
    assert found.table.column_names == ["image", "model", "seed", "method", "metric", "value", "flag"]
    assert all(row["value"] is None or math.isfinite(row["value"]) for row in table)
    assert all(row["flag"] for row in table if row["value"] is None)
    keys = [(row["image"], row["model"], row["seed"], row["method"], row["metric"]) for row in table]
    assert len(set(keys)) == len(keys)


def test_headline_images_are_right_in_every_model_and_the_rest_is_apart(found: Evaluation, study: Study) -> None:
    chosen, ids = read_json(found.path / "images.json"), study.runs[0]["vpt"].predictions.ids
    wrong = {ids[0], ids[2], ids[5]}
    assert len(chosen["headline"]) == 4 and not set(chosen["headline"]) & wrong
    assert len(chosen["rest"]) == 2 and set(chosen["rest"]) <= wrong
    assert (found.summary.images.tested, found.summary.images.right) == (8, 5)
    gain = found.summary.cell("vpt", "attention_rollout", "gain")
    assert gain is not None and gain.estimate.images == 4


def test_controls_stand_beside_every_method(found: Evaluation) -> None:
    rows = {(row["model"], row["method"]) for row in found.table.to_pylist() if row["metric"] == "gain"}
    wanted = {"grad_cam", "integrated_gradients", "attention_rollout", "random", "centre", "sobel"}
    assert rows == {(model, method) for model in ("vpt", "ft") for method in wanted}


def test_the_mean_of_a_cell_is_that_of_its_rows(found: Evaluation) -> None:
    headline = set(read_json(found.path / "images.json")["headline"])
    for method in ("attention_rollout", "sobel"):
        rows = [row for row in found.table.to_pylist()
                if (row["model"], row["method"], row["metric"]) == ("ft", method, "insertion")
                and row["image"] in headline]  # fmt: skip
        cell = found.summary.cell("ft", method, "insertion")
        assert cell is not None and cell.estimate.seeds == 2
        assert cell.estimate.mean == pytest.approx(np.mean([row["value"] for row in rows]))
        assert cell.estimate.low is not None and cell.estimate.low <= cell.estimate.mean  # type: ignore[operator]


def test_agreement_has_two_ceilings_and_a_floor(found: Evaluation) -> None:
    models = {row["model"] for row in found.table.to_pylist()}
    assert {"vpt~ft", "vpt~vpt", "ft~ft", "vpt~linear"} <= models
    for one in found.summary.agreements:
        if (one.first, one.second, one.metric) == ("vpt", "ft", "pearson"):
            assert one.first_ceiling is not None and one.second_ceiling is not None
            low = min(one.first_ceiling.mean or 0, one.second_ceiling.mean or 0)
            assert (one.state == "not reproducible here") == (low < 0.2)
            assert (one.ratio is None) == (one.state != "reproducible")


def test_the_primary_endpoint_is_not_corrected_and_all_others_are(found: Evaluation) -> None:
    primary = [one for one in found.summary.contrasts if one.primary]
    assert [(one.method, one.metric) for one in primary] == [PRIMARY]
    others = [one for one in found.summary.contrasts if not one.primary and one.p is not None]
    assert all(one.holm is None for one in primary)
    assert all(one.holm is not None and one.p is not None and one.holm >= one.p for one in others)


def test_no_arm_is_named_when_the_interval_holds_zero(found: Evaluation) -> None:
    for one in found.summary.contrasts:
        low, high = one.difference.low, one.difference.high
        if low is not None and high is not None and low <= 0 <= high:
            assert one.verdict not in ("vpt", "ft")


def test_same_answer_and_same_reason_cover_every_image_and_seed(found: Evaluation) -> None:
    images = found.summary.images
    for one in found.summary.reasons:
        counts = one.same_alike + one.same_unlike + one.different_alike + one.different_unlike
        assert counts in (0, 2 * (images.headline + images.rest))
        assert (counts == 0) == (one.threshold is None)


def test_blocks_tell_the_prompted_model_from_the_other(found: Evaluation) -> None:
    mass = {(block.model, block.block) for block in found.summary.blocks if block.metric == "prompt_mass"}
    assert {model for model, _ in mass} == {"vpt"} and len(mass) == 12
    between = {block.model for block in found.summary.blocks if block.metric == "cka"}
    assert {"vpt~ft", "vpt~vpt", "ft~ft"} <= between


def test_a_second_call_computes_nothing_and_gives_the_same_table(
    found: Evaluation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (found.path / "parts").iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a forward was run")

    monkeypatch.setattr("explain.model.TunedModel.replica", fail)
    again = evaluate(study.path, options=OPTIONS, measures=CHEAP, images=4, rest=2)
    assert again.table.equals(found.table) and again.summary == found.summary
    assert {path: path.stat().st_mtime_ns for path in (found.path / "parts").iterdir()} == before


def test_it_is_read_back_from_the_study_folder(found: Evaluation, study: Study) -> None:
    assert Evaluation.load(study.path).summary == found.summary == Summary.load(found.path)
    assert pq.read_table(found.path / "evidence.parquet").num_rows == found.table.num_rows


def test_random_state_is_left_as_found(study: Study, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    evaluate(study.pairs[0], options=OPTIONS, measures=("removal",), images=2, rest=0, out=tmp_path / "out")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numbers)  # type: ignore[index]


def test_one_pair_alone_has_no_ceiling_and_draws_no_line(study: Study, tmp_path: Path) -> None:
    one = evaluate(study.pairs[0], options=OPTIONS, measures=("removal",), images=3, rest=0, out=tmp_path / "out")
    assert {agreement.state for agreement in one.summary.agreements} == {"one seed"}
    assert all(reasons.threshold is None for reasons in one.summary.reasons)


def test_later_seeds_may_be_shown_fewer_of_the_same_images(study: Study, found: Evaluation, tmp_path: Path) -> None:
    few = evaluate(
        study, options=OPTIONS, measures=("complexity",), images=4, rest=2, later_images=2, out=tmp_path / "few"
    )
    shown = {seed: {row["image"] for row in few.table.to_pylist() if (row["model"], row["seed"]) == ("vpt", seed)}
             for seed in ("0", "1")}  # fmt: skip
    assert len(shown["0"]) == 6 and len(shown["1"]) == 3 and shown["1"] < shown["0"]
    between = [row["image"] for row in few.table.to_pylist()
               if (row["model"], row["method"], row["metric"]) == ("vpt~vpt", "grad_cam", "pearson")]  # fmt: skip
    assert set(between) == shown["1"]
    whole = {(row["image"], row["method"], row["metric"]): row["value"] for row in found.table.to_pylist()
             if (row["model"], row["seed"]) == ("ft", "1")}  # fmt: skip
    for row in few.table.to_pylist():
        if (row["model"], row["seed"], row["method"]) == ("ft", "1", "attention_rollout"):
            assert row["value"] == pytest.approx(whole[row["image"], row["method"], row["metric"]], rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"arms": ("vpt", "lora")}, InputError, "lora"),
        ({"arms": ("vpt",)}, InputError, "two or more"),
        ({"methods": ("grad_cma",)}, UnknownNameError, "grad_cam"),
        ({"measures": ("removals",)}, UnknownNameError, "removal"),
        ({"seeds": (0, 7)}, InputError, "seeds 0, 1"),
        ({"options": {"grad_cam": {"layers": 3}}}, InputError, "layer"),
    ],
)
def test_a_wrong_request_is_told_before_anything_is_computed(
    study: Study, tmp_path: Path, wrong: dict[str, object], error: type[ExplainError], words: str
) -> None:
    with pytest.raises(error, match=words):
        evaluate(study, out=tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_model_trained_on_random_labels_is_compared_with_the_first_seed(
    study: Study, pictures: Dataset, tmp_path: Path
) -> None:
    recipe = TINY_RECIPE.model_copy(update={"label_noise": 0.5, "arms": PAIR})
    noisy = train_pair(pictures, recipe, out=tmp_path / "noisy")
    asked = {"options": OPTIONS, "measures": ("completeness",), "images": 3, "rest": 0, "seeds": (0,)}
    one = evaluate(study, random_labels=noisy, out=tmp_path / "out", **asked)  # type: ignore[arg-type]
    rows = [row for row in one.table.to_pylist() if row["metric"] == "label_signed"]
    assert {(row["model"], row["seed"]) for row in rows} == {("vpt", "0"), ("ft", "0")} and len(rows) == 2 * 3 * 3
    values = [row["value"] for row in rows if row["value"] is not None]
    assert all(abs(value) <= 1 + 1e-9 for value in values)
    assert any(value < 0.99 for value in values)  # seconds of training hardly move the maps, but they do move them
    with pytest.raises(InputError, match="label_noise"):
        evaluate(study, random_labels=study.pairs[1], out=tmp_path / "out", **asked)  # type: ignore[arg-type]


def test_the_page_has_a_row_for_every_model_and_map_and_no_number_without_its_interval(found: Evaluation) -> None:
    text = (found.path / "summary.md").read_text(encoding="utf-8")
    part = text.split("### Maps and controls")[1].split("###")[0]
    rows = [line.split("|") for line in part.splitlines() if line.startswith("| vpt") or line.startswith("| ft")]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [
        (model, label) for model in found.summary.arms for label in found.summary.methods.values()
    ]
    assert all(" to " in cell or cell.strip() == "\u2013" for row in rows for cell in row[3:-1])


def test_images_of_other_classes_are_refused(study: Study, tmp_path: Path) -> None:
    other = explain.load_data("synthetic:count:10")
    with pytest.raises(InputError, match="left, right"):
        evaluate(study, other, out=tmp_path / "out")

"""The evidence says what the runs' files say."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_pair import make_fake_pair

from explain.errors import InputError
from explain.i18n import translate
from explain.metrics.calibration import expected_calibration_error
from explain.metrics.statistics import Difference, mcnemar, paired_seeds, two_way_bootstrap, wilson_interval
from explain.report.content import gather
from explain.report.panels import Panels, draw_pictures
from explain.report.parts.panels import PLACES, place_of_peak
from explain.report.parts.seeds import seeds_of, sibling_pairs
from explain.report.parts.training import same_budget, training_of
from explain.report.schema.evidence import Evidence, evidence_id
from explain.training.pair import MATCHED_FIELDS, MatchedField, MatchedPair


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[MatchedPair]:
    """Three seeds on the same images."""
    root = tmp_path_factory.mktemp("study")
    return [make_fake_pair(root / f"seed{seed}", seed=seed) for seed in (0, 3, 4)]


@pytest.fixture(scope="module")
def evidence(fake_pair: MatchedPair, fake_panels: Panels) -> Evidence:
    return gather(fake_pair, fake_panels, "en")


def test_evidence_round_trips_through_json(evidence: Evidence) -> None:
    assert Evidence.model_validate_json(evidence.model_dump_json()) == evidence


def test_evidence_refuses_fields_it_does_not_know(evidence: Evidence) -> None:
    with pytest.raises(ValueError, match="surprise"):
        Evidence.model_validate(evidence.model_dump() | {"surprise": 1})


def test_the_id_is_of_the_content(evidence: Evidence, fake_pair: MatchedPair, fake_panels: Panels) -> None:
    assert evidence.id == evidence_id(evidence) and len(evidence.id) == 12
    assert gather(fake_pair, fake_panels, "en") == evidence
    assert gather(fake_pair, fake_panels, "ja").id != evidence.id
    assert gather(fake_pair, fake_panels, "en", scope="sample").id != evidence.id


def test_created_is_the_newest_run(evidence: Evidence, fake_pair: MatchedPair) -> None:
    assert evidence.created == fake_pair.runs["linear"].manifest.created
    assert evidence.created_at.tzinfo is not None


def test_counts_add_up(evidence: Evidence, fake_pair: MatchedPair) -> None:
    total = evidence.arms[0].count
    both = evidence.difference
    assert both.both_right + both.only_vpt + both.only_ft + both.both_wrong == total == len(fake_pair.test)
    for arm in evidence.arms:
        assert np.sum(arm.confusion) == total
        assert np.trace(arm.confusion) == round(arm.accuracy * total)
        assert sum(recall.count for recall in arm.recalls) == total
    for row in evidence.data.counts:
        assert row.train + row.val + row.test + row.unused == row.total
    assert sum(row.total for row in evidence.data.counts) == len(fake_pair.data)


def test_difference_is_that_of_the_accuracies(evidence: Evidence) -> None:
    vpt, ft = evidence.arms[0], evidence.arms[1]
    assert evidence.difference.mean == pytest.approx(vpt.accuracy - ft.accuracy)
    assert evidence.difference.low <= evidence.difference.mean <= evidence.difference.high


def test_recall_comes_with_its_interval(evidence: Evidence, fake_pair: MatchedPair) -> None:
    predictions = fake_pair.vpt.predictions
    correct = predictions.correct[predictions.labels == 0]
    first = evidence.arms[0].recalls[0]
    assert first.recall == pytest.approx(correct.mean())
    assert (first.low, first.high) == wilson_interval(int(correct.sum()), len(correct))


def test_the_matched_verdict_has_every_field(evidence: Evidence) -> None:
    assert evidence.is_matched
    assert [row.name for row in evidence.matched] == list(MATCHED_FIELDS.values())


def test_every_trial_is_told_and_one_is_the_chosen(evidence: Evidence, fake_pair: MatchedPair) -> None:
    for arm in evidence.arms:
        recorded = fake_pair.runs[arm.name].manifest.trials
        assert [trial.model_dump(exclude={"options", "chosen"}) for trial in arm.training.trials] == [
            trial.model_dump(exclude={"options"}) for trial in recorded
        ]
        assert [trial.learning_rate for trial in arm.training.trials if trial.chosen] == [arm.learning_rate]
    assert evidence.arms[0].training.trials[0].options == {"num_tokens": "10", "deep": "True"}


def test_of_two_like_trials_only_one_is_chosen(fake_pair: MatchedPair) -> None:
    manifest = fake_pair.ft.manifest
    twice = manifest.model_copy(update={"trials": (*manifest.trials, manifest.trials[-1])})
    training = training_of(replace(fake_pair.ft, manifest=twice), translate("en"))
    assert [trial.chosen for trial in training.trials] == [False, False, True, False]


def test_every_arm_is_shown_to_have_had_the_same_budget(evidence: Evidence) -> None:
    assert evidence.same_budget
    for arm in evidence.arms:
        assert (len(arm.training.trials), arm.training.trial_steps, arm.training.steps) == (3, 90, 72)
    short = evidence.arms[0].training.model_copy(update={"steps": 71})
    assert not same_budget([short, evidence.arms[1].training])


def test_training_is_told_as_it_was_recorded(evidence: Evidence, fake_pair: MatchedPair) -> None:
    vpt, ft = evidence.arms[0].training, evidence.arms[1].training
    assert vpt.epochs == tuple(fake_pair.vpt.history) and (vpt.watched, vpt.turning_epoch) == ("test", None)
    assert ft.turning_epoch == 5 and "epoch 5 of 12" in ft.sentence
    last = fake_pair.ft.history[-1]
    assert last.test_accuracy is not None and last.test_loss is not None
    assert ft.accuracy_gap == pytest.approx(last.train_accuracy - last.test_accuracy)
    assert ft.loss_gap == pytest.approx(last.test_loss - last.train_loss)
    assert (ft.gradient_norm_max, ft.seconds, ft.energy_j) == (5.0, 30.0, 960.0)


def test_energy_of_a_part_of_the_epochs_is_no_energy(fake_pair: MatchedPair) -> None:
    history = [*fake_pair.vpt.history[:-1], fake_pair.vpt.history[-1].model_copy(update={"energy_j": None})]
    run = replace(fake_pair.vpt)
    run.__dict__["history"] = history
    assert training_of(run, translate("en")).energy_j is None


def test_calibration_is_that_of_the_predictions(evidence: Evidence, fake_pair: MatchedPair) -> None:
    for arm in evidence.arms:
        predictions, it = fake_pair.runs[arm.name].predictions, arm.calibration
        assert it.error == pytest.approx(expected_calibration_error(predictions.probabilities, predictions.labels))
        assert it.low <= it.error <= it.high
        assert sum(row.count for row in it.bins) == arm.count
    assert "over-confident" in evidence.arms[2].calibration.sentence  # 88 % sure, half of them right
    assert "no miscalibration" in evidence.arms[1].calibration.sentence


def test_disagreements_are_tested_and_said(evidence: Evidence, fake_pair: MatchedPair) -> None:
    result = mcnemar(fake_pair.vpt.predictions.correct, fake_pair.ft.predictions.correct)
    difference = evidence.difference
    assert (difference.only_vpt, difference.only_ft, difference.p_value) == (result.b, result.c, result.p_value)
    assert difference.tie == (difference.low <= 0 <= difference.high)
    assert f"p = {result.p_value:.3f} (McNemar's exact test)" in difference.test_statement


def test_a_pair_on_its_own_has_no_seeds_and_says_so(evidence: Evidence) -> None:
    assert evidence.seeds is None
    assert any("One training per arm" in statement for statement in evidence.statements)


def test_seeds_of_a_study_are_told_together(study: list[MatchedPair]) -> None:
    evidence = gather(study[1], Panels.load(study[1].path), "en")
    seeds = evidence.seeds
    assert seeds is not None and seeds.seeds == (0, 3, 4)
    vpt, ft = ([pair.runs[arm].manifest.test.accuracy for pair in study] for arm in ("vpt", "ft"))
    expected = paired_seeds(vpt, ft)
    assert (seeds.mean, seeds.low, seeds.high, seeds.per_seed) == expected
    assert seeds.arms[0].accuracies == tuple(vpt) and seeds.arms[0].mean == pytest.approx(np.mean(vpt))
    correct = [np.stack([pair.runs[arm].predictions.correct for pair in study]) for arm in ("vpt", "ft")]
    assert (seeds.both_low, seeds.both_high) == two_way_bootstrap(*correct)[1:]
    assert not seeds.tie and "unlikely to explain" in seeds.statement and seeds.statement in evidence.statements
    assert not any("One training per arm" in statement for statement in evidence.statements)
    named = {file.name: file.value for file in evidence.files}
    assert named["seed4/ft/predictions.parquet"] == study[2].ft.manifest.files["predictions.parquet"]


def test_only_finished_pairs_of_the_same_recipe_and_images_are_seeds(study: list[MatchedPair], tmp_path: Path) -> None:
    root = tmp_path / "study"
    for pair in study[:2]:
        shutil.copytree(pair.path, root / pair.path.name)
    shutil.copytree(study[2].path, root / "seed4")
    (root / "seed4" / "ft" / "manifest.json").unlink()  # still training
    make_fake_pair(root / "seed5", per_class=12, seed=5)  # other images
    assert [pair.vpt.manifest.seed for pair in sibling_pairs(MatchedPair.load(root / "seed0"))] == [0, 3]


def test_seeds_that_tie_are_called_a_tie(study: list[MatchedPair]) -> None:
    runs = {"vpt": study[0].ft, "ft": study[0].vpt, "linear": study[0].runs["linear"]}
    turned = MatchedPair(study[0].path, runs)  # VPT and FT change places in one of two seeds
    labels = {name: name for name in runs}
    seeds = seeds_of([study[1], turned], labels, translate("en"))
    assert seeds is not None and seeds.tie and "includes 0: a tie" in seeds.statement
    assert seeds_of([study[0]], labels, translate("en")) is None


def test_seeds_that_agree_on_images_that_do_not_are_a_tie(
    study: list[MatchedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = Difference(-0.1, -0.3, 0.1)
    monkeypatch.setattr("explain.report.parts.seeds.two_way_bootstrap", lambda a, b, **options: wide)
    seeds = seeds_of(study, {name: name for name in study[0].runs}, translate("en"))
    assert seeds is not None and seeds.tie and seeds.high < 0
    assert "other test images could still turn the result round: a tie" in seeds.statement


def test_a_field_set_apart_by_a_protocol_is_no_mismatch_and_is_marked(
    fake_pair: MatchedPair, fake_panels: Panels, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = MatchedField("batch size", {"vpt": "5", "ft": "64"}, set_apart=True)
    monkeypatch.setattr("explain.report.parts.models.compare_runs", lambda runs: [apart])
    evidence = gather(fake_pair, fake_panels, "en")
    assert evidence.is_matched and evidence.matched[0].set_apart and not evidence.matched[0].equal


def test_panels_name_both_answers_and_all_maps(evidence: Evidence, fake_pair: MatchedPair, fake_panels: Panels) -> None:
    assert [sample.id for sample in evidence.panels.samples] == [panel.id for panel in fake_panels.panels]
    for index, sample in enumerate(evidence.panels.samples):
        assert [answer.arm for answer in sample.answers] == ["vpt", "ft"]
        assert len(sample.maps) == 6
        assert {entry.target for entry in sample.maps} == {sample.truth}
        raw = fake_panels.maps["vpt"]["grad_cam"].values[index]
        assert (sample.maps[0].raw_low, sample.maps[0].raw_high) == (float(raw.min()), float(raw.max()))
    assert {rule.rule: rule.shown for rule in evidence.panels.rules}["random"] == 2


def test_blank_maps_are_named_in_words(evidence: Evidence) -> None:
    blank = evidence.panels.samples[0].maps[0]
    assert blank.blank and "blank map" in blank.picture.alt
    assert "peak at" in evidence.panels.samples[1].maps[0].picture.alt


def test_measures_travel_with_their_map(evidence: Evidence, fake_panels: Panels) -> None:
    maps = {entry.method: entry for entry in evidence.panels.samples[2].maps if entry.arm == "ft"}
    names = [measure.name for measure in maps["integrated_gradients"].measures]
    assert names == ["completeness_gap", "converged", "nodes"]
    share = fake_panels.maps["ft"]["attention_rollout"].extras["prompt_share"][2]
    assert maps["attention_rollout"].measures[0].value == pytest.approx(float(share))
    assert maps["grad_cam"].measures == ()


def test_every_picture_is_there_with_its_hash(evidence: Evidence, fake_panels: Panels) -> None:
    pictures = draw_pictures(fake_panels)
    assert {picture.file for picture in evidence.pictures} == set(pictures)
    for picture in evidence.pictures:
        assert picture.sha256 == hashlib.sha256(pictures[picture.file]).hexdigest()


def test_paths_of_the_disk_stay_out(evidence: Evidence, fake_pair: MatchedPair) -> None:
    assert str(fake_pair.path) not in evidence.model_dump_json()
    assert evidence.data.rejected[0].file == "broken.png"


def test_what_is_not_evaluated_is_said_in_both_languages(evidence: Evidence) -> None:
    everything = ("decision", "intended_use", "rates", "faithfulness", "planted", "agreement", "failure_review",
                  "robustness", "operation", "signature")  # fmt: skip
    assert evidence.not_evaluated == everything
    for lang in ("en", "ja"):
        for name in everything:
            assert translate(lang)(f"report.missing.{name}.title")


def test_a_perfect_score_says_what_it_cannot_exclude(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_pair as module

    monkeypatch.setitem(module.ACCURACY, "ft", 1.1)
    pair = make_fake_pair(tmp_path_factory.mktemp("perfect"))
    if pair.ft.manifest.test.accuracy < 1:
        pytest.skip("the drawn logits left a wrong answer")
    statements = gather(pair, Panels.load(pair.path), "en").statements
    assert any("up to 9.5 %" in statement for statement in statements)


def test_maps_of_other_weights_are_refused(fake_pair: MatchedPair, fake_panels: Panels) -> None:
    plan = fake_panels.record.plan.model_copy(update={"weights": {"vpt": "0" * 64, "ft": "0" * 64}})
    other = Panels(fake_panels.folder, fake_panels.record.model_copy(update={"plan": plan}))
    with pytest.raises(InputError, match="other weights"):
        gather(fake_pair, other, "en")


@pytest.mark.parametrize("index", range(9))
def test_the_peak_is_placed_in_one_of_nine_parts(index: int) -> None:
    values = np.zeros((7, 7), np.float32)
    values[index // 3 * 3, index % 3 * 3] = 1
    assert place_of_peak(values) == PLACES[index]

"""The evidence says what the runs' files say."""

import numpy as np
import pytest
from fake_pair import make_fake_pair

from explain.errors import InputError
from explain.i18n import translate
from explain.metrics.statistics import bootstrap_interval
from explain.report.content import (
    NOT_EVALUATED,
    PLACES,
    Evidence,
    evidence_id,
    gather,
    place_of_peak,
)
from explain.report.panels import Panels, draw_pictures
from explain.training.pair import MATCHED_FIELDS, MatchedPair


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
    assert (first.low, first.high) == bootstrap_interval(correct)


def test_the_matched_verdict_has_every_field(evidence: Evidence) -> None:
    assert evidence.is_matched
    assert [row.name for row in evidence.matched] == list(MATCHED_FIELDS.values())


def test_one_learning_rate_of_each_arm_is_marked_as_chosen(evidence: Evidence) -> None:
    for arm in evidence.arms:
        assert [trial.learning_rate for trial in arm.trials if trial.chosen] == [arm.learning_rate]


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
    named = {p.file for s in evidence.panels.samples for p in (s.input, *(entry.picture for entry in s.maps))}
    assert named == set(pictures)


def test_paths_of_the_disk_stay_out(evidence: Evidence, fake_pair: MatchedPair) -> None:
    assert str(fake_pair.path) not in evidence.model_dump_json()
    assert evidence.data.rejected[0].file == "broken.png"


def test_what_is_not_evaluated_is_said_in_both_languages(evidence: Evidence) -> None:
    assert evidence.not_evaluated == NOT_EVALUATED
    for lang in ("en", "ja"):
        for name in NOT_EVALUATED:
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

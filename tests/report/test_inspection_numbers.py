"""What an inspection asks: misses, overkill, parts of the images, copies, changed images, failures and settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_pair import make_fake_pair

from explain.data.leaks import Leak, Leaks
from explain.errors import IntegrityError
from explain.evidence.disturbed import FILE, DisturbedAnswers
from explain.files import write_json
from explain.i18n import translate
from explain.metrics.statistics import paired_difference, wilson_interval
from explain.report.audit import Audit
from explain.report.panels import Panels, draw_pictures
from explain.report.parts import failures
from explain.report.parts.config import config_of
from explain.report.parts.data import data_of, leaks_of
from explain.report.parts.failures import failures_of
from explain.report.parts.panels import panels_of, shortened
from explain.report.parts.rates import differences_of, rates_of, slices_of
from explain.report.parts.robustness import disturbed_of
from explain.reviews import Reviews, write_review
from explain.training.pair import MatchedField, MatchedPair

T = translate("en")


@pytest.fixture
def pair(tmp_path: Path) -> MatchedPair:
    """A pair whose folder may be written into."""
    return make_fake_pair(tmp_path / "pair")


def failures_in(pair: MatchedPair, arm: str = "vpt") -> failures.Failures:
    panels = Panels.load(pair.path)
    return failures_of(pair, panels, panels_of(pair, panels, draw_pictures(panels), "map", T), arm, T)


def test_a_miss_is_a_defect_called_good_and_an_overkill_the_reverse(fake_pair: MatchedPair) -> None:
    for one in rates_of(fake_pair, ["nominal"]):
        found = fake_pair.runs[one.arm].predictions
        defective, called_good = found.labels != 0, found.classes == 0
        assert one.miss is not None and one.overkill is not None
        assert (one.miss.hits, one.miss.count) == ((defective & called_good).sum(), defective.sum())
        assert (one.overkill.hits, one.overkill.count) == ((~defective & ~called_good).sum(), (~defective).sum())
        assert (one.miss.low, one.miss.high) == wilson_interval(one.miss.hits or 0, one.miss.count)
        assert one.auroc.low <= one.auroc.value <= one.auroc.high


@pytest.mark.parametrize("good", [[], ["nominal", "local defect", "global defect"]])
def test_without_good_and_bad_there_are_no_such_rates(fake_pair: MatchedPair, good: list[str]) -> None:
    for one in rates_of(fake_pair, good):
        assert one.miss is None and one.overkill is None and 0 <= one.auroc.value <= 1


def test_every_two_arms_are_compared_both_ways(fake_pair: MatchedPair) -> None:
    found = {(one.first, one.second): one for one in differences_of(fake_pair)}
    assert len(found) == 6
    there, back = found["vpt", "linear"], found["linear", "vpt"]
    assert there.mean == -back.mean and there.low <= there.mean <= there.high
    assert there.mean == pytest.approx(
        fake_pair.vpt.manifest.test.accuracy - fake_pair.runs["linear"].manifest.test.accuracy
    )


def test_parts_of_the_images_are_whole_and_the_dark_ones_are_dark(fake_pair: MatchedPair) -> None:
    found = slices_of(fake_pair, T)
    assert len(found) == 9 and {one.by for one in found} == {"Brightness", "Contrast", "Sharpness"}
    for by in ("Brightness", "Contrast", "Sharpness"):
        parts = [one for one in found if one.by == by]
        assert sum(one.count for one in parts) == len(fake_pair.test)
        for arm, run in fake_pair.runs.items():
            hits = [one.accuracies[arm].hits or 0 for one in parts]
            assert sum(hits) == run.predictions.correct.sum()


def test_copies_of_training_images_are_counted_once_each(pair: MatchedPair) -> None:
    test, train = pair.split.test, pair.split.train
    assert leaks_of(pair, T).sentence.startswith("None of the")
    rows = [Leak(train=train[n], held_out=test[0], part="test", kind="same picture", distance=2, other_label=False)
            for n in range(15)]  # fmt: skip
    leaks = Leaks(pairs=tuple(rows), val_images=4, test_images=30, unhashed=0)
    write_json(pair.path / "leaks.json", leaks.model_dump())
    found = leaks_of(pair, T)
    assert (found.test_leaked, found.val_leaked, len(found.rows), found.more) == (1, 0, 12, 3)
    assert "1 of 30 test images are copies" in found.sentence
    write_json(pair.path / "leaks.json", {"pairs": 3})
    with pytest.raises(IntegrityError, match="made again"):
        leaks_of(pair, T)


def test_totals_are_the_sums_and_what_people_say_is_kept(fake_pair: MatchedPair) -> None:
    found = data_of(fake_pair, Audit(capture="ring light", known_gaps=("night",)), T)
    for part in ("train", "val", "test", "unused", "total"):
        assert getattr(found.total, part) == sum(getattr(row, part) for row in found.counts)
    assert (found.capture, found.known_gaps) == ("ring light", ("night",))


def test_changed_images_are_told_with_the_change_of_the_same_images(pair: MatchedPair) -> None:
    assert disturbed_of(pair, T) == ()
    ids, arms = tuple(pair.vpt.predictions.ids[:8]), list(pair.runs)
    before, after = (True,) * 6 + (False,) * 2, (True,) * 3 + (False,) * 5
    changes = ("brightness", "blur", "shift", "jpeg")
    record = DisturbedAnswers(
        seed=0, ids=ids, weights={arm: run.manifest.weights_sha256 for arm, run in pair.runs.items()},
        unchanged=dict.fromkeys(arms, before), changed={name: dict.fromkeys(arms, after) for name in changes},
    )  # fmt: skip
    write_json(pair.path / "evidence" / FILE, record.model_dump(mode="json"))
    found = disturbed_of(pair, T)
    assert [one.name for one in found] == ["unchanged", *changes] and found[0].changes == {}
    assert (found[0].accuracies["vpt"].value, found[1].accuracies["vpt"].value) == (6 / 8, 3 / 8)
    change, expected = found[1].changes["ft"], paired_difference(np.array(after), np.array(before))
    assert (change.value, change.low, change.high) == pytest.approx(expected) and change.high < 0


def test_every_wrong_answer_is_a_failure_the_surest_first(fake_pair: MatchedPair) -> None:
    found = failures_in(fake_pair)
    predictions = fake_pair.vpt.predictions
    wrong = {name for name, right in zip(predictions.ids, predictions.correct, strict=True) if not right}
    assert found.wrong == len(wrong) == sum(one.count for one in found.confused)
    assert {row.id for row in found.rows} == wrong and found.more == 0
    sure = [next(one.probability for one in row.answers if one.arm == "vpt") for row in found.rows]
    assert sure == sorted(sure, reverse=True)
    panels = Panels.load(fake_pair.path).panels
    assert all(row.panel is None or panels[row.panel - 1].id == row.id for row in found.rows)
    assert any(row.panel for row in found.rows)


def test_a_failure_of_an_arm_outside_the_pair_has_its_own_answer(fake_pair: MatchedPair) -> None:
    found = failures_in(fake_pair, "linear")
    assert found.arm == "linear" and {one.arm for one in found.rows[0].answers} == {"vpt", "ft", "linear"}


def test_many_failures_are_cut_and_counted(fake_pair: MatchedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MOST", 3)
    found = failures_in(fake_pair)
    assert len(found.rows) == 3 and found.more == found.wrong - 3


def test_reviews_are_told_and_stale_ones_named(pair: MatchedPair) -> None:
    first, second = (row.id for row in failures_in(pair).rows[:2])
    reviews, now = Reviews(pair.path), pair.vpt.manifest.identity
    write_review(reviews, first, sha256=pair.data.by_id[first].sha256, models={"vpt": now}, verdict="wrong_place",
                 note="the selvedge", tags=("selvedge", "light"), who="A. Sato")  # fmt: skip
    write_review(reviews, second, sha256=None, models={"vpt": "other weights"}, verdict="unclear")
    found = failures_in(pair)
    rows = {row.id: row for row in found.rows}
    assert found.reviewed == 2
    assert (rows[first].verdict, rows[first].cause, rows[first].note, rows[first].who, rows[first].stale) == (
        "looks at the wrong place", "selvedge, light", "the selvedge", "A. Sato", False)  # fmt: skip
    assert rows[second].stale and rows[second].verdict == "unclear"


def test_what_differs_between_the_arms_has_its_reason(fake_pair: MatchedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.name: row for row in config_of(fake_pair, T)}
    assert all(row.allowed for row in rows.values())
    assert rows["Tuning"].values == {"vpt": "prompt", "ft": "full", "linear": "linear"}
    assert rows["Learning rate"].why == "the search chose it, with equal trials" and not rows["Learning rate"].equal
    apart: list[Any] = [MatchedField("steps", {"vpt": "5", "ft": "6", "linear": "5"}),
                        MatchedField("batch size", {"vpt": "5", "ft": "6", "linear": "5"}, set_apart=True)]  # fmt: skip
    monkeypatch.setattr("explain.report.parts.config.compare_runs", lambda runs: apart)
    rows = {row.name: row for row in config_of(fake_pair, T)}
    assert not rows["steps"].allowed and "must be equal" in rows["steps"].why
    assert rows["batch size"].allowed and "protocol" in rows["batch size"].why


def test_a_brief_report_shows_the_first_of_each_rule(fake_pair: MatchedPair, fake_panels: Panels) -> None:
    whole = panels_of(fake_pair, fake_panels, draw_pictures(fake_panels), "map", T)
    brief = shortened(whole)
    assert len(brief.samples) == 3 and len({sample.rule for sample in brief.samples}) == 3
    assert [row.shown for row in brief.rules].count(1) == 3 and sum(row.shown for row in brief.rules) == 3
    assert shortened(whole.model_copy(update={"samples": ()})).samples == ()

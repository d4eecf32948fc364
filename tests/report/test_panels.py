"""Panels are chosen by rule, made once, and continue where they stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_pair import GRID, make_fake_pair

from explain.attribution import Attribution
from explain.errors import InputError, IntegrityError, UnknownNameError
from explain.report import panels as module
from explain.report.panels import RULES, Panels, choose_panels, count_rules, draw_pictures, make_panels
from explain.tokens import TokenLayout
from explain.training.pair import MatchedPair


class StandIn:
    """A model's place in `make_panels`, where the engine is replaced too."""

    layout = TokenLayout(GRID)
    device = torch.device("cpu")

    def to(self, device: Any) -> "StandIn":
        return self


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """The engine's calls as (method, targets); it answers with constant maps."""
    made: list[tuple[str, list[int]]] = []

    def attribute(model: Any, images: list[Path], *, methods: tuple[str], targets: torch.Tensor, **rest: Any) -> Any:
        made.append((methods[0], targets.tolist()))
        count = len(images)
        rest["progress"](count, count)
        maps = Attribution(methods[0], np.ones((count, *GRID), np.float32), targets.numpy(),
                           np.zeros((count, 3), np.float32), (56, 56), rest["options"] or {})  # fmt: skip
        return {methods[0]: maps}

    monkeypatch.setattr(module, "attribute", attribute)
    monkeypatch.setattr(
        module, "_pixels", lambda pair, plan: torch.zeros((len(plan.panels), 56, 56, 3), dtype=torch.uint8)
    )
    return made


@pytest.fixture
def bare_pair(tmp_path: Path) -> MatchedPair:
    """A pair whose panels are not made, with models that cannot run."""
    pair = make_fake_pair(tmp_path, per_class=15)
    for file in (tmp_path / "maps").iterdir():
        file.unlink()
    for run in pair:
        run.__dict__["model"] = StandIn()
    return pair


def test_panels_follow_their_rules(fake_pair: MatchedPair) -> None:
    right = {
        arm: dict(zip(run.predictions.ids, run.predictions.correct, strict=True)) for arm, run in fake_pair.runs.items()
    }
    panels = choose_panels(fake_pair, per_rule=2)
    assert [RULES.index(panel.rule) for panel in panels] == sorted(RULES.index(panel.rule) for panel in panels)
    assert len({panel.id for panel in panels}) == len(panels)
    expected = {"only_vpt_right": (True, False), "only_ft_right": (False, True), "both_wrong": (False, False)}
    for panel in panels:
        if panel.rule in expected:
            assert (right["vpt"][panel.id], right["ft"][panel.id]) == expected[panel.rule]


def test_ranked_rules_take_the_first_that_is_left(fake_pair: MatchedPair) -> None:
    panels = choose_panels(fake_pair, per_rule=2)
    taken = {panel.id for panel in panels if panel.rule in RULES[:3]}
    mistakes, margins = {}, {}
    for run in (fake_pair.vpt, fake_pair.ft):
        for name, right, shares in zip(run.predictions.ids, run.predictions.correct, run.predictions.probabilities,
                                       strict=True):  # fmt: skip
            top = np.sort(shares)[::-1]
            margins[name] = min(margins.get(name, 1.0), top[0] - top[1])
            if not right:
                mistakes[name] = max(mistakes.get(name, 0.0), top[0])
    worst = sorted((name for name in mistakes if name not in taken), key=lambda name: (-mistakes[name], name))[:2]
    assert [panel.id for panel in panels if panel.rule == "worst"] == worst
    close = sorted((name for name in margins if name not in {*taken, *worst}), key=lambda name: (margins[name], name))
    assert [panel.id for panel in panels if panel.rule == "borderline"] == close[:2]


def test_the_seed_chooses_and_repeats(fake_pair: MatchedPair) -> None:
    assert choose_panels(fake_pair, seed=3) == choose_panels(fake_pair, seed=3)
    assert choose_panels(fake_pair, seed=3) != choose_panels(fake_pair, seed=4)


def test_every_rule_is_counted_also_when_nothing_matches(fake_pair: MatchedPair) -> None:
    panels = choose_panels(fake_pair)
    counts = count_rules(fake_pair, panels)
    assert list(counts) == list(RULES)
    both_right = int((fake_pair.vpt.predictions.correct & fake_pair.ft.predictions.correct).sum())
    test_images = len(fake_pair.test)
    assert sum(counts[rule] for rule in RULES[:3]) + both_right == test_images
    assert counts["random"] == test_images - sum(panel.rule != "random" for panel in panels)
    wrong = ~(fake_pair.vpt.predictions.correct & fake_pair.ft.predictions.correct)
    assert counts["worst"] == int(wrong.sum())


def test_a_rule_that_matches_nothing_gives_no_panel(fake_pair: MatchedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {rule: [] for rule in RULES[:-1]} | {"random": [sample.id for sample in fake_pair.test.samples]}
    monkeypatch.setattr(module, "match_rules", lambda pair: nothing)
    panels = choose_panels(fake_pair, per_rule=2)
    assert [panel.rule for panel in panels] == ["random", "random"]
    assert count_rules(fake_pair, panels)["both_wrong"] == 0


def test_maps_explain_the_true_class_with_both_models(
    bare_pair: MatchedPair, calls: list[tuple[str, list[int]]]
) -> None:
    done: list[tuple[int, int]] = []
    panels = make_panels(bare_pair, per_rule=1, progress=lambda now, total, what: done.append((now, total)))
    labels = [bare_pair.data.by_id[panel.id].label for panel in panels.panels]
    assert len(calls) == 6 and all(targets == labels for _, targets in calls)
    assert set(panels.maps) == {"vpt", "ft"}
    assert done == sorted(done) and done[-1][0] == done[-1][1] == 6 * len(labels)
    assert panels.grid == GRID


def test_finished_panels_are_not_made_again(bare_pair: MatchedPair, calls: list[tuple[str, list[int]]]) -> None:
    make_panels(bare_pair, per_rule=1)
    made = len(calls)
    again = make_panels(bare_pair, per_rule=1)
    assert len(calls) == made
    assert again.record == Panels.load(bare_pair.path).record


def test_an_interrupted_making_continues(bare_pair: MatchedPair, calls: list[tuple[str, list[int]]]) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if what == "ft GradCAM":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_panels(bare_pair, per_rule=1, progress=stop)
    with pytest.raises(IntegrityError):
        Panels.load(bare_pair.path)
    calls.clear()
    make_panels(bare_pair, per_rule=1)
    assert [method for method, _ in calls] == ["grad_cam", "integrated_gradients", "attention_rollout"]


def test_another_plan_makes_new_maps(bare_pair: MatchedPair, calls: list[tuple[str, list[int]]]) -> None:
    make_panels(bare_pair, per_rule=1, methods=("grad_cam", "attention_rollout"))
    calls.clear()
    panels = make_panels(bare_pair, per_rule=1, methods=("grad_cam",), options={"grad_cam": {"layer": "norm"}})
    assert len(calls) == 2
    assert panels.maps["vpt"]["grad_cam"].options == {"grad_cam": {"layer": "norm"}}
    assert sorted(file.name for file in panels.folder.iterdir()) == [
        "ft.grad_cam.safetensors", "input.safetensors", "panels.json", "plan.json", "vpt.grad_cam.safetensors",
    ]  # fmt: skip


def test_wrong_requests_are_refused_before_any_work(bare_pair: MatchedPair, calls: list[tuple[str, list[int]]]) -> None:
    with pytest.raises(UnknownNameError):
        make_panels(bare_pair, methods=("no_such",))
    with pytest.raises(InputError):
        make_panels(bare_pair, per_rule=0)
    assert not calls


def test_changed_files_are_noticed(tmp_path: Path) -> None:
    pair = make_fake_pair(tmp_path, per_class=15)
    target = pair.path / "maps" / "vpt.grad_cam.safetensors"
    target.write_bytes(target.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="vpt.grad_cam"):
        Panels.load(pair.path)
    (pair.path / "maps" / "panels.json").write_text("{}")
    with pytest.raises(IntegrityError, match="plan"):
        Panels.load(pair.path)


def test_runs_that_answered_other_images_do_not_compare(tmp_path: Path) -> None:
    pair = make_fake_pair(tmp_path, per_class=15)
    pair.ft.predictions.ids.reverse()
    with pytest.raises(IntegrityError, match="different test images"):
        choose_panels(pair)


def test_pictures_are_repeatable_jpegs(fake_panels: Panels) -> None:
    pictures = draw_pictures(fake_panels)
    assert len(pictures) == len(fake_panels.panels) * 7 + 2  # the scales
    assert pictures == draw_pictures(fake_panels)
    assert all(content.startswith(b"\xff\xd8") for content in pictures.values())
